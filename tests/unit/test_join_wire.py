"""What is said on the join port, read and written."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from seaway import errors
from seaway.cluster import joining


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.1", ("192.0.2.1", 7900)),
        ("host.example:80", ("host.example", 80)),
        ("2001:db8::1", ("2001:db8::1", 7900)),
        ("[2001:db8::1]:81", ("2001:db8::1", 81)),
        ("[2001:db8::1]", ("2001:db8::1", 7900)),
    ],
)
def test_a_server_s_address_is_read(text, server):
    """With a port or without, of both IP versions."""
    assert server == joining.parse_server(text)
    assert server == joining.parse_server(str(joining.parse_server(text)))


@pytest.mark.parametrize("text", ["", ":80", "host:port", "host:0", "host:65536", "[::1]:x"])
def test_a_server_s_address_that_is_none(text):
    """It is refused in one line."""
    with pytest.raises(errors.InvalidSpec):
        joining.parse_server(text)


@pytest.mark.parametrize(
    ("seen", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_a_peer_s_address_is_read(seen, address):
    """As the socket has it: mapped into IPv6, or with the name of a link."""
    assert ip_address(address) == joining.peer_address(seen)


@pytest.mark.parametrize(
    "message",
    [
        joining.JoinRequest(name="a", csr="x", addresses=("192.0.2.1",)),
        joining.RenewRequest(id="ab", csr="x", addresses=()),
        joining.AuthorityRequest(),
    ],
)
def test_questions_read_back_as_they_were_written(message):
    """Each as one line."""
    data = joining.line(message)

    assert 1 == data.count(b"\n")
    assert message == joining.parse(joining.Question, data)


@pytest.mark.parametrize(
    "message",
    [
        joining.Elsewhere(servers=(joining.Server("192.0.2.1", 7900),)),
        joining.AuthorityKey(certificate="c", key="k"),
        joining.Renewed(certificate="c", ca="a"),
        joining.refusal(errors.Conflict("no")),
    ],
)
def test_answers_read_back_as_they_were_written(message):
    """Each as one line."""
    assert message == joining.parse(joining.Answer, joining.line(message))


def test_fields_of_a_newer_version_are_skipped():
    """Hosts are upgraded one by one."""
    data = b'{"ask":"authority","mood":"good"}'

    assert joining.AuthorityRequest() == joining.parse(joining.Question, data)


def test_an_error_keeps_its_class_and_its_line():
    """Conflict stays Conflict; a class that only one side knows becomes Refused."""
    error = joining.error_of(joining.refusal(errors.Conflict("taken: choose another")))
    other = joining.error_of(joining.refusal(errors.KernelBusy("add", "link", 16)))

    assert (errors.Conflict, "taken: choose another") == (type(error), str(error))
    assert (joining.Refused, "add link: Device or resource busy") == (type(other), str(other))
