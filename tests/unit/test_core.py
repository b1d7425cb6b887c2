"""Turns on one object, and whose namespace a path opens."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from seaway.agent.core import reachable
from seaway.agent.state import Change
from seaway.kernel import netns
from seaway.kernel.processes import start_time
from tests.support.core import MemoryStore, bare_core
from tests.support.model import sandbox


def test_one_at_a_time_whoever_comes_when():
    """Also for one that comes just when a second is about to follow a first; locks do not pile."""
    core = bare_core(MemoryStore())
    busy = worst = 0

    async def work():
        nonlocal busy, worst
        async with core.only_one("web"):
            busy += 1
            worst = max(worst, busy)
            await asyncio.sleep(0)
            busy -= 1

    async def scenario():
        async with asyncio.TaskGroup() as group:
            group.create_task(work())  # works
            group.create_task(work())  # waits for it
            for _ in range(10):  # one of these comes in between the two
                await asyncio.sleep(0)
                group.create_task(work())

    asyncio.run(scenario())

    assert 1 == worst
    assert {} == core._locks


def test_a_number_given_to_another_process_opens_nothing(monkeypatch):
    """The namespace is a sandbox's only while its process lives, and never if it is ours."""
    pid = os.getpid()
    web = sandbox("web", netns=netns.of_pid(pid), made_netns=False, pid=pid)
    web = replace(web, started=start_time(pid))

    assert not reachable(web), "this is the namespace that we are in"
    monkeypatch.setattr(netns, "same", lambda _a, _b: False)
    assert reachable(web)
    assert not reachable(replace(web, started=web.started - 1)), "the number is another's"
    assert reachable(replace(web, made_netns=True))


def test_holders_of_namespaces(tmp_path):
    """Found by what their path opens; forgotten although it opens nothing any more."""
    core = bare_core(MemoryStore())
    path = tmp_path / "web"
    path.touch()
    web = sandbox("web", netns=str(path), made_netns=True)
    core.state.commit(Change(put=[web]))
    core.index(web)
    (tmp_path / "alias").hardlink_to(path)

    assert web == core.holder_of(str(tmp_path / "alias"))
    assert core.holder_of(str(tmp_path)) is None
    for name in ("web", "alias"):
        (tmp_path / name).unlink()
    core.unindex(web.id)
    assert {} == core.attached


def test_an_inode_number_given_out_again_is_another_namespace(tmp_path):
    """What held it before and has not been forgotten yet does not keep it from being attached."""
    core = bare_core(MemoryStore())
    fresh = tmp_path / "fresh"
    fresh.touch()
    gone = sandbox("gone", netns=str(tmp_path / "gone"))
    core.state.commit(Change(put=[gone]))
    core.attached[netns.inode(str(fresh))] = gone.id

    assert core.holder_of(str(fresh)) is None
