"""The command line against a real agent and Podman: wrong input, exit statuses, terminals."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

import pytest

from tests.support.netns import ENVIRONMENT, namespaces, wait_until
from tests.support.site import HOST, running_site
from tests.support.talk import reach

SLEEP = ("busybox", "sleep", "1000")
DETACHED = ("run", "-d", "--name", "late")


@pytest.fixture(scope="module")
def site():
    """A host for this module."""
    with running_site("ee-cli") as site:
        yield site


@pytest.fixture(scope="module")
def town(site):
    """What wrong input can clash with: a container, two networks, something attached."""
    flags = ("--subnet", "10.10.0.0/24", "--ipv6=false")
    with (
        site.networks("backend", flags=flags),
        site.networks("cellar", flags=("--internal",)),
        site.container("web", "--network", "backend", "-p", "9080:80"),
        namespaces("vm") as (vm,),
    ):
        site.seaway("attach", "--name", "vm", str(vm.path))
        yield vm
        site.seaway("detach", "vm")


def picture(site):
    """All that must stay the same when input is wrong; taken in a few milliseconds."""
    return (
        {n["name"]: n for n in site.ask("/v1/networks")},
        {s["name"]: s for s in site.ask("/v1/sandboxes")},
        site.ask("/v1/plan")["lines"],
        sorted(p.name for p in site.machine.run_dir.glob("netns/*")),
        sorted(p.name for p in site.machine.run_dir.glob("containers/*")),
        site.host.run("nft list table inet seaway").count("\n"),
        sorted(p.name for p in site.machine.podman_root.glob("overlay-containers/*")),
    )


# -- wrong input -------------------------------------------------------------------------------

USAGE = {
    # words: what the one line must say
    "frobnicate": "frobnicate",
    "network frobnicate": "frobnicate",
    "network create": "NAME",
    "network create a b": "b",
    "network create --nosuch x": "--nosuch",
    "network create --subnet": "--subnet",
    "network create --internal=perhaps x": "--internal",
    "network create --label =v x": "--label",
    "network create --aux-address =10.0.0.1 x": "--aux-address",
    "network connect backend": "CONTAINER",
    "network ls --format {{.Nosuch}}": ".Nosuch",
    "network ls --format {{range}}": "range",
    "ps --nosuch": "--nosuch",
    "run": "IMAGE",
    "run -d --nosuch busybox": "--nosuch",
    "run -d --network": "--network",
    "run -d --network host --network bridge busybox": "host",
    "run -d --network host -p 80:80 busybox": "--publish",
    "run -d --network none --ip 10.0.0.1 busybox": "--ip",
    "run -d --network alias=x busybox": "name=",
    "run -d --network name=backend,nosuch=1 busybox": "nosuch",
    "run -d --network name=backend,ip=10.10.0.9 --ip 10.10.0.9 busybox": "ip",
    "run -d --gw-priority high busybox": "high",
    "run -d --label =x busybox": "--label",
    "attach": "PID|PATH",
    "attach nosuch": "nosuch",
    "port": "CONTAINER",
    "port web 80 81": "81",
    "rm": "CONTAINER",
    "completion tcsh": "tcsh",
    "events --since yesterday": "yesterday",
    "status extra": "extra",
}

WRONG = {
    # networks
    "network create -- -x": "-x",
    "network create a/b": "a/b",
    "network create é": "not valid",
    f"network create {'x' * 70}": "too long",
    "network create backend": "exists already",
    "network create bridge": "exists already",
    "network create --subnet banana late": "banana",
    "network create --subnet 10.1.2.0 late": "10.1.2.0/24",
    "network create --subnet 10.1.2.3/24 late": "10.1.2.0/24",
    "network create --subnet 10.1.2.0/33 late": "10.1.2.0/33",
    "network create --subnet 10.1.2.0/24 --subnet 10.1.3.0/24 late": "two IPv4 subnets",
    "network create --subnet 10.1.2.0/24 --ipv4=false late": "IPv4 is turned off",
    "network create --ipv4=false --ipv6=false late": "needs IPv4 or IPv6",
    "network create --subnet 10.10.0.128/25 late": "network backend",
    "network create --subnet 192.0.2.0/25 late": "eth0",
    "network create --subnet 10.1.2.0/24 --gateway 10.1.3.1 late": "outside",
    "network create --subnet 10.1.2.0/24 --gateway banana late": "banana",
    "network create --subnet 10.1.2.0/24 --gateway 10.1.2.0 late": "10.1.2.0",
    "network create --subnet 10.1.2.0/24 --gateway 10.1.2.255 late": "10.1.2.255",
    "network create --subnet 10.1.2.0/24 --ip-range 10.1.3.0/28 late": "outside",
    "network create --subnet 10.1.2.0/24 --ip-range 10.1.0.0/16 late": "outside",
    "network create --subnet 10.1.2.0/24 --aux-address a=10.1.3.1 late": "outside",
    "network create --subnet 10.1.2.0/24 --aux-address a=x late": "'x'",
    "network create --subnet 10.1.2.0/24 --gateway 10.1.2.9 --aux-address a=10.1.2.9 late": "too",
    "network create --subnet 127.5.0.0/16 late": "127.5.0.0/16",
    "network create --subnet 224.1.0.0/16 late": "224.1.0.0/16",
    "network create --subnet fe80::/64 late": "fe80::/64",
    "network create -d overlay late": "overlay",
    "network create -d host late": "host",
    "network create -d macvlan --subnet 10.1.2.0/24 late": "parent",
    "network create -d macvlan -o parent=eth0 late": "subnet",
    "network create -d macvlan -o parent=eth7 --subnet 10.1.2.0/24 late": "eth7",
    "network create -o nosuch=1 late": "nosuch",
    "network create -o mtu=big late": "big",
    "network create -o mtu=10 late": "10",
    "network create -o masquerade=perhaps late": "masquerade",
    "network rm nosuch": "nosuch",
    "network rm host": "host",
    "network rm backend": "web",
    "network inspect nosuch": "nosuch",
    "network connect nosuch web": "nosuch",
    "network connect cellar nosuch": "nosuch",
    "network connect backend web": "already",
    "network connect host web": "host",
    "network connect --ip 10.9.9.9 cellar web": "10.9.9.9",
    "network connect --ip6 10.9.9.9 cellar web": "--ip",
    "network connect --ip banana cellar web": "banana",
    "network connect --mac-address banana cellar web": "banana",
    "network disconnect cellar web": "not connected",
    # containers
    "run -d --name web busybox": "taken",
    "run -d --name vm busybox": "taken",
    "run -d --name a/b busybox": "not valid",
    "run -d --network nosuch busybox": "nosuch",
    "run -d --network backend --network backend busybox": "twice",
    "run -d --network container:nosuch busybox": "nosuch",
    "run -d --network backend --ip 10.10.0.1 busybox": "the gateway",
    "run -d --network backend --ip 10.10.0.0 busybox": "10.10.0.0",
    "run -d --network backend --ip 10.10.0.255 busybox": "10.10.0.255",
    "run -d --network backend --ip 10.11.0.9 busybox": "outside",
    "run -d --network backend --ip 10.10.0.2 busybox": "web",
    "run -d --network backend --ip fd00::9 busybox": "--ip6",
    "run -d --network backend --ip6 fd00::9 busybox": "no IPv6",
    "run -d --mac-address banana busybox": "banana",
    "run -d --mac-address 01:00:5e:00:00:01 busybox": "multicast",
    "run -d --network-alias a/b busybox": "a/b",
    "run -d --network name=bridge,interface=eth0/1 busybox": "eth0/1",
    "run -d --dns banana busybox": "banana",
    "run -d --expose banana -P busybox": "banana",
    "run -d -p banana busybox": "banana",
    "run -d -p 80:banana busybox": "banana",
    "run -d -p 99999:80 busybox": "99999",
    "run -d -p 80-82:80-81 busybox": "same length",
    "run -d -p 82-80:82-80 busybox": "backwards",
    "run -d -p 80/icmp busybox": "icmp",
    "run -d -p 8080:80,from=banana busybox": "banana",
    "run -d -p 8080:80,from=10.0.0.1/8 busybox": "10.0.0.0/8",
    "run -d -p target=80,mode=host busybox": "mode=",
    "run -d -p 203.0.113.9:80:80 busybox": "203.0.113.9",
    "run -d -p 9080:80 busybox": "container web",
    "run -d -p 8090:80 --network cellar busybox": "cellar",
    "stop nosuch": "nosuch",
    "start nosuch": "nosuch",
    "restart nosuch": "nosuch",
    "rm nosuch": "nosuch",
    "port nosuch": "nosuch",
    "port web 81": "81",
    "inspect nosuch": "nosuch",
    "rm web": "seaway rm -f web",
    # guests
    "attach 999999999": "999999999",
    "attach /nosuch": "/nosuch",
    "attach /proc/self/ns/net": "host's own",
    "detach nosuch": "nosuch",
    "detach web": "seaway rm web",
    "attach --name web /dev/null": "",
}


@pytest.mark.parametrize("words", USAGE)
def test_wrong_usage_is_one_line_and_64(site, town, words):
    """A command line that makes no sense: one line that names what is wrong, and nothing done."""
    before = picture(site)
    done = site.attempt(*words.split())

    assert (64, "", 1) == (done.status, done.out, done.err.count("\n")), done
    assert USAGE[words] in done.err
    assert before == picture(site)


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_one_line_and_1(site, town, words):
    """What cannot be done: one line that says why, status 1, and nothing half done."""
    before = picture(site)
    done = site.attempt(*words.split())
    after = picture(site)
    if "late" in after[0]:  # or everything after this one fails, too
        site.seaway("network", "rm", "late")

    assert (1, "", 1) == (done.status, done.out, done.err.count("\n")), done
    assert done.err.startswith("seaway")
    assert WRONG[words] in done.err
    assert before == after


@pytest.mark.parametrize("words", ["stop vm", "rm -f vm"])
def test_what_is_attached_is_no_container(site, town, words):
    """Commands for containers refuse what is merely attached, and say what to use."""
    done = site.attempt(*words.split())

    assert done.status in (1, 64)
    assert 1 == done.err.count("\n")
    assert "seaway detach" in done.err


def test_several_names_are_done_one_by_one(site, town):
    """A wrong name among right ones is told, and the others are done."""
    site.seaway("run", "-d", "--name", "short", *SLEEP)
    done = site.attempt("rm", "-f", "nosuch", "short")

    assert (1, "short\n", 1) == (done.status, done.out, done.err.count("\n"))
    assert "short" not in {s["name"] for s in site.ask("/v1/sandboxes")}


def test_an_unknown_image_leaves_nothing(site, town):
    """An image that cannot be had fails with Podman's own status, and no trace of it is left."""
    before = site.snapshot()
    for mode in (["-d"], []):
        words = ("run", *mode, "--pull", "never", "-p", "9090:80", "--name", "late", "nosuch:1")
        done = site.attempt(*words)
        assert 125 == done.status
        assert "nosuch" in done.err
        assert before == site.snapshot()


def test_a_command_that_is_not_there_leaves_nothing(site, town):
    """A container whose program cannot start is status 127, and its name and ports are free."""
    before = site.snapshot()
    for mode in (["-d"], []):
        words = ("run", *mode, "-p", "9090:80", "--name", "late", "busybox", "/nosuch")
        assert 127 == site.attempt(*words).status
        assert before == site.snapshot()


def test_a_flag_podman_refuses_leaves_nothing(site, town):
    """Podman's own refusal of a flag passes through, and nothing is left of the container."""
    before = site.snapshot()
    done = site.attempt(*DETACHED, "-p", "9090:80", "--add-host", "no-address", *SLEEP)
    assert done.status != 0
    assert before == site.snapshot()


# -- without an agent, without Podman ----------------------------------------------------------


def seaway(prefix, *words, **environment):
    """Run ``seaway`` with other surroundings; returns status, lines of stderr, stderr."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "seaway", *words],
        text=True,
        capture_output=True,
        timeout=30,
        check=False,
        env={**ENVIRONMENT, **environment},
    )
    return done.returncode, done.stderr.count("\n"), done.stderr


def test_no_agent_is_one_line(tmp_path):
    """Without an agent every command says how to start it."""
    for words in (["ps"], ["network", "ls"], ["run", "-d", "busybox"], ["plan"], ["events"]):
        status, lines, told = seaway([], *words, SEAWAY_SOCKET=str(tmp_path / "none.sock"))
        assert (1, 1) == (status, lines)
        assert "seaway agent" in told


def test_no_permission_is_one_line(site):
    """Who may not talk to the agent is told which group to join."""
    somebody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    socket_path = str(site.machine.socket)
    status, lines, told = seaway(somebody, "ps", SEAWAY_SOCKET=socket_path)
    assert (1, 1) == (status, lines), told
    assert "group seaway" in told


def test_no_podman_is_one_line(site):
    """Without Podman ``run`` says how to install it, and leaves nothing."""
    before = site.snapshot()
    nsenter, *where = site.host.argv()
    with tempfile.TemporaryDirectory() as empty:
        words = ("run", "-d", "-p", "9090:80", "busybox")
        environment = {"SEAWAY_SOCKET": str(site.machine.socket), "PATH": empty}
        status, lines, told = seaway([shutil.which(nsenter), *where], *words, **environment)
    assert (1, 1) == (status, lines), told
    assert "apt-get install podman" in told
    assert before == site.snapshot()


@pytest.mark.parametrize("folder", ["/proc/nosuch", "/dev/null/state"])
def test_unwritable_state_is_one_line(tmp_path, folder):
    """An agent that cannot keep its state ends at once, with one line."""
    with namespaces("bare") as (bare,):
        words = ("agent", "--state-dir", folder, "--run-dir", str(tmp_path))
        status, lines, told = seaway(bare.argv(), *words)
    assert (1, 1) == (status, lines), told
    assert folder in told


# -- exit statuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("sh -c 'kill -9 $$'; exit $?", 137), ("nosuch", 127)],
)
def test_the_containers_status_is_ours(site, script, status):
    """``run`` in the foreground ends with the container's status, and --rm leaves nothing."""
    before = site.snapshot()
    words = ("run", "--rm", "-p", "9090:80", "busybox", "sh", "-c", f"echo out; {script}")
    done = site.attempt(*words)

    assert (status, "out\n") == (done.status, done.out)
    assert before == site.snapshot()


def test_an_ended_container_stays_until_it_is_removed(site):
    """Without --rm, a container that has ended is listed as stopped, with its address kept."""
    words = ("run", "--name", "done", "-p", "9090:80", "busybox", "false")
    assert 1 == site.attempt(*words).status
    wait_until(lambda: "stopped" == site.ask("/v1/sandboxes/done")["phase"])
    assert "done" not in {c["Names"] for c in site.json("ps")}
    assert "stopped" == {c["Names"]: c["State"] for c in site.json("ps", "-a")}["done"]
    assert ["refused"] == reach(site.outside, f"tcp://{HOST}:9090")
    site.seaway("rm", "done")


def test_a_background_container_with_rm_is_gone_when_it_ends(site):
    """``run -d --rm``: when the process ends, by itself or by stop, everything of it goes."""
    before = site.snapshot()
    site.seaway("run", "-d", "--rm", "-p", "9090:80", "busybox", "sleep", "0.3")
    wait_until(lambda: before == site.snapshot(), what="gone by itself")
    site.seaway("run", "-d", "--rm", "--name", "brief", "-p", "9090:80", *SLEEP)
    site.seaway("stop", "-t", "0", "brief")
    wait_until(lambda: before == site.snapshot(), what="gone after stop")


def test_exec_and_logs_pass_through(site):
    """``exec`` hands over input, output and status; ``logs`` shows what was printed."""
    script = "echo started; sleep 1000"
    with site.container("talker", command=("sh", "-c", script)):
        done = site.attempt("exec", "-i", "talker", "sh", "-c", "cat; exit 5", stdin="hello")
        assert (5, "hello") == (done.status, done.out)
        assert "v" == site.seaway("exec", "-e", "K=v", "talker", "sh", "-c", "echo $K")
        wait_until(lambda: "started" == site.seaway("logs", "talker"))
        assert "started" == site.seaway("logs", "--tail", "1", "talker")
        for words in (["exec", "nosuch", "true"], ["logs", "nosuch"]):
            done = site.attempt(*words)
            assert done.status in (1, 125)
            assert 1 == done.err.count("\n")


def test_standard_input_reaches_the_container(site):
    """``run -i`` reads from a pipe."""
    done = site.attempt("run", "-i", "--rm", "busybox", "wc", "-c", stdin="12345")
    assert (0, "5\n") == (done.status, done.out)


# -- terminals and signals ---------------------------------------------------------------------


@contextmanager
def on_a_terminal(site, *words):
    """Start ``seaway WORDS`` on a terminal of its own; yields its process and the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *site.argv(*words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=site.environment,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal, words, seconds=10.0):
    """Read from *terminal* until *words* have come."""
    seen, deadline = "", time.monotonic() + seconds
    while words not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{words!r} has not come: {seen!r}"
        seen += os.read(terminal, 4096).decode(errors="replace")
    return seen


def test_a_terminal_inside(site):
    """``run -it`` gives the program a terminal, and its status is ours."""
    with on_a_terminal(site, "run", "-it", "--rm", "busybox", "sh") as (process, terminal):
        os.write(terminal, b"tty; echo $((40+2))\n")
        read_until(terminal, "42\r\n")
        os.write(terminal, b"exit 9\n")
        assert 9 == process.wait(10)


_POLITE = (
    *("busybox", "sh", "-c"),
    "trap 'echo bye; exit 9' INT TERM; echo ready; while :; do sleep 0.05; done",
)


def is_up(site, name):
    """Podman passes signals on from when it says "Up"; the program itself may run before."""
    return any(c["Names"] == name and c["Status"].startswith("Up") for c in site.json("ps"))


def test_control_c_reaches_the_program(site):
    """^C at a container in the foreground is the program's to handle; nothing is left after it."""
    before = site.snapshot()
    for flags in (["-it"], []):
        words = ("run", *flags, "--rm", "--name", "polite", "-p", "9090:80", *_POLITE)
        with on_a_terminal(site, *words) as (process, terminal):
            read_until(terminal, "ready")
            wait_until(lambda: is_up(site, "polite"))
            os.write(terminal, b"\x03")
            assert 9 == process.wait(10)
        assert before == site.snapshot()


def test_sigterm_reaches_the_program(site):
    """A SIGTERM for ``seaway run`` is passed on to the container."""
    words = site.argv("run", "--rm", "--name", "polite", *_POLITE)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env=site.environment
    ) as running:
        assert "ready\n" == running.stdout.readline()
        wait_until(lambda: is_up(site, "polite"))
        running.send_signal(signal.SIGTERM)
        assert "bye\n" == running.stdout.readline()
        assert 9 == running.wait(10)


# -- output ------------------------------------------------------------------------------------


def test_lists_come_as_tables_json_and_templates(site, town):
    """ps and network ls: a table with headings, one JSON object a line, fields, names only."""
    table = site.seaway("ps").splitlines()
    assert ["CONTAINER", "ID", "IMAGE", "STATUS", "PORTS", "NETWORKS", "NAMES"] == table[0].split()
    assert any(line.endswith("web") and "0.0.0.0:9080->80/tcp" in line for line in table)
    rows = {row["Names"]: row for row in site.json("ps")}
    assert ("running", "backend") == (rows["web"]["State"], rows["web"]["Networks"])
    assert "web backend" in site.seaway("ps", "--format", "{{.Names}} {{.Networks}}").splitlines()
    assert rows["web"]["ID"] in site.seaway("ps", "-q").split()
    assert "bridge" in site.seaway("network", "ls", "-q").split()
    assert json.loads(site.seaway("inspect", "web"))[0]["name"] == "web"
    assert "10.10.0.0/24" in site.seaway("network", "ls", "--format", "{{.Subnets}}").splitlines()
    assert site.json("status")[0]["healthy"] is True
    assert {"lines": []} == site.json("plan")[0]
    kinds = {event["kind"] for event in site.json("events")}
    assert {"network_created", "sandbox_created", "sandbox_started"} <= kinds


def test_bash_completes_what_there_is(site, town):
    """The completion script, sourced in a real bash, offers commands, flags, networks, names."""
    line = """
        eval "$(seaway completion bash)"
        complete -p seaway | sed 's/.*-F \\([^ ]*\\).*/\\1/' > "$1/function"
        try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
                COMPREPLY=(); $(cat "$T/function") seaway "${@: -1}" "${@: -2:1}"
                echo "${COMPREPLY[@]}"; }
        T=$1
        try seaway netw; try seaway network rm ""; try seaway stop w; try seaway run --netw
    """
    with tempfile.TemporaryDirectory() as folder:
        argv = site.host.argv("bash", "-c", line, "bash", folder)
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=30, check=False, env=site.environment
        )
    assert "" == done.stderr
    network, networks, containers, flags = done.stdout.split("\n")[:4]
    assert "network" == network.strip()
    assert {"backend", "cellar", "bridge"} <= set(networks.split())
    assert "web" == containers.strip()
    assert "--network" in flags.split()


_PING = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as s:
    s.sendall(b"PING\\r\\n")
    print(s.recv(100).decode())
"""


def test_the_readme_session(site):
    """The commands of the first page work as they stand there."""
    network = (
        "network create --subnet 10.20.0.0/24 --gateway 10.20.0.1 --ip-range 10.20.0.128/25 db"
    )
    site.seaway(*network.split())
    try:
        with (
            site.container("my-web-server", "-p", "8080:80", image="nginx"),
            site.container("cache", "-p", "8081:6379", image="redis"),
        ):
            words = "run -itd --name my-container --network db --network-alias box busybox"
            site.seaway(*words.split())
            for url in (f"http://{HOST}:8080", "http://my-web-server.bridge"):
                if "bridge" in url:
                    site.seaway("network", "connect", "bridge", "my-container")
                words = ("exec", "my-container", "wget", "-qO-", url)
                wait_until(lambda w=words: "nginx" in site.attempt(*w).out)
            assert "+PONG" == site.outside.python(_PING, HOST, "8081")
            assert "10.20.0.128" in site.seaway("exec", "my-container", "nslookup", "box.db")
            site.seaway("rm", "-f", "my-container")
    finally:
        site.seaway("network", "rm", "db")
