"""Shell completion: what is offered, and that bash asks the right question."""

import subprocess

import pytest

from seaway.cli.completion import SCRIPTS, complete, render_completion
from seaway.cli.flags import Command, Flag, Group, PassThrough, Positional, Takes, UsageError
from seaway.errors import AgentUnreachable

ENGINE = PassThrough(
    program="engine run",
    booleans=frozenset({"tty", "detach"}),
    values=frozenset({"env"}),
    shorts={"e": "env", "t": "tty"},
)

TREE = Group(
    "seaway",
    "Gives containers their network.",
    [
        Command(
            "run",
            flags=[
                Flag("detach", "d"),
                Flag("network", "", Takes.LIST, completes="network", aliases=("net",)),
                Flag("old", hidden=True),
            ],
            positionals=[
                Positional("IMAGE", completes="image"),
                Positional("COMMAND", optional=True, many=True),
            ],
            stops_at_first_positional=True,
            passes_unknown=ENGINE,
        ),
        Group(
            "network",
            "Manage networks",
            [
                Command(
                    "create",
                    flags=[Flag("driver", "d", Takes.VALUE, choices=("bridge", "macvlan"))],
                    positionals=[Positional("NAME")],
                ),
                Command("rm", positionals=[Positional("NETWORK", many=True, completes="network")]),
                Command(
                    "connect",
                    positionals=[
                        Positional("NETWORK", completes="network"),
                        Positional("CONTAINER", completes="container"),
                    ],
                ),
            ],
        ),
        Command("completion", positionals=[Positional("SHELL", choices=("bash", "zsh"))]),
        Command("__complete", hidden=True),
    ],
    flags=[Flag("socket", "", Takes.VALUE)],
)

NAMES = {
    "network": ["front", "backend"],
    "container": ["web", "cache"],
    "image": ["redis", "nginx"],
}


def offered(line):
    words = line.split(" ")
    return complete(TREE, words, len(words) - 1, NAMES.__getitem__)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ["run", "network", "completion"]),
        ("net", ["network"]),
        ("-", ["--socket", "--help"]),
        ("--socket x netw", ["network"]),
        ("--socket ", []),
        ("network ", ["create", "rm", "connect"]),
        ("network create -", ["--driver", "--help"]),
        ("network create --dr", ["--driver"]),
        ("network create --driver ", ["bridge", "macvlan"]),
        ("network create --driver m", ["macvlan"]),
        ("network create -d m", ["macvlan"]),
        ("network create --driver=b", ["--driver=bridge"]),
        ("network create --nothing=b", []),
        ("network create --driver bridge --", ["--help"]),
        ("network create ", []),
        ("network rm ", ["backend", "front"]),
        ("network rm front ", ["backend"]),
        ("network connect b", ["backend"]),
        ("network connect backend ", ["cache", "web"]),
        ("network connect backend web ", []),
        ("completion ", ["bash", "zsh"]),
        ("run --network f", ["front"]),
        ("run --net f", ["front"]),
        ("run --network front --net", ["--network"]),
        ("run -", ["--detach", "--network", "--help", "--env", "--tty"]),
        ("run --env ", []),
        ("run -te ", []),
        ("run -d n", ["nginx"]),
        ("run -- -", []),
        ("run nginx ", []),
        ("run nginx -", []),
        ("run --bogus n", []),
        ("bogus n", []),
    ],
)
def test_what_is_offered(line, expected):
    """Commands, flags, choices and names, each where it can stand, and nothing elsewhere."""
    assert expected == offered(line)


def test_the_cursor_may_stand_past_the_end():
    """A cursor after the last word starts a new one."""
    assert ["create", "rm", "connect"] == complete(TREE, ["network"], 1)


def test_completion_is_silent_without_the_agent():
    """When names cannot be looked up, nothing is offered and nothing is raised."""

    def no_agent(kind):
        raise AgentUnreachable("nobody answers")

    assert [] == complete(TREE, ["network", "rm", ""], 2, no_agent)


def test_an_unknown_shell_is_refused():
    """The message lists the shells there are scripts for."""
    with pytest.raises(UsageError, match="choose one of bash, zsh, fish"):
        render_completion("csh")


@pytest.mark.parametrize("shell", SCRIPTS)
def test_every_script_asks_seaway(shell):
    """Each script calls the hidden command with the words after two dashes."""
    assert "seaway __complete -- " in render_completion(shell)


BASH_CHECK = r"""
seaway() { shift 2; printf '<%s>' "$@" >&3; printf '%s\n' "${OFFERS[@]}"; }
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_seaway 3>&1
printf '\n'
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "offers", "asked", "reply"),
    [
        ("seaway network ''", "create rm", "<network><>", ["create", "rm"]),
        ("seaway create --driver '='", "--driver=bridge", "<create><--driver=>", ["bridge"]),
        ("seaway create --driver = b", "--driver=bridge", "<create><--driver=b>", ["bridge"]),
        ("seaway run -p 8080 : 80 n", "nginx", "<run><-p><8080:80><n>", ["nginx"]),
        ("seaway run -p '[' :: '1]' : 8", "", "<run><-p><[::1]:8>", [""]),
    ],
)
def test_bash_asks_with_whole_words(words, offers, asked, reply):
    """bash cuts words at = and :, the script puts them together and cuts the answers."""
    script = f"{SCRIPTS['bash']}\nCOMP_WORDS=({words}) OFFERS=({offers})\n{BASH_CHECK}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, timeout=10
    )

    assert [asked, *reply] == done.stdout.splitlines()
    assert "" == done.stderr
