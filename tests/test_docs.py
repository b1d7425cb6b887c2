"""Documentation that can be checked, is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from seaway import errors
from seaway.agent.metrics import ClusterFigures, Collector
from seaway.cli.commands import TREE
from seaway.cli.flags import Command, Group
from seaway.dns.server import Counters
from seaway.plan.ruleset import DROPS, chain_names, set_names

DOCS = Path(__file__).resolve().parents[1] / "docs"
DECISIONS = sorted((DOCS / "adr").glob("*.md"))
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def read(name: str) -> str:
    """A document's text."""
    return (DOCS / name).read_text()


def commands(group: Group, prefix: str = "seaway") -> Iterator[tuple[str, Command]]:
    """Every command that users see, by its full name."""
    for item in group.children:
        name = f"{prefix} {item.name}"
        if isinstance(item, Group):
            yield from commands(item, name)
        elif not item.hidden:
            yield name, item


@pytest.mark.parametrize(("name", "command"), list(commands(TREE)), ids=lambda x: str(x)[:40])
def test_every_command_is_documented(name, command):
    """docs/reference/cli.md has a heading for it, and says each of its long flags below it."""
    text = read("reference/cli.md")
    heading = f"## {name}\n"

    assert heading in text
    section = text.partition(heading)[2].partition("\n## ")[0]
    assert [] == [f.long for f in command.flags if not f.hidden and f"--{f.long}" not in section]


def test_every_error_is_documented():
    """docs/reference/errors.md has a heading for every class."""
    text = read("reference/errors.md")
    kinds = [v.__name__ for v in vars(errors).values() if isinstance(v, type)]

    assert [] == [kind for kind in kinds if f"## {kind}\n" not in text]


class Figures:
    """What the metrics are read from, with a figure in each place."""

    def sizes(self) -> dict[str, int]:
        """One object."""
        return {"networks": 1}

    def drops(self) -> dict[str, tuple[int, int]]:
        """None."""
        return {}

    def dns_counters(self) -> Counters:
        """None."""
        return Counters()

    def repairs(self) -> tuple[int, bool]:
        """None."""
        return 0, True

    def cluster_figures(self) -> ClusterFigures:
        """One host, one way to it."""
        return ClusterFigures(alive=1, down=0, online=True, paths=(("host2", "vxlan", 0.1),))


def test_every_metric_is_documented():
    """docs/reference/metrics.md has a heading for every one, as Prometheus shows it."""
    text = read("reference/metrics.md")
    shown = [
        m.name + ("_total" if m.type == "counter" else "") for m in Collector(Figures()).collect()
    ]

    assert len(shown) >= 6
    assert [] == [name for name in shown if f"## {name}\n" not in text]


def test_every_drop_set_and_chain_is_documented():
    """docs/internals/nftables.md explains every counter, chain, set and map of our table."""
    text = read("internals/nftables.md")
    sets = {name.rstrip("46") for name in set_names()}

    assert [] == [name for name in DROPS if f"`{name}`" not in text]
    assert [] == [name for name in chain_names() if f"`{name}`" not in text]
    assert [] == [name for name in sorted(sets) if f"`{name}" not in text]


@pytest.mark.parametrize("path", DECISIONS, ids=lambda p: p.stem)
def test_a_decision_has_its_four_parts(path):
    """Context, decision, alternatives, consequences, with a date and a status."""
    text = path.read_text()

    assert re.match(r"# \d{4}\. .+", text)
    assert re.search(r"^Date: \d{4}-\d\d-\d\d +Status: \w+", text, re.MULTILINE)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert ["Context", "Decision", "Alternatives", "Consequences"] == headings


def test_decisions_are_there():
    """The first ones are written down, each number once."""
    numbers = [path.name[:4] for path in DECISIONS]

    assert len(numbers) >= 5
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    "path",
    [*sorted(DOCS.rglob("*.md")), *sorted(DOCS.parent.glob("*.md"))],
    ids=lambda p: str(p.relative_to(DOCS.parent)),
)
def test_links_lead_somewhere(path):
    """Every relative link of a document names a file that exists."""
    targets = LINK.findall(path.read_text())

    assert [] == [t for t in targets if not (path.parent / t).exists()]
