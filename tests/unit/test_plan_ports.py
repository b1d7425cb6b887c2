"""Published ports as map elements."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from seaway.plan.ports import plan_ports
from tests.support.model import bound

WEB4, WEB6 = ip_address("10.77.1.2"), ip_address("fd77:1::2")


def elements(text, backend=WEB4):
    """The elements of one port, as nft writes them, without the hairpin's."""
    found = plan_ports([bound(text)], backend, reason="port of web")
    return [
        f"{e.set} {' . '.join(e.match)}" + (f" : {' . '.join(e.value)}" if e.value else "")
        for e in found
        if not e.set.startswith("hairpin")
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", ["publish_any4 tcp . 8080 : 10.77.1.2 . 80"]),
        ("53:53/udp", ["publish_any4 udp . 53 : 10.77.1.2 . 53"]),
        ("127.0.0.1:8080:80", ["publish_on4 127.0.0.1 . tcp . 8080 : 10.77.1.2 . 80"]),
        ("9000-9999:9000-9999", ["publish_range4 0.0.0.0/0 . tcp . 9000-9999 : 10.77.1.2"]),
        (
            "192.0.2.1:9000-9999:9000-9999/sctp",
            ["publish_range4 192.0.2.1 . sctp . 9000-9999 : 10.77.1.2"],
        ),
        (
            "7000-7001:70-71",
            [
                "publish_any4 tcp . 7000 : 10.77.1.2 . 70",
                "publish_any4 tcp . 7001 : 10.77.1.2 . 71",
            ],
        ),
        ("[::1]:8080:80", []),
    ],
)
def test_one_element_a_port_or_a_range(text, expected):
    """A range that keeps its numbers is one element, however long."""
    assert expected == elements(text)


def test_the_other_family_has_its_own():
    """A port on every address has an element in each; one on an IPv6 address only there."""
    assert ["publish_any6 tcp . 8080 : fd77:1::2 . 80"] == elements("8080:80", WEB6)
    assert ["publish_on6 ::1 . tcp . 8080 : fd77:1::2 . 80"] == elements("[::1]:8080:80", WEB6)
    assert [] == elements("127.0.0.1:8080:80", WEB6)


def test_allowed_clients_are_elements_too():
    """One that guards the port, one for each range of clients; hosts without their length."""
    text = "8080:80,from=192.0.2.0/24,from=198.51.100.7,from=2001:db8::/64"

    assert [
        "publish_any4 tcp . 8080 : 10.77.1.2 . 80",
        "guarded4 0.0.0.0/0 . tcp . 8080",
        "allowed4 192.0.2.0/24 . 0.0.0.0/0 . tcp . 8080",
        "allowed4 198.51.100.7 . 0.0.0.0/0 . tcp . 8080",
    ] == elements(text)
    assert "allowed6 2001:db8::/64 . ::/0 . tcp . 8080" in elements(text, WEB6)


def test_a_list_of_one_family_shuts_the_other_out():
    """from=192.0.2.0/24 means nobody over IPv6."""
    found = elements("8080:80,from=192.0.2.0/24", WEB6)

    assert "guarded6 ::/0 . tcp . 8080" in found
    assert [] == [e for e in found if e.startswith("allowed6")]


def test_a_container_reaches_itself_through_its_port():
    """One element for all its ports, in the families it publishes in."""
    found = list(plan_ports([bound("8080:80"), bound("81:81")], WEB4, reason="x"))

    assert [("10.77.1.2", "10.77.1.2")] == [e.match for e in found if e.set == "hairpin4"]
    assert [] == list(plan_ports([bound("[::1]:8080:80")], WEB4, reason="x"))
