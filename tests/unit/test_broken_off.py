"""Operations that end in the middle, by cancellation, by a bug, or with two errors at once."""

from __future__ import annotations

import asyncio

import pytest

from seaway.agent import networks, sandboxes
from seaway.agent.requests import EndpointRequest, NetworkRequest, SandboxRequest
from seaway.errors import KernelError
from tests.support.core import MemoryStore, bare_core

WEB = SandboxRequest(name="web", networks=[EndpointRequest(network="bridge")], publish=["8080:80"])


@pytest.fixture
def store():
    """Where the core keeps its state."""
    return MemoryStore()


@pytest.fixture
def core(store):
    """A core with the predefined networks and one container."""
    found = bare_core(store)
    asyncio.run(networks.ensure_predefined(found))
    asyncio.run(networks.create(found, NetworkRequest(name="front")))
    asyncio.run(sandboxes.create(found, SandboxRequest(name="db", networks=WEB.networks)))
    return found


def test_a_bug_in_the_store_lets_go_of_the_ports(core, monkeypatch):
    """Whatever kind of error it is, nobody holds a port for a container that is not there."""

    async def broken(_change):
        raise ZeroDivisionError

    monkeypatch.setattr(core.state, "commit", broken)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(sandboxes.create(core, WEB))
    assert {} == core.bindings.held


def test_a_network_whose_making_is_cancelled_is_forgotten(core, monkeypatch):
    """And the kernel is looked at, since nobody knows how far it came."""

    async def change(_name, _resources):
        raise asyncio.CancelledError

    monkeypatch.setattr(core.kernel, "change", change)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(networks.create(core, NetworkRequest(name="x")))
    assert not core.state.has_network("x")
    assert core.kernel.kicks


@pytest.mark.parametrize(
    "operation",
    [
        lambda core: networks.create(core, NetworkRequest(name="x")),
        lambda core: sandboxes.create(core, WEB),
        lambda core: sandboxes.connect(core, "db", EndpointRequest(network="front")),
    ],
    ids=["network", "sandbox", "connect"],
)
def test_the_first_of_two_errors_is_told(core, store, monkeypatch, operation):
    """The kernel refuses, and then the store is full as well: look at the kernel, and say why."""

    async def change(_name, resources):
        store.full = True
        raise KernelError("create link", "swv-test", 22)

    monkeypatch.setattr(core.kernel, "change", change)
    with pytest.raises(KernelError, match="create link"):
        asyncio.run(operation(core))
    assert core.kernel.kicks
