"""The client against real etcds on loopback: what it reads, writes and is told, and failures."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
from contextlib import aclosing, asynccontextmanager
from ipaddress import ip_address

import pytest

from seaway.cluster import pki
from seaway.cluster.credentials import Credentials
from seaway.errors import Conflict, NotFound, StoreError
from seaway.store.etcd import (
    At,
    Clash,
    Compacted,
    Erase,
    Etcd,
    Holds,
    Refused,
    Unsure,
    Write,
)
from tests.support.etcd import answers, etcds, run, succeeds


@pytest.fixture(scope="module")
def one():
    """A single etcd that all tests share; each uses keys of its own."""
    with etcds() as (member,):
        yield member


@pytest.fixture
def three():
    """A cluster of three."""
    with etcds(3) as members:
        yield members


@asynccontextmanager
async def client(*members, tls=None, patience=3.0):
    """Talk to these members, in this order."""
    made = Etcd([member.url for member in members], tls, patience)
    try:
        yield made
    finally:
        await made.aclose()


async def told(etcd, prefix, start, count):
    """Watch until *count* events are told of; return them as (key, value)."""
    events = []
    async with aclosing(etcd.watch(prefix, start)) as batches:
        while len(events) < count:
            events += [(event.key, event.value) for event in await anext(batches)]
    return events


def test_a_transaction_is_made_if_its_conditions_hold(one):
    """Writes and deletions of one transaction have one revision, which its keys then say."""

    async def steps():
        async with client(one) as etcd:
            first = await etcd.txn([At("/txn/a")], [Write("/txn/a", b"1"), Write("/txn/b/1", b"")])
            conditions = [At("/txn/a", first), Holds("/txn/a", b"1")]
            second = await etcd.txn(
                conditions, [Write("/txn/c", b"3")], [Erase("/txn/b/", prefix=True)]
            )
            found, _ = await etcd.range("/txn/")

            assert [("/txn/a", b"1", first), ("/txn/c", b"3", second)] == [
                (kv.key, kv.value, kv.mod_revision) for kv in found
            ]

    run(steps())


def test_a_transaction_that_fails_names_the_key(one):
    """The first condition that does not hold is named, with what is there; nothing is written."""

    async def steps():
        async with client(one) as etcd:
            await etcd.txn([], [Write("/clash/taken", b"theirs")])
            for condition, words in (
                (At("/clash/taken"), "/clash/taken exists already"),
                (At("/clash/taken", 1), "/clash/taken was changed"),
                (Holds("/clash/taken", b"mine"), "/clash/taken was changed"),
                (Holds("/clash/none", b"mine"), "/clash/none has gone"),
            ):
                with pytest.raises(Clash, match=words) as caught:
                    await etcd.txn([At("/clash/free"), condition], [Write("/clash/free", b"")])
                assert condition.key == caught.value.key
                assert (condition.key == "/clash/none") == (caught.value.found is None)
                assert isinstance(caught.value, Conflict)
            assert await etcd.get("/clash/free") is None

    run(steps())


def test_what_etcd_refuses_is_said_with_its_reason(one):
    """A transaction beyond its limits is refused, and is neither a conflict nor unsure."""

    async def steps():
        async with client(one) as etcd:
            with pytest.raises(Refused, match="--max-txn-ops 1024"):
                await etcd.txn([], [Write(f"/big/{i}", b"") for i in range(1025)])
            with pytest.raises(Refused, match="duplicate key"):
                await etcd.txn([], [Write("/big/a", b""), Write("/big/a", b"")])
            with pytest.raises(NotFound, match="lease has gone"):
                await etcd.txn([], [Write("/big/a", b"", lease=12345)])
            assert [] == (await etcd.range("/big/"))[0]

    run(steps())


def test_pages_are_of_one_moment(one):
    """What is written while a prefix is being read page by page is not in it."""

    async def steps():
        async with client(one) as etcd, client(one) as other:
            keys = [f"/page/{i}" for i in range(9)]
            await etcd.txn([], [Write(key, key.encode()) for key in keys])

            ask = etcd._ask

            async def ask_and_disturb(*args, **options):
                answer = await ask(*args, **options)
                await other.txn([], [Write("/page/99", b""), Write("/page/8", b"new")])
                return answer

            etcd._ask = ask_and_disturb
            found, revision = await etcd.range("/page/", page=2)

            assert [(key, key.encode()) for key in keys] == [(kv.key, kv.value) for kv in found]
            assert revision == max(kv.mod_revision for kv in found)

    run(steps())


def test_a_watch_tells_of_its_prefix_and_of_nothing_else(one):
    """Puts and deletions under it, from a revision on."""

    async def steps():
        async with client(one) as etcd:
            await etcd.txn([], [Write("/watch/a/0", b"before")])
            start = 1 + await etcd.txn([], [Write("/watch/a/1", b"before")])
            await etcd.txn([], [Write("/watch/a/2", b"x"), Write("/watch/no", b"")])
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(told(etcd, "/watch/a/", start, 3))
                await etcd.txn([], [Write("/watch/b/1", b"y")], [Erase("/watch/a/1")])
                await etcd.txn([], [Write("/watch/a/end", b"")])

            assert [
                ("/watch/a/2", b"x"),
                ("/watch/a/1", None),
                ("/watch/a/end", b""),
            ] == watching.result()

    run(steps())


def test_a_watch_may_go_on_where_another_ended(one):
    """Starting at the last event's revision + 1 misses nothing and repeats nothing."""

    async def steps():
        async with client(one) as etcd:
            start = 1 + await etcd.txn([], [Write("/resume/0", b"")])
            for key in ("/resume/a/1", "/resume/a/2"):
                await etcd.txn([], [Write(key, b"")])
            async with aclosing(etcd.watch("/resume/a/", start)) as batches:
                async for batch in batches:
                    if "/resume/a/2" in [event.key for event in batch]:
                        break
            await etcd.txn([], [Write("/resume/b/1", b"")])
            await etcd.txn([], [Write("/resume/a/3", b"")])

            events = await told(etcd, "/resume/a/", batch[-1].revision + 1, 1)
            assert [("/resume/a/3", b"")] == events

    run(steps())


def test_any_number_of_watches_keeps_nobody_waiting(one):
    """Sixty watches at a time hear everything, and transactions beside them go on."""

    async def steps():
        async with client(one) as etcd, asyncio.TaskGroup() as group:
            start = 1 + await etcd.txn([], [Write("/many", b"")])
            prefixes = [f"/many/{i}/" for i in range(60)]
            watching = [group.create_task(told(etcd, prefix, start, 2)) for prefix in prefixes]
            for number in (b"1", b"2"):
                await asyncio.gather(
                    *(etcd.txn([], [Write(prefix + "x", number)]) for prefix in prefixes)
                )

            for prefix, task in zip(prefixes, watching, strict=True):
                assert [(prefix + "x", b"1"), (prefix + "x", b"2")] == await task

    run(steps())


def test_answers_that_etcd_divides_are_put_together(one):
    """A revision of more bytes than etcd sends at once is told as one batch, in long lines."""

    async def steps():
        async with client(one) as etcd:
            start = 1 + await etcd.txn([], [Write("/long/0", b"")])
            for i in range(4):
                await etcd.txn([], [Write(f"/long/{i}/{j}", b"x" * 180_000) for j in range(7)])
            await etcd.txn([], [Write("/long/end", b"")])
            counts = []
            async with aclosing(etcd.watch("/long/", start)) as batches:
                async for batch in batches:
                    revisions = [event.revision for event in batch]
                    assert sorted(revisions) == revisions
                    counts += [revisions.count(r) for r in sorted(set(revisions))]
                    if batch[-1].key == "/long/end":
                        break

            assert [7, 7, 7, 7, 1] == counts

    run(steps())


def test_a_watch_of_forgotten_history_says_so(one):
    """Compacted carries the oldest revision that there is."""

    async def steps():
        async with client(one) as etcd:
            await etcd.txn([], [Write("/old/1", b"")])
            now = await etcd.txn([], [Write("/old/2", b"")])
            request = b'{"revision": %d}' % now
            assert 200 == (await etcd._http.post(one.url, "/v3/kv/compaction", request, 3))[0]
            with pytest.raises(Compacted) as caught:
                await told(etcd, "/old/", 1, 1)
            assert now == caught.value.revision
            assert [("/old/2", b"")] == await told(etcd, "/old/", now, 1)

    run(steps())


def test_keys_go_with_their_lease_and_the_watch_tells(one):
    """A lease that nobody keeps alive ends, and its keys are told to be deleted."""

    async def steps():
        async with client(one) as etcd:
            assert await etcd.grant(1, 4711) >= 1
            assert await etcd.grant(1, 4711) >= 1
            start = await etcd.txn([], [Write("/leased/a", b"", lease=4711)])
            assert 4711 == (await etcd.get("/leased/a")).lease
            assert await etcd.keepalive(4711) >= 1
            async with aclosing(etcd.watch("/leased/", start + 1)) as batches:
                batch = await anext(batches)

            assert ["/leased/a"] == [event.key for event in batch if event.value is None]
            assert 0 == await etcd.keepalive(4711)

    run(steps())


def test_a_lease_can_be_ended(one):
    """Revoking deletes its keys at once, and again does no harm."""

    async def steps():
        async with client(one) as etcd:
            await etcd.grant(60, 4712)
            await etcd.txn([], [Write("/revoked/a", b"", lease=4712)])
            await etcd.revoke(4712)
            await etcd.revoke(4712)

            assert await etcd.get("/revoked/a") is None

    run(steps())


def test_a_client_survives_the_store_s_restart():
    """A watch ends when etcd is killed, goes on after its start, and has missed nothing."""

    async def steps(member):
        async with client(member, patience=1) as etcd:
            start = 1 + await etcd.txn([], [Write("/a", b"")])
            await etcd.txn([], [Write("/b", b"")])
            async with aclosing(etcd.watch("/", start)) as batches:
                batch = await anext(batches)
                await asyncio.to_thread(member.kill)
                with pytest.raises(StoreError, match="ended"):
                    await anext(batches)
            with pytest.raises(
                StoreError, match=r"does not answer \(127\.0\.0\.1: connection refused\)"
            ):
                await etcd.txn([], [Write("/lost", b"")])
            member.start()
            await answers(member.url)
            await etcd.txn([], [Write("/c", b"")])

            assert [("/c", b"")] == await told(etcd, "/", batch[-1].revision + 1, 1)

    with etcds() as (member,):
        run(steps(member))


def test_members_that_died_are_passed_over(three):
    """With one of three killed, reads, writes and watches go to the others."""

    async def steps():
        async with client(*three) as etcd:
            start = await etcd.txn([], [Write("/a", b"")])
            await asyncio.to_thread(three[0].kill)

            assert await succeeds(lambda: etcd.get("/a")) is not None
            await succeeds(lambda: etcd.txn([], [Write("/b", b"")]))
            assert [("/a", b""), ("/b", b"")] == await told(etcd, "/", start, 2)

    run(steps())


def test_without_most_members_nothing_is_written_and_that_is_sure(three):
    """The one that is left refuses because it has no leader, and says so."""

    async def steps():
        async with client(three[0]) as etcd:
            await etcd.txn([], [Write("/a", b"")])
            for member in three[1:]:
                await asyncio.to_thread(member.kill)

            async def refused():
                with pytest.raises(StoreError) as caught:
                    await etcd.txn([], [Write("/b", b"")])
                if isinstance(caught.value, Unsure):
                    raise caught.value
                return str(caught.value)

            assert "no leader" in await succeeds(refused)
            three[1].start()
            await succeeds(lambda: etcd.txn([], [Write("/c", b"")]))
            assert await etcd.get("/b") is None or await etcd.get("/c") is not None

    run(steps())


def test_a_change_without_an_answer_is_unsure(three):
    """A frozen member may have taken it; reads just go to the next one."""

    async def steps():
        async with client(*three, patience=0.5) as etcd:
            await etcd.txn([], [Write("/a", b"")])
            three[0].send(signal.SIGSTOP)
            try:
                with pytest.raises(Unsure, match="may have been made"):
                    await etcd.txn([], [Write("/b", b"")])
                etcd.set_endpoints([member.url for member in three])
                assert await succeeds(lambda: etcd.get("/a")) is not None
            finally:
                three[0].send(signal.SIGCONT)

    run(steps())


def test_a_frozen_member_costs_one_change_three_seconds(three):
    """That one gives up and says so; its repetition goes to another member, as all later ones."""

    async def steps():
        async with client(*three) as etcd:
            await etcd.txn([], [Write("/a", b"")])
            three[0].send(signal.SIGSTOP)
            try:
                began = time.monotonic()
                await succeeds(lambda: etcd.txn([], [Write("/b", b"")]))
                assert time.monotonic() - began < 4

                began = time.monotonic()
                for _ in range(10):
                    await etcd.txn([], [Write("/c", b"")])
                assert time.monotonic() - began < 1
            finally:
                three[0].send(signal.SIGCONT)

    run(steps())


def test_a_frozen_member_does_not_keep_a_watch_silent(three):
    """A watch that hears nothing asks whether its member lives, and ends if not."""

    async def steps():
        async with client(*three, patience=0.5) as etcd:
            start = await etcd.txn([], [Write("/a", b"")])
            async with aclosing(etcd.watch("/", start, silence=0.3)) as batches:
                await anext(batches)
                three[0].send(signal.SIGSTOP)
                try:
                    with pytest.raises(StoreError, match="timed out"):
                        await anext(batches)
                    await succeeds(lambda: etcd.txn([], [Write("/b", b"")]))
                    assert ("/b", b"") in await told(etcd, "/", start + 1, 1)
                finally:
                    three[0].send(signal.SIGCONT)

    run(steps())


def test_one_certificate_is_enough_for_server_and_gateway(tmp_path):
    """With client certificates required, the gateway passes with the server's own; others do not.

    etcd's gateway is a client of its own gRPC port, and shows the server's certificate there.
    """
    ours = Credentials(tmp_path / "ours")
    ours.create_authority("c1")
    ours.sign_own(pki.Holder(id="0123456789ab", name="host1", addresses=()))
    removed = Credentials(tmp_path / "removed")
    holder = pki.Holder(id="ba9876543210", name="host2", addresses=(ip_address("192.0.2.2"),))
    removed.save(ours.authority().sign(removed.request("host2"), holder), ours.ca_pem())
    files = ("cert", ours.certificate), ("key", ours.key), ("trusted-ca", ours.ca)
    flags = [f"--{side}{name}-file={path}" for side in ("", "peer-") for name, path in files]
    flags += ["--client-cert-auth", "--peer-client-cert-auth", f"--client-crl-file={ours.crl}"]

    async def steps(member):
        async with client(member, tls=ours.client_context(check_hostname=True)) as etcd:
            await succeeds(lambda: etcd.txn([], [Write("/a", b"1")]))
            assert b"1" == (await etcd.get("/a")).value
            assert [("/a", b"1")] == await told(etcd, "/", 1, 1)
        async with client(member, tls=removed.client_context()) as etcd:
            assert await etcd.get("/a") is not None
        ours.revoke([pki.serial_text(removed.identity())])
        strangers = ssl.create_default_context()
        for context in (removed.client_context(), ours.client_context(own=False), strangers):
            async with client(member, tls=context) as etcd:
                with pytest.raises(StoreError, match="does not answer"):
                    await etcd.get("/a")

    with etcds(scheme="https", flags=flags) as (member,):
        run(steps(member))
