"""Records: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from typing import NewType

import pytest

from seaway.errors import StoreError
from seaway.model.network import Network
from seaway.model.sandbox import Endpoint, Sandbox
from seaway.store.codec import VERSION, decode, encode
from tests.support.model import macvlan, network, on, sandbox, subnet

Tag = NewType("Tag", str)
WEB, FRONT = (
    sandbox("web", ["8080:80", "[::1]:53:53/udp", "1-9:1-9,from=10.0.0.0/8"]),
    network("front", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Old:
    """A record of a type with one field and a NewType."""

    tag: Tag
    at: IPv4Address | None = None


@pytest.mark.parametrize(
    "value",
    [
        FRONT,
        macvlan("wire", "192.0.2.0/24"),
        network("n", 5, internal=True, labels={"a": "b"}, subnets=(subnet("10.0.0.0/24"),)),
        WEB,
        on(WEB, FRONT, 2, aliases=("a", "b")).endpoint,
        on(WEB, FRONT, 2, v4=None).endpoint,
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_is_written_is_read_back(value):
    """Addresses, prefixes, enums, nested values, tuples and options."""
    assert value == decode(type(value), encode(value))


def test_ids_are_their_text():
    """A NewType is written and read as what it stands for."""
    assert Old(tag=Tag("x")) == decode(Old, encode(Old(tag=Tag("x"))))


def test_a_record_says_its_version():
    """So that a later release knows what it reads."""
    record = json.loads(encode(FRONT))

    assert VERSION == record["version"]
    assert "10.77.1.0/24" == record["value"]["subnets"][0]["cidr"]


def test_what_was_added_since_has_its_default():
    """A record without a field that has a default is read."""
    assert Old(tag=Tag("x")) == decode(
        Old, json.dumps({"version": 1, "value": {"tag": "x"}}).encode()
    )


def record(value, version=VERSION):
    """A record by hand."""
    return json.dumps({"version": version, "value": value}).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (record({"tag": "x"}, VERSION + 1), f"version {VERSION + 1}.*newer"),
        (record({"tag": "x", "more": 1}), "unknown field 'more'"),
        (record({"at": None}), "field 'tag' is missing"),
        (record({"tag": "x", "at": "nowhere"}), "cannot be read"),
        (record([1]), "cannot be read"),
        (record("text"), "cannot be read"),
        (b"[]", "cannot be read"),
        (b'"x"', "cannot be read"),
        (b"{}", "cannot be read"),
        (b"not json", "cannot be read"),
        (b"", "cannot be read: .*; if a newer Seaway wrote it, upgrade this one"),
        (b"\xff", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_an_error(data, words):
    """Nothing is half understood, and the message says of what kind the record was."""
    with pytest.raises(StoreError, match=words) as caught:
        decode(Old, data)
    assert "stored Old" in str(caught.value)


@pytest.mark.parametrize("kind", [Network, Sandbox, Endpoint])
def test_a_value_that_cannot_be_is_an_error_of_the_store(kind):
    """A model's own refusal is not the caller's fault when it comes out of the store."""
    good = {Network: FRONT, Sandbox: WEB, Endpoint: on(WEB, FRONT, 2).endpoint}[kind]
    bad = json.loads(encode(good))
    bad["value"]["mac" if kind is Endpoint else "name"] = "-"

    with pytest.raises(StoreError, match="cannot be read"):
        decode(kind, json.dumps(bad).encode())


def test_an_address_keeps_its_family():
    """Also where both are allowed."""
    asked = decode(Sandbox, encode(WEB)).asked

    assert ip_address("::1") == asked[1].host_ip
