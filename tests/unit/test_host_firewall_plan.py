"""Which commands bring our rules where they belong: text of iptables in, commands out."""

from __future__ import annotations

import pytest

from seaway.kernel.host_firewall import HostFirewall, parse, plan

IN = "-i swv+ -m comment --comment seaway -j ACCEPT"
OUT = "-o swv+ -m comment --comment seaway -j ACCEPT"
REJECT = "-A FORWARD -j REJECT --reject-with icmp-host-prohibited"
UDP = "-i swv+ -p udp -m udp --dport 53 -m comment --comment seaway -j ACCEPT"
TCP = "-i swv+ -p tcp -m tcp --dport 53 -m comment --comment seaway -j ACCEPT"
JUMP = "-A FORWARD -j DOCKER-USER"
DROP, ACCEPT = "-P FORWARD DROP", "-P FORWARD ACCEPT"
T = "iptables-nft"


def planned(forward: list[str], docker_user: list[str] | None = None) -> list[str]:
    observed = parse(T, "\n".join(forward), "\n".join(docker_user or []))
    commands = plan(HostFirewall(filters=(observed,)))
    return [" ".join(c).removeprefix(f"{T} -w 5 ") for c in commands]


@pytest.mark.parametrize(
    ("forward", "docker_user", "commands"),
    [
        ([ACCEPT], [], []),
        ([DROP], [], [f"-I FORWARD 1 {OUT}", f"-I FORWARD 1 {IN}"]),
        ([DROP, f"-A FORWARD {IN}", f"-A FORWARD {OUT}"], [], []),
        ([DROP, f"-A FORWARD {IN}"], [], [f"-I FORWARD 1 {OUT}"]),
        ([DROP, JUMP], [], [f"-I DOCKER-USER 1 {OUT}", f"-I DOCKER-USER 1 {IN}"]),
        ([DROP, JUMP], [f"-A DOCKER-USER {IN}", f"-A DOCKER-USER {OUT}"], []),
        (
            [DROP, JUMP, f"-A FORWARD {IN}", f"-A FORWARD {OUT}"],
            [],
            [
                f"-I DOCKER-USER 1 {OUT}",
                f"-I DOCKER-USER 1 {IN}",
                f"-D FORWARD {IN}",
                f"-D FORWARD {OUT}",
            ],
        ),
        (
            [ACCEPT, JUMP],
            [f"-A DOCKER-USER {IN}", f"-A DOCKER-USER {OUT}"],
            [f"-D DOCKER-USER {IN}", f"-D DOCKER-USER {OUT}"],
        ),
        (
            [DROP, f"-A FORWARD {IN}", f"-A FORWARD {OUT}", f"-A FORWARD {IN}"],
            [],
            [f"-D FORWARD {IN}"],
        ),
        (
            [DROP, f"-A FORWARD {IN}", f"-A FORWARD {OUT}", f"-A FORWARD {IN} -d 10.0.0.0/8"],
            [],
            [f"-D FORWARD {IN} -d 10.0.0.0/8"],
        ),
        ([ACCEPT, "-P INPUT DROP"], [], [f"-I INPUT 1 {TCP}", f"-I INPUT 1 {UDP}"]),
        ([ACCEPT, REJECT], [], [f"-I FORWARD 1 {OUT}", f"-I FORWARD 1 {IN}"]),
        ([ACCEPT, "-A FORWARD -s 10.0.0.0/8 -j DROP", "-A FORWARD -j LOG"], [], []),
        ([ACCEPT, "-A INPUT -j DROP"], [], [f"-I INPUT 1 {TCP}", f"-I INPUT 1 {UDP}"]),
        ([ACCEPT, "-P INPUT DROP", f"-A INPUT {UDP}", f"-A INPUT {TCP}"], [], []),
        ([ACCEPT, "-P INPUT ACCEPT", f"-A INPUT {UDP}"], [], [f"-D INPUT {UDP}"]),
        (
            [DROP, f"-A INPUT {IN}", f"-A FORWARD {OUT}"],
            [],
            [f"-I FORWARD 1 {IN}", f"-D INPUT {IN}"],
        ),
    ],
    ids=[
        "policy accept, nothing there",
        "policy drop",
        "settled in FORWARD",
        "one rule lost",
        "Docker",
        "settled in DOCKER-USER",
        "Docker came later",
        "policy is accept again",
        "a rule twice",
        "an older kind of rule of ours",
        "INPUT drops",
        "a last rule rejects",
        "rules that drop something",
        "a last rule drops",
        "settled in INPUT",
        "INPUT accepts again",
        "a rule in the wrong chain",
    ],
)
def test_plan(forward, docker_user, commands):
    """Rules are added before others go, and only ours are named."""
    assert commands == planned(forward, docker_user)


def test_rules_of_others_are_not_ours():
    """A comment that merely contains our word, or is quoted, belongs to someone else."""
    foreign = [
        "-A FORWARD -m comment --comment seawayish -j DROP",
        '-A FORWARD -m comment --comment "not seaway" -j DROP',
        "-A FORWARD -i seaway -j DROP",
    ]

    assert [] == planned([ACCEPT, *foreign])
