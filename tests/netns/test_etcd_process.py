"""This host's etcd as a process: its life beside the agent's, and how hosts become its members."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest

from seaway.cluster import pki, stores
from seaway.cluster.credentials import Credentials
from seaway.cluster.etcd_process import LOG_BYTES, EtcdConfig, EtcdMember, client_urls, peer_urls
from seaway.errors import Conflict, StoreError, Unsupported
from seaway.kernel import netns, processes
from seaway.model.cluster import HostId, Ports
from seaway.store.etcd import Etcd, Write
from tests.support.etcd import need_etcd, run, succeeds
from tests.support.netns import namespaces

LOOPBACK = (ip_address("127.0.0.1"),)


class Store:
    """One host's etcd, with all it needs; hosts differ by their ports.

    Attributes:
        name: The host's id.
        peers, url: Where members and clients reach it.
    """

    def __init__(self, folder, credentials, number):
        ports = Ports(base=7900 + 10 * number)
        self.name = HostId(f"{number:012x}")
        self.peers = peer_urls(LOOPBACK, ports)
        (self.url,) = client_urls(LOOPBACK, ports)
        self.program = quick(folder)
        self.process = EtcdMember(folder / self.name, self.program)
        self.config = EtcdConfig(
            name=self.name,
            addresses=LOOPBACK,
            ports=ports,
            certificate=credentials.certificate,
            key=credentials.key,
            ca=credentials.ca,
            crl=credentials.crl,
            members=((self.name, self.peers),),
            state="new",
            token="c1",
        )

    def pid(self):
        """The number of its process."""
        return self.process._remembered()[0]

    async def start(self, client):
        """Start it, and wait until it answers."""
        started = await self.process.ensure_running(self.config)
        await self.process.wait_ready(client, self.url)
        return started

    async def join(self, client):
        """Join those that *client* talks to, and get a vote."""
        join = (client, self.process, self.name, self.peers)
        while (members := await stores.join_as_learner(*join)) is None:
            await asyncio.sleep(0.05)
        self.config = replace(self.config, members=members, state="existing")
        await self.process.ensure_running(self.config)
        await stores.promote(client, self.name, self.peers)


def quick(folder):
    """A script that starts etcd with quick elections, and is etcd from then on."""
    path = folder / "quick-etcd"
    settings = "export ETCD_HEARTBEAT_INTERVAL=50 ETCD_ELECTION_TIMEOUT=500"
    path.write_text(f'#!/bin/sh\n{settings}\nexec etcd "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def credentials(tmp_path_factory):
    """One certificate does for all hosts, as they are all on loopback."""
    made = Credentials(tmp_path_factory.mktemp("tls"))
    made.create_authority("c1")
    made.sign_own(pki.Holder(id="0123456789ab", name="host1", addresses=LOOPBACK))
    return made


@pytest.fixture
def hosts(tmp_path, credentials):
    """Make hosts' stores in one namespace, which nothing of them outlives."""
    need_etcd()
    with namespaces("etcd") as (space,), netns.inside(str(space.path)):
        made = [Store(tmp_path, credentials, number) for number in range(3)]
        try:
            yield made
        finally:
            for host in made:
                if host.process.alive():
                    os.kill(host.pid(), signal.SIGKILL)  # quicker than asking
                run(host.process.stop())


@asynccontextmanager
async def client(credentials, *hosts):
    """Talk to these hosts' etcds."""
    made = Etcd([host.url for host in hosts], credentials.client_context(), timeout=2)
    try:
        yield made
    finally:
        await made.aclose()


@contextmanager
def program(folder, text):
    """A script in etcd's place."""
    path = folder / "etcd"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    yield str(path)


async def until(true, seconds=10):
    """Wait for a condition."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


def test_it_outlives_its_starter_and_is_adopted(hosts, credentials, tmp_path):
    """A new agent finds the etcd of the one before, by its pid file or without, and leaves it."""
    one, *_ = hosts

    async def steps():
        async with client(credentials, one) as etcd:
            assert await one.start(etcd)
            pid = one.pid()
            assert os.getsid(pid) == pid

            later = EtcdMember(tmp_path / one.name, one.program)
            assert later.alive()
            assert not await later.ensure_running(one.config)

            (tmp_path / one.name / "etcd.pid").unlink()  # its starter was killed just then
            assert not await later.ensure_running(one.config)
            assert later._remembered()[0] == pid
            await later.stop()
            assert not one.process.alive()
            await one.process.stop()

    run(steps())


def test_it_is_started_again_when_it_dies(hosts, credentials):
    """Killed or restarted on purpose, it is back with what it knew; cancelling leaves it alone."""
    one, *_ = hosts

    async def steps():
        async with client(credentials, one) as etcd, asyncio.TaskGroup() as group:
            keeping = group.create_task(one.process.keep_running(one.config))
            await succeeds(lambda: etcd.txn([], [Write("/a", b"1")]))
            first = one.pid()
            os.kill(first, signal.SIGKILL)
            await until(lambda: one.process.alive() and one.pid() != first)
            assert b"1" == (await succeeds(lambda: etcd.get("/a"))).value

            second = one.pid()
            await one.process.restart(one.config)
            assert one.process.alive()
            assert second != one.pid()
            await succeeds(lambda: etcd.get("/a"))
            assert "" == one.process.trouble
            keeping.cancel()

    run(steps())
    assert one.process.alive()


def test_other_settings_restart_it_and_only_those_that_matter(hosts, credentials):
    """Its address counts; the members at its first start do not once it has started."""
    one, *_ = hosts

    async def steps():
        async with client(credentials, one) as etcd:
            await one.start(etcd)
            first = one.pid()
            assert not await one.process.ensure_running(replace(one.config, state="existing"))
            moved = replace(one.config, addresses=(*LOOPBACK, ip_address("::1")))
            assert await one.process.ensure_running(moved)
            assert first != one.pid()
            await one.process.wait_ready(etcd, one.url)

    run(steps())


def test_a_host_joins_and_gets_a_vote(hosts, credentials):
    """It has what was written before, and nothing is decided without it any more."""
    one, two, _ = hosts

    async def steps():
        async with client(credentials, one) as etcd, client(credentials, two) as other:
            await one.start(etcd)
            await etcd.txn([], [Write("/a", b"1")])
            await two.join(etcd)

            assert b"1" == (await succeeds(lambda: other.get("/a"))).value
            assert {(one.name, False), (two.name, False)} == {
                (member.name, member.learner) for member in await other.members()
            }

    run(steps())


def test_one_of_three_may_die_and_one_may_leave(hosts, credentials):
    """What was written stays; who leaves waits for its successors and deletes its data."""
    one, two, three = hosts
    members = tuple((host.name, host.peers) for host in hosts)

    async def steps():
        async with client(credentials, *hosts) as etcd:
            for host in hosts:
                host.config = replace(host.config, members=members)
                await host.process.ensure_running(host.config)
            await succeeds(lambda: etcd.txn([], [Write("/a", b"1")]))
            os.kill(one.pid(), signal.SIGKILL)
            await until(lambda: not one.process.alive())
            await succeeds(lambda: etcd.txn([], [Write("/b", b"2")]))
            await one.start(etcd)

            me = (etcd, three.process, three.name, three.peers)
            with pytest.raises(Conflict, match="ba9876543210 has to have its part"):
                await stores.leave(*me, successors=[one.name, HostId("ba9876543210")])
            await succeeds(lambda: stores.leave(*me, successors=[one.name, two.name]))
            await stores.leave(*me)
            assert not three.process.alive()
            assert not three.process.has_data
            assert b"2" == (await succeeds(lambda: etcd.get("/b"))).value
            assert {one.name, two.name} == {member.name for member in await etcd.members()}

    run(steps(), 60)


def test_joining_goes_on_after_a_crash_at_any_step(hosts, credentials):
    """Announced already, started already, promoted already: the same calls end the same way."""
    one, two, three = hosts

    async def steps():
        async with client(credentials, one) as etcd:
            await one.start(etcd)
            join = (etcd, two.process, two.name, two.peers)
            announced = await stores.join_as_learner(*join)
            assert announced == await stores.join_as_learner(*join)
            assert {one.name: one.peers, two.name: two.peers} == dict(announced)
            waiting = await stores.join_as_learner(etcd, three.process, three.name, three.peers)
            assert waiting is None, "one learner at a time"

            two.config = replace(two.config, members=announced, state="existing")
            await two.process.ensure_running(two.config)
            assert announced == await stores.join_as_learner(*join)
            await stores.promote(etcd, two.name, two.peers)
            await stores.promote(etcd, two.name, two.peers)
            assert announced == await stores.join_as_learner(*join)
            assert two.process.alive()

    run(steps())


def test_a_member_that_lost_its_disk_joins_anew(hosts, credentials):
    """It must not pretend to be the member that the others know, and is not."""
    one, two, _ = hosts

    async def steps():
        async with client(credentials, one) as etcd:
            await one.start(etcd)
            await stores.join_as_learner(etcd, two.process, two.name, two.peers)
            members = ((one.name, one.peers), (two.name, two.peers))
            two.config = replace(two.config, members=members, state="existing")
            await two.process.ensure_running(two.config)
            first = await named(etcd, two)
            await two.process.wipe()

            await two.join(etcd)
            assert first.id != (await named(etcd, two)).id

    async def named(etcd, host):
        while True:
            member = stores.find_member(await etcd.members(), host.name, host.peers)
            if member.name:
                return member
            await asyncio.sleep(0.02)

    run(steps())


def test_the_only_member_does_not_leave(hosts, credentials):
    """Everything would be lost with it."""
    one, *_ = hosts

    async def steps():
        async with client(credentials, one) as etcd:
            await one.start(etcd)
            with pytest.raises(Conflict, match="only store"):
                await stores.leave(etcd, one.process, one.name, one.peers)
            assert one.process.alive()

    run(steps())


def test_a_number_used_again_is_not_taken_for_it(hosts, tmp_path):
    """A pid file that survived a reboot names somebody else, who is left alone."""
    one, *_ = hosts
    me = os.getpid()
    folder = tmp_path / one.name
    folder.mkdir()
    (folder / "etcd.pid").write_text(f"{me} {processes.start_time(me) - 1}\n")

    assert not one.process.alive()
    run(one.process.stop())
    assert not (folder / "etcd.pid").exists()


def test_what_is_missing_is_said(hosts, tmp_path):
    """No etcd, or no list of revoked certificates, without which etcd would turn everyone away."""
    one, *_ = hosts
    with pytest.raises(StoreError, match=r"none\.pem is missing"):
        run(one.process.ensure_running(replace(one.config, crl=tmp_path / "none.pem")))
    with pytest.raises(Unsupported, match="apt-get install etcd-server"):
        run(EtcdMember(tmp_path / "x", program="no-such-program").ensure_running(one.config))


def test_the_reason_of_its_end_is_told(hosts, tmp_path):
    """One that cannot live is tried again and again, and its last words are known."""
    one, *_ = hosts

    async def steps(member):
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(member.keep_running(one.config))
            await until(lambda: member.trouble)
            assert "etcd ended: cannot: no luck" == member.trouble
            await until(lambda: member.log.read_text().count("cannot") > 1)
            keeping.cancel()

    lines = (
        "plain text",
        '{"level": "fatal", "msg": "cannot", "error": "no luck"}',
        '{"level": "error", "msg": "cannot say goodbye", "error": "EOF"}',
    )
    with program(tmp_path, "\n".join(f"echo '{line}'" for line in lines)) as path:
        run(steps(EtcdMember(tmp_path / "x", program=path)))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('exec etcd --nonsense "$@"', "flag provided but not defined: -nonsense"),
        ('exec etcd "$@" --log-level=bogus', 'panic: unknown level "bogus"'),
        ('exec etcd "$@" --initial-cluster=', "couldn't find local name"),
        (
            "echo '2026-11-24 11:29:26.407 I | pkg/flags: used'",
            "it was told to, or is no member any more",
        ),
        ("exit 3", "status 3"),
        ("kill -9 $$", "killed by SIGKILL"),
    ],
)
def test_every_kind_of_end_has_a_reason(hosts, tmp_path, script, words):
    """Flags that etcd does not take, panics, what it says as JSON, and an end without a word."""
    one, *_ = hosts

    async def steps(member):
        await member.ensure_running(one.config)
        await until(lambda: not member.alive())
        assert words in member.last_words()

    with program(tmp_path, script) as path:
        run(steps(EtcdMember(tmp_path / "x", program=path)))


def test_it_is_not_configured_by_our_environment(hosts, tmp_path, monkeypatch):
    """etcd takes variables for flags, and calls its peers through proxies."""
    one, *_ = hosts
    for name in ("ETCD_NAME", "ETCD_UNSUPPORTED_ARCH", "ETCDCTL_API", "https_proxy"):
        monkeypatch.setenv(name, "from-outside")

    async def steps(member):
        await member.ensure_running(one.config)
        await until(lambda: not member.alive())
        assert "PATH=" in member.log.read_text()
        assert "from-outside" not in member.log.read_text()

    with program(tmp_path, "env") as path:
        run(steps(EtcdMember(tmp_path / "x", program=path)))


def test_requests_leave_no_line_in_its_log(hosts, credentials):
    """It would grow with each of them."""
    one, *_ = hosts

    async def steps():
        async with client(credentials, one) as etcd:
            await one.start(etcd)
            size = one.process.log.stat().st_size
            for number in range(20):
                await etcd.txn([], [Write(f"/{number}", b"")])
            assert size == one.process.log.stat().st_size

    run(steps())


def test_its_log_stays_short(hosts, tmp_path):
    """A long log is moved aside at the next start."""
    one, *_ = hosts
    with program(tmp_path, "echo hello") as path:
        member = EtcdMember(tmp_path / "x", program=path)
        member.data.mkdir(parents=True)
        member.log.write_text("x" * LOG_BYTES)
        run(member.ensure_running(one.config))
        run(until(lambda: member.log.read_text() == "hello\n"))

        assert LOG_BYTES == member.log.with_suffix(".log.1").stat().st_size
