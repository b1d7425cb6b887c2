"""What is stored: round trips, and a state that is the same after a restart."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from seaway.agent import networks, sandboxes
from seaway.agent.requests import EndpointRequest, NetworkRequest, SandboxRequest
from seaway.agent.state import State
from seaway.errors import SeawayError
from seaway.model.ports import parse_publish
from seaway.store.codec import decode, encode
from tests.support.core import MemoryStore, bare_core
from tests.support.model import bound, network, on, sandbox, subnet

texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
labels = st.dictionaries(texts, texts, max_size=3)
PORTS = ["80", "8080:80", "[::1]:53:53/udp", "9000-9009:9000-9009/sctp", "8080:80,from=10.0.0.0/8"]


@given(names, labels, st.booleans(), st.integers(0, 255), st.floats(0, 1e10))
def test_networks_go_round(name, labels, internal, octet, created):
    """Encoded and decoded, any network is the same."""
    reserved = {name: ip_address(f"10.{octet}.0.9")}
    found = network(
        *("x", 1),
        subnets=(subnet(f"10.{octet}.0.0/16", reserved=reserved), subnet(f"fd{octet:02x}::/64")),
        labels=labels,
        internal=internal,
        created=created,
    )

    assert found == decode(type(found), encode(found))


@given(names, labels, st.lists(st.sampled_from(PORTS), max_size=3), st.booleans(), st.integers(0))
def test_sandboxes_and_endpoints_go_round(name, labels, ports, made, pid):
    """Encoded and decoded, any sandbox and any endpoint is the same."""
    fixed = tuple(bound(text) for text in ports if text != "80")
    found = sandbox(
        name,
        labels=labels,
        asked=tuple(parse_publish(text) for text in ports),
        published=fixed,
        earlier=fixed,
        made_netns=made,
        pid=pid % 2**31,
    )
    endpoint = on(found, network("front", 1), 2 + pid % 200, aliases=(name,)).endpoint

    assert found == decode(type(found), encode(found))
    assert endpoint == decode(type(endpoint), encode(endpoint))


class Life(RuleBasedStateMachine):
    """Any operations in any order, refused ones and full disks among them."""

    def __init__(self):
        super().__init__()
        self.store = MemoryStore()
        self.core = bare_core(self.store)
        self._run(networks.ensure_predefined(self.core))

    def _run(self, work):
        with suppress(SeawayError):
            asyncio.run(work)

    @rule(name=st.sampled_from("abc"), internal=st.booleans(), octet=st.integers(1, 3))
    def create_network(self, name, internal, octet):
        """A small one, so that addresses run out; subnets may overlap, and are refused."""
        request = NetworkRequest(name=name, internal=internal, subnets=[f"10.77.{octet}.0/29"])
        self._run(networks.create(self.core, request))

    @rule(name=st.sampled_from("abc"))
    def remove_network(self, name):
        """Perhaps in use, perhaps not there."""
        self._run(networks.remove(self.core, name))

    @rule(
        name=st.sampled_from("vwxyz"),
        places=st.lists(st.sampled_from(["a", "b", "c", "bridge", "host"]), max_size=3),
        ports=st.lists(st.sampled_from(PORTS), max_size=2),
        auto_remove=st.booleans(),
        ip=st.sampled_from(["", "", "10.77.1.3", "10.77.2.3"]),
    )
    def create(self, name, places, ports, auto_remove, ip):
        """On any networks, with any ports."""
        wanted = [EndpointRequest(network=place) for place in places]
        if wanted:
            wanted[0].ip = ip
        request = SandboxRequest(
            name=name, networks=wanted, publish=ports, auto_remove=auto_remove, creator=os.getpid()
        )
        self._run(sandboxes.create(self.core, request))

    @rule(name=st.sampled_from("vwxyz"), place=st.sampled_from(["a", "b", "c", "bridge"]))
    def connect(self, name, place):
        """To one more."""
        self._run(sandboxes.connect(self.core, name, EndpointRequest(network=place)))

    @rule(name=st.sampled_from("vwxyz"), place=st.sampled_from(["a", "b", "c", "bridge"]))
    def disconnect(self, name, place):
        """From one."""
        self._run(sandboxes.disconnect(self.core, name, place))

    @rule(
        name=st.sampled_from("vwxyz"),
        what=st.sampled_from(
            [sandboxes.up, sandboxes.stopped, sandboxes.started, sandboxes.remove]
        ),
    )
    def live(self, name, what):
        """Any step of its life."""
        self._run(what(self.core, name))

    @rule()
    def refuse_next(self):
        """The kernel refuses the next change."""
        self.core.kernel.refuse = True

    @precondition(lambda self: not self.store.full)
    @rule()
    def fill(self):
        """The disk fills up."""
        self.store.full = True

    @precondition(lambda self: self.store.full)
    @rule()
    def empty(self):
        """There is room again."""
        self.store.full = False

    @invariant()
    def a_restart_reads_the_same(self):
        """Memory and store agree in everything."""
        ours, theirs = self.core.state, State(self.store)

        assert ours.networks == theirs.networks
        assert ours.sandboxes == theirs.sandboxes
        assert ours.endpoints == theirs.endpoints
        for sandbox_id in ours.sandboxes:
            assert ours.attachments(sandbox_id) == theirs.attachments(sandbox_id)
        for network_id in ours.networks:
            assert dict(ours.holders(network_id)) == dict(theirs.holders(network_id))

    @invariant()
    def nothing_is_held_twice_or_by_nobody(self):
        """An address has one endpoint, an endpoint its sandbox and network, a port its sandbox."""
        state = self.core.state
        addresses = [a for e in state.endpoints.values() for a in e.addresses]
        assert len(set(addresses)) == len(addresses)
        assert all(e.sandbox in state.sandboxes for e in state.endpoints.values())
        assert all(e.network in state.networks for e in state.endpoints.values())
        ports = {i: s.published for i, s in state.sandboxes.items() if s.published}
        assert ports == self.core.bindings.held

    @invariant()
    def the_kernel_has_what_is_planned(self):
        """Small steps have led where a full plan leads, unless a look has been asked for."""
        if self.core.kernel.kicks:
            return
        wanted = {name: set(plan) for name, plan in self.core.plans().items() if plan}
        wanted.pop("host")
        assert wanted == {name: set(plan) for name, plan in self.core.kernel.plans.items()} | {
            name: plan for name, plan in wanted.items() if self._predefined(name)
        }

    def _predefined(self, name):
        return name == f"network/{self.core.state.network('bridge').id}"


Life.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
test_any_life_is_the_same_after_a_restart = Life.TestCase
