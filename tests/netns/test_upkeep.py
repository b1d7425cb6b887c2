"""Real etcds that run out of room, and how they get some again."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from seaway.agent import nodes, upkeep
from seaway.agent.upkeep import Upkeep, alarms, defragment, disarm, statuses
from seaway.errors import StoreError
from seaway.store.etcd import Erase, Etcd, Write
from tests.support.cluster import client, cluster
from tests.support.etcd import etcds, run, succeeds

QUOTA = 4_000_000
FLAGS = (f"--quota-backend-bytes={QUOTA}",)


async def fill(etcd):
    """Write until etcd takes nothing new."""
    for _ in range(10):  # it looks at its file's size, which grows when it is written out
        works = [etcd.txn([], [Write(f"/fill/{n}", b"x" * 300_000)], []) for n in range(30)]
        outcomes = await asyncio.gather(*works, return_exceptions=True)
        if any("space exceeded" in str(o) for o in outcomes):
            return
    raise AssertionError(outcomes)


async def free(etcd, url):
    """Delete that, and its history."""
    revision = await etcd.txn([], [], [Erase("/fill/", prefix=True)])
    request = msgspec.json.encode({"revision": revision, "physical": True})
    status, _ = await etcd._http.post(url, "/v3/kv/compaction", request, 10)
    assert 200 == status


def test_a_store_without_room_is_told_and_mended(monkeypatch):
    """By a line in words, also while hosts cannot reach it for that; once what filled it has gone
    its file is made smaller, and it takes new things again."""

    async def steps(url):
        async with client(url) as etcd, cluster(url, "host1") as (one,):
            ship = one.ship
            monkeypatch.setattr(upkeep, "QUOTA_BYTES", QUOTA)
            ship.member = msgspec.structs.replace(ship.member, foreign=False)
            (ship.folder.etcd / "data" / "member" / "wal").mkdir(parents=True)
            ship.me = "m0"
            care = Upkeep(ship)
            ship.commons.hosts["m0"] = ship.commons.hosts[one.record.id]
            await fill(etcd)
            await care._look()
            said = [p["error"] for p in nodes.problems(ship) if "etcd on host1" in p["error"]]
            assert ["etcd on host1 has no room left (0.0 GB)"] == [s[:39] for s in said]
            assert await asyncio.wait_for(_still_full(etcd), 5)

            await free(etcd, url)
            care._defragmented = -upkeep._PACE
            await care._look()
            assert not list(alarms(ship.stores.health))
            assert not [p for p in nodes.problems(ship) if "no room" in p["error"]]
            assert ship.stores.health["m0"].size < QUOTA / 10
            assert {"store_defragmented", "store_has_room_again"} <= {
                event.kind for event in one.core.events._ring
            }
            await etcd.txn([], [Write("/after", b"")], [])

    with etcds(flags=FLAGS) as (member,):
        run(steps(member.url))


async def _still_full(etcd):
    """Is a new thing refused?"""
    with pytest.raises(StoreError):
        await etcd.txn([], [Write("/more", b"x" * 300_000)], [])
    return True


def test_members_take_turns_and_the_leader_is_last(monkeypatch):
    """Each by itself, when it looks and finds that it is due; with one away nobody is."""
    monkeypatch.setattr(upkeep, "_WORTH", 1_000_000)

    async def steps(members):
        etcd = Etcd([m.url for m in members], None)
        for n in range(12):
            await etcd.txn([], [Write(f"/fill/{n}", b"x" * 300_000)], [])
        await free(etcd, members[0].url)
        known = await etcd.members()
        while any(s.size <= 2 * s.used for s in (await statuses(etcd, known)).values()):
            await etcd.txn([], [Write("/tick", b"")], [])  # room is counted as etcd writes
        before, done = await statuses(etcd, known), []
        while len(done) < 3:
            done += [n for n in ("m0", "m1", "m2") if await defragment(etcd, n, 1 << 33)]
        leader = next(n for n, s in before.items() if s.leader == s.member)
        assert ["m0", "m1", "m2"] == sorted(done)
        assert leader == done[-1]
        after = await succeeds(lambda: statuses(etcd, known))
        assert all(status.size < 1_000_000 for status in after.values())
        assert not await disarm(etcd, 1 << 33)
        await etcd.aclose()

    with etcds(3) as members:
        run(steps(members))
