"""Reading command lines: the rules of Docker's, and messages that name the cure."""

import subprocess
import sys

import pytest

from seaway.cli.flags import (
    Command,
    Flag,
    Group,
    PassThrough,
    Positional,
    Takes,
    UsageError,
)
from seaway.cli.parse import parse, resolve
from seaway.cli.podman_flags import PODMAN_RUN
from seaway.errors import InvalidSpec

CREATE = Command(
    "create",
    "Create a network",
    flags=[
        Flag("driver", "d", Takes.VALUE, "NAME", choices=("bridge", "macvlan"), default="bridge"),
        Flag("subnet", "", Takes.LIST, "CIDR"),
        Flag("internal"),
        Flag("ipv4", default="true"),
    ],
    positionals=[Positional("NETWORK")],
)

ENGINE = PassThrough(
    program="engine run",
    booleans=frozenset({"interactive", "tty", "init"}),
    values=frozenset({"env", "volume", "hostname"}),
    shorts={"i": "interactive", "t": "tty", "e": "env", "v": "volume", "h": "hostname"},
)

RUN = Command(
    "run",
    "Run a container",
    flags=[
        Flag("detach", "d"),
        Flag("publish-all", "P"),
        Flag("publish", "p", Takes.LIST, "PORT"),
        Flag("network", "", Takes.LIST, "NETWORK", aliases=("net",)),
        Flag("network-alias", "", Takes.LIST, "NAME", aliases=("net-alias",)),
    ],
    positionals=[Positional("IMAGE"), Positional("COMMAND", optional=True, many=True)],
    stops_at_first_positional=True,
    passes_unknown=ENGINE,
)


def refused(command, *argv):
    with pytest.raises(UsageError) as caught:
        parse(command, argv, f"seaway {command.name}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("argv", [["--driver", "macvlan"], ["--driver=macvlan"], ["-d", "macvlan"]])
def test_a_value_follows_its_flag_or_an_equals_sign(argv):
    """--name value, --name=value and -n value are the same."""
    assert "macvlan" == parse(CREATE, [*argv, "x"]).flag("driver").value


@pytest.mark.parametrize("argv", [["-p8080:80"], ["-p", "8080:80"], ["-p=8080:80"]])
def test_a_short_flag_may_carry_its_value(argv):
    """-p80, -p 80 and -p=80 are the same."""
    assert ("8080:80",) == parse(RUN, [*argv, "nginx"]).flag("publish").list


def test_a_list_collects_and_a_value_is_replaced():
    """A repeated LIST keeps all values in order, a repeated VALUE the last."""
    parsed = parse(CREATE, ["--subnet", "a", "-dbridge", "--subnet=b,c", "-d", "macvlan", "x"])

    assert ("a", "b,c") == parsed.flag("subnet").list
    assert "macvlan" == parsed.flag("driver").value


def test_an_absent_flag_has_its_default():
    """A default is a value, but it was not given."""
    parsed = parse(CREATE, ["x"])

    assert "bridge" == parsed.flag("driver").value
    assert not parsed.flag("driver").given
    assert () == parsed.flag("subnet").list
    assert None is parsed.flag("subnet").value
    assert not parsed.flag("internal").on
    assert parsed.flag("ipv4").on


@pytest.mark.parametrize(
    ("argv", "on"),
    [
        (["--internal"], True),
        (["--internal=true"], True),
        (["--internal=1"], True),
        (["--internal=false"], False),
        (["--internal=F"], False),
        (["--internal", "--internal=false"], False),
        ([], False),
    ],
)
def test_a_boolean_takes_true_or_false_after_an_equals_sign(argv, on):
    """Booleans never swallow the next word; the last spelling counts."""
    assert on == parse(CREATE, [*argv, "x"]).flag("internal").on


def test_a_default_of_true_can_be_turned_off():
    """--ipv4=false turns off what is on by default."""
    assert not parse(CREATE, ["--ipv4=false", "x"]).flag("ipv4").on


def test_letters_can_be_combined():
    """-dPp80 is -d -P -p 80, and -d=false turns the last letter off."""
    parsed = parse(RUN, ["-dPp80", "nginx"])
    assert (True, True, ("80",)) == (
        parsed.flag("detach").on,
        parsed.flag("publish-all").on,
        parsed.flag("publish").list,
    )

    assert not parse(RUN, ["-Pd=false", "nginx"]).flag("detach").on


def test_aliases_are_the_same_flag():
    """--net is --network, --net-alias is --network-alias."""
    parsed = parse(RUN, ["--net", "a", "--network=b", "--net-alias", "db", "nginx"])

    assert ("a", "b") == parsed.flag("network").list
    assert ("db",) == parsed.flag("network-alias").list


def test_two_dashes_end_the_flags():
    """After -- a word with a dash is a name; a lone dash always is."""
    assert "--driver" == parse(CREATE, ["--", "--driver"]).argument("NETWORK").value
    assert "-" == parse(CREATE, ["-"]).argument("NETWORK").value


def test_flags_may_follow_positionals():
    """Unless a command says otherwise, order is free."""
    parsed = parse(CREATE, ["x", "--internal"])

    assert parsed.flag("internal").on
    assert "x" == parsed.argument("NETWORK").value


def test_a_flag_takes_the_next_word_whatever_it_looks_like():
    """--subnet --internal means the value "--internal", as in Docker."""
    assert ("--internal",) == parse(CREATE, ["--subnet", "--internal", "x"]).flag("subnet").list


def test_the_command_in_a_container_is_not_read():
    """After the image every word belongs to the command, flags and -- too."""
    parsed = parse(RUN, ["-d", "busybox", "sh", "-c", "--", "--help"])

    assert "busybox" == parsed.argument("IMAGE").value
    assert ("sh", "-c", "--", "--help") == parsed.argument("COMMAND").list
    assert not parsed.help


def test_flags_of_the_engine_are_passed_in_their_order_and_form():
    """Flags we do not know but the engine does keep their spelling; ours are taken out."""
    parsed = parse(
        RUN,
        ["--env=A=1", "-p", "80", "--env", "B", "--init=false", "-v/a:/b", "-e", "-C", "img", "-x"],
    )

    assert ("--env=A=1", "--env", "B", "--init=false", "-v/a:/b", "-e", "-C") == parsed.passed
    assert ("80",) == parsed.flag("publish").list
    assert "img" == parsed.argument("IMAGE").value


@pytest.mark.parametrize(
    ("word", "more", "passed"),
    [
        ("-itd", [], ("-it",)),
        ("-dit", [], ("-it",)),
        ("-dt=false", [], ("-t=false",)),
        ("-dite", ["A=1"], ("-ite", "A=1")),
        ("-diteA=d", [], ("-iteA=d",)),
        ("-dv=/a:/b", [], ("-v=/a:/b",)),
        ("-dh", ["web"], ("-h", "web")),
        ("-d", [], ()),
    ],
)
def test_mixed_letters_are_shared_out(word, more, passed):
    """In -itd the engine gets -it and we keep d."""
    parsed = parse(RUN, [word, *more, "busybox"])

    assert passed == parsed.passed
    assert parsed.flag("detach").on
    assert "busybox" == parsed.argument("IMAGE").value


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["x", "y", "--help"], ["--help", "--bogus"]])
def test_help_wins_over_later_mistakes(argv):
    """Whoever asks for help gets it, complete command line or not."""
    assert parse(CREATE, argv).help


def test_h_is_hostname_where_the_engine_says_so():
    """As in docker run, -h is not help once somebody claims the letter."""
    assert ("-h", "web") == parse(RUN, ["-h", "web", "img"]).passed


MISTAKES = [
    (CREATE, ["--subnt=x", "a"], "unknown flag '--subnt': did you mean --subnet?"),
    (CREATE, ["--zzz", "a"], "unknown flag '--zzz': see 'seaway create --help'"),
    (CREATE, ["--hepl"], "unknown flag '--hepl': did you mean --help?"),
    (CREATE, ["-driver", "a"], "one of bridge, macvlan, not 'river'"),
    (CREATE, ["-internal"], "unknown flag '-i' in '-internal': did you mean --internal?"),
    (CREATE, ["-z", "a"], "unknown flag '-z': see"),
    (CREATE, ["--\n", "a"], r"unknown flag '--\n'"),
    (CREATE, ["a", "--subnet"], "--subnet needs a value: --subnet CIDR"),
    (CREATE, ["--driver", "vxlan", "a"], "one of bridge, macvlan, not 'vxlan'"),
    (CREATE, ["--internal=yes", "a"], "--internal is on or off: write =true or =false"),
    (CREATE, ["--internal="], "--internal is on or off"),
    (CREATE, [], "NETWORK is missing: write seaway create [OPTIONS] NETWORK"),
    (CREATE, ["a", "b"], "unexpected word 'b': write seaway create [OPTIONS] NETWORK"),
    (RUN, ["-d"], "IMAGE is missing: write seaway run [OPTIONS] IMAGE [COMMAND...]"),
    (RUN, ["--env"], "--env needs a value"),
    (RUN, ["-ite"], "-ite needs a value"),
    (RUN, ["--volum", "x", "img"], "unknown flag '--volum': did you mean --volume?"),
    (RUN, ["-dz", "img"], "unknown flag '-z' in '-dz'"),
]


@pytest.mark.parametrize(("command", "argv", "message"), MISTAKES)
def test_a_mistake_is_one_clear_line(command, argv, message):
    """The message begins with the command and names the word and what to do."""
    said = refused(command, *argv)

    assert said.startswith(f"seaway {command.name}: ")
    assert message in said


def test_wrong_usage_is_an_invalid_request():
    """UsageError is one of the error tree's InvalidSpec, so every edge knows it."""
    assert issubclass(UsageError, InvalidSpec)


def test_a_positional_may_have_choices():
    """A word outside the choices is refused, and the nearest suggested."""
    command = Command("completion", positionals=[Positional("SHELL", choices=("bash", "zsh"))])

    assert "zsh" == parse(command, ["zsh"]).argument("SHELL").value
    assert "unknown word 'csh': did you mean 'zsh'?" in refused(command, "csh")
    assert "unknown word 'tcl': write bash or zsh" in refused(command, "tcl")


def test_a_name_without_its_flag_is_understood():
    """Where a command takes no words but has --name, that is what was meant."""
    command = Command("down", flags=[Flag("name", "", Takes.VALUE, "LAB")])

    assert "unexpected word 'x': did you mean --name x?" in refused(command, "x")


def test_asking_for_an_undeclared_flag_is_a_bug():
    """A getter with a misspelt name fails loudly."""
    with pytest.raises(KeyError):
        parse(CREATE, ["x"]).flag("subnets")


TREE = Group(
    "seaway",
    "Gives containers their network.",
    [
        RUN,
        Group(
            "network",
            "Manage networks",
            [CREATE, Command("ls", "List networks", aliases=("list",))],
            aliases=("net",),
        ),
        Command("__complete", hidden=True),
    ],
    flags=[Flag("socket", "", Takes.VALUE, "PATH"), Flag("version", "v")],
)


def test_a_nested_command_is_found():
    """The path leads through groups; the rest is the command's own."""
    found = resolve(TREE, ["--socket", "/x", "network", "create", "--internal", "a"])

    assert ("seaway", "network", "create") == found.path
    assert "seaway network create" == found.title
    assert CREATE is found.node
    assert ("--internal", "a") == found.rest
    assert "/x" == found.options.flag("socket").value


def test_aliases_of_commands_lead_to_their_real_names():
    """ls and list are one command, and the path has its proper name."""
    assert ("seaway", "network", "ls") == resolve(TREE, ["net", "list"]).path


@pytest.mark.parametrize(
    ("argv", "path", "asked"),
    [
        ([], ("seaway",), False),
        (["--help"], ("seaway",), True),
        (["-v"], ("seaway",), False),
        (["network"], ("seaway", "network"), False),
        (["network", "-h"], ("seaway", "network"), True),
        (["network", "--help", "ls"], ("seaway", "network"), True),
    ],
)
def test_a_line_may_end_at_a_group(argv, path, asked):
    """Without a command the group itself is returned, for its help."""
    found = resolve(TREE, argv)

    assert path == found.path
    assert asked == found.help
    assert isinstance(found.node, Group)


def test_help_after_a_command_is_the_commands():
    """``network ls --help`` leaves the flag for the command to read."""
    found = resolve(TREE, ["network", "ls", "--help"])

    assert ("--help",) == found.rest
    assert not found.help


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["netwrk"], "seaway: no command 'netwrk': did you mean 'network'?"),
        (["network", "creat"], "seaway network: no command 'creat': did you mean 'create'?"),
        (["zzz"], "seaway: no command 'zzz': see 'seaway --help'"),
        (["--sockt", "x"], "seaway: unknown flag '--sockt': did you mean --socket?"),
        (["network", "--all"], "seaway network: unknown flag '--all'"),
    ],
)
def test_an_unknown_command_is_one_clear_line(argv, message):
    """The nearest command is suggested; hidden ones never are."""
    with pytest.raises(UsageError) as caught:
        resolve(TREE, argv)

    assert message in str(caught.value)


def test_podmans_table_is_consistent():
    """No flag is both boolean and valued, and every letter stands for a known flag."""
    assert not PODMAN_RUN.booleans & PODMAN_RUN.values
    assert set(PODMAN_RUN.shorts.values()) <= PODMAN_RUN.names
    assert "help" not in PODMAN_RUN.names


def test_the_grammar_imports_nothing_slow():
    """Every call pays for these imports, so typing, enum, re and the like stay out."""
    code = "import sys, seaway.cli.parse, seaway.cli.podman_flags; print(*sys.modules)"
    path = f"import sys; sys.path[:0] = {sys.path!r}; "
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", path + code], capture_output=True, text=True, check=True
    )

    slow = {"typing", "enum", "re", "dataclasses", "functools", "collections", "argparse"}
    assert not slow & set(done.stdout.split())
