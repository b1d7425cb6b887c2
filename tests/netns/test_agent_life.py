"""An agent dies, comes back, is refused its state, meets another one: what users notice.

outside 192.0.2.200 --- 192.0.2.1 eth0 host (agent)          web, db (attached)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from seaway.errors import AgentUnreachable, SeawayError
from seaway.kernel import netns
from tests.support.agent import agent_on, seaway
from tests.support.conversation import conversation
from tests.support.netns import ENVIRONMENT, cable, namespaces, wait_until

ECHO = """
import socket, sys, threading
def echo(c):
    while data := c.recv(65536):
        c.sendall(data)
s = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    threading.Thread(target=echo, args=(s.accept()[0],), daemon=True).start()
"""

STALLS = """
import select, socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
worst = rounds = 0
print("started", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    began = time.perf_counter()
    s.sendall(b"x")
    assert s.recv(1) == b"x"
    worst = max(worst, time.perf_counter() - began)
    rounds += 1
    time.sleep(0.001)
print(worst, rounds)
"""

ASK_NAME = """
import socket, sys
name, server = sys.argv[1:]
q = b"\\x12\\x34\\x01\\x00\\x00\\x01" + bytes(6)
q += b"".join(bytes([len(p)]) + p.encode() for p in name.split(".")) + b"\\0\\0\\1\\0\\1"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
s.sendto(q, (server, 53))
print(".".join(map(str, s.recv(512)[-4:])))
"""


@pytest.fixture
def site():
    """The machines, with an agent and one network of two members."""
    with namespaces("outside", "host", "web", "db") as (outside, host, web, db):
        cable(
            *(outside, "eth0", "192.0.2.200/24,2001:db8::200/64"),
            *(host, "eth0", "192.0.2.1/24,2001:db8::1/64"),
        )
        with agent_on(host) as agent:
            agent.outside, agent.web, agent.db = outside, web, db
            agent.network("front", 1)
            yield agent


@contextmanager
def program(space, code, *args):
    """A server in *space*, ready."""
    with space.started(sys.executable, "-c", code, *args) as process:
        assert "ready" == process.stdout.readline().strip()
        yield


def test_established_flows_do_not_notice(site):
    """A connection through a published port goes on without a stall over SIGKILL and restart.

    On a busy machine any process may stall once; what an agent does to flows it does each time.
    """
    site.attach("web", site.web, "front", publish=["8080:80"])
    stalls = []
    with program(site.web, ECHO, "80"):
        while len(stalls) < 3 and min(stalls, default=1) >= 0.05:
            with conversation(site.outside, STALLS, "192.0.2.1", "8080") as end:
                wait_until(lambda: "ESTAB" in site.outside.run("ss -Htn"))
                site.kill()
                site.start()
                assert "started" == end("stop")
                worst, rounds = end().split()
            assert int(rounds) > 50
            stalls.append(float(worst))

    assert min(stalls) < 0.05


def test_new_connections_work_while_the_agent_is_dead(site):
    """From outside, from the host itself, and between members."""
    site.attach("web", site.web, "front", publish=["8080:80"])
    site.attach("db", site.db, "front")
    site.kill()

    with site.web.serving(80):
        assert "192.0.2.200" == site.outside.ask("192.0.2.1", 8080)
        assert site.host.ask("127.0.0.1", 8080)
        assert "10.77.1.3" == site.db.ask("10.77.1.2", 80)


def test_a_restart_adopts(site):
    """Nothing is repaired, names are answered and ports are held again, nothing is to do."""
    site.attach("web", site.web, "front", publish=["8080:80", "80/udp"])
    site.attach("db", site.db, "front")
    before = site.get("sandboxes"), site.get("networks")

    site.kill()
    site.start()

    assert before == (site.get("sandboxes"), site.get("networks"))
    assert site.status()["healthy"]
    # The rules cannot be compared with a text we have not seen the kernel list: they are put
    # there again, elements and all else stay.
    assert site.status()["repairs"] <= 1
    assert [] == site.plan()
    assert "10.77.1.2" == site.db.python(ASK_NAME, "web", "10.77.1.1")
    assert ":8080" in site.host.run("ss -Htln")


def test_an_orderly_end_leaves_the_data_plane(site):
    """SIGTERM ends the agent within a second, with success, and leaves what it made."""
    site.attach("web", site.web, "front", publish=["8080:80"])
    process = site._process
    began = time.monotonic()
    site.kill(signal.SIGTERM)

    assert time.monotonic() - began < 1.5
    assert 0 == process.returncode
    assert not (site.run_dir / "seaway.sock").exists()
    with site.web.serving(80):
        assert "192.0.2.200" == site.outside.ask("192.0.2.1", 8080)


def test_a_port_lost_while_the_agent_was_dead_is_told(site):
    """Somebody else holds it now: status says so, packets go to them, and the rest works."""
    site.attach("web", site.web, "front", publish=["8080:80"])
    site.kill()
    with site.host.serving(8080, "somebody else"):
        site.start()

        (problem,) = site.status()["problems"]
        assert "web" == problem["object"]
        assert "8080/tcp" in problem["error"]
        assert "somebody else" == site.outside.ask("192.0.2.1", 8080)
    assert [] == site.plan()


def test_a_process_that_ended_meanwhile_is_forgotten(site):
    """A process attached by number, dead while nobody watched, leaves nothing behind."""
    with site.web.started("sleep", "1000") as sleeper:
        wait_until(lambda: netns.same(netns.of_pid(sleeper.pid), str(site.web.path)))
        body = {"name": "svc", "pid": sleeper.pid, "networks": [{"network": "front"}]}
        site.post("sandboxes", body | {"publish": ["8080:80"]})
        site.kill()
    site.start()

    wait_until(lambda: not site.get("sandboxes"))
    assert [] == site.plan()
    assert "8080" not in site.host.run("nft list map inet seaway publish_any4")
    assert ":8080" not in site.host.run("ss -Htln")


def test_a_process_that_ends_is_detached(site):
    """When the attached process ends, its endpoint, port and name go at once."""
    with site.web.started("sleep", "1000") as sleeper:
        wait_until(lambda: netns.same(netns.of_pid(sleeper.pid), str(site.web.path)))
        body = {"name": "svc", "pid": sleeper.pid, "networks": [{"network": "front"}]}
        site.post("sandboxes", body | {"publish": ["8080:80"]})
    wait_until(lambda: not site.get("sandboxes"))

    assert [] == site.plan()
    assert ":8080" not in site.host.run("ss -Htln")


def test_a_second_agent_is_refused(site):
    """One line, exit status 1, and the first one goes on."""
    argv = site.argv()[3:]
    done = seaway(site.host, *argv[argv.index("agent") :])

    assert 1 == done.returncode
    assert 1 == len(done.stderr.splitlines())
    assert "already" in done.stderr
    assert site.status()["healthy"]


@pytest.mark.parametrize("options", ["ro", "rw,size=8k"])
def test_an_agent_that_cannot_write_its_state_refuses(options):
    """A read-only or full state dir: one line, exit status 1, and the kernel is as it was."""
    with namespaces("host") as (host,), agent_on(host, start=False) as agent:
        agent.state_dir.mkdir()
        script = f'mount -t tmpfs -o {options} none {agent.state_dir} && exec "$@"'
        words = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "seaway"]
        words += ["agent", "--state-dir", str(agent.state_dir), "--run-dir", str(agent.run_dir)]
        before = host.run("ip address"), host.run("nft list ruleset")

        done = subprocess.run(
            host.argv(*words), capture_output=True, text=True, env=ENVIRONMENT, timeout=20
        )

        assert 1 == done.returncode, done.stderr
        assert 1 == len(done.stderr.splitlines()), done.stderr
        assert str(agent.state_dir) in done.stderr
        assert before == (host.run("ip address"), host.run("nft list ruleset"))


def test_an_agent_whose_disk_fills_up_refuses_changes(site):
    """Each change is refused with one line and leaves nothing; with room again, all works."""
    site.attach("db", site.db, "front")
    before = (
        site.host.run("nft list ruleset"),
        site.host.run("ip -o address"),
        site.get("sandboxes"),
    )
    # A limit on the size of files has the effect of a full disk, for this process alone.
    limit = ["prlimit", f"--pid={site.pid}"]
    subprocess.run([*limit, "--fsize=1000:unlimited"], check=True)

    for change in (
        lambda: site.attach("web", site.web, "front", publish=["8080:80"]),
        lambda: site.network("back", 2),
        lambda: site.delete("sandboxes/db"),
        lambda: site.post("networks/front/disconnect", {"sandbox": "db"}),
        lambda: site.post("networks/bridge/connect", {"sandbox": "db", "endpoint": _on("bridge")}),
    ):
        with pytest.raises(SeawayError, match="cannot write") as caught:
            change()
        assert "\n" not in str(caught.value)
    wait_until(lambda: not site.plan())
    after = site.host.run("nft list ruleset"), site.host.run("ip -o address"), site.get("sandboxes")
    assert before == after
    assert ":8080" not in site.host.run("ss -Htln")

    subprocess.run([*limit, "--fsize=unlimited:unlimited"], check=True)
    site.attach("web", site.web, "front", publish=["8080:80"])
    site.delete("sandboxes/db")
    assert [] == site.plan()


def _on(network):
    return {"network": network}


def test_cleanup_needs_no_state(site):
    """With state and run dir lost, everything of ours goes from the kernel, and nothing else."""
    for command in ("ip link add mine type bridge", "nft add table inet other"):
        site.host.run(command)
    site.attach("web", site.web, "front", publish=["8080:80"])
    made = site.post(
        "sandboxes", {"name": "made", "networks": [_on("front")], "creator": os.getpid()}
    )

    refused = seaway(site.host, "cleanup", "--run-dir", str(site.run_dir))
    site.kill()
    for path in site.state_dir.iterdir():
        path.unlink()
    done = seaway(site.host, "cleanup", "--run-dir", str(site.run_dir))

    assert 1 == refused.returncode
    assert "stop it first" in refused.stderr
    assert 0 == done.returncode, done.stderr
    links = site.host.run("ip -o link")
    assert "swv-" not in links
    assert "swg0" not in links
    assert "mine" in links
    assert "table inet other" == site.host.run("nft list tables").strip()
    assert "" == site.host.run("ip route show proto 86") + site.host.run(
        "ip -6 route show proto 86"
    )
    assert not Path(made["netns"]).exists()
    assert "eth0" not in site.web.run("ip -o link")

    again = seaway(site.host, "cleanup", "--run-dir", str(site.run_dir))
    assert 0 == again.returncode
    assert "Nothing" in again.stdout


def test_the_socket_is_for_root_alone(site):
    """Without a group called seaway nobody else may talk to the agent."""
    assert 0o600 == (site.run_dir / "seaway.sock").stat().st_mode & 0o777


def test_a_frozen_agent_is_not_replaced(site):
    """SIGSTOP: a second agent still finds the first one's socket, and leaves it."""
    os.kill(site.pid, signal.SIGSTOP)
    try:
        done = seaway(site.host, *site.argv()[site.argv().index("agent") :])
    finally:
        os.kill(site.pid, signal.SIGCONT)

    assert 1 == done.returncode
    assert site.status()["healthy"]


def test_bad_requests_leave_nothing(site):
    """Whatever is wrong with a request, kernel, ports and state are as before it."""
    site.attach("db", site.db, "front", publish=["9090:90"])
    before = (
        site.host.run("nft list ruleset"),
        site.host.run("ip -o address"),
        site.get("sandboxes"),
    )
    web = {"name": "web", "netns": str(site.web.path), "networks": [_on("front")]}

    for wrong in (
        {"publish": ["8080:80", "9090:90"]},
        {"publish": ["8080:80", "nonsense"]},
        {"publish": ["198.51.100.1:8080:80"]},
        {"publish": ["8080:80"], "sysctls": {"net.ipv4.no_such_thing": "1"}},
        {"publish": ["8080:80"], "sysctls": {"kernel.hostname": "1"}},
        {"publish": ["8080:80"], "networks": [_on("front") | {"ip": "10.77.1.2"}]},
        {"publish": ["8080:80"], "networks": [_on("front") | {"ip": "10.78.1.2"}]},
        {"publish": ["8080:80"], "networks": [_on("front") | {"mac": "01:00:00:00:00:01"}]},
        {"publish": ["8080:80"], "networks": [_on("front") | {"ifname": "lo"}]},
        {"publish": ["8080:80"], "networks": [_on("front"), _on("front")]},
        {"publish": ["8080:80"], "networks": [_on("front"), _on("nowhere")]},
        {"publish": ["8080:80"], "networks": [_on("host")]},
        {"name": "db"},
        {"name": "-x"},
        {"netns": str(site.db.path)},
        {"netns": str(site.host.path)},
        {"netns": "/run/netns/nowhere"},
        {"netns": "", "pid": 99999999},
        {"dns": ["nonsense"]},
        {"surprise": 1},
    ):
        with pytest.raises(SeawayError) as caught:
            site.post("sandboxes", web | wrong)
        assert not isinstance(caught.value, AgentUnreachable)
        assert "\n" not in str(caught.value)
        assert type(caught.value).__name__ != "AgentFailed", json.dumps(wrong)
    wait_until(lambda: not site.plan())
    after = site.host.run("nft list ruleset"), site.host.run("ip -o address"), site.get("sandboxes")
    assert before == after
    assert ":8080" not in site.host.run("ss -Htln")
