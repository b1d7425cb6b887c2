"""Host ports, really bound, in a namespace that plays the host (192.0.2.1, 2001:db8::1)."""

from __future__ import annotations

import resource
import socket

import pytest

from seaway.agent.bindings import Bindings
from seaway.errors import Conflict, Exhausted, InvalidSpec
from seaway.kernel import netns
from seaway.model.ports import parse_publish
from tests.support.netns import cable, namespaces


@pytest.fixture
def site():
    """Bindings in the host's namespace; the test is in it, too."""
    with namespaces("outside", "host") as (outside, host):
        cable(
            *(outside, "eth0", "192.0.2.200/24,2001:db8::200/64"),
            *(host, "eth0", "192.0.2.1/24,2001:db8::1/64"),
        )
        with netns.inside(str(host.path)):
            made = Bindings()
            made.host, made.outside = host, outside
            yield made
            made.close()
        assert "" == host.run("ss -Htlun").strip()


def bind(site, owner, *texts, before=()):
    """Bind for an owner who is called as its id."""
    return site.bind(owner, owner, [parse_publish(text) for text in texts], before)


def listening(site):
    """Bound TCP and UDP ports, as ss lists them."""
    return sorted(line.split()[4] for line in site.host.run("ss -Htuln").splitlines())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", ["*:8080"]),
        ("192.0.2.1:8080:80", ["192.0.2.1:8080"]),
        ("0.0.0.0:8080:80", ["0.0.0.0:8080"]),
        ("[::]:8080:80/udp", ["[::]:8080"]),
        ("[::1]:8080:80", ["[::1]:8080"]),
        ("8080-8082:80-82", ["*:8080", "*:8081", "*:8082"]),
    ],
)
def test_a_port_is_really_bound(site, text, expected):
    """Where it was asked for; letting go frees it."""
    bind(site, "web", text)
    assert expected == listening(site)

    site.release("web")
    site.release("web")
    assert [] == listening(site)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("8080:80", "8080:81", "8080/tcp is held by container a"),
        ("8080:80", "127.0.0.1:8080:80", "8080/tcp is held by container a"),
        ("8000-8010:8000-8010", "8005:80", "8005/tcp is held by container a"),
        ("53:53/udp", "[::1]:53:53/udp", "53/udp is held by container a"),
    ],
)
def test_a_clash_names_the_holder(site, first, second, words):
    """And the one who lost has nothing bound."""
    bind(site, "a", first)
    before = listening(site)

    with pytest.raises(Conflict, match=words):
        bind(site, "b", "9999:99", second)
    assert before == listening(site)


def test_ports_that_only_look_alike(site):
    """Other protocol, other address, other family: no clash."""
    bind(site, "a", "192.0.2.1:8080:80", "8080:80/udp")
    bind(site, "b", "127.0.0.1:8080:80", "[::1]:8080:80")

    assert 4 == len(listening(site))


def test_somebody_else_s_port(site):
    """The error names the process."""
    with site.host.serving(8080):
        with pytest.raises(Conflict, match=r"8080/tcp is held by .*python"):
            bind(site, "web", "8080:80")


def test_an_address_that_is_not_ours(site):
    """It says so."""
    with pytest.raises(InvalidSpec, match=r"198\.51\.100\.1 is not an address of this host"):
        bind(site, "web", "198.51.100.1:8080:80")


def test_free_ports_and_the_same_again(site):
    """The kernel chooses; after a stop the choice falls on the same, if it is still free."""
    (first,) = bind(site, "web", "80")
    (again,) = bind(site, "web", "80", before=[first])
    site.release("web")
    with site.host.serving(first.host_port):
        (other,) = bind(site, "web", "80", before=[first])

    assert first == again
    assert first.host_port != other.host_port


def test_a_range_of_free_ports_is_consecutive(site):
    """Three container ports have three host ports in a row."""
    (found,) = bind(site, "web", "80-82")

    assert 3 == found.count
    assert [f"*:{found.host_port + n}" for n in range(3)] == listening(site)


def test_the_first_free_one_of_a_choice(site):
    """One container port and several host ports: one that is free."""
    bind(site, "a", "8000:80")

    assert 8001 == bind(site, "b", "8000-8001:80")[0].host_port
    with pytest.raises(Conflict):
        bind(site, "c", "8000-8001:80")


def test_nobody_ever_connects_to_the_socket_itself(site):
    """Without our rules a client hears nothing: no connection to nobody."""
    bind(site, "web", "8080:80", "5353:53/udp")

    code = (
        "import socket\ns = socket.socket(); s.settimeout(0.3)\n"
        "try: s.connect(('192.0.2.1', 8080)); print('connected')\n"
        "except TimeoutError: print('silence')"
    )
    assert "silence" == site.outside.python(code)


def test_too_many_ports_for_the_limit_of_open_files(site):
    """An error that names the limit, and all sockets let go."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        with pytest.raises(Exhausted, match="nofile"):
            bind(site, "web", "8000-8999:8000-8999")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [] == listening(site)


def test_without_ipv6(site):
    """Every address means every IPv4 address then."""
    four = Bindings(ipv6=False)
    four.bind("web", "web", [parse_publish("8080:80")])

    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::", 8080))
    four.close()
