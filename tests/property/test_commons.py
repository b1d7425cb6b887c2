"""What the hosts have in common, fed with records in any order, against a plain copy of them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from seaway.agent.commons import Commons
from seaway.model.cluster import Announced, Block, Host, HostId
from seaway.model.network import Network, NetworkId
from seaway.model.sandbox import EndpointId, SandboxId
from seaway.store import keys
from seaway.store.codec import decode, encode
from tests.support.overlay import CLUSTER, host, overlay

HOSTS = [host(f"host{n}", n) for n in range(1, 5)]
ME = HOSTS[0].id
NETWORKS = [overlay(name, n) for n, name in enumerate("ab", 1)]
CIDRS = [IPv4Network(f"10.77.1.{16 * n}/28") for n in range(3)] + [IPv4Network("10.77.1.5/32")]


def identity(network, number):
    """Of an endpoint: there is one on each network."""
    return f"{number:04x}{network}"


def announced(network, number, owner, name):
    """An endpoint of a host."""
    return Announced(
        id=EndpointId(identity(network, number)),
        network=network,
        host=owner,
        sandbox=SandboxId("5" * 12),
        name=name,
        names=(name,),
        v4=ip_address("10.77.1.9"),
    )


owners = st.sampled_from([h.id for h in HOSTS])
places = st.sampled_from([n.id for n in NETWORKS])
endpoint_owners = st.integers(0, 3)
host_records = st.builds(
    lambda h, version: (keys.host(h.id), encode(replace(h, version=version))),
    st.sampled_from(HOSTS),
    st.sampled_from(["1", "2"]),
)
alive_records = owners.map(lambda h: (keys.alive(h), b"1"))
network_records = st.builds(
    lambda n, internal: (keys.network(n.id), encode(replace(n, internal=internal))),
    st.sampled_from(NETWORKS),
    st.booleans(),
)
block_records = st.builds(
    lambda n, c, h: (keys.block(n, c), encode(Block(network=n, cidr=c, host=h))),
    *(places, st.sampled_from(CIDRS), owners),
)
announced_records = st.builds(  # an endpoint is on one host for ever
    lambda n, i, name: (
        keys.announced(n, identity(n, i)),
        encode(announced(n, i, HOSTS[i].id, name)),
    ),
    *(places, endpoint_owners, st.sampled_from("xy")),
)
records = host_records | alive_records | network_records | block_records | announced_records
batches = st.lists(st.tuples(records, st.booleans()), min_size=1, max_size=4)
prefixes = st.sampled_from(
    [
        *(keys.SHARED, keys.HOSTS, keys.ALIVE, keys.NETWORKS),
        *(keys.on(n.id) for n in NETWORKS),
        *(keys.blocks(n.id) for n in NETWORKS),
    ]
)
steps = st.lists(
    st.tuples(st.just("take"), batches)
    | st.tuples(st.just("replace"), st.tuples(prefixes, batches))
    | st.tuples(st.just("forget"), places),
    max_size=12,
)


class Copy:
    """The same records, looked through anew each time."""

    def __init__(self):
        self.records = {keys.host(ME): (encode(HOSTS[0]), 0)}

    def of(self, kind):
        """Every record of one kind."""
        return {k: v for k, v in self.records.items() if keys.kind(k) == kind}

    def put(self, key, value, revision):
        """As the store does."""
        if value is not None:
            self.records[key] = value, revision
        elif key == keys.host(ME):  # what a host was last it goes on as, by itself
            self.records[key] = self.records[key][0], 0
        else:
            self.records.pop(key, None)

    def values(self, kind, model):
        """Decoded."""
        return [decode(model, value) for value, _ in self.of(kind).values()]


def picture(copy):
    """All there is to know, from the plain copy."""
    hosts = {h.id: h for h in copy.values("hosts", Host)}
    blocks = {(b.network, b.cidr): b for b in copy.values("blocks", Block)}
    there = {a.id: a for a in copy.values("announced", Announced) if a.host != ME}
    alive = {HostId(key.removeprefix(keys.ALIVE)) for key in copy.of("alive")}
    networks = {n.id: n for n in copy.values("networks", Network)}
    return hosts, blocks, there, alive, networks


def seen(commons):
    """The same from what is tested."""
    return (
        commons.hosts,
        {(n, c): b for n, found in commons.blocks.items() for c, b in found.items()},
        {i: a for found in commons.announced.values() for i, a in found.items()},
        commons.alive,
        commons.networks,
    )


def check_indexes(commons, copy):
    """Owners and revisions are those of the records."""
    blocks = copy.values("blocks", Block)
    assert {b.host for b in blocks} == commons.owners
    for one in HOSTS:
        mine = {(b.network, b.cidr) for b in blocks if b.host == one.id}
        assert mine == {(n, c) for n, found in commons.owned(one.id).items() for c in found}
        for network in NETWORKS:
            expected = [b for b in blocks if (b.host, b.network) == (one.id, network.id)]
            assert commons.blocks_of(one.id, network.id) == sorted(expected, key=lambda b: b.cidr)
    for network in NETWORKS:
        own = {b.cidr: b for b in blocks if (b.host, b.network) == (ME, network.id)}
        assert own == commons.own_blocks(network.id, 4)
        assert {} == commons.own_blocks(network.id, 6)
    tracked = {
        k: r for kind in ("hosts", "networks", "blocks") for k, (_, r) in copy.of(kind).items()
    }
    assert {k: r for k, r in tracked.items() if r} == commons.revisions


def check_touched(touched, before, after, *, exact):
    """Everything that is different is told of; with one record, nothing else is."""
    hosts, blocks, there, alive, networks = zip(before, after, strict=True)
    moved = {k for k in hosts[0].keys() | hosts[1].keys() if hosts[0].get(k) != hosts[1].get(k)}
    for key in blocks[0].keys() | blocks[1].keys():
        if blocks[0].get(key) != blocks[1].get(key):
            moved |= {b.host for b in (blocks[0].get(key), blocks[1].get(key)) if b}
    expected = (
        moved,
        alive[0] ^ alive[1],
        {
            k: networks[1].get(k)
            for k in networks[0].keys() | networks[1].keys()
            if networks[0].get(k) != networks[1].get(k)
        },
        {k: a for k, a in there[1].items() if there[0].get(k) != a},
        there[0].keys() - there[1].keys(),
    )
    found = (touched.hosts, touched.lives, touched.networks, touched.announced, touched.withdrawn)
    for wanted, told in zip(expected, found, strict=True):
        assert wanted == told if exact else set(wanted) <= set(told)
    assert all(there[1].get(k) == a for k, a in touched.announced.items())
    assert not touched.withdrawn & there[1].keys()
    assert all(networks[1].get(k) == n for k, n in touched.networks.items())


def do(what, detail, commons, copy, revision):
    """One step, here and there."""
    if what == "take":
        news = [
            (key, value if put else None, revision + i)
            for i, ((key, value), put) in enumerate(detail)
        ]
        for one in news:
            copy.put(*one)
        return commons.take(news), len(news) == 1
    if what == "forget":
        for key in [k for k in copy.records if k.startswith(keys.on(detail))]:
            del copy.records[key]
        return commons.forget_network(detail), True
    prefix, wanted = detail
    below = {key: value for (key, value), put in wanted if put and key.startswith(prefix)}
    there = {
        k: v for k, (v, _) in copy.records.items() if k.startswith(prefix) and len(v) % 2
    } | below
    for key in [k for k in copy.records if k.startswith(prefix) and k not in there]:
        copy.put(key, None, 0)
    for key, value in there.items():
        copy.put(key, value, revision)
    return commons.replace([prefix], [(k, v, revision) for k, v in there.items()]), False


@settings(deadline=None)
@given(steps)
def test_any_records_in_any_order(life):
    """Hosts, owners, members and revisions are those of the records; each change is told of."""
    commons, copy = Commons(ME), Copy()
    commons.take([(keys.host(ME), encode(HOSTS[0]), 0)])
    for number, (what, detail) in enumerate(life):
        before = picture(copy)
        touched, exact = do(what, detail, commons, copy, 10 * number + 1)
        after = picture(copy)

        assert after == seen(commons)
        check_indexes(commons, copy)
        check_touched(touched, before, after, exact=exact)


def test_a_cluster_that_is_the_same_is_no_news():
    """Its record, and what is different of it; without it nothing is forgotten."""
    commons = Commons(ME)

    assert commons.take([(keys.CLUSTER, encode(CLUSTER), 1)]).cluster
    assert not commons.take([(keys.CLUSTER, encode(CLUSTER), 2)]).cluster
    assert commons.take([(keys.CLUSTER, encode(replace(CLUSTER, generation=1)), 3)]).cluster
    assert not commons.take([(keys.CLUSTER, None, 4)]).cluster
    assert 1 == commons.cluster.generation


def test_hosts_are_found_by_name_and_id():
    """The own one too; nothing else is."""
    commons = Commons(ME)
    commons.take([(keys.host(h.id), encode(h), 1) for h in HOSTS])

    assert HOSTS[2] == commons.host_called("host3") == commons.host_called(HOSTS[2].id)
    assert commons.host_called("host") is None
    assert HOSTS[0] == commons.host


def test_keys_say_what_they_are():
    """Of every key there is, its kind; of some, the network."""
    network, cidr = NetworkId("a" * 12), CIDRS[0]
    kinds = {
        keys.CLUSTER: "cluster",
        keys.TOKEN: "token",
        keys.NETWORK_TURN: "network-turn",
        keys.host(ME): "hosts",
        keys.alive(ME): "alive",
        keys.host_name("x"): "host-names",
        keys.host_number(1): "host-numbers",
        keys.network(network): "networks",
        keys.network_name("x"): "network-names",
        keys.block(network, cidr): "blocks",
        keys.announced(network, "e"): "announced",
        keys.address(network, cidr[0]): "addresses",
        keys.name(network, "X"): "names",
        keys.local(ME, f"{keys.ROOT}/sandboxes/x"): "local",
    }
    assert kinds == {key: keys.kind(key) for key in kinds}
    assert (network, "10.77.1.0-28") == keys.network_of(keys.block(network, cidr))
    assert keys.name(network, "Web") == keys.name(network, "web")
