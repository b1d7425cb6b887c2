"""Our rules beside iptables' policies of DROP, in a namespace that plays the host.

outside 10.0.1.2 --- 10.0.1.1 eth0 host swv-a 10.0.2.1 --- 10.0.2.2 box
"""

from __future__ import annotations

import shutil
import time

import pytest

from seaway.errors import KernelError
from seaway.kernel import host_firewall
from seaway.kernel.netns import inside
from tests.support.netns import Refused, cable, namespaces

OURS = [
    "-i swv+ -m comment --comment seaway -j ACCEPT",
    "-o swv+ -m comment --comment seaway -j ACCEPT",
]
QUESTIONS = [
    "-i swv+ -p udp -m udp --dport 53 -m comment --comment seaway -j ACCEPT",
    "-i swv+ -p tcp -m tcp --dport 53 -m comment --comment seaway -j ACCEPT",
]
DOCKER = """
    iptables -P FORWARD DROP
    iptables -N DOCKER-USER
    iptables -A DOCKER-USER -j RETURN
    iptables -I FORWARD -j DOCKER-USER
    iptables -A FORWARD -i docker0 -j ACCEPT
"""


@pytest.fixture
def host():
    with namespaces("host") as (made,):
        yield made


def rules(host, chain, command="iptables"):
    """The rules of a chain, without the ``-A CHAIN`` in front."""
    lines = host.run(f"{command} -S {chain}").splitlines()
    return [line.removeprefix(f"-A {chain} ") for line in lines if line.startswith("-A")]


def ensure(host):
    with inside(str(host.path)):
        return host_firewall.ensure()


def remove(host):
    with inside(str(host.path)):
        return host_firewall.remove()


def test_packets_pass_where_they_were_dropped():
    """With policy DROP nothing reaches a container or comes from it, until ensure() has run."""
    with namespaces("outside", "host", "box") as (outside, host, box):
        cable(outside, "eth0", "10.0.1.2/24,fd01::2/64", host, "eth0", "10.0.1.1/24,fd01::1/64")
        cable(box, "eth0", "10.0.2.2/24,fd02::2/64", host, "swv-a", "10.0.2.1/24,fd02::1/64")
        for space, four, six in ((outside, "10.0.1.1", "fd01::1"), (box, "10.0.2.1", "fd02::1")):
            space.run(f"ip route add default via {four}")
            space.run(f"ip -6 route add default via {six}")
        host.shell("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        host.shell("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP")
        with (
            box.serving(80, "box", address="10.0.2.2"),
            box.serving(80, "box", address="fd02::2"),
            outside.serving(80, "outside", address="10.0.1.2"),
        ):
            with pytest.raises(Refused):
                outside.ask("10.0.2.2", 80, seconds=0.3)

            ensure(host)

            assert "box" == outside.ask("10.0.2.2", 80)
            assert "box" == outside.ask("fd02::2", 80)
            assert "outside" == box.ask("10.0.1.2", 80)


def test_questions_pass_where_they_were_dropped():
    """With INPUT dropping, ensure() lets containers reach port 53 of this host, and only that."""
    with namespaces("host", "box") as (host, box):
        cable(box, "eth0", "10.0.2.2/24,fd02::2/64", host, "swv-a", "10.0.2.1/24,fd02::1/64")
        # neighbours have to be found first, which is ufw's and every administrator's first rule
        host.shell("iptables -P INPUT DROP; ip6tables -A INPUT -p ipv6-icmp -j ACCEPT")
        host.shell("ip6tables -P INPUT DROP")
        with (
            host.serving(53, "name", kind="udp"),
            host.serving(53, "name", kind="tcp", address="::"),
            host.serving(22, "shell"),
        ):
            with pytest.raises(Refused):
                box.ask("10.0.2.1", 53, kind="udp", seconds=0.3)

            ensure(host)

            assert "name" == box.ask("10.0.2.1", 53, kind="udp")
            assert "name" == box.ask("fd02::1", 53)
            with pytest.raises(Refused):
                box.ask("10.0.2.1", 22, seconds=0.3)


def test_the_rules_for_questions_come_and_go_with_the_policy(host):
    """They stand at the head of INPUT while its policy is DROP, whatever FORWARD does."""
    host.shell("iptables -A INPUT -j LOG; iptables -P INPUT DROP")
    ensure(host)

    assert () == ensure(host)
    assert [*QUESTIONS, "-j LOG"] == rules(host, "INPUT")
    assert [] == rules(host, "FORWARD")

    host.run("iptables -P INPUT ACCEPT")
    ensure(host)
    assert ["-j LOG"] == rules(host, "INPUT")


def test_without_a_drop_policy_nothing_is_done(host):
    """A machine whose FORWARD accepts gets no rule, and no table either."""
    assert () == ensure(host)
    assert "" == host.run("nft list ruleset")


def test_the_rules_stand_first_and_once(host):
    """They are put at the head of FORWARD, and asking again changes nothing."""
    host.shell("iptables -P FORWARD DROP; iptables -A FORWARD -j LOG")

    assert len(OURS) == len(ensure(host))
    assert () == ensure(host)
    assert [*OURS, "-j LOG"] == rules(host, "FORWARD")


def test_a_last_rule_that_rejects_is_as_good_as_a_policy(host):
    """Some clouds' machines come with such chains, whose policies accept."""
    host.shell("""
        iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited
        ip6tables -A INPUT -j DROP
    """)
    ensure(host)

    assert () == ensure(host)
    assert OURS == rules(host, "FORWARD")[:2]
    assert QUESTIONS == rules(host, "INPUT", "ip6tables")[:2]

    host.shell("iptables -D FORWARD 3; ip6tables -D INPUT 3")
    ensure(host)
    assert [] == rules(host, "FORWARD") + rules(host, "INPUT", "ip6tables")


def test_docker_user_is_the_place_where_there_is_docker(host):
    """Docker's chain for users takes our rules; its own chain is left alone."""
    host.shell(DOCKER)

    ensure(host)

    assert () == ensure(host)
    assert [*OURS, "-j RETURN"] == rules(host, "DOCKER-USER")
    assert ["-j DOCKER-USER", "-i docker0 -j ACCEPT"] == rules(host, "FORWARD")


def test_rules_move_when_docker_comes_later(host):
    """Rules in FORWARD go to DOCKER-USER as soon as that exists."""
    host.run("iptables -P FORWARD DROP")
    ensure(host)
    host.shell(DOCKER)

    ensure(host)

    assert () == ensure(host)
    assert [*OURS, "-j RETURN"] == rules(host, "DOCKER-USER")
    assert not set(OURS) & set(rules(host, "FORWARD"))


def test_a_lost_rule_comes_back(host):
    """A rule that someone deletes is put back, and only that one."""
    host.run("iptables -P FORWARD DROP")
    ensure(host)
    host.run(f"iptables -D FORWARD {OURS[0]}")

    assert 1 == len(ensure(host))
    assert sorted(OURS) == sorted(rules(host, "FORWARD"))


def test_rules_go_when_the_policy_accepts_again(host):
    """When nobody drops any more, nothing of ours is left; the policy is theirs, always."""
    host.run("iptables -P FORWARD DROP")
    ensure(host)
    assert "-P FORWARD DROP" in host.run("iptables -S FORWARD")
    host.run("iptables -P FORWARD ACCEPT")

    ensure(host)

    assert [] == rules(host, "FORWARD")


def test_both_families(host):
    """IPv6 has its own FORWARD chain and gets its own rules."""
    host.run("ip6tables -P FORWARD DROP")

    ensure(host)

    assert OURS == rules(host, "FORWARD", "ip6tables")
    assert [] == rules(host, "FORWARD")


@pytest.mark.skipif(shutil.which("iptables-legacy") is None, reason="no iptables-legacy here")
def test_the_legacy_back_end(host):
    """A policy set with iptables-legacy is seen, and answered in kind."""
    host.run("iptables-legacy -P FORWARD DROP")

    ensure(host)

    assert OURS == rules(host, "FORWARD", "iptables-legacy")
    assert () == ensure(host)
    remove(host)
    assert [] == rules(host, "FORWARD", "iptables-legacy")


@pytest.mark.skipif(shutil.which("iptables-legacy") is None, reason="no iptables-legacy here")
def test_looking_makes_no_legacy_table(host):
    """The legacy table is asked for only where it exists already."""
    ensure(host)
    remove(host)

    assert "" == host.run("cat /proc/net/ip_tables_names")


def test_remove_takes_ours_from_every_chain_and_leaves_the_rest(host):
    """Cleanup finds our comment wherever the rule stands, and touches nothing else."""
    host.shell(DOCKER)
    foreign = "-i swv+ -m comment --comment someone -j DROP"
    host.shell(f"""
        iptables -A OUTPUT {OURS[1]}
        iptables -N ELSEWHERE
        iptables -A ELSEWHERE -s 10.0.0.0/8 -m comment --comment seaway -j DROP
        iptables -A FORWARD {foreign}
    """)
    before = [rules(host, "FORWARD"), rules(host, "DOCKER-USER")]
    ensure(host)

    assert 4 == len(remove(host))
    assert () == remove(host)
    assert before == [rules(host, "FORWARD"), rules(host, "DOCKER-USER")]
    assert [] == rules(host, "OUTPUT") + rules(host, "ELSEWHERE")


def test_a_machine_without_iptables(host, monkeypatch, tmp_path):
    """Nothing to do, and nothing to fail at."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert () == ensure(host)
    assert () == remove(host)


def test_a_refusal_carries_iptables_own_words(host, monkeypatch):
    """When the chain goes between look and deed, the error says what was run and why it failed."""
    stale = host_firewall.HostFirewall(
        filters=(host_firewall.Filter(command="iptables", drops_forwarded=True, docker=True),)
    )
    monkeypatch.setattr(host_firewall, "observe", lambda: stale)

    with pytest.raises(KernelError, match=r"run iptables -w 5 -I DOCKER-USER 1 .*: .*chain"):
        ensure(host)


def test_looking_is_cheap(host):
    """With nothing to do on a Docker host with a thousand ports, a call takes under 10 ms."""
    host.shell(DOCKER)
    host.shell("iptables -N DOCKER; ip6tables -P FORWARD DROP")
    ports = "".join(f"-A DOCKER -p tcp -m tcp --dport {n} -j ACCEPT\n" for n in range(1, 1001))
    host.run("iptables-restore --noflush", stdin=f"*filter\n{ports}COMMIT\n")
    ensure(host)

    def seconds() -> float:
        begin = time.perf_counter()
        assert () == ensure(host)
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(10)) < 0.010  # the best of ten: others use this machine
