"""Help texts, made from the tables that flags.py declares.  Loaded only when asked for."""

from __future__ import annotations

from seaway.cli.flags import Command, Flag, Group, Takes

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_NARROWEST = 80  # columns; narrower terminals wrap by themselves
_LABEL_MAX = 30  # a longer flag has its explanation on the next line


def help_text(node: Command | Group, title: str, columns: int = _NARROWEST) -> str:
    """Explain one command or group.

    Args:
        title: The path as a user types it, e.g. "seaway network create".
        columns: Width of the terminal; at least 80 are used.

    Returns:
        Lines of at most *columns* characters, each with a newline.
    """
    width = max(columns, _NARROWEST)
    parts = (
        _command(node, title, width) if isinstance(node, Command) else _group(node, title, width)
    )
    return "\n".join(line.rstrip() for line in parts) + "\n"


def _command(command: Command, title: str, width: int) -> Iterator[str]:
    yield from _wrap(f"Usage:  {title} {command.usage}", width, indent=8)
    yield ""
    yield from _wrap(command.summary, width)
    if command.example:
        yield ""
        yield "Examples:"
        yield from (f"  {line}" for line in command.example.strip().splitlines())
    yield from _options(command.flags, width)
    if command.passes_unknown:
        yield ""
        yield from _wrap(
            f"Every other flag of '{command.passes_unknown.program}' is accepted and passed on.",
            width,
        )


def _group(group: Group, title: str, width: int) -> Iterator[str]:
    options = "[OPTIONS] " if group.flags else ""
    yield f"Usage:  {title} {options}COMMAND"
    yield ""
    yield from _wrap(group.summary, width)
    yield ""
    yield "Commands:"
    rows = [(f"  {child.name}", child.summary) for child in group.children if not child.hidden]
    yield from _columns(rows, width)
    yield from _options(group.flags, width)
    yield ""
    yield f"Run '{title} COMMAND --help' for more on a command."


def _options(flags: Iterable[Flag], width: int) -> Iterator[str]:
    rows = [(_label(flag), _explanation(flag)) for flag in flags if not flag.hidden]
    if rows:
        yield ""
        yield "Options:"
        yield from _columns(rows, width)


def _label(flag: Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    metavar = "" if flag.takes == Takes.BOOL else f" {flag.metavar}"
    return f"  {short}--{flag.long}{metavar}"


def _explanation(flag: Flag) -> str:
    parts = [flag.help]
    if flag.choices:
        parts.append(f"({'|'.join(flag.choices)})")
    if flag.takes == Takes.LIST:
        parts.append("(may be repeated)")
    if flag.default is not None:
        parts.append(f"(default {flag.default})")
    return " ".join(parts)


def _columns(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Set labels left and explanations right, wrapped under themselves."""
    left = min(max(len(label) for label, _ in rows), _LABEL_MAX) + 3
    for label, explanation in rows:
        lines = list(_wrap(explanation, width - left))
        if len(label) + 3 > left:
            yield label
        else:
            lines[0] = f"{label:<{left}}{lines[0]}"
            yield lines.pop(0)
        yield from (" " * left + line for line in lines)


def _wrap(text: str, width: int, indent: int = 0) -> Iterator[str]:
    """Break *text* at spaces; a word longer than *width* stays whole."""
    line = ""
    for word in text.split(" "):
        if line.strip() and len(line) + 1 + len(word) > width:
            yield line
            line = " " * indent + word
        else:
            line = f"{line} {word}" if line else word
    yield line
