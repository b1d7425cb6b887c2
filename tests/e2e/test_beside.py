"""Seaway beside real firewalls and other engines: each does its work, and none undoes ours."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from seaway.lab import agents
from tests.support import neighbours
from tests.support.neighbours import Docker, Foreign
from tests.support.netns import Namespace, Refused, cable, namespaces, wait_until
from tests.support.site import CLIENT, CLIENT6, HOST, HOST6, INTERNET, INTERNET6, Site, running_site
from tests.support.talk import answering, reach

SOON = 1.0  # seconds within which what somebody has deleted is there again

_LOOK_UP = """
import sys
import dns.message, dns.query
question = dns.message.make_query("web", "A")
reply = dns.query.udp(question, sys.argv[1], timeout=0.5)
print(reply.answer[0][0].address)
"""


class Host:
    """A host with two containers: ``web``, which publishes port 80, and ``box``, which asks.

    Attributes:
        web, box: The containers' namespaces.
        address: IPv4 address of ``web``.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.web = site.start("web", "-p", "8080:80")
        self.box = site.start("box")
        self.box_address = self.box.on()["ipv4"]
        self.address, self.gateway = self.web.on()["ipv4"], self.web.on()["gateway4"]

    def promises(self) -> dict[str, object]:
        """Ask for everything that Seaway promises, from everywhere."""
        return {
            "from outside": reach(
                self.site.outside, f"tcp://{HOST}:8080", f"tcp://[{HOST6}]:8080", seconds=0.3
            ),
            "from the host": reach(self.site.host, "tcp://127.0.0.1:8080", seconds=0.3)[0][:6],
            "from a container": reach(
                self.box,
                f"tcp://{self.address}:80",
                f"tcp://{INTERNET}:7000",
                f"tcp://[{INTERNET6}]:7000",
                seconds=0.3,
            ),
            "by name": self._look_up(),
        }

    @property
    def kept(self) -> dict[str, object]:
        """The answers when every promise is kept."""
        return {
            "from outside": [f"web 80 {CLIENT}", f"web 80 {CLIENT6}"],
            "from the host": "web 80",
            "from a container": [
                f"web 80 {self.box_address}",
                f"internet 7000 {HOST}",
                f"internet 7000 {HOST6}",
            ],
            "by name": self.address,
        }

    def check(self, seconds: float = 5) -> None:
        """Every promise is kept, at the latest *seconds* from now."""
        kept, deadline = self.kept, time.monotonic() + seconds
        while (found := self.promises()) != kept and time.monotonic() < deadline:
            pass
        assert kept == found

    def _look_up(self) -> str:
        try:
            return self.box.python(_LOOK_UP, self.gateway)
        except Refused:
            return "no answer"

    def rules(self, chain: str, command: str = "iptables") -> list[str]:
        """List our rules in a chain of iptables."""
        listing = self.site.host.run(f"{command} -S {chain}")
        return re.findall(r"^-A \S+ (.* --comment seaway .*)$", listing, re.MULTILINE)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with running_site("t-beside") as site:
        made = Host(site)
        with answering(made.web, "web", tcp=[80]):
            with answering(site.outside, "internet", tcp=[7000]):
                made.check()
                yield made


@contextmanager
def agent_off(host: Host) -> Iterator[None]:
    """Kill the agent, and start it again at the end."""
    agents.stop([host.site.machine])
    try:
        yield
    finally:
        agents.start([host.site.machine])


def answers(space: Namespace, target: str, who: str) -> bool:
    """Is it *who* that answers at port 80 of its own, whatever address it takes us for?"""
    [reply] = reach(space, target, seconds=0.5)
    return reply.startswith(f"{who} 80 ")


# -- Docker ---------------------------------------------------------------------------------------


@pytest.fixture(scope="class", params=["Seaway was first", "Docker was first"])
def docker(request, host) -> Iterator[Docker]:
    """A dockerd that came after Seaway's agent, or before it and before forwarding was on."""
    with neighbours.docker(host.site.host) as it:
        if request.param == "Seaway was first":
            it.start()
        else:
            with agent_off(host):
                host.site.host.run("sysctl -qw net.ipv4.ip_forward=0")
                it.start()
        it.load(host.site.machine, "busybox")
        yield it


@pytest.fixture
def docked(docker) -> Iterator[Foreign]:
    """Docker's container ``docked``, which publishes port 80 as 9080."""
    with docker.container("docked", "-p", "9080:80") as it, answering(it, "docked", tcp=[80, 81]):
        yield it


class TestDocker:
    """Beside dockerd, whoever of the two was started first."""

    def test_both_serve(self, host, docked):
        """Seaway keeps its promises, and Docker its own: a port for the world, and a way out."""
        host.check()

        assert [f"docked 80 {CLIENT}"] == reach(host.site.outside, f"tcp://{HOST}:9080")
        assert [f"internet 7000 {HOST}"] == reach(docked, f"tcp://{INTERNET}:7000")

    def test_the_engines_meet_at_published_ports(self, host, docked):
        """A container of one reaches the published ports of the other, both ways."""
        assert answers(host.box, f"tcp://{HOST}:9080", "docked")
        assert answers(docked, f"tcp://{HOST}:8080", "web")

    def test_the_engines_meet_nowhere_else(self, host, docked):
        """Neither engine's containers are reached by their own addresses, whatever FORWARD says."""
        before = host.site.drops("isolated")

        assert ["silence"] * 2 == reach(
            host.box, f"tcp://{docked.address}:80", f"tcp://{docked.address}:81", seconds=0.3
        )
        assert ["silence"] == reach(docked, f"tcp://{host.address}:80", seconds=0.3)
        assert before + 3 <= host.site.drops("isolated")

    def test_a_network_of_docker_with_any_name_is_shut(self, host, docker):
        """A bridge that was made a moment ago, under a name of its user's choice, is no way in."""
        option = "com.docker.network.bridge.name=backstage"
        docker("network", "create", "-o", option, "other")
        try:
            with docker.container("hidden", "--network", "other") as hidden:
                with answering(hidden, "hidden", tcp=[80]):
                    target = f"tcp://{hidden.address}:80"

                    assert ["silence"] == reach(host.box, target, seconds=0.3)
                    assert answers(host.site.host, target, "hidden")
        finally:
            docker("network", "rm", "other")

    def test_a_port_of_docker_is_taken(self, host, docked):
        """Seaway refuses a host port that Docker holds, and names docker-proxy."""
        done = host.site.attempt("run", "--rm", "-p", "9080:80", "busybox", "true")

        assert 1 == done.status
        assert re.search(r"port 9080/tcp is held by docker-proxy \(pid \d+\)", done.err)

    def test_a_port_of_seaway_is_taken(self, docker):
        """Docker refuses a host port that Seaway holds."""
        with pytest.raises(Refused, match=r"8080.*already in use"):
            docker("run", "--rm", "-p", "8080:80", "busybox", "true")

    def test_docker_may_restart(self, host, docker, docked):
        """A restart of dockerd leaves Seaway's promises and our rules as they were."""
        rules = host.rules("DOCKER-USER")
        docker.stop()
        host.check()
        docker.start()

        host.check()
        assert rules == host.rules("DOCKER-USER")

    def test_a_forward_policy_of_drop(self, host, docker, docked):
        """Whoever sets FORWARD to DROP does not part Seaway's containers from the world."""
        before = host.site.host.run("iptables -S FORWARD").splitlines()[0]
        host.site.host.run("iptables -P FORWARD DROP")

        wait_until(lambda: 2 == len(host.rules("DOCKER-USER")))
        host.check()
        assert ["silence"] == reach(host.box, f"tcp://{docked.address}:80", seconds=0.3)
        assert answers(host.box, f"tcp://{HOST}:9080", "docked")

        host.site.host.run(f"iptables {before}")


# -- Podman ---------------------------------------------------------------------------------------


def test_podman(host):
    """Podman's own bridge network serves beside ours, and the two meet at published ports only."""
    with neighbours.podman_bridge(host.site.host) as podman:
        pod = podman.run("pod", "-p", "9090:80")
        with answering(pod, "pod", tcp=[80]):
            host.check()

            assert [f"pod 80 {CLIENT}"] == reach(host.site.outside, f"tcp://{HOST}:9090")
            assert [f"internet 7000 {HOST}"] == reach(pod, f"tcp://{INTERNET}:7000")
            assert answers(host.box, f"tcp://{HOST}:9090", "pod")
            assert answers(pod, f"tcp://{HOST}:8080", "web")
            assert ["silence"] == reach(host.box, f"tcp://{pod.address}:80", seconds=0.3)
            assert ["silence"] == reach(pod, f"tcp://{host.address}:80", seconds=0.3)
        done = host.site.attempt("run", "--rm", "-p", "9090:80", "busybox", "true")
        assert re.search(r"port 9090/tcp is held by conmon \(pid \d+\)", done.err)
        with pytest.raises(Refused, match="already in use"):
            podman.run("late", "-p", "8080:80")


# -- firewalls ------------------------------------------------------------------------------------


def test_ufw(host):
    """ufw may be enabled, reloaded and disabled, and our rules come and go with its policies."""
    with neighbours.ufw(host.site.host) as ufw:
        ufw("enable")
        wait_until(lambda: 2 == len(host.rules("INPUT", "ip6tables")))
        host.check()
        assert ["silence"] == reach(host.site.outside, f"tcp://{HOST}:22", seconds=0.3)

        ufw("reload")
        host.check()

        found = firewall_findings(host, ufw)
        assert {"ok"} == set(found.values())
        assert any("ufw is active" in what for what in found)
        ufw("disable")
        wait_until(lambda: [] == host.rules("INPUT") + host.rules("FORWARD"))
        host.check()


def firewall_findings(host: Host, ufw: neighbours.Ufw) -> dict[str, str]:
    """What the doctor says about firewalls, and how bad it is, where ufw's files are seen."""
    doctor = [sys.executable, "-m", "seaway", "doctor", "--all", "--format", "json"]
    found = json.loads(ufw.run("sh", "-c", '"$@" || true', "", *doctor))["findings"]
    return {f["what"]: f["level"] for f in found if f["subject"] == "firewall"}


def test_input_policy_set_by_hand(host):
    """With INPUT dropping all but ICMP and what belongs to a connection, names are still found."""
    try:
        for command, icmp in (("iptables", "icmp"), ("ip6tables", "ipv6-icmp")):
            host.site.host.shell(f"""
                {command} -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
                {command} -A INPUT -p {icmp} -j ACCEPT
                {command} -P INPUT DROP
            """)

        host.check()
    finally:
        neighbours.forget_iptables(host.site.host)


def test_firewalld(host, monkeypatch):
    """firewalld may start, reload and stop: our links are in its trusted zone while it runs."""
    with neighbours.firewalld(host.site.host) as firewalld:
        with monkeypatch.context() as patch, agent_off(host):
            for name, value in firewalld.environment.items():
                patch.setenv(name, value)
        with firewalld.running():
            host.check()
            assert "trusted" == firewalld("--get-zone-of-interface=swv+")

            firewalld("--reload")
            host.check()

            with pytest.raises(Refused, match="no"):
                firewalld("--permanent", "--zone=trusted", "--query-interface=swv+")
        host.check()
    with agent_off(host):  # as the one that comes now has the machine's D-Bus again
        pass


# -- the doctor -----------------------------------------------------------------------------------


def test_the_doctor_of_a_host(host):
    """It looks at the folders of the host's own agent, and tells whether that answers."""
    shown = host.site.attempt("doctor", "--all").out
    assert "the agent answers, version" in shown
    for folder in (host.site.machine.state_dir, host.site.machine.run_dir):
        assert f"{folder} can be written" in shown

    with agent_off(host):
        shown = host.site.attempt("doctor").out
        assert f"cure: {host.site.machine.start_command}\n" in shown


# -- accidents ------------------------------------------------------------------------------------


@pytest.mark.parametrize("accident", ["delete table inet seaway", "flush ruleset"])
def test_rules_that_somebody_deletes(host, accident):
    """Our table is back within a second, complete, and the agent counts what it put right."""
    [before] = host.site.json("status")
    host.site.host.run(f"nft {accident}")

    host.check(SOON)
    [after] = host.site.json("status")
    assert before["repairs"] < after["repairs"]
    assert after["healthy"]


def test_a_bridge_that_leads_out(host):
    """Containers get to what is behind a bridge once it has a port or route to other machines."""
    machine, name = host.site.host, "bridge"  # a word of nft's, which is no reason to stumble
    route = f"default via 198.51.100.2 dev {name} metric 77"

    def leads_out(yes: bool) -> None:
        wait_until(lambda: [name] * yes == host.site.elements("exit_bridges"))
        answer = "lan 80 198.51.100.1" if yes else "silence"
        assert [answer] == reach(host.box, "tcp://198.51.100.2:80", seconds=0.3)

    with namespaces("lan") as (lan,):
        cable(machine, "port", "", lan, "eth0", "198.51.100.2/24")
        machine.shell(f"""
            ip link add {name} type bridge
            ip link set port master {name}
            ip address add 198.51.100.1/24 dev {name}
            ip link set {name} up
            ip link add tunnel type vxlan id 7 dstport 4789 local 192.0.2.1 remote 192.0.2.9
        """)
        try:
            with answering(lan, "lan", tcp=[80]):
                leads_out(False)
                machine.run(f"ip route add {route}")
                leads_out(True)
                machine.run(f"ip route delete {route}")
                leads_out(False)
                machine.run(f"ip link set tunnel master {name}")
                leads_out(True)
                machine.run("ip link delete tunnel")
                leads_out(False)
        finally:
            machine.run(f"ip link delete {name}")
