"""Help texts."""

from seaway.cli.flags import Command, Flag, Group, PassThrough, Positional, Takes
from seaway.cli.usage import help_text

CREATE = Command(
    "create",
    "Create a network",
    flags=[
        Flag(
            "driver",
            "d",
            Takes.VALUE,
            "NAME",
            "How packets travel",
            choices=("bridge", "macvlan"),
            default="bridge",
        ),
        Flag("subnet", "", Takes.LIST, "CIDR", "Addresses of the network, IPv4 or IPv6 " * 3),
        Flag("an-option-with-a-very-long-name", "", Takes.VALUE, "SOMETHING", "Explained below"),
        Flag("internal", help="Nothing enters or leaves"),
        Flag("secret", help="Not for everyone", hidden=True),
    ],
    positionals=[Positional("NETWORK")],
    example="seaway network create backend",
)

EXPECTED = """\
Usage:  seaway network create [OPTIONS] NETWORK

Create a network

Examples:
  seaway network create backend

Options:
  -d, --driver NAME              How packets travel (bridge|macvlan) (default
                                 bridge)
      --subnet CIDR              Addresses of the network, IPv4 or IPv6
                                 Addresses of the network, IPv4 or IPv6
                                 Addresses of the network, IPv4 or IPv6  (may be
                                 repeated)
      --an-option-with-a-very-long-name SOMETHING
                                 Explained below
      --internal                 Nothing enters or leaves
"""


def test_help_on_a_command():
    """Usage, summary, example and aligned options, wrapped at 80 columns."""
    assert EXPECTED == help_text(CREATE, "seaway network create")


def test_a_wide_terminal_is_used_and_a_narrow_one_is_not_followed():
    """No line is longer than the terminal, and none is squeezed below 80 columns."""
    wide = help_text(CREATE, "seaway network create", 160)

    assert "How packets travel (bridge|macvlan) (default bridge)\n" in wide
    assert 80 < max(map(len, wide.splitlines())) <= 160
    assert EXPECTED == help_text(CREATE, "seaway network create", 20)


def test_help_on_a_group():
    """Commands in their order without the hidden ones, and where to read on."""
    group = Group(
        "seaway",
        "Gives containers their network.",
        [Command("run", "Run a container"), CREATE, Command("__complete", hidden=True)],
        flags=[Flag("version", "v", help="Print the version")],
    )

    assert """\
Usage:  seaway [OPTIONS] COMMAND

Gives containers their network.

Commands:
  run      Run a container
  create   Create a network

Options:
  -v, --version   Print the version

Run 'seaway COMMAND --help' for more on a command.
""" == help_text(group, "seaway")


def test_help_names_the_program_whose_flags_are_passed_on():
    """The other program's flags are not listed, only mentioned."""
    engine = PassThrough(
        program="engine run", booleans=frozenset(), values=frozenset({"env"}), shorts={}
    )

    assert "Every other flag of 'engine run' is accepted and passed on.\n" in help_text(
        Command("run", "Run a container", passes_unknown=engine), "seaway run"
    )
