"""Write the parts of docs/reference that are made from the code.

``make docs`` runs this; tests/test_reference.py fails when a file is out of date.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from seaway.agent.api import ROUTES, STATUS, Endpoint, document
from seaway.agent.requests import EndpointRequest
from seaway.cli.commands import TREE
from seaway.cli.flags import Command, Group
from seaway.cli.usage import help_text

FOLDER = Path(__file__).parent / "reference"

_MADE = "<!-- Made by docs/generate.py: change the code and run 'make docs'. -->"

_CLI = f"""# Command line

{_MADE}

Every command also answers `--help`. The exit status is 0 when it worked, 1 when it did not (one
line on standard error says what is wrong and what to do) and 64 when the command line itself is
wrong; `run` and `exec` end with the container's own, and with 125 when Podman could not start it.
Commands talk to the agent through `/run/seaway/seaway.sock`; the variable `SEAWAY_SOCKET` names
another one.
"""

_API = f"""# HTTP API

{_MADE}

The agent answers HTTP on the unix socket `/run/seaway/seaway.sock`, which root and the group
`seaway` may open. Bodies are JSON. [openapi.json](openapi.json) describes the same for programs;
a running agent serves it as well.

    curl --unix-socket /run/seaway/seaway.sock http://localhost/v1/networks

A refusal has one of these statuses and the body `{{"error": CLASS, "message": ONE LINE}}`;
[errors.md](errors.md) explains the classes.

| error | status |
|---|---|
"""


def cli() -> str:
    """Render cli.md: one heading for each command, with its help."""
    return _CLI + "".join(_commands(TREE, "seaway"))


def _commands(node: Command | Group, title: str) -> Iterator[str]:
    yield f"\n## {title}\n\n```\n{help_text(node, title)}```\n"
    if isinstance(node, Group):
        for child in node.children:
            if not child.hidden:
                yield from _commands(child, f"{title} {child.name}")


def api() -> str:
    """Render api.md: one heading for each route."""
    codes = "".join(f"| `{e.__name__}` | {s.value} {s.phrase} |\n" for e, s in STATUS.items())
    shared = f"\n## EndpointRequest\n\n{_body(EndpointRequest)}"
    return _API + codes + "".join(_route(row) for row in ROUTES) + shared


def _route(row: Endpoint) -> str:
    text = f"\n## {row.method} {row.path}\n\n{row.summary}.\n"
    return text if row.body is None else f"{text}\n{_body(row.body)}"


def _body(kind: type[msgspec.Struct]) -> str:
    about = re.sub(r"``(.+?)``", r"`\1`", inspect.getdoc(kind) or "")
    about = re.sub(r"(?<!\*)\*(\w+)\*", r"`\1`", about)
    rows = "".join(_field(field) for field in msgspec.structs.fields(kind))
    return f"{about}\n\n| field | type | default |\n|---|---|---|\n{rows}"


def _field(field: msgspec.structs.FieldInfo) -> str:
    kind = getattr(field.type, "__name__", str(field.type))
    kind = str(field.type) if "[" in str(field.type) else kind
    kind = re.sub(r"[\w.]+\.(\w+)", r"\1", kind)
    return f"| `{field.name}` | `{kind}` | {_default(field)} |\n"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{json.dumps(field.default_factory())}`"
    if field.default is not msgspec.NODEFAULT:
        return f"`{json.dumps(field.default)}`"
    return "needed"


def openapi() -> str:
    """Render openapi.json."""
    found: dict[str, Any] = document(ROUTES)
    return json.dumps(found, indent=2) + "\n"


MADE = {"cli.md": cli, "api.md": api, "openapi.json": openapi}
"""File in docs/reference -> what renders it."""


def main() -> None:
    """Write every file."""
    for name, render in MADE.items():
        (FOLDER / name).write_text(render())


if __name__ == "__main__":
    main()
