"""What every operation shares: turns, plans of everything, and this host's own prefix."""

from __future__ import annotations

import asyncio

import pytest

from seaway.agent import networks
from seaway.agent.core import load_site, reachable, serves
from seaway.agent.requests import NetworkRequest
from seaway.agent.state import Change
from seaway.errors import StoreError
from seaway.model.sandbox import Phase
from tests.support.core import MemoryStore, bare_core
from tests.support.model import network, on, sandbox


def test_a_host_s_prefix_is_drawn_once(tmp_path):
    """A unique local /48, the same after a restart, another on another host."""
    first = load_site(tmp_path)
    other = tmp_path / "other"
    other.mkdir()

    assert 48 == first.prefixlen
    assert first.is_private
    assert first == load_site(tmp_path)
    assert first != load_site(other)
    assert ["site"] == [path.name for path in tmp_path.iterdir() if path.is_file()]


@pytest.mark.parametrize("text", ["", "zz", "00"])
def test_a_damaged_prefix_is_an_error(tmp_path, text):
    """One line that names the file."""
    (tmp_path / "site").write_text(text)

    with pytest.raises(StoreError, match="site") as caught:
        load_site(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written(tmp_path):
    """The same."""
    with pytest.raises(StoreError, match="--state-dir"):
        load_site(tmp_path / "nowhere")


def test_one_at_a_time_and_nothing_left():
    """Two on one name take turns, two on different names do not; no lock outlives its users."""

    async def work():
        core = bare_core(MemoryStore())
        order = []

        async def use(name, label):
            async with core.only_one(name):
                order.append(f"{label} in")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                order.append(f"{label} out")

        async with asyncio.TaskGroup() as group:
            for name, label in (("x", "a"), ("x", "b"), ("y", "c")):
                group.create_task(use(name, label))
        return order, dict(core._locks)

    order, left = asyncio.run(work())
    assert order.index("a out") < order.index("b in")
    assert order.index("c in") < order.index("a out")
    assert {} == left


def test_everything_is_planned_that_can_be():
    """The host, every network, and every sandbox whose namespace is there or can be made."""
    core = bare_core(MemoryStore())
    asyncio.run(networks.create(core, NetworkRequest(name="front")))
    made, gone = sandbox("made", made_netns=True), sandbox("gone", netns="/nonexistent")
    front = network("x", 1)
    endpoints = [on(made, front, 2).endpoint, on(gone, front, 3).endpoint]
    asyncio.run(core.state.commit(Change(put=[front, made, gone, *endpoints])))

    plans = core.plans()
    assert f"sandbox/{made.id}" in plans
    assert f"sandbox/{gone.id}" not in plans
    assert plans["host"]
    assert (True, False) == (reachable(made), reachable(gone))


def test_a_stopped_sandbox_serves_nothing():
    """One that is about to run has its ports already."""
    assert [True, True, False] == [
        serves(sandbox("web", phase=phase))
        for phase in (Phase.CREATED, Phase.RUNNING, Phase.STOPPED)
    ]
