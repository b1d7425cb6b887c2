"""Reading servers' addresses, and the host's resolv.conf as it changes."""

from ipaddress import ip_address

import pytest

from seaway.dns.upstreams import HostResolvers, Upstream, parse_upstream
from seaway.errors import InvalidSpec


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 53),
        ("192.0.2.1#5353", "192.0.2.1", 5353),
        ("2001:db8::1", "2001:db8::1", 53),
        ("2001:db8::1#5353", "2001:db8::1", 5353),
        ("[2001:db8::1]:5353", "2001:db8::1", 5353),
        ("[2001:db8::1]", "2001:db8::1", 53),
        ("fe80::1%eth0", "fe80::1%eth0", 53),
    ],
)
def test_servers_are_read(text, address, port):
    """An address of either family, with a port or without."""
    assert Upstream(address=ip_address(address), port=port) == parse_upstream(text)


@pytest.mark.parametrize(
    "text", ["", "dns.example", "192.0.2", "192.0.2.1#", "192.0.2.1#0", "192.0.2.1#65536", "[::1"]
)
def test_anything_else_is_refused(text):
    """Host names too: whom would one ask for them?"""
    with pytest.raises(InvalidSpec, match=r"use 53|write it like"):
        parse_upstream(text)


@pytest.fixture
def files(tmp_path):
    """Return the two files' paths; neither exists yet."""
    return tmp_path / "resolv.conf", tmp_path / "behind.conf"


def rewrite(path, text):
    """Replace the file as system tools do, so even an equal time and size are noticed."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_the_hosts_servers_are_read(files):
    """In order, at most three, comments and other lines left out."""
    lines = [
        "# nameserver 9.9.9.9",
        "search example",
        "nameserver 192.0.2.1",
        "nameserver\tfd00::1",
    ]
    lines += [
        "nameserver",
        "nameserver example",
        "nameserver 192.0.2.2 # x",
        "nameserver 192.0.2.3",
    ]
    files[0].write_text("\n".join(lines))

    assert ["192.0.2.1", "fd00::1", "192.0.2.2"] == HostResolvers(*files)()


def test_no_file_means_no_servers(files):
    """It may come later."""
    resolvers = HostResolvers(*files)
    assert [] == resolvers()
    files[0].write_text("nameserver 192.0.2.1\n")

    assert ["192.0.2.1"] == resolvers()


def test_a_changed_file_is_read_again(files):
    """A laptop in another network asks that network's servers from the next question on."""
    rewrite(files[0], "nameserver 192.0.2.1\n")
    resolvers = HostResolvers(*files)
    assert ["192.0.2.1"] == resolvers()
    rewrite(files[0], "nameserver 192.0.2.2\n")

    assert ["192.0.2.2"] == resolvers()


def test_an_unchanged_file_is_not_read_again(files):
    """Each question looks at the file's times only."""
    files[0].write_text("nameserver 192.0.2.1\n")
    resolvers = HostResolvers(*files)

    assert resolvers() is resolvers()


def test_the_servers_behind_the_stub_are_asked(files):
    """systemd-resolved's stub is a detour, and 127.0.0.53 is a loop for some."""
    files[0].write_text("nameserver 127.0.0.53\noptions edns0\n")
    resolvers = HostResolvers(*files)
    assert ["127.0.0.53"] == resolvers()
    files[1].write_text("nameserver 192.0.2.7\n")

    assert ["192.0.2.7"] == resolvers()
    rewrite(files[0], "nameserver 127.0.0.53\nnameserver 192.0.2.8\n")
    assert ["127.0.0.53", "192.0.2.8"] == resolvers()
