"""Sandboxes and endpoints that cannot be wrong."""

from __future__ import annotations

import pytest

from seaway.errors import InvalidSpec
from seaway.model.sandbox import NetworkId, SandboxId, endpoint_id
from tests.support.model import network, on, sandbox

WEB, FRONT = sandbox("web"), network("front", 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mac": "02:00:00:00:00"}, "not a MAC address"),
        ({"mac": "02:00:00:00:00:0G"}, "not a MAC address"),
        ({"mac": "02:00:00:00:00:AA"}, "not a MAC address"),
        ({"mac": "01:00:5e:00:00:01"}, "multicast"),
        ({"ifname": ""}, "cannot name an interface"),
        ({"ifname": "x" * 16}, "cannot name an interface"),
        ({"ifname": "a/b"}, "cannot name an interface"),
        ({"aliases": ("ok", "not ok")}, "alias name 'not ok'"),
    ],
)
def test_an_endpoint_that_cannot_work_is_refused(fields, words):
    """Each wrong field has its own message."""
    with pytest.raises(InvalidSpec, match=words):
        on(WEB, FRONT, 2, **fields)


@pytest.mark.parametrize(
    "key", ["kernel.hostname", "net/ipv4/ip_forward", "net.ipv4/../../x", "net..x"]
)
def test_only_settings_of_the_namespace_are_taken(key):
    """Nothing but net.*, and no way out of /proc/sys/net."""
    with pytest.raises(InvalidSpec, match="sysctl"):
        sandbox("web", sysctls={key: "1"})


def test_addresses_come_ipv4_first():
    """And those that are not there are left out."""
    assert ["10.77.1.2", "fd77:1::2"] == [str(a) for a in on(WEB, FRONT, 2).endpoint.addresses]
    assert ["fd77:1::2"] == [str(a) for a in on(WEB, FRONT, 2, v4=None).endpoint.addresses]


def test_an_attachment_s_id_is_computed():
    """The same after a restart; another for another network or sandbox."""
    a, b = SandboxId("a"), SandboxId("b")

    assert endpoint_id(a, NetworkId("n")) == endpoint_id(a, NetworkId("n"))
    assert 3 == len(
        {
            endpoint_id(a, NetworkId("n")),
            endpoint_id(b, NetworkId("n")),
            endpoint_id(a, NetworkId("m")),
        }
    )
