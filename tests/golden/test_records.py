"""Stored records, as releases write them: the last release's are read, this one's do not change.

``version-1.txt`` was written by the release before clusters and stays as it is.
``make golden`` writes the file of the current version anew: only before that version
is released, since whoever has it already cannot read what has changed.
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from ipaddress import IPv6Network, ip_address, ip_network
from pathlib import Path

import pytest

from seaway.agent.state import Change, State, key_of
from seaway.errors import StoreError
from seaway.model.cluster import Announced, Block, Claim, Cluster, Host, HostId, Ports, TunnelKey
from seaway.model.network import Driver, Network, NetworkId
from seaway.model.ports import PublishedPort, parse_publish
from seaway.model.sandbox import DnsSettings, Endpoint, EndpointId, Phase, Sandbox, SandboxId
from seaway.store import codec, keys
from seaway.store.codec import VERSION, decode, encode
from seaway.store.port import Put
from tests.support.core import MemoryStore
from tests.support.model import subnet

HERE = Path(__file__).parent / "records"
KINDS = {
    "networks": Network,
    "sandboxes": Sandbox,
    "endpoints": Endpoint,
    "cluster": Cluster,
    "hosts": Host,
    "blocks": Block,
    "announced": Announced,
    "addresses": Claim,
}

BLUE = Network(
    id=NetworkId("a" * 12),
    name="blue",
    driver=Driver.OVERLAY,
    subnets=(
        subnet("10.1.0.0/24", ip_range=ip_network("10.1.0.128/25")),
        subnet("fd01::/64", reserved={"printer": ip_address("fd01::9")}),
    ),
    internal=True,
    options={"encrypted": "false", "carrier": "vxlan"},
    labels={"tier": "db"},
    created=1795000000.25,
)
WEB = Sandbox(
    id=SandboxId("b" * 12),
    name="web",
    netns="/run/seaway/netns/bbbbbbbbbbbb",
    made_netns=True,
    hostname="w",
    labels={"app": "shop"},
    asked=(parse_publish("127.0.0.1:80-89:80,from=192.0.2.0/24"),),
    published=(PublishedPort(host_port=8080, container_port=80),),
    earlier=(PublishedPort(host_port=8081, container_port=80),),
    dns=DnsSettings(servers=(ip_address("9.9.9.9"),), search=("corp",), options=("ndots:2",)),
    sysctls={"net.ipv4.ip_forward": "1"},
    container="feed" * 16,
    image="nginx",
    auto_remove=True,
    pid=77,
    started=7777,
    phase=Phase.RUNNING,
    created=1795000001.5,
)
AT = Endpoint(
    id=EndpointId("c" * 16),
    sandbox=WEB.id,
    network=BLUE.id,
    ifname="eth0",
    mac="02:00:00:00:00:77",
    v4=ip_address("10.1.0.130"),
    v6=ip_address("fd01::130"),
    static=True,
    aliases=("www",),
    gw_priority=5,
)
CLUSTER = Cluster(
    id="d" * 12,
    site=IPv6Network("fd77::/48"),
    ports=Ports(base=8900),
    stores=5,
    lease=30,
    generation=2,
    secret="e" * 64,
    revoked=("beef",),
    created=1795000002.0,
)
HOST = Host(
    id=HostId("1" * 12),
    name="host1",
    number=1,
    addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
    mac="02:00:00:00:00:01",
    behind=ip_address("198.51.100.1"),
    keys=(TunnelKey(generation=2, public="k" * 43 + "="),),
    settled=2,
    vxlan=False,
    checksums=False,
    drained=True,
    identity="f" * 64,
    version="0.3.0",
    joined=1795000003.0,
)
BLOCK = Block(network=BLUE.id, cidr=ip_network("10.1.0.128/27"), host=HOST.id)
ANNOUNCED = Announced(
    id=AT.id,
    network=BLUE.id,
    host=HOST.id,
    sandbox=WEB.id,
    name="web",
    names=("web", "www"),
    v4=AT.v4,
    v6=AT.v6,
    mac=AT.mac,
    labels=WEB.labels,
)
CLAIM = Claim(host=HOST.id, name="web", endpoint=AT.id)

TODAY = {
    key_of(BLUE): BLUE,
    key_of(WEB): WEB,
    key_of(AT): AT,
    keys.CLUSTER: CLUSTER,
    keys.host(HOST.id): HOST,
    keys.block(BLUE.id, BLOCK.cidr): BLOCK,
    keys.announced(BLUE.id, AT.id): ANNOUNCED,
    keys.address(BLUE.id, AT.addresses[0]): CLAIM,
}


def records(version):
    """A version's records as they are stored, by key."""
    lines = (HERE / f"version-{version}.txt").read_text().splitlines()
    return {key: value.encode() for key, value in (line.split(" ", 1) for line in lines)}


def test_this_version_s_records_do_not_change():
    """Other keys, other fields or another spelling need another version: see codec.VERSION."""
    path = HERE / f"version-{VERSION}.txt"
    text = "".join(f"{key} {encode(value).decode()}\n" for key, value in TODAY.items())
    if os.environ.get("SEAWAY_GOLDEN") == "write":
        path.write_text(text)
    assert path.exists(), f"{path.name} is missing: run 'make golden' and read what it wrote"
    assert path.read_text() == text


@pytest.mark.parametrize("version", range(VERSION - 1, VERSION + 1))
def test_the_last_release_s_records_are_read(version):
    """Of every kind it has, and nothing is lost of them."""
    for key, text in records(version).items():
        found = decode(KINDS[keys.kind(key)], text)
        assert json.loads(text)["value"] == json.loads(encode(found))["value"]


def test_version_1_means_what_it_meant():
    """Field by field, where a mistake would not show by itself."""
    state = State(of_version_1())

    front, back, wire = map(state.network, ("front", "back", "wire"))
    assert (Driver.BRIDGE, Driver.MACVLAN) == (front.driver, wire.driver)
    assert {"mtu": "1400", "masquerade": "false"} == front.options
    assert back.internal
    assert ip_network("10.77.2.128/25") == back.subnets[0].ip_range
    assert {"printer": ip_address("10.77.2.130")} == back.subnets[0].reserved
    web, old = state.sandbox("web"), state.sandbox("old")
    assert (Phase.RUNNING, Phase.STOPPED) == (web.phase, old.phase)
    assert [8080, 5353, 9000, 84] == [port.host_port for port in web.published]
    assert (8443, ip_address("0.0.0.0")) == (old.earlier[0].host_port, old.earlier[0].host_ip)
    assert {("eth0", "10.77.1.2", "fd77:1::2"), ("back0", "10.77.2.200")} == {
        (a.endpoint.ifname, *map(str, a.endpoint.addresses)) for a in state.attachments(web.id)
    }
    assert "fd77:1::2" in map(str, state.holders(front.id))


def test_a_state_of_version_1_goes_on():
    """What is changed is written as the current version, the rest stays as it is until then."""
    store = of_version_1()
    state = State(store)
    changed = replace(state.sandbox("web"), hostname="other")
    asyncio.run(state.commit(Change(put=[changed])))

    versions = {r.key: json.loads(r.value)["version"] for r in store.load()}
    assert {key: VERSION if key == key_of(changed) else 1 for key in versions} == versions
    assert changed == State(store).sandbox("web")


def of_version_1():
    """The store of a host before its upgrade."""
    store = MemoryStore()
    store.commit([Put(key, value) for key, value in records(1).items()])
    return store


def test_a_field_that_was_renamed_is_read(monkeypatch):
    """One step for each version in between, for the kinds that are named and for no others."""
    steps = {
        VERSION - 1: {
            Block: lambda item: (
                {k: v for k, v in item.items() if k != "prefix"} | {"cidr": item["prefix"]}
            )
        },
        VERSION - 2: {Block: lambda item: item | {"prefix": item["prefix"] + "/27"}},
    }
    monkeypatch.setattr(codec, "UPGRADES", steps)
    value = {"network": BLUE.id, "prefix": "10.1.0.128", "host": HOST.id}
    record = json.dumps({"version": VERSION - 2, "value": value}).encode()
    claim = json.loads(encode(CLAIM)) | {"version": VERSION - 2}

    assert BLOCK == decode(Block, record)
    assert CLAIM == decode(Claim, json.dumps(claim).encode())


@pytest.mark.parametrize("version", [0, VERSION + 1, str(VERSION), None, [1], 1.5])
def test_other_versions_are_refused(version):
    """Older than the last, newer than this, or nothing at all: no guess is made."""
    record = json.dumps({"version": version, "value": json.loads(encode(CLAIM))["value"]})
    with pytest.raises(StoreError, match="stored Claim") as caught:
        decode(Claim, record.encode())
    assert "\n" not in str(caught.value)
