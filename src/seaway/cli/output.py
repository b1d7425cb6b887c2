"""What commands print: tables, JSON, templates, ages, and a line of progress.

``--format`` is Docker's: ``json`` prints one object a line for a list, so that
jq and grep see records; ``{{.Name}} {{.Driver}}`` prints fields; ``table`` before
a template adds headings.  Everything here returns text, apart from Progress.
"""

from __future__ import annotations

import json
import os
import re
import sys

from seaway.cli.flags import UsageError

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from threading import Thread
    from types import TracebackType
    from typing import TextIO

    Record = Mapping[str, object]

_FIELD = re.compile(r"\{\{(.*?)\}\}")
_EXPRESSION = re.compile(r"\s*(json\s+)?(\.[A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)\s*")


def listing(
    records: Iterable[Record], columns: Mapping[str, str], *, style: str = "", quiet: str = ""
) -> str:
    """Render a list as ``ls`` and ``ps`` do.

    Args:
        records: Fields by name, as ``{{.Name}}`` and JSON show them.
        columns: Heading to field name, for the table.
        style: The value of --format: "", "table", "json", a template, or
            "table" and a template.
        quiet: Show nothing but this field, a line each.

    Returns:
        Lines, each with a newline.

    Raises:
        UsageError: A template that is more than fields, or of unknown fields.
    """
    rows = list(records)
    if quiet:
        return _lines(_shown(_lookup(row, [quiet])) for row in rows)
    if style == "json":
        return _lines(json.dumps(row) for row in rows)
    if style in ("", "table"):
        cells = [[_shown(_lookup(row, [field])) for field in columns.values()] for row in rows]
        return table(list(columns), cells)
    template = _Template(style.removeprefix("table "))
    lines = [template.render(row) for row in rows]
    if not style.startswith("table "):
        return _lines(lines)
    headings = template.headings({field: heading for heading, field in columns.items()})
    return table(headings.split("\t"), [line.split("\t") for line in lines])


def inspection(records: Sequence[Record], *, style: str = "") -> str:
    """Render whole objects as ``inspect`` does: one JSON array, indented, by default.

    Args:
        style: "" or "table" as said, "json" one object a line, or a template for each.

    Raises:
        UsageError: As in listing().
    """
    if style in ("", "table"):
        return json.dumps(records, indent=4) + "\n"
    return listing(records, {}, style=style)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Set columns two spaces apart, as wide as their longest cell, without borders."""
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return _lines(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def terminal_columns() -> int:
    """Return the width to wrap at: $COLUMNS, the terminal's, or 80."""
    told = os.environ.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and int(told[:4]):
        return int(told[:4])
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):  # not a terminal, or no file at all
        return 80


class Progress:
    """A context that says on stderr what is taking so long, and leaves no trace.

    Nothing is shown in the first second, nor where stderr is no terminal.
    """

    def __init__(self, doing: str, *, second: float = 1.0, to: TextIO | None = None) -> None:
        """Prepare to report *doing*, e.g. "Creating network backend".

        Args:
            second: How long a second is; tests make it short.
            to: Where to write; stderr if None.
        """
        self._doing = doing
        self._second = second
        self._to = to or sys.stderr
        self._thread: Thread | None = None

    def __enter__(self) -> Progress:
        if self._to.isatty():
            import threading  # noqa: PLC0415 - only a terminal pays for it

            self._done = threading.Event()
            self._thread = threading.Thread(target=self._show, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._thread:
            self._done.set()
            self._thread.join()

    def _show(self) -> None:
        seconds = 0
        while not self._done.wait(self._second):
            seconds += 1
            line = f"{self._doing} ... {seconds} s"[: terminal_columns() - 1]
            self._to.write(f"\r{line}\x1b[K")
            self._to.flush()
        if seconds:
            self._to.write("\r\x1b[K")
            self._to.flush()


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


class _Template:
    """A checked --format template: literal texts with fields between them."""

    def __init__(self, template: str) -> None:
        text = template.replace("\\t", "\t").replace("\\n", "\n")
        pieces = _FIELD.split(text)  # literal, expression, literal, ..., literal
        self._literals = pieces[0::2]
        self._fields = [(_names(piece), "json" in piece.split()) for piece in pieces[1::2]]

    def render(self, record: Record) -> str:
        """Put the record's values in place."""
        return self._filled(
            _shown(_lookup(record, names), as_json=as_json) for names, as_json in self._fields
        )

    def headings(self, known: Mapping[str, str]) -> str:
        """Put each field's heading in place, as the table has it or else its name."""
        return self._filled(
            known.get(names[-1], names[-1].upper()) if names else "" for names, _ in self._fields
        )

    def _filled(self, values: Iterable[str]) -> str:
        first, *others = self._literals
        return first + "".join(a + b for a, b in zip(values, others, strict=True))


def _names(expression: str) -> list[str]:
    """Split ``.A.B`` into its names; ``.`` has none and means the whole record."""
    if not (matched := _EXPRESSION.fullmatch(expression)):
        raise UsageError(
            f"--format {{{{{expression}}}}} is not supported: "
            "only fields such as {{.Name}} and {{json .Name}} are"
        )
    return [name for name in matched[2].split(".") if name]


def _lookup(record: Record, names: Sequence[str]) -> object:
    found: object = record
    for name in names:
        fields: Mapping[str, object] = found if isinstance(found, dict) else {}
        if name not in fields:
            known = ", ".join(f".{known}" for known in fields) or "nothing"
            raise UsageError(f"--format knows no field .{name} here: there is {known}")
        found = fields[name]
    return found


def _shown(value: object, *, as_json: bool = False) -> str:
    if as_json or isinstance(value, dict | list | tuple):
        return json.dumps(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "" if value is None else str(value)
    # A name or label must not move the cursor of whoever lists it.
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
