"""The command line's grammar as tables: flags, commands, groups of commands.

Only what may be said stands here; parse.py reads it, usage.py explains it and
completion.py offers it.

This module and parse.py are loaded at every call, so they import nothing but
the errors: no dataclass, no enum, no typing.  That keeps both together under
two milliseconds; argparse or click alone take ten times that.
"""

from __future__ import annotations

from seaway.errors import InvalidSpec

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class UsageError(InvalidSpec):
    """The words on the command line make no sense; the message names the one to change."""


class Takes:
    """What follows a flag."""

    BOOL = "bool"  # nothing, or =true or =false
    VALUE = "value"  # one value; given again, the last one counts
    LIST = "list"  # one value each time; all count, in order


class Flag:
    """One flag of a command.

    Attributes:
        long: Name without the dashes.
        short: One letter, or empty.
        takes: One of Takes.
        metavar: What help calls the value, e.g. "CIDR".
        help: One line.
        choices: The only values accepted; empty accepts any.
        default: The value when the flag is absent; "true" turns a BOOL on.
        aliases: Other long names, accepted and not advertised.
        completes: What shell completion offers as value, e.g. "network".
        hidden: Not in help and completion.
    """

    __slots__ = (
        "aliases",
        "choices",
        "completes",
        "default",
        "help",
        "hidden",
        "long",
        "metavar",
        "short",
        "takes",
    )

    def __init__(  # noqa: PLR0913 - a row of a table, by name; a dataclass costs 6 ms
        self,
        long: str,
        short: str = "",
        takes: str = Takes.BOOL,
        metavar: str = "VALUE",
        help: str = "",
        *,
        choices: Sequence[str] = (),
        default: str | None = None,
        aliases: Sequence[str] = (),
        completes: str = "",
        hidden: bool = False,
    ) -> None:
        self.long = long
        self.short = short
        self.takes = takes
        self.metavar = metavar
        self.help = help
        self.choices = tuple(choices)
        self.default = default
        self.aliases = tuple(aliases)
        self.completes = completes
        self.hidden = hidden


class Positional:
    """One word, or with *many* all that are left, after the flags.

    Attributes:
        name: What help and errors call it, in capitals.
        optional: May be absent.
        many: Takes every word that is left; only the last positional can.
        choices: The only words accepted; empty accepts any.
        completes: What shell completion offers, e.g. "container".
    """

    __slots__ = ("choices", "completes", "many", "name", "optional")

    def __init__(
        self,
        name: str,
        *,
        optional: bool = False,
        many: bool = False,
        choices: Sequence[str] = (),
        completes: str = "",
    ) -> None:
        self.name = name
        self.optional = optional
        self.many = many
        self.choices = tuple(choices)
        self.completes = completes

    def __str__(self) -> str:
        text = f"{self.name}..." if self.many else self.name
        return f"[{text}]" if self.optional else text


class PassThrough:
    """The flags of another program, to be handed on unread.

    Attributes:
        program: Whose they are, e.g. "podman run".
        booleans: Long names that take nothing (or =true, =false).
        values: Long names that take a value.
        shorts: Letter to long name.
    """

    __slots__ = ("booleans", "program", "shorts", "values")

    def __init__(
        self,
        *,
        program: str,
        booleans: frozenset[str],
        values: frozenset[str],
        shorts: Mapping[str, str],
    ) -> None:
        self.program = program
        self.booleans = booleans
        self.values = values
        self.shorts = shorts

    @property
    def names(self) -> frozenset[str]:
        """Every long name."""
        return self.booleans | self.values


class Command:
    """One command: what may follow its name.

    Attributes:
        name: The last word of the path, e.g. "create".
        summary: One line for lists of commands.
        usage: What follows the path in help; made from the tables when empty.
        flags: In the order help shows them.
        positionals: In the order they are given.
        example: Lines to copy, without indent.
        stops_at_first_positional: What follows the first word without a dash
            is not ours: a command to run in a container.
        passes_unknown: Whose flags are collected in Parsed.passed.
        aliases: Other names, accepted and not advertised.
        hidden: Not in help and completion.
    """

    __slots__ = (
        "aliases",
        "example",
        "flags",
        "hidden",
        "name",
        "passes_unknown",
        "positionals",
        "stops_at_first_positional",
        "summary",
        "usage",
    )

    def __init__(  # noqa: PLR0913 - a row of a table, by name; a dataclass costs 6 ms
        self,
        name: str,
        summary: str = "",
        usage: str = "",
        flags: Sequence[Flag] = (),
        positionals: Sequence[Positional] = (),
        example: str = "",
        *,
        stops_at_first_positional: bool = False,
        passes_unknown: PassThrough | None = None,
        aliases: Sequence[str] = (),
        hidden: bool = False,
    ) -> None:
        self.name = name
        self.summary = summary
        self.flags = tuple(flags)
        self.positionals = tuple(positionals)
        self.usage = usage or " ".join(["[OPTIONS]", *map(str, self.positionals)])
        self.example = example
        self.stops_at_first_positional = stops_at_first_positional
        self.passes_unknown = passes_unknown
        self.aliases = tuple(aliases)
        self.hidden = hidden


class Group:
    """A noun: commands, or further groups, under one name.

    Attributes:
        flags: Read before the first command; of the outermost group only.
    """

    __slots__ = ("aliases", "children", "flags", "hidden", "name", "summary")

    def __init__(
        self,
        name: str,
        summary: str,
        children: Sequence[Command | Group],
        *,
        flags: Sequence[Flag] = (),
        aliases: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.summary = summary
        self.children = tuple(children)
        self.flags = tuple(flags)
        self.aliases = tuple(aliases)
        self.hidden = False

    def child(self, name: str) -> Command | Group | None:
        """Find a child by its name or one of its aliases."""
        return next((c for c in self.children if name == c.name or name in c.aliases), None)

    def opening(self) -> Command:
        """Return the grammar of what stands before the child's name."""
        return Command(
            self.name,
            flags=self.flags,
            positionals=[Positional("COMMAND", optional=True, many=True)],
            stops_at_first_positional=True,
        )
