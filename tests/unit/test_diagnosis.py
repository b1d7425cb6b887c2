"""What the doctor prints, and where it looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from seaway.agent.findings import Finding, Level, Subject
from seaway.cli.diagnosis import home_of, render

WELL = Finding(level=Level.OK, subject=Subject.IPV6, what="IPv6 is on")
OFF = Finding(
    level=Level.WARN,
    subject=Subject.FORWARDING,
    what="IPv6 forwarding is off; the agent turns it on when it starts",
    cure="sysctl -w net.ipv6.conf.all.forwarding=1",
)
SHUT = Finding(
    level=Level.FAIL, subject=Subject.MTU, what="it is shut", cure="open one && open two"
)


def test_a_complaint_is_a_sentence_with_its_cure_below():
    """Sentences are wrapped under themselves, cures stay whole, columns are as wide as needed."""
    expected = """\
WARN  forwarding  IPv6 forwarding is off; the
                  agent turns it on when it
                  starts
                  cure: sysctl -w net.ipv6.conf.all.forwarding=1

1 warning; 1 thing found well (--all shows them).
"""

    assert expected == render([WELL, OFF], columns=48, everything=False)


def test_everything_is_shown_when_asked_for():
    """What is well has its line, and a long cure goes on after each &&."""
    expected = """\
OK    ipv6        IPv6 is on
WARN  forwarding  IPv6 forwarding is off; the agent turns it on when it starts
                  cure: sysctl -w net.ipv6.conf.all.forwarding=1
FAIL  mtu         it is shut
                  cure: open one &&
                        open two

1 failure, 1 warning; 1 thing found well.
"""

    assert expected == render([WELL, OFF, SHUT], columns=100, everything=True)


def test_a_healthy_machine_is_one_line():
    """Nobody has to read what is well."""
    assert "All is well: 2 things looked at (--all shows them).\n" == render(
        [WELL, WELL], columns=80, everything=False
    )


def test_a_narrow_terminal_still_shows_words():
    """Sentences keep 20 columns, whatever the terminal claims."""
    [first, *_] = render([OFF], columns=1, everything=True).splitlines()

    assert "WARN  forwarding  IPv6 forwarding is" == first


@pytest.mark.parametrize(
    ("socket", "systemd", "folders", "start"),
    [
        (
            *("/run/seaway/seaway.sock", True),
            *(("/var/lib/seaway", "/run/seaway"), "systemctl start seaway"),
        ),
        (
            *("/run/seaway/seaway.sock", False),
            *(("/var/lib/seaway", "/run/seaway"), "seaway agent"),
        ),
        (
            *("/run/seaway/lab/blue/host2/seaway.sock", True),
            ("/var/lib/seaway/lab/blue/host2", "/run/seaway/lab/blue/host2"),
            "seaway lab start --name blue host2",
        ),
        (
            *("/tmp/x/seaway.sock", True),
            *(("/var/lib/seaway", "/tmp/x"), "seaway agent --run-dir /tmp/x"),
        ),
    ],
    ids=["this machine", "without systemd", "a lab's host", "elsewhere"],
)
def test_whose_folders(socket, systemd, folders, start):
    """The socket tells whose agent is asked, which folders are its own, and how it is started."""
    home = home_of(socket, systemd=systemd)

    assert tuple(map(Path, folders)) == home.folders
    assert start == home.start
