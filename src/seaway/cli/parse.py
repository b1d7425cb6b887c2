"""Reading a command line: words in, values out.  Runs no command and prints nothing.

The rules are those of Docker's command line (the pflag library): ``--name=x``
and ``--name x``, ``-p80`` and ``-p 80`` and ``-p=80``, ``-itd``, ``--detach=false``, and
``--`` ends the flags.  Flags that belong to another program are collected unread.

Loaded at every call: see flags.py for what it must not import.
"""

from __future__ import annotations

from seaway.cli.flags import Command, Flag, Group, Takes, UsageError

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Given:
    """What one flag or positional was given."""

    __slots__ = ("_default", "list")

    def __init__(self, words: Iterable[str], default: str | None = None) -> None:
        self.list: tuple[str, ...] = tuple(words)
        """Every value, in order; empty when absent, whatever the default."""
        self._default = default

    @property
    def given(self) -> bool:
        """Was it on the command line?"""
        return bool(self.list)

    @property
    def value(self) -> str | None:
        """The last value, or the default."""
        return self.list[-1] if self.list else self._default

    @property
    def on(self) -> bool:
        """Is this boolean flag set?"""
        return self.value == "true"


class Parsed:
    """The values of one command line.

    Attributes:
        help: Help was asked for; then nothing else is complete or checked.
        passed: Another program's flags, in their order and form.
    """

    __slots__ = ("_arguments", "_flags", "help", "passed")

    def __init__(self, reader: Reader) -> None:
        self.help = reader.help
        self.passed = tuple(reader.passed)
        self._flags = {
            flag.long: Given(reader.given.get(flag.long, ()), flag.default)
            for flag in reader.command.flags
        }
        self._arguments = dict(reader.arguments())

    def flag(self, long: str) -> Given:
        """Return what ``--long`` was given.  KeyError if the command has no such flag."""
        return self._flags[long]

    def argument(self, name: str) -> Given:
        """Return what the positional *name* was given.  KeyError if there is none."""
        return self._arguments[name]


class Resolved:
    """Where a command line leads.

    Attributes:
        path: The names walked through, e.g. ("seaway", "network", "ls").
        node: The command; or a group, if the line ends before a command.
        rest: The words after the command's name.
        options: What the outermost group's own flags were given.
        help: Help on the group *node* was asked for.
    """

    __slots__ = ("help", "node", "options", "path", "rest")

    def __init__(
        self,
        path: Sequence[str],
        node: Command | Group,
        rest: Sequence[str],
        options: Parsed,
        *,
        help: bool,
    ) -> None:
        self.path = tuple(path)
        self.node = node
        self.rest = tuple(rest)
        self.options = options
        self.help = help

    @property
    def title(self) -> str:
        """The path as a user types it."""
        return " ".join(self.path)


class Reader:
    """Takes a command line word by word and knows at any moment what the next one is.

    Attributes:
        given: Values by the flag's long name.
        words: Positional words so far.
        passed: Words for the other program so far.
        ended: Flags are over: every further word is positional.
        help: ``--help`` was read.
        expects: The flag whose value the next word is.
        expects_passed: The next word is the value of the other program's flag.
    """

    def __init__(self, command: Command, title: str = "") -> None:
        self.command = command
        self.title = title or command.name
        self.given: dict[str, list[str]] = {}
        self.words: list[str] = []
        self.passed: list[str] = []
        self.ended = False
        self.help = False
        self.expects: Flag | None = None
        self.expects_passed = False
        self._long = {name: f for f in command.flags for name in (f.long, *f.aliases)}
        self._short = {f.short: f for f in command.flags if f.short}

    def read(self, word: str) -> None:
        """Take the next word.

        Raises:
            UsageError: An unknown flag, or a value the flag does not accept.
        """
        if self.expects is not None:
            flag, self.expects = self.expects, None
            self._store(flag, word)
        elif self.expects_passed:
            self.expects_passed = False
            self.passed.append(word)
        elif self.ended or not word.startswith("-") or word == "-":
            self.words.append(word)
            self.ended = self.ended or self.command.stops_at_first_positional
        elif word == "--":
            self.ended = True
        elif word.startswith("--"):
            self._read_long(word)
        else:
            self._read_letters(word)

    def finish(self) -> Parsed:
        """Check that nothing is missing and return the values.

        Raises:
            UsageError: A flag without its value, a positional too few or too many.
        """
        if not self.help:
            self._check_complete()
        return Parsed(self)

    def arguments(self) -> Iterator[tuple[str, Given]]:
        """Share the positional words out among the command's positionals."""
        left = list(self.words)
        for positional in self.command.positionals:
            share = len(left) if positional.many else 1
            yield positional.name, Given(left[:share])
            del left[:share]

    def _read_long(self, word: str) -> None:
        name, equals, value = word[2:].partition("=")
        foreign = self.command.passes_unknown
        if flag := self._long.get(name):
            self._take(flag, value if equals else None)
        elif foreign and name in foreign.names:
            self.passed.append(word)
            self.expects_passed = name in foreign.values and not equals
        elif name == "help":
            self.help = True
        else:
            raise self._wrong(f"unknown flag {'--' + name!r}{self._hint(name)}")

    def _read_letters(self, word: str) -> None:
        """Take ``-itd``, ``-p80`` and mixtures; the other program's letters stay together."""
        kept, rest = "", word[1:]
        while rest:
            letter, rest = rest[0], rest[1:]
            if flag := self._short.get(letter):
                rest = self._read_letter(flag, rest)
            elif self.command.passes_unknown and letter in self.command.passes_unknown.shorts:
                more, rest = self._pass_letter(letter, rest)
                kept += more
            elif letter == "h":
                self.help = True
            else:
                where = f" in {word!r}" if len(word) > 2 else ""
                hint = self._hint(word[1:])
                raise self._wrong(f"unknown flag {'-' + letter!r}{where}{hint}")
        if kept:
            self.passed.append(f"-{kept}")

    def _read_letter(self, flag: Flag, rest: str) -> str:
        """Give *flag* what follows its letter; return the letters that are left."""
        if flag.takes == Takes.BOOL and not rest.startswith("="):
            self._take(flag, None)
            return rest
        self._take(flag, rest.removeprefix("=") if rest else None)
        return ""

    def _pass_letter(self, letter: str, rest: str) -> tuple[str, str]:
        """Split what follows the other program's *letter* into its own and the letters left."""
        foreign = self.command.passes_unknown
        assert foreign is not None
        takes_value = foreign.shorts[letter] in foreign.values
        if takes_value or rest.startswith("="):
            self.expects_passed = not rest
            return letter + rest, ""
        return letter, rest

    def _take(self, flag: Flag, value: str | None) -> None:
        if flag.takes == Takes.BOOL:
            self._store(flag, self._boolean(flag, "true" if value is None else value))
        elif value is None:
            self.expects = flag
        else:
            self._store(flag, value)

    def _store(self, flag: Flag, value: str) -> None:
        if flag.choices and value not in flag.choices:
            choices = ", ".join(flag.choices)
            raise self._wrong(f"--{flag.long} is one of {choices}, not {value!r}")
        self.given.setdefault(flag.long, []).append(value)

    def _boolean(self, flag: Flag, text: str) -> str:
        # The spellings of Go's strconv.ParseBool, which Docker's users know.
        if text in ("true", "TRUE", "True", "1", "t", "T"):
            return "true"
        if text in ("false", "FALSE", "False", "0", "f", "F"):
            return "false"
        raise self._wrong(f"--{flag.long} is on or off: write =true or =false")

    def _check_complete(self) -> None:
        if self.expects is not None:
            name = f"--{self.expects.long}"
            raise self._wrong(f"{name} needs a value: {name} {self.expects.metavar}")
        if self.expects_passed:
            raise self._wrong(f"{self.passed[-1]} needs a value")
        positionals = self.command.positionals
        for positional, (_, given) in zip(positionals, self.arguments(), strict=True):
            if not positional.optional and not given.list:
                raise self._wrong(f"{positional.name} is missing: write {self._synopsis}")
            if positional.choices and (odd := set(given.list).difference(positional.choices)):
                choices = " or ".join(positional.choices)
                near = _nearest(min(odd), positional.choices)
                hint = f"did you mean {near!r}?" if near else f"write {choices}"
                raise self._wrong(f"unknown word {min(odd)!r}: {hint}")
        room = len(positionals)
        if len(self.words) > room and not (room and positionals[-1].many):
            word = self.words[room]
            named = not room and "name" in self._long
            hint = f"did you mean --name {word}?" if named else f"write {self._synopsis}"
            raise self._wrong(f"unexpected word {word!r}: {hint}")

    @property
    def _synopsis(self) -> str:
        return f"{self.title} {self.command.usage}"

    def _wrong(self, message: str) -> UsageError:
        return UsageError(f"{self.title}: {message}")

    def _hint(self, name: str) -> str:
        known = {name for name, flag in self._long.items() if not flag.hidden} | {"help"}
        if self.command.passes_unknown:
            known |= self.command.passes_unknown.names
        if near := _nearest(name, known):
            return f": did you mean --{near}?"
        return f": see '{self.title} --help'"


def parse(command: Command, argv: Iterable[str], title: str = "") -> Parsed:
    """Read the words after the command's name.

    Args:
        title: The full path for messages, e.g. "seaway network create"; the
            command's own name if empty.

    Raises:
        UsageError: One line that names the wrong word.  Not raised once
            ``--help`` was read: whoever asks for help gets it.
    """
    reader = Reader(command, title)
    for word in argv:
        reader.read(word)
        if reader.help:
            break
    return reader.finish()


def resolve(tree: Group, argv: Iterable[str]) -> Resolved:
    """Walk from the outermost group to the command that *argv* names.

    Raises:
        UsageError: No such command; the message suggests the nearest.
    """
    path = [tree.name]
    head = options = parse(tree.opening(), argv)
    rest = head.argument("COMMAND").list
    node: Command | Group = tree
    while isinstance(node, Group) and rest:
        title = " ".join(path)
        child = node.child(rest[0])
        if child is None:
            hint = _near_command(node, rest[0], title)
            raise UsageError(f"{title}: no command {rest[0]!r}{hint}")
        node, rest = child, rest[1:]
        path.append(node.name)
        if isinstance(node, Group):
            head = parse(node.opening(), rest, " ".join(path))
            rest = head.argument("COMMAND").list
    return Resolved(path, node, rest, options, help=head.help and isinstance(node, Group))


def _near_command(group: Group, name: str, title: str) -> str:
    if near := _nearest(name, {child.name for child in group.children if not child.hidden}):
        return f": did you mean {near!r}?"
    return f": see '{title} --help'"


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - only wrong usage pays for it

    return next(iter(difflib.get_close_matches(word, sorted(known), n=1)), "")
