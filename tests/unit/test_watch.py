"""What the agent makes of starts and ends that it only hears of."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from seaway.agent import networks, sandboxes
from seaway.agent.requests import EndpointRequest, SandboxRequest
from seaway.agent.state import Change
from seaway.agent.watch import ContainerWatch
from seaway.errors import Conflict, StoreError
from seaway.model.sandbox import Phase
from tests.support.core import MemoryStore, bare_core


@pytest.fixture
def store():
    """Where the core keeps its state."""
    return MemoryStore()


@pytest.fixture
def core(store, tmp_path):
    """A core with the predefined networks."""
    found = bare_core(store, tmp_path)
    asyncio.run(networks.ensure_predefined(found))
    return found


@pytest.fixture
def watch(core):
    """A watch whose engine has every container."""

    async def all_of_them():
        return {s.container for s in core.state.sandboxes.values()}

    found = ContainerWatch(core, all_of_them)
    yield found
    os.close(found._inotify)


def make(core, name="web", **more):
    """A container that publishes a port."""
    wanted = [EndpointRequest(network="bridge")]
    request = SandboxRequest(name=name, networks=wanted, publish=["8080:80"], **more)
    return asyncio.run(sandboxes.create(core, request))


@contextmanager
def started_behind_our_back(core):
    """A container that runs while another holds its port, given back at the end."""
    web = make(core)
    asyncio.run(sandboxes.stopped(core, "web", "feed"))
    make(core, "thief")
    asyncio.run(sandboxes.started(core, web.id, "feed", os.getpid()))
    yield core.state.sandboxes[web.id]
    asyncio.run(sandboxes.remove(core, "thief"))


def test_a_container_that_starts_while_its_port_is_taken_runs(core, watch):
    """It is shown and watched; status tells of the port, which is had once it is free."""
    with started_behind_our_back(core) as web:
        assert (Phase.RUNNING, os.getpid(), ()) == (web.phase, web.pid, web.published)
        assert "8080" in core.failures[web.id]
        asyncio.run(watch.publish_again())
        assert not core.state.sandbox("web").published
        assert ["web", "thief"] == [s.name for s in core.state.sandboxes.values()]

    asyncio.run(watch.publish_again())
    (port,) = core.state.sandbox("web").published
    assert 8080 == port.host_port
    assert {} == core.failures
    assert {web.id} == set(core.bindings.held)
    assert any(getattr(item, "set", "") == "publish_any4" for item in core.kernel.plans[of(web)])


def of(sandbox):
    """What its plan is called."""
    return f"sandbox/{sandbox.id}"


def test_a_stopped_container_has_no_problem_with_ports(core):
    """What it lacked while it ran is no matter any more."""
    with started_behind_our_back(core) as web:
        asyncio.run(sandboxes.stopped(core, web.id))

    assert {} == core.failures


def test_a_start_that_is_asked_for_is_refused(core):
    """Whoever asks is told that the port is taken, and it is no lasting problem."""
    make(core)
    asyncio.run(sandboxes.stopped(core, "web", "feed"))
    make(core, "thief")

    with pytest.raises(Conflict, match="8080"):
        asyncio.run(sandboxes.up(core, "web"))
    assert Phase.STOPPED is core.state.sandbox("web").phase
    assert {} == core.failures


def test_ports_bound_for_what_cannot_be_stored_are_let_go(core, store):
    """A store that is full when a container is to start again: nobody holds its port."""
    make(core)
    asyncio.run(sandboxes.stopped(core, "web", "feed"))
    store.full = True

    with pytest.raises(StoreError):
        asyncio.run(sandboxes.up(core, "web"))
    assert {} == core.bindings.held


def test_starts_are_found_when_more_happened_than_was_told(core, watch, tmp_path):
    """The kernel keeps a limited number of events, and says so when it drops some."""
    web, db = make(core), asyncio.run(sandboxes.create(core, SandboxRequest(name="db")))
    here = replace(core.state.sandboxes[web.id], netns="/proc/self/ns/net")
    asyncio.run(core.state.commit(Change(put=[here])))
    folder = tmp_path / "containers"
    kept = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    others = [str(folder / "one"), str(folder / "other")]  # equal events in a row are one
    for number in range(kept + 1):
        os.close(os.open(others[number % 2], os.O_WRONLY | os.O_CREAT))
    (folder / f"{web.id}.pid").write_text(str(os.getpid()))
    (folder / f"{db.id}.pid").write_text(str(os.getpid()))  # of something in another namespace

    asyncio.run(heard(watch))

    assert Phase.RUNNING is core.state.sandbox("web").phase
    assert os.getpid() == core.state.sandbox("web").pid
    assert Phase.CREATED is core.state.sandbox("db").phase


async def heard(watch):
    """Let it hear of all that happened, and do what there is to do."""
    with suppress(BlockingIOError):
        while True:
            watch._files_changed()
    while not watch._work.empty():
        await watch._work.get_nowait()()
    for sandbox in list(watch._pidfds):
        watch._unfollow(sandbox)


def test_a_file_with_any_name_is_no_matter(core, watch, tmp_path):
    """What follows it is heard."""
    web = make(core)
    for name in (os.fsdecode(b"\xff.pid"), f"{web.id}.pid"):
        (tmp_path / "containers" / name).write_text(str(os.getpid()))

    asyncio.run(heard(watch))
    assert Phase.RUNNING is core.state.sandbox("web").phase


def test_work_that_crashes_does_not_end_the_others(core, watch, tmp_path, monkeypatch):
    """Whatever goes wrong about one container, the next one is heard of."""
    web, db = make(core), asyncio.run(sandboxes.create(core, SandboxRequest(name="db")))
    real = sandboxes.started

    async def started(core, name, *args):
        if name == web.id:
            raise OSError(24, "Too many open files")
        return await real(core, name, *args)

    monkeypatch.setattr(sandboxes, "started", started)

    async def scenario():
        async with asyncio.TaskGroup() as group:
            task = group.create_task(watch._do_work())
            for sandbox in (web, db):
                (tmp_path / "containers" / f"{sandbox.id}.pid").write_text(str(os.getpid()))
            watch._files_changed()
            async with asyncio.timeout(10):
                while core.state.sandbox("db").phase is not Phase.RUNNING:
                    await asyncio.sleep(0.01)
            task.cancel()
            for sandbox in list(watch._pidfds):
                watch._unfollow(sandbox)

    asyncio.run(scenario())
