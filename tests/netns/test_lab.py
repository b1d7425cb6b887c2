"""Labs on the real kernel, with a stand-in for the agent.

What the real agent does in a lab is tested end to end; here an agent is
whatever says READY=1 on its NOTIFY_SOCKET.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from seaway.engine import podman
from seaway.errors import AgentUnreachable, NotFound
from seaway.kernel import netns
from seaway.lab import agents, faults, leftovers, lifecycle, processes, shell, wire
from seaway.lab.lifecycle import AgentState
from seaway.lab.topology import NETNS_ROOT, Lab
from tests.support.netns import Namespace, Refused, wait_until

_READY = """
import os, socket, sys, time
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"STATUS=loading", os.environ["NOTIFY_SOCKET"])
notify.sendto(b"STATUS=loaded\\nREADY=1", os.environ["NOTIFY_SOCKET"])
while True:
    time.sleep(100)
"""


def ready(host):
    """An agent that gets ready and then does nothing."""
    return [sys.executable, "-c", _READY]


def broken(host):
    """An agent that ends at once."""
    return ["sh", "-c", "echo one; echo two >&2; exit 3"]


def slow(host):
    """An agent that never gets ready."""
    return ["sleep", "1000"]


def at(lab: Lab, machine: str) -> Namespace:
    """The machine's namespace, with the tests' tools."""
    return Namespace(lab.machine(machine).netns.name)


def namespaces_of(lab: Lab) -> list[str]:
    """The names of the lab's namespaces that exist."""
    return sorted(p.name for p in NETNS_ROOT.iterdir() if p.name.startswith(f"swlab-{lab.name}-"))


def states(lab: Lab) -> dict[str, AgentState | None]:
    """What the agents do, by machine."""
    return {status.machine.name: status.agent for status in lifecycle.status(lab)}


def agent_pid(lab: Lab, host: str) -> int:
    """The agent's process, 0 if there is none."""
    stat = agents.running(lab.host(host))
    return stat.process.pid if stat else 0


@pytest.fixture
def roots():
    """Folders for labs of our own, short enough for a socket's path."""
    if os.geteuid() != 0:
        pytest.fail("labs are made of network namespaces: run these tests as root")
    with tempfile.TemporaryDirectory(prefix="swl") as folder:
        yield {"state_root": Path(folder, "state"), "run_root": Path(folder, "run")}
        assert not leftovers.mounts_under([Path(folder)])
        assert not list(Path(folder).glob("*/*"))  # down() leaves nothing behind


@pytest.fixture
def blank(roots):
    """A lab of one host that is not up yet, and is gone at the end."""
    lab = Lab(name=f"t{os.getpid()}", **roots)
    yield lab
    lifecycle.down(lab)
    assert not namespaces_of(lab)


@pytest.fixture
def pair(roots):
    """A running lab of two hosts."""
    with lifecycle.running_lab(f"t{os.getpid()}", 2, ready, **roots) as lab:
        yield lab
    assert not namespaces_of(lab)


@contextmanager
def serving(lab: Lab, machine: str):
    """Answer with the client's address on port 80, over IPv4 and IPv6."""
    space = at(lab, machine)
    with space.serving(80), space.serving(81, address="::"):
        yield


@pytest.mark.parametrize(
    ("client", "server", "port", "address", "seen"),
    [
        ("host1", "host2", 80, "192.0.2.2", "192.0.2.1"),
        ("host1", "host2", 81, "2001:db8:5ea::2", "2001:db8:5ea::1"),
        ("outside", "host1", 80, "192.0.2.1", "192.0.2.200"),
        ("outside", "host1", 81, "2001:db8:5ea::1", "2001:db8:5ea::200"),
        ("host2", "outside", 80, "203.0.113.1", "192.0.2.2"),
        ("host2", "outside", 81, "2001:db8:ffff::1", "2001:db8:5ea::2"),
    ],
)
def test_machines_reach_each_other_and_the_internet(pair, client, server, port, address, seen):
    """Over both protocols, at once, with the client's own address."""
    with serving(pair, server):
        assert seen == at(pair, client).ask(address, port)


def test_a_host_starts_as_a_fresh_machine(pair):
    """It does not forward, whatever the machine does, and bridged frames are not filtered."""
    host, cable = at(pair, "host1"), Namespace(pair.wire_netns.name)

    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/rp_filter"):
        assert "0" == host.run(f"cat /proc/sys/net/{key}").strip(), key
    filters = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if filters.exists():
        assert "0" == cable.run(f"cat {filters}").strip()


def test_agents_run_detached_inside_their_hosts(pair):
    """Each agent is in its host's namespace, in a session of its own, and is found again."""
    for name in pair.host_names:
        pid = agent_pid(pair, name)

        assert netns.same(netns.of_pid(pid), str(pair.host(name).netns))
        assert pid == os.getsid(pid)
    assert {
        "host1": AgentState.RUNNING,
        "host2": AgentState.RUNNING,
        "outside": None,
    } == states(pair)


def test_up_again_changes_nothing(pair):
    """What is there stays: agents, forwarding that was switched on, and cuts."""
    before = agent_pid(pair, "host1")
    at(pair, "host1").shell("echo 1 > /proc/sys/net/ipv4/ip_forward")
    faults.cut(pair, "host2")

    again = lifecycle.up(
        Lab(name=pair.name, state_root=pair.state_root, run_root=pair.run_root), ready
    )

    assert pair == again  # both hosts, though one was asked for
    assert before == agent_pid(pair, "host1")
    assert "1" == at(pair, "host1").run("cat /proc/sys/net/ipv4/ip_forward").strip()
    assert {"host2"} == wire.cuts(pair).off


def test_up_adds_what_is_missing(blank):
    """More hosts, a lost namespace and a dead agent all come back."""
    lifecycle.up(blank, ready)
    lab = Lab(name=blank.name, hosts=3, state_root=blank.state_root, run_root=blank.run_root)
    faults.kill(blank, "host1")
    netns.remove(str(lab.machine("outside").netns))

    lifecycle.up(lab, ready)

    assert AgentState.RUNNING == states(lab)["host1"] == states(lab)["host3"]
    with serving(lab, "host3"):
        assert "192.0.2.200" == at(lab, "outside").ask("192.0.2.3", 80)


def test_an_agent_that_ends_at_once_undoes_everything(blank):
    """The error has the agent's last words, and nothing is left."""
    with pytest.raises(AgentUnreachable, match="agent of host1 ended before it was ready: two"):
        lifecycle.up(blank, broken)

    assert not namespaces_of(blank)
    assert lifecycle.known_hosts(blank) is None


def test_an_agent_that_never_gets_ready_undoes_everything(blank, monkeypatch):
    """The deadline passes, the process is ended, and nothing is left."""
    monkeypatch.setattr(agents, "READY_SECONDS", 0.2)

    with pytest.raises(AgentUnreachable, match="was not ready"):
        lifecycle.up(blank, slow)

    assert not namespaces_of(blank)
    assert lifecycle.known_hosts(blank) is None


def test_a_host_that_fails_leaves_the_others_alone(blank):
    """Adding a host to a running lab undoes that host only."""
    lifecycle.up(blank, ready)
    before = agent_pid(blank, "host1")
    lab = Lab(name=blank.name, hosts=2, state_root=blank.state_root, run_root=blank.run_root)

    with pytest.raises(AgentUnreachable):
        lifecycle.up(lab, broken)

    assert 1 == lifecycle.known_hosts(blank)
    assert before == agent_pid(blank, "host1")


def test_labs_stand_side_by_side(pair, roots):
    """Another lab has the same addresses, sees nobody else, and goes alone."""
    with lifecycle.running_lab(f"u{os.getpid()}", 1, ready, **roots) as other:
        found = [lab.name for lab in lifecycle.labs(pair.state_root, pair.run_root)]
        assert {pair.name, other.name} <= set(found)
        with serving(pair, "host2"), pytest.raises(Refused):
            at(other, "host1").ask("192.0.2.2", 80, seconds=0.2)
    assert AgentState.RUNNING == states(pair)["host1"]


def test_killing_an_agent_kills_nothing_else(pair):
    """Other processes of the host go on; start brings the agent back."""
    with serving(pair, "host1"):
        assert faults.kill(pair, "host1")
        assert not faults.kill(pair, "host1")
        assert AgentState.STOPPED == states(pair)["host1"]
        assert "192.0.2.2" == at(pair, "host2").ask("192.0.2.1", 80)

    assert faults.start(pair, "host1", ready)
    assert not faults.start(pair, "host1", ready)
    assert AgentState.RUNNING == states(pair)["host1"]


def test_a_failed_start_leaves_the_host_as_it_was(pair):
    """The agent's own words are in the error, those of earlier runs are not."""
    log = agents.log_path(pair.host("host1"))
    faults.kill(pair, "host1")
    log.write_text("an earlier run\n")

    with pytest.raises(AgentUnreachable, match="ended before it was ready: it said nothing"):
        faults.start(pair, "host1", lambda host: ["false"])

    assert AgentState.STOPPED == states(pair)["host1"]
    assert "an earlier run\n" == log.read_text()


def test_an_agent_can_be_frozen(pair):
    """A paused agent is there and does not run; resume lets it go on."""
    faults.pause(pair, "host1")
    wait_until(lambda: states(pair)["host1"] == AgentState.PAUSED)

    faults.resume(pair, "host1")
    wait_until(lambda: states(pair)["host1"] == AgentState.RUNNING)


def test_only_a_running_agent_can_be_frozen(pair):
    """The error says how to start it."""
    faults.kill(pair, "host1")

    with pytest.raises(AgentUnreachable, match=f"seaway lab start --name {pair.name} host1"):
        faults.pause(pair, "host1")


def test_a_host_off_the_wire_reaches_nobody(pair):
    """cut takes one host off for everybody, heal brings it back."""
    with serving(pair, "host1"):
        faults.cut(pair, "host1")
        for client in ("host2", "outside"):
            with pytest.raises(Refused):
                at(pair, client).ask("192.0.2.1", 80, seconds=0.2)

        faults.heal(pair, "host1")
        assert "192.0.2.2" == at(pair, "host2").ask("192.0.2.1", 80)


def test_two_hosts_can_be_parted(pair):
    """They do not hear each other over any protocol; everybody else does."""
    with serving(pair, "host1"):
        faults.cut(pair, "host1", "host2")
        for port, address in ((80, "192.0.2.1"), (81, "2001:db8:5ea::1")):
            with pytest.raises(Refused):
                at(pair, "host2").ask(address, port, seconds=0.2)
            assert at(pair, "outside").ask(address, port)
        parted = {s.machine.name: s.parted_from for s in lifecycle.status(pair)}
        assert {"host1": ("host2",), "host2": ("host1",), "outside": ()} == parted

        faults.heal(pair, "host2", "host1")
        assert "192.0.2.2" == at(pair, "host2").ask("192.0.2.1", 80)


def test_healing_one_host_or_all(pair):
    """heal with a host mends what concerns it, heal alone everything; both can be repeated."""
    faults.cut(pair, "host1", "host2")
    faults.cut(pair, "host1", "outside")
    faults.cut(pair, "host2")

    faults.heal(pair, "host2")
    assert {("host1", "outside"), ("outside", "host1")} == wire.cuts(pair).pairs
    assert not wire.cuts(pair).off

    faults.cut(pair, "host2")
    faults.heal(pair)
    faults.heal(pair)
    assert wire.Cuts() == wire.cuts(pair)


@contextmanager
def storing(lab: Lab, host: str, folder: Path):
    """A stand-in for etcd: its name, and that it listens for clients and members."""
    program = folder / "etcd"
    program.write_text(f"#!{sys.executable}\n{_ETCD}")
    program.chmod(0o755)
    with at(lab, host).started(str(program)) as process:
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        yield process


_ETCD = """
import selectors, socket
ears = selectors.DefaultSelector()
for port in (7901, 7902, 9000):
    ears.register(socket.create_server(("", port)), selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in ears.select():
        with key.fileobj.accept()[0] as client:
            client.sendall(b"hello")
"""


def held(lab: Lab) -> dict[str, tuple[bool, bool]]:
    """Whether a store runs and whether it is held, by host."""
    return {s.machine.name: (s.store, s.store_held) for s in lifecycle.status(lab) if s.agent}


def test_a_killed_store_stays_away_until_healed(pair, tmp_path):
    """Also one that was started again; its clients are refused at once, and nobody else is."""
    with storing(pair, "host1", tmp_path) as first:
        assert {"host1": (True, False), "host2": (False, False)} == held(pair)
        assert faults.kill_store(pair, "host1")
        assert -9 == first.wait(5)
        assert {"host1": (False, True), "host2": (False, False)} == held(pair)
    assert not faults.kill_store(pair, "host1")

    with storing(pair, "host1", tmp_path), storing(pair, "host2", tmp_path):
        assert (True, True) == held(pair)["host1"]
        for client, address in (("host1", "127.0.0.1"), ("host2", "192.0.2.1")):
            for port in (7901, 7902):
                with pytest.raises(Refused, match="ConnectionRefusedError"):
                    at(pair, client).ask(address, port)
            assert "hello" == at(pair, client).ask(address, 9000)
        assert "hello" == at(pair, "host1").ask("192.0.2.2", 7901)
        with pytest.raises(Refused, match="ConnectionRefusedError"):
            at(pair, "host1").ask("192.0.2.2", 7902)

        faults.heal(pair, "host1", "host2")
        assert (True, True) == held(pair)["host1"]
        faults.heal(pair, "host1")
        assert (True, False) == held(pair)["host1"]
        assert "hello" == at(pair, "host2").ask("192.0.2.1", 7902)


def test_a_store_killed_once_may_come_back(pair, tmp_path):
    """Nothing keeps it away."""
    with storing(pair, "host1", tmp_path):
        assert faults.kill_store(pair, "host1", once=True)
    with storing(pair, "host1", tmp_path):
        assert "hello" == at(pair, "host2").ask("192.0.2.1", 7901)
    assert not faults.kill_store(pair, "host1", once=True)


def test_a_host_can_change_its_address(pair):
    """It is reached at the new ones, over both protocols, and reaches the internet from them."""
    faults.readdress(pair, "host1", 77)

    with serving(pair, "host1"), serving(pair, "outside"):
        for port, old, new in (
            (80, "192.0.2.1", "192.0.2.77"),
            (81, "2001:db8:5ea::1", "2001:db8:5ea::77"),
        ):
            assert at(pair, "host2").ask(new, port)
            with pytest.raises(Refused):
                at(pair, "host2").ask(old, port, seconds=0.2)
        assert "192.0.2.77" == at(pair, "host1").ask("203.0.113.1", 80)
        assert "2001:db8:5ea::77" == at(pair, "host1").ask("2001:db8:ffff::1", 81)


def test_a_tunnel_s_socket_goes_with_its_host(pair):
    """A wireguard-go that is killed leaves its socket in a folder that all namespaces share."""
    link = f"sww-t{os.getpid()}"
    other = Path("/var/run/wireguard", f"sww-u{os.getpid()}.sock")
    other.parent.mkdir(exist_ok=True)
    other.touch()
    other.with_name(f"{link}.sock").touch()
    at(pair, "host1").run(f"ip tuntap add dev {link} mode tun")
    try:
        faults.power_off(pair, "host1")

        assert not other.with_name(f"{link}.sock").exists()
        assert other.exists()
    finally:
        other.unlink()


def test_powering_off_kills_everything_and_keeps_the_disk(pair):
    """Processes, namespaces and the run dir go; the state dir stays; start boots again."""
    host = pair.host("host1")
    (host.state_dir / "kept").touch()
    (host.run_dir / "lost").touch()
    netns.create(str(host.run_dir / "netns" / "container"))
    sleepers = [
        subprocess.Popen(["nsenter", f"--net={where}", "sleep", "1000"])
        for where in (host.netns, host.run_dir / "netns" / "container")
    ]
    wait_until(lambda: len(processes.inhabitants([host.netns])) >= 2)
    wait_until(lambda: processes.inhabitants([host.run_dir / "netns" / "container"]))

    assert faults.power_off(pair, "host1")
    assert not faults.power_off(pair, "host1")

    assert [-9, -9] == [sleeper.wait(5) for sleeper in sleepers]
    assert AgentState.OFF == states(pair)["host1"]
    assert not host.run_dir.exists()
    with pytest.raises(NotFound, match="host1 is off: switch it on"):
        faults.cut(pair, "host1")

    assert faults.start(pair, "host1", ready)
    assert (host.state_dir / "kept").exists()
    assert not (host.run_dir / "lost").exists()
    with serving(pair, "host1"):
        assert "192.0.2.2" == at(pair, "host2").ask("192.0.2.1", 80)


def test_descendants_in_other_namespaces_end_too(pair):
    """What an engine inside a host has put elsewhere goes with the host."""
    code = "unshare --net sleep 1000 & wait"
    with subprocess.Popen(shell.enter(pair, "host1", ["sh", "-c", code])) as engine:
        wait_until(lambda: len(processes.inhabitants([pair.host("host1").netns])) == 3)
        everyone = processes.inhabitants([pair.host("host1").netns])

        faults.power_off(pair, "host1")

        engine.wait(5)  # killed, or done waiting for the one that was killed
        assert not [p for p in everyone if processes.look(p.pid)]


def test_a_half_broken_lab_can_be_removed(pair):
    """Missing namespaces, folders and pid files stop nothing; a second time is fine."""
    host = pair.host("host1")
    with subprocess.Popen(shell.enter(pair, "host2", ["sleep", "1000"])) as sleeper:
        wait_until(lambda: len(processes.inhabitants([pair.host("host2").netns])) == 2)
        netns.remove(str(pair.wire_netns))
        (pair.host("host2").run_dir / "agent.pid").unlink()
        subprocess.run(["rm", "-r", str(host.state_dir)], check=True)

        assert lifecycle.down(pair)

        assert -9 == sleeper.wait(5)
    assert not lifecycle.down(pair)
    assert not namespaces_of(pair)


def test_files_that_a_reboot_left_are_no_namespaces(blank):
    """With /run on a disk, names without namespaces remain; up makes them work again."""
    for path in (blank.wire_netns, blank.host("host1").netns):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    lifecycle.up(blank, ready)

    with serving(blank, "host1"):
        assert "192.0.2.200" == at(blank, "outside").ask("192.0.2.1", 80)


def test_a_command_becomes_the_process(pair):
    """exec passes the exit status on and runs with the host's network and agent."""
    code = (
        "from seaway.lab import shell; from seaway.lab.topology import Lab; import sys\n"
        f"shell.become(Lab(name={pair.name!r}, hosts=2), 'host2', sys.argv[1:])"
    )
    script = "ip -4 -oneline address show eth0; echo $SEAWAY_SOCKET; exit 7"

    environment = {**os.environ, "PYTHONPATH": str(Path(shell.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, "sh", "-c", script],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip

    assert 7 == done.returncode
    assert "192.0.2.2/24" in done.stdout
    assert f"/run/seaway/lab/{pair.name}/host2/seaway.sock" in done.stdout


def test_going_up_and_down_is_quick(blank):
    """Without the agents' own time, a lab of three hosts takes well under a second each way."""
    lab = Lab(name=blank.name, hosts=3, state_root=blank.state_root, run_root=blank.run_root)
    begin = time.monotonic()
    lifecycle.up(lab, ready)
    up = time.monotonic()
    lifecycle.down(lab)

    assert up - begin < 2
    assert time.monotonic() - up < 3


@pytest.fixture
def container(pair):
    """A container on host1, from the machine's own programs, in a namespace that host1 keeps.

    Yields the engine, to ask it, and the container's id.
    """
    if shutil.which("podman") is None:
        pytest.skip("there is no podman here")
    if "4294967295" not in Path("/proc/self/uid_map").read_text():
        pytest.skip("podman's containers need the machine's own root")
    host = pair.host("host1")
    engine = podman.find(host.podman_root, host.run_dir, None)
    place = host.run_dir / "netns" / "c1"
    netns.create(str(place))
    root = host.state_dir / "rootfs"
    for folder in ("dev", "etc", "proc", "run", "sys", "tmp"):
        (root / folder).mkdir(parents=True)
    binds = [f"--volume={d}:{d}:ro" for d in ("/bin", "/lib", "/lib64", "/usr") if Path(d).exists()]
    words = ("run", *engine.run_flags, "--detach", f"--network=ns:{place}", *binds)
    run = shell.enter(pair, "host1", engine.argv(*words, "--rootfs", str(root), "sleep", "1000"))
    done = subprocess.run(run, capture_output=True, text=True)
    assert 0 == done.returncode, done.stderr
    return engine, done.stdout.strip()


def traces(container: str) -> list[str]:
    """What is left on the machine of a container: runtime state, processes, control groups."""
    state = [
        str(p) for p in (Path("/run/runc", container), Path("/run/crun", container)) if p.exists()
    ]
    found = subprocess.run(
        ["pgrep", "-f", container], capture_output=True, text=True
    ).stdout.split()
    groups = Path("/sys/fs/cgroup").rglob(f"libpod-{container}")
    return [*state, *found, *map(str, groups)]


@pytest.mark.parametrize("powered_off", [False, True])
def test_removing_a_lab_removes_its_containers(pair, container, powered_off):
    """Running containers end, and leave no mount, process, runtime state or control group."""
    _, ident = container
    assert traces(ident)
    if powered_off:
        faults.power_off(pair, "host1")

    lifecycle.down(pair)

    assert not traces(ident)


def test_containers_start_again_after_a_power_off(pair, container):
    """As after a reboot, Podman finds them stopped and can start them."""
    engine, ident = container
    faults.power_off(pair, "host1")
    assert not leftovers.mounts_under([pair.host("host1").state_dir])

    faults.start(pair, "host1", ready)
    netns.create(str(pair.host("host1").run_dir / "netns" / "c1"))
    done = subprocess.run(
        shell.enter(pair, "host1", engine.argv("start", ident)), capture_output=True, text=True
    )

    assert 0 == done.returncode, done.stderr
