"""House rules that a reviewer should never have to repeat."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "src/seaway").rglob("*.py"))
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))
MAX_MODULE, MAX_FUNCTION = 600, 60  # lines
BANNED_NAMES = {"utils", "util", "helpers", "common", "misc", "manager", "base"}
LEFT_OPEN = re.compile(
    r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b|NotImplemented" + "Error"
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a module, methods and inner ones too."""
    return [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]


def lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From its def to its end."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_is_small_explained_and_finished(path):
    """It has a docstring, a name that says what it holds, bounds on its size, and no loose ends."""
    text = (ROOT / path).read_text()
    tree = ast.parse(text)

    assert path.stem not in BANNED_NAMES
    assert ast.get_docstring(tree), "say in one line what this module is for"
    assert text.count("\n") <= MAX_MODULE
    assert [] == [f.name for f in functions(tree) if lines(f) > MAX_FUNCTION]
    assert not LEFT_OPEN.search(text)


@pytest.mark.parametrize("path", TESTS, ids=str)
def test_a_test_says_what_it_shows(path):
    """Every test module and every test has a docstring, and none sleeps a guessed time."""
    tree = ast.parse((ROOT / path).read_text())
    tests = [f for f in functions(tree) if f.name.startswith("test_")]

    assert ast.get_docstring(tree), "say in one line what is tested here"
    assert [] == [t.name for t in tests if not ast.get_docstring(t)]
    assert [] == [t.name for t in tests if _sleeps(t)]


def _sleeps(test: ast.AST) -> bool:
    calls = (node for node in ast.walk(test) if isinstance(node, ast.Call))
    return any(
        isinstance(c.func, ast.Attribute) and c.func.attr == "sleep" and _seconds(c) > 0.1
        for c in calls
    )


def _seconds(call: ast.Call) -> float:
    """What a sleep is given, if that is written as a number: waiting for ever is another matter."""
    (first, *_) = [*call.args, None]
    value = first.value if isinstance(first, ast.Constant) else 0
    return float(value) if isinstance(value, int | float) and value < 30 else 0.0


def test_test_names_are_not_taken_twice():
    """Two tests of one name in a module: Python would silently keep only the second."""
    twice = []
    for path in TESTS:
        names = [
            n.name for n in ast.parse((ROOT / path).read_text()).body if isinstance(n, FUNCTIONS)
        ]
        twice += [f"{path}: {name}" for name in set(names) if names.count(name) > 1]

    assert [] == twice


def test_no_machine_s_own_paths():
    """What is committed names no folder of the machine it was written on."""
    banned = re.compile("/(work|tmp/" + "venv|ro" + "ot|home/[a-z]+)/")
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    found = []
    for name in filter(None, listed):
        path = ROOT / name
        if path.is_file() and path.suffix in (".py", ".md", ".sh", ".toml", ".service", ""):
            text = path.read_text(errors="replace")
            found += [f"{name}: {m[0]}" for m in banned.finditer(text)]

    assert [] == found
