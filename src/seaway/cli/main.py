"""Find the command, run it, turn its failure into one line and an exit status."""

from __future__ import annotations

import os
import sys

from seaway import __version__
from seaway.cli.commands import TREE
from seaway.cli.flags import Command, UsageError
from seaway.cli.parse import Parsed, Resolved, parse, resolve
from seaway.errors import SeawayError

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = 64  # EX_USAGE, sysexits.h
FAILED = 1

_MODULES = {
    "network": "network_commands",
    "cluster": "cluster_commands",
    "node": "node_commands",
    **dict.fromkeys(
        ("run", "ps", "stop", "start", "restart", "rm", "logs", "exec", "port", "inspect"),
        "container_commands",
    ),
    **dict.fromkeys(("attach", "detach"), "attach_commands"),
    **dict.fromkeys(
        ("status", "plan", "events", "doctor", "agent", "cleanup", "completion"), "host_commands"
    ),
    "__complete": "host_commands",
}
"""First word of a command -> module of seaway.cli that has its function."""


def run() -> None:
    """Entry point of the ``seaway`` script."""
    status = main(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Taking the interpreter apart would take 3 ms more, and nothing is left to be done.
        os._exit(status)


def main(argv: Sequence[str]) -> int:
    """Return the exit status: 0 done, 1 failed, 64 wrong usage, or the container's own."""
    try:
        return _dispatch(resolve(TREE, argv))
    except UsageError as err:
        _complain(err)
        return USAGE
    except SeawayError as err:
        _complain(err)
        return FAILED
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells report it
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _dispatch(where: Resolved) -> int:
    if where.options.flag("version").on or where.path[1:] == ("version",):
        print(f"seaway {__version__}")
        return 0
    if not isinstance(where.node, Command):
        _help(where)
        return 0 if where.help or (not where.rest and len(where.path) == 1) else USAGE
    parsed = parse(where.node, where.rest, where.title)
    if parsed.help:
        _help(where)
        return 0
    return _run(where, parsed)


def _run(where: Resolved, parsed: Parsed) -> int:
    from importlib import import_module  # noqa: PLC0415 - after usage errors, which need none

    first, name = where.path[1], where.path[-1]
    if first == "lab":
        from seaway.cli import lab  # noqa: PLC0415 - only labs pay for it

        return lab.run(name, parsed)
    module = import_module(f"seaway.cli.{_MODULES[first]}")
    status: int = module.COMMANDS[name](parsed, where.rest)
    return status


def _help(where: Resolved) -> None:
    from seaway.cli.output import terminal_columns  # noqa: PLC0415 - only help pays for it
    from seaway.cli.usage import help_text  # noqa: PLC0415

    print(help_text(where.node, where.title, terminal_columns()), end="")


def _complain(err: SeawayError) -> None:
    text = str(err)
    # Wrong usage names the command, "seaway run: ...", and needs no further introduction.
    introduced = text.startswith(("seaway ", "seaway: "))
    print(text if introduced else f"seaway: {text}", file=sys.stderr)
