"""Requests, from JSON to model values."""

from __future__ import annotations

import msgspec
import pytest

from seaway.agent.requests import (
    EndpointRequest,
    NetworkRequest,
    SandboxRequest,
    parse_address,
    parse_dns,
    parse_driver,
    parse_options,
    parse_ports,
    parse_prefix,
    wanted_v4,
    wanted_v6,
)
from seaway.errors import InvalidSpec


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "not a subnet like"),
        ("10.0.0.0", r"no length: write 10\.0\.0\.0/24"),
        ("fd00::", "no length: write fd00::/120"),
        ("10.0.0.1/24", r"host bits set: write 10\.0\.0\.0/24"),
        ("10.0.0.0/33", "not a subnet like"),
        ("10.0.0.0/", "not a subnet like"),
        ("", "not a subnet like"),
    ],
)
def test_a_subnet_that_is_none(text, words):
    """The message says what was probably meant."""
    with pytest.raises(InvalidSpec, match=f"--subnet .*{words}") as caught:
        parse_prefix("--subnet", text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "nonsense", "10.0.0.256", "10.0.0.0/24", "10.0.0.1 "])
def test_an_address_that_is_none(text):
    """It is quoted, with the flag it came from."""
    with pytest.raises(InvalidSpec, match="--gateway"):
        parse_address("--gateway", text)


@pytest.mark.parametrize("parse", [parse_address, parse_prefix])
def test_a_scope_is_no_part_of_an_address(parse):
    """The library reads it, but such an address equals no other, and no rule can be written so."""
    for text in ("fd77::5%x", "fd77::%x/64", "fd77::5%x }\nflush ruleset"):
        with pytest.raises(InvalidSpec, match="leave out '%'") as caught:
            parse("--ip6", text)
        assert "\n" not in str(caught.value)


def test_subnets_and_addresses_of_both_families():
    """They come out as ipaddress values."""
    assert "10.0.0.0/24" == str(parse_prefix("x", "10.0.0.0/24"))
    assert "fd00::/64" == str(parse_prefix("x", "FD00:0::/64"))
    assert "fd00::1" == str(parse_address("x", "FD00::1"))


def test_the_wrong_family_is_said_to_be():
    """--ip with an IPv6 address names --ip6, and the other way round."""
    with pytest.raises(InvalidSpec, match="use --ip6"):
        wanted_v4(EndpointRequest(network="n", ip="fd00::1"))
    with pytest.raises(InvalidSpec, match=r"use --ip$"):
        wanted_v6(EndpointRequest(network="n", ip6="10.0.0.1"))
    assert wanted_v4(EndpointRequest(network="n")) is None
    assert wanted_v6(EndpointRequest(network="n")) is None


def test_an_unknown_driver_lists_the_known():
    """So that the typo is seen."""
    with pytest.raises(InvalidSpec, match=r"'bridg'.*bridge, overlay, macvlan, host, none"):
        parse_driver("bridg")


def test_docker_s_spelling_of_options():
    """The same options under other names; the rest goes through."""
    assert {"mtu": "1400", "parent": "eth0"} == parse_options(
        {"com.docker.network.driver.mtu": "1400", "parent": "eth0"}
    )


def test_publish_all_adds_what_is_exposed():
    """Once each, and not what -p publishes already."""
    request = SandboxRequest(
        publish=["8080:80", "9000-9001:90-91"],
        publish_all=True,
        expose=["80", "91/tcp", "443", "53/udp"],
    )

    assert ["8080:80/tcp", "9000-9001:90-91/tcp", "443/tcp", "53/udp"] == [
        str(spec) for spec in parse_ports(request)
    ]
    request.publish_all = False
    assert 2 == len(parse_ports(request))


def test_dns_settings():
    """Servers are addresses."""
    found = parse_dns(SandboxRequest(dns=["192.0.2.53"], dns_search=["example"], dns_options=["a"]))

    assert (["192.0.2.53"], ("example",), ("a",)) == (
        [str(server) for server in found.servers],
        found.search,
        found.options,
    )
    with pytest.raises(InvalidSpec, match="--dns"):
        parse_dns(SandboxRequest(dns=["dns.example"]))


@pytest.mark.parametrize(
    ("kind", "needed"),
    [(NetworkRequest, {"name": "x"}), (SandboxRequest, {}), (EndpointRequest, {"network": "x"})],
)
def test_unknown_fields_are_refused(kind, needed):
    """A misspelt field would otherwise silently mean nothing."""
    assert msgspec.convert(needed, kind)
    with pytest.raises(msgspec.ValidationError, match="surprise"):
        msgspec.convert(needed | {"surprise": 1}, kind)
