"""The desired state in memory, and the store behind it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address

import pytest

from seaway.agent.state import Change, State, key_of
from seaway.errors import Conflict, NotFound, StoreError
from seaway.store.port import Put
from tests.support.core import MemoryStore
from tests.support.model import network, on, sandbox

FRONT, BACK = network("front", 1), network("back", 2)
WEB, DB = sandbox("web"), sandbox("db")
AT = on(WEB, FRONT, 2).endpoint


@pytest.fixture
def store():
    """A store in memory."""
    return MemoryStore()


@pytest.fixture
def state(store):
    """A state with one of each."""
    found = State(store)
    asyncio.run(found.commit(Change(put=[FRONT, BACK, WEB, DB, AT])))
    return found


def contents(state):
    """All it says."""
    return state.networks, state.sandboxes, state.endpoints


def test_a_new_state_reads_what_the_old_one_wrote(state, store):
    """Objects, names, attachments and addresses."""
    again = State(store)

    assert contents(state) == contents(again)
    assert WEB == again.sandbox("web")
    assert [AT] == [a.endpoint for a in again.attachments(WEB.id)]
    assert "web" == again.holders(FRONT.id)[ip_address("10.77.1.2")]
    asyncio.run(again.commit(Change(put=[replace(WEB, hostname="w")])))  # it knows the revisions


def test_names_ids_and_beginnings_are_found(state):
    """As Docker finds them; ambiguous beginnings and nothing at all are not."""
    assert FRONT == state.network("front") == state.network(FRONT.id) == state.network(FRONT.id[:6])
    assert WEB == state.sandbox("web") == state.sandbox(WEB.id) == state.sandbox(WEB.id[:6])
    asyncio.run(state.commit(Change(put=[replace(WEB, container="feedbeef" * 8)])))
    assert "web" == state.sandbox("feedbe").name
    for name in ("nowhere", "", "fro"):
        with pytest.raises(NotFound, match="ls"):
            state.network(name)
        with pytest.raises(NotFound, match="ps -a"):
            state.sandbox(name)


def test_an_id_is_never_taken_for_a_name(state):
    """Something that was called like another's id does not get what was meant for the other."""
    asyncio.run(
        state.commit(Change(put=[sandbox(WEB.id, id="0" * 12), network(FRONT.id, 3, id="1" * 12)]))
    )

    assert WEB == state.sandbox(WEB.id)
    assert FRONT == state.network(FRONT.id)


def test_two_digits_are_no_id(state):
    """A slip of the finger must not remove somebody else."""
    for name in (WEB.id[:2], FRONT.id[:1]):
        with pytest.raises(NotFound):
            state.sandbox(name)
        with pytest.raises(NotFound):
            state.network(name)


def test_an_ambiguous_beginning_is_not_found(state):
    """Two containers whose ids begin alike."""
    asyncio.run(
        state.commit(Change(put=[replace(WEB, container="abc1"), replace(DB, container="abc2")]))
    )

    with pytest.raises(NotFound):
        state.sandbox("abc")
    assert "db" == state.sandbox("abc2").name


def test_deleting_forgets_everything(state, store):
    """Names and addresses are free again."""
    asyncio.run(state.commit(Change(delete=[AT, WEB])))

    assert [] == list(state.members(FRONT.id))
    assert 0 == len(state.holders(FRONT.id))
    state.require_free_name("web")
    assert [key_of(x) for x in (BACK, FRONT)] == [
        k for k in sorted(store.records) if "networks" in k
    ]
    with pytest.raises(NotFound):
        state.sandbox("web")


def test_a_taken_name_is_refused(state):
    """With what to do."""
    with pytest.raises(Conflict, match="'web' is taken"):
        state.require_free_name("web")


def test_a_moved_endpoint_lets_go_of_its_address(state):
    """The old one is free, the new one held."""
    asyncio.run(state.commit(Change(put=[replace(AT, v4=ip_address("10.77.1.9"))])))

    held = state.holders(FRONT.id)
    assert {ip_address("10.77.1.9"), ip_address("fd77:1::2")} == set(held)
    assert ip_address("10.77.1.2") not in held


def test_attachments_come_in_the_order_of_their_interfaces(state, store):
    """Also after a restart, and eth10 behind eth9."""
    asyncio.run(
        state.commit(
            Change(put=[on(DB, FRONT, 3, "eth10").endpoint, on(DB, BACK, 3, "eth9").endpoint])
        )
    )

    for found in (state, State(store)):
        assert ["eth9", "eth10"] == [a.endpoint.ifname for a in found.attachments(DB.id)]


def test_a_store_that_refuses_changes_nothing(state, store):
    """Memory and store agree afterwards, and the next commit works."""
    before = [dict(part) for part in contents(state)]
    store.full = True
    with pytest.raises(StoreError):
        asyncio.run(state.commit(Change(put=[replace(WEB, hostname="w")], delete=[AT])))
    store.full = False

    assert before == list(contents(state))
    asyncio.run(state.commit(Change(delete=[AT])))


def test_another_writer_is_noticed(state, store):
    """Who builds on a revision that is gone is told so."""
    asyncio.run(State(store).commit(Change(put=[replace(WEB, hostname="theirs")])))

    with pytest.raises(Conflict):
        asyncio.run(state.commit(Change(put=[replace(WEB, hostname="mine")])))
    assert "" == state.sandbox("web").hostname


def test_records_of_other_kinds_are_left_alone(store):
    """A later release may keep more; it is neither read nor deleted."""
    store.commit([Put("/seaway/v1/policies/-/x", b"{}")])
    state = State(store)
    asyncio.run(state.commit(Change(put=[FRONT])))

    assert "/seaway/v1/policies/-/x" in store.records
    assert [FRONT] == list(state.networks.values())
