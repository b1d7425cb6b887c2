"""Published ports: every way to write them, every way to get them wrong."""

from ipaddress import ip_address, ip_network

import pytest

from seaway.errors import InvalidSpec
from seaway.model.ports import (
    ExposedPorts,
    PortSpec,
    Protocol,
    PublishedPort,
    overlapping,
    parse_expose,
    parse_publish,
)


def spec(container, count=1, host=None, ip=None, protocol="tcp", sources=()):
    first, last = host or (None, None)
    return PortSpec(
        host_ip=ip_address(ip) if ip else None,
        host_first=first,
        host_last=last,
        container_port=container,
        count=count,
        protocol=Protocol(protocol),
        sources=tuple(map(ip_network, sources)),
    )


def bound(host_port, ip=None, count=1, protocol="tcp"):
    return PublishedPort(
        host_ip=ip_address(ip) if ip else None,
        host_port=host_port,
        container_port=80,
        count=count,
        protocol=Protocol(protocol),
    )


FORMS = {
    # Docker's short form
    "80": spec(80),
    "8080:80": spec(80, host=(8080, 8080)),
    "127.0.0.1:8080:80": spec(80, host=(8080, 8080), ip="127.0.0.1"),
    "127.0.0.1::80": spec(80, ip="127.0.0.1"),
    "[::1]:8080:80": spec(80, host=(8080, 8080), ip="::1"),
    "[::1]::80": spec(80, ip="::1"),
    "::1:8080:80": spec(80, host=(8080, 8080), ip="::1"),
    "2001:db8::1::80": spec(80, ip="2001:db8::1"),
    "[127.0.0.1]:8080:80": spec(80, host=(8080, 8080), ip="127.0.0.1"),
    "0.0.0.0:8080:80": spec(80, host=(8080, 8080), ip="0.0.0.0"),
    "[::]:8080:80": spec(80, host=(8080, 8080), ip="::"),
    "::ffff:192.0.2.1:8080:80": spec(80, host=(8080, 8080), ip="192.0.2.1"),
    ":80": spec(80),
    "::80": spec(80),
    ":8080:80": spec(80, host=(8080, 8080)),
    "0:80": spec(80),
    "08080:0080": spec(80, host=(8080, 8080)),
    # ranges
    "80-82": spec(80, count=3),
    "8000-8002:80-82": spec(80, count=3, host=(8000, 8002)),
    "8000-8010:80": spec(80, host=(8000, 8010)),
    "127.0.0.1:8000-8002:80-82/udp": spec(
        80, count=3, host=(8000, 8002), ip="127.0.0.1", protocol="udp"
    ),
    "8080:80-80": spec(80, host=(8080, 8080)),
    # protocols
    "80/": spec(80),
    "53:53/udp": spec(53, host=(53, 53), protocol="udp"),
    "80/TCP": spec(80),
    "36412/sctp": spec(36412, protocol="sctp"),
    # the long form
    "target=80": spec(80),
    "published=8080,target=80": spec(80, host=(8080, 8080)),
    "published=8080,target=80,protocol=UDP": spec(80, host=(8080, 8080), protocol="udp"),
    "target=80-81,published=8000-8001": spec(80, count=2, host=(8000, 8001)),
    "Target=80,host_ip=127.0.0.1": spec(80, ip="127.0.0.1"),
    "target=80,host_ip=[::1]": spec(80, ip="::1"),
    # allowed clients
    "8080:80,from=192.0.2.0/24,198.51.100.0/24": spec(
        80, host=(8080, 8080), sources=("192.0.2.0/24", "198.51.100.0/24")
    ),
    "8080:80/udp,from=192.0.2.7": spec(
        80, host=(8080, 8080), protocol="udp", sources=("192.0.2.7/32",)
    ),
    "target=80,published=8080,from=192.0.2.0/24,2001:db8::/32": spec(
        80, host=(8080, 8080), sources=("192.0.2.0/24", "2001:db8::/32")
    ),
    "from=192.0.2.0/24;2001:db8::/32,target=80": spec(
        80, sources=("192.0.2.0/24", "2001:db8::/32")
    ),
    "from=192.0.2.0/24,198.51.100.0/24,target=80,from=203.0.113.0/24": spec(
        80, sources=("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")
    ),
}


@pytest.mark.parametrize(("text", "expected"), FORMS.items(), ids=FORMS)
def test_every_form_is_understood(text, expected):
    """Docker's short and long forms, ranges, protocols and from= mean what they say."""
    assert expected == parse_publish(text)


WRONG = {
    "": "not a container port",
    "http": "not a container port",
    "+80": "not a container port",
    " 80": "not a container port",
    "8_0": "not a container port",
    "٨٠": "not a container port",
    "80-": "not a container port",
    "9" * 5000: "not a container port",
    "0": "outside 1-65535",
    "8080:0": "outside 1-65535",
    "70000": "outside 1-65535",
    "70000:80": "host port 70000 is outside",
    "0-3:80-83": "host port 0-3 is outside",
    "82-80": "run backwards",
    "8082-8080:80": "run backwards",
    "8000-8001:80-82": "make both ranges the same length",
    "80:80-82": "make both ranges the same length",
    "80/icmp": "protocol 'icmp' is not one of tcp, udp, sctp",
    "8080/tcp:80": "protocol 'tcp:80'",
    "localhost:8080:80": "'localhost' is not an IP address",
    "127.0.0.1:80": "'127.0.0.1' is not a port: for a free port write IP::CONTAINER",
    ".\n:80": r"'.\n' is not a host port",
    "fe80::1%a\nb:8080:80": "belongs to one link",
    "[2001:db8::1%eth0]:8080:80": "belongs to one link",
    "[ff02::1%a\nb]:8080:80": "multicast",
    "80,from=fe80::%a\nb/64": "is not a range like",
    "80,from=2001:db8::1%64": "is not a range like",
    "::8080:80": "':' is not an IP address",
    "[::1]:80": "write :HOST:CONTAINER",
    "[::1]": "write :HOST:CONTAINER",
    "[::1:8080:80": "write :HOST:CONTAINER",
    "fe80::1:8080:80": "belongs to one link",
    "[fe80::1%eth0]:8080:80": "belongs to one link",
    "224.0.0.1:8080:80": "multicast",
    "8080:80,192.0.2.0/24": "allow clients with from=",
    "8080:80,protocol=udp": "belongs to the long form",
    "target=80,mode=host": "mode= is for services",
    "target=80,mode=ingress": "mode= is for services",
    "target=80,speed=9": "'speed' is not a key",
    "target=80,\nx=9": r"'\nx' is not a key",
    "target=80,8080": "not key=value",
    "published=8080": "target= is missing",
    "target=80,target=81": "'target' is given twice",
    "8080:80,from=": "from='' is not a range",
    "8080:80,from=192.0.2.0/24,": "from='' is not a range",
    "8080:80,from=everyone": "from='everyone' is not a range",
    "8080:80,from=192.0.2.7/24": "write 192.0.2.0/24",
    "127.0.0.1:8080:80,from=2001:db8::/32": "the IP versions differ",
    "[::1]:8080:80,from=192.0.2.0/24": "the IP versions differ",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=[t[:40] for t in WRONG])
def test_a_wrong_form_is_one_clear_line(text, message):
    """Every mistake is named in one line that begins with what cannot be published."""
    with pytest.raises(InvalidSpec, match=r"^cannot publish ") as caught:
        parse_publish(text)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("80", "80/tcp"),
        ("target=80,published=8080,host_ip=::1", "[::1]:8080:80/tcp"),
        ("192.0.2.1::53/udp", "192.0.2.1::53/udp"),
        ("8000-8002:80-82", "8000-8002:80-82/tcp"),
        (
            "8000-8002:80,from=2001:db8::/32,192.0.2.7",
            "8000-8002:80/tcp,from=192.0.2.7/32,2001:db8::/32",
        ),
    ],
)
def test_a_specification_writes_itself_in_the_short_form(text, short):
    """Any form can be shown in the one users know best."""
    assert short == str(parse_publish(text))


def test_half_a_host_range_is_refused():
    """A specification has both ends of its host range or neither."""
    with pytest.raises(InvalidSpec, match="both its ends"):
        PortSpec(host_first=80, container_port=80)


def test_allowed_clients_are_kept_free_of_overlaps():
    """Adjacent and nested ranges merge, so the kernel's interval set takes them."""
    made = parse_publish("80,from=192.0.2.128/25,2001:db8::/32,192.0.2.0/25,192.0.2.9")

    assert (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")) == made.sources


def test_host_ports_to_try():
    """One container port may land on any of the range; a range lands on its like only."""
    assert [8000, 8001, 8002] == list(parse_publish("8000-8002:80").candidates)
    assert [8000] == list(parse_publish("8000-8002:80-82").candidates)
    assert [] == list(parse_publish("80").candidates)


def test_what_is_bound_keeps_what_was_asked():
    """Binding a specification fixes the host port and changes nothing else."""
    asked = parse_publish("127.0.0.1:8000-8009:53/udp,from=127.0.0.0/8")

    published = PublishedPort(
        host_ip=ip_address("127.0.0.1"),
        host_port=8004,
        container_port=53,
        protocol=Protocol.UDP,
        sources=(ip_network("127.0.0.0/8"),),
    )
    assert published == asked.bound_at(8004)


def test_a_bound_range_ends_at_the_last_port():
    """A range that would run past port 65535 cannot have been bound."""
    with pytest.raises(InvalidSpec, match="outside 1-65535"):
        bound(65535, count=2)


@pytest.mark.parametrize(
    ("text", "host", "shown"),
    [
        ("80", 32768, "0.0.0.0:32768->80/tcp, [::]:32768->80/tcp"),
        ("127.0.0.1:53:53/udp", 53, "127.0.0.1:53->53/udp"),
        ("[::1]:8000-8002:80-82", 8000, "[::1]:8000-8002->80-82/tcp"),
    ],
)
def test_shown_as_docker_ps_does(text, host, shown):
    """The PORTS column names each address, host ports, container ports and protocol."""
    assert shown == parse_publish(text).bound_at(host).as_ps()


def test_shown_as_docker_port_does():
    """One line for each port and address, IPv4 first."""
    published = parse_publish("8000-8001:80-81").bound_at(8000)

    assert [
        "80/tcp -> 0.0.0.0:8000",
        "80/tcp -> [::]:8000",
        "81/tcp -> 0.0.0.0:8001",
        "81/tcp -> [::]:8001",
    ] == list(published.as_port())
    assert ("0.0.0.0:8001", "[::]:8001") == published.listeners(81)
    assert () == published.listeners(82)


@pytest.mark.parametrize(
    ("a", "b", "clash"),
    [
        (bound(80), bound(80), True),
        (bound(80), bound(81), False),
        (bound(80), bound(80, protocol="udp"), False),
        (bound(80, count=3), bound(82), True),
        (bound(80, count=3), bound(83), False),
        (bound(80), bound(80, "127.0.0.1"), True),
        (bound(80), bound(80, "::1"), True),
        (bound(80, "0.0.0.0"), bound(80, "127.0.0.1"), True),
        (bound(80, "0.0.0.0"), bound(80, "::1"), False),
        (bound(80, "0.0.0.0"), bound(80, "::"), False),
        (bound(80, "127.0.0.1"), bound(80, "127.0.0.2"), False),
        (bound(80, "127.0.0.1"), bound(80, "127.0.0.1"), True),
    ],
)
def test_clashes(a, b, clash):
    """Two mappings clash when one socket could not be bound beside the other."""
    assert clash == overlapping(a, b)
    assert clash == overlapping(b, a)


def test_protocol_numbers():
    """The numbers are those of the IP header."""
    assert [6, 17, 132] == [p.number for p in Protocol]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", ExposedPorts(container_port=80)),
        ("53/udp", ExposedPorts(container_port=53, protocol=Protocol.UDP)),
        ("80-82/TCP", ExposedPorts(container_port=80, count=3)),
    ],
)
def test_exposed_ports(text, expected):
    """--expose takes a port or a range, and a protocol."""
    assert expected == parse_expose(text)


@pytest.mark.parametrize("text", ["", "8080:80", "0", "80/icmp", "82-80", "65535-65536"])
def test_wrong_exposed_ports(text):
    """A wrong --expose is one clear line."""
    with pytest.raises(InvalidSpec, match=r"^cannot expose "):
        parse_expose(text)


def test_publishing_what_is_exposed():
    """-P asks for free host ports for every exposed one, and shows them as ps does."""
    exposed = parse_expose("80-82/udp")

    assert spec(80, count=3, protocol="udp") == exposed.publish()
    assert "80-82/udp" == str(exposed)


@pytest.mark.parametrize(
    ("text", "versions", "expected"),
    [
        ("8080:80", {4, 6}, "8080:80/tcp"),
        ("8080:80", {4}, "0.0.0.0:8080:80/tcp"),
        ("8080:80", {6}, "[::]:8080:80/tcp"),
        ("127.0.0.1:8080:80", {4}, "127.0.0.1:8080:80/tcp"),
        ("[::1]:8080:80", {4, 6}, "[::1]:8080:80/tcp"),
    ],
)
def test_only_what_the_container_has_addresses_for_is_asked_for(text, versions, expected):
    """Nobody is to meet silence on an address that leads nowhere."""
    assert expected == str(parse_publish(text).narrowed(versions))


def test_a_host_address_that_leads_nowhere_is_refused():
    """The message says which version is missing."""
    with pytest.raises(InvalidSpec, match="no IPv6 address"):
        parse_publish("[::1]:8080:80").narrowed({4})
