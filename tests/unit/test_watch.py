"""What the agent makes of starts and ends that it only hears of."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager

import pytest

from seaway.agent import networks, sandboxes
from seaway.agent.requests import EndpointRequest, SandboxRequest
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
