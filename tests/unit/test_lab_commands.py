"""The command line of the lab."""

import json

import pytest

from seaway.cli import lab_commands
from seaway.cli.flags import UsageError
from seaway.cli.lab import LAB, run
from seaway.cli.parse import parse
from seaway.errors import InvalidSpec, NotFound, Unsupported
from seaway.lab.lifecycle import MachineStatus
from seaway.lab.topology import Lab

ABSENT = "--name=nosuch"


def parsed(*words: str):
    node = LAB.child(words[0])
    assert node is not None
    return parse(node, words[1:], f"seaway lab {words[0]}")


@pytest.fixture
def root(monkeypatch):
    """We pass for root, and no lab is made."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("seaway.lab.lifecycle.up", None)


def test_every_command_of_the_table_does_something():
    """The grammar and what it calls name the same commands."""
    assert [child.name for child in LAB.children] == list(lab_commands.COMMANDS)


def test_words_after_the_host_belong_to_the_command():
    """Flags of the command that is run are not ours."""
    line = parsed("exec", "host1", "seaway", "run", "-d", "--name", "web", "nginx")

    assert "lab" == line.flag("name").value
    assert ("seaway", "run", "-d", "--name", "web", "nginx") == line.argument("COMMAND").list


@pytest.mark.parametrize("hosts", ["", "two", "-1", "1.5"])
def test_a_number_of_hosts_is_a_number(root, hosts):
    """What is not a number is a mistake of usage."""
    with pytest.raises(UsageError, match="--hosts is a number"):
        run("up", parsed("up", f"--hosts={hosts}"))


@pytest.mark.parametrize(("words", "clustered"), [((), True), (("--no-cluster",), False)])
def test_several_hosts_become_a_cluster(root, monkeypatch, words, clustered):
    """Unless told otherwise."""
    asked = []
    monkeypatch.setattr(
        "seaway.lab.lifecycle.up", lambda lab, **how: asked.append(how["clustered"]) or lab
    )

    assert 0 == run("up", parsed("up", "--hosts=3", *words))
    assert [clustered] == asked


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        ({}, {"Wire": "up", "Store": "-"}),
        ({"store": True}, {"Store": "up"}),
        ({"store": True, "store_held": True}, {"Store": "held"}),
        ({"on_wire": False}, {"Wire": "cut"}),
        ({"parted_from": ("host2",)}, {"Wire": "cut from host2"}),
        ({"on": False}, {"Wire": "-"}),
    ],
)
def test_what_is_cut_or_held_is_listed(root, monkeypatch, capsys, facts, shown):
    """For each machine."""
    lab = Lab(name="try")
    calm = {"on": True, "agent": None, "pid": 0, "on_wire": True, "parted_from": ()}
    machine = MachineStatus(machine=lab.host("host1"), **(calm | facts))
    monkeypatch.setattr("seaway.lab.lifecycle.labs", lambda: [lab])
    monkeypatch.setattr("seaway.lab.lifecycle.status", lambda _lab: [machine])

    assert 0 == run("ls", parsed("ls", "--format=json"))
    assert shown.items() <= json.loads(capsys.readouterr().out).items()


def test_an_odd_name_is_refused_before_anything_is_made(root):
    """The rule for names is in the message."""
    with pytest.raises(InvalidSpec, match="1 to 16 of a-z"):
        run("up", parsed("up", "--name", "../x"))


@pytest.mark.parametrize(
    "command", ["start", "kill", "pause", "resume", "power-off", "kill-store", "cut"]
)
def test_a_lab_that_is_not_there_has_no_hosts(root, command):
    """Every command on a host says how to make the lab."""
    with pytest.raises(NotFound, match="seaway lab up --name nosuch"):
        run(command, parsed(command, ABSENT, "host1"))


def test_removing_a_lab_that_is_not_there_is_fine(root, capsys):
    """down can be repeated; it says that there was nothing to do."""
    assert 0 == run("down", parsed("down", ABSENT))
    assert "there is no lab 'nosuch'\n" == capsys.readouterr().err


def test_running_a_command_needs_root(monkeypatch):
    """One clear line instead of nsenter's complaint."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(Unsupported, match="needs root"):
        run("exec", parsed("exec", "host1", "true"))
