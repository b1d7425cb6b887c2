"""Commands on a machine of a lab."""

import pytest

from seaway.errors import NotFound
from seaway.lab import shell
from seaway.lab.topology import Lab

LAB = Lab(name="nosuch", hosts=2)


def test_seaway_talks_to_the_agent_of_that_host():
    """The socket in the environment is the host's own; the rest stays."""
    env = shell.environment(LAB, "host2", {"PATH": "/bin", "SEAWAY_SOCKET": "/x", "TERM": "vt100"})

    assert "/run/seaway/lab/nosuch/host2/seaway.sock" == env["SEAWAY_SOCKET"]
    assert "vt100" == env["TERM"]
    assert env["PATH"].endswith("/bin")


def test_outside_finds_no_agent():
    """On outside, seaway must not talk to the agent of the machine itself."""
    env = shell.environment(LAB, "outside", {})

    assert "/run/seaway/lab/nosuch/outside/seaway.sock" == env["SEAWAY_SOCKET"]


def test_seaway_on_the_path_is_this_one(tmp_path, monkeypatch):
    """The folder of the script that runs comes first."""
    (tmp_path / "seaway").touch()
    monkeypatch.setattr("sys.argv", [str(tmp_path / "seaway")])

    path = shell.environment(LAB, "host1", {"PATH": "/bin"})["PATH"]

    assert f"{tmp_path}:/bin" == path


@pytest.mark.parametrize(
    ("machine", "cure"),
    [("host1", "seaway lab start --name nosuch host1"), ("outside", "seaway lab up --name nosuch")],
)
def test_a_machine_that_is_off_cannot_be_entered(machine, cure):
    """The message says how to switch it on."""
    with pytest.raises(NotFound, match=cure):
        shell.enter(LAB, machine, ["true"])
