"""Who may ask, which names they see, and that changes are seen at once."""

from ipaddress import ip_network

import dns.flags
import dns.message
import dns.rcode
import pytest

from seaway.dns import answer
from seaway.dns.answer import Directory, Forward, Member, as_owner
from tests.support.dns import addresses, ask, member, read

WEB, DB, OUT = "10.1.0.2", "10.1.0.3", "10.2.0.2"


@pytest.fixture
def directory():
    """web and db on front, db and out on back."""
    made = Directory()
    subnets = {"front": [ip_network("10.1.0.0/24")], "back": [ip_network("10.2.0.0/24")]}
    every = [*subnets.values(), [ip_network("10.3.0.0/24"), ip_network("fd03::/64")]]
    made.set_subnets(prefix for prefixes in every for prefix in prefixes)
    made.put("web", [member("web", "front", "web", "www", "0a1b2c3d4e5f", at=(WEB, "fd01::2"))])
    made.put(
        "db",
        [member("db", "front", "db", at=(DB,)), member("db", "back", "store", at=("10.2.0.3",))],
    )
    made.put("out", [member("out", "back", "out", at=(OUT,))])
    return made


def code(reply):
    return read(reply).rcode()


@pytest.mark.parametrize("name", ["web", "www", "0a1b2c3d4e5f", "web.front", "WWW.Front", "web."])
def test_every_name_of_a_container_answers(directory, name):
    """Container name, alias and short id, bare or with the network, in any case."""
    assert [WEB] == addresses(directory.answer(ask(name), DB))
    assert ["fd01::2"] == addresses(directory.answer(ask(name, "AAAA"), DB))


def test_an_answer_looks_as_it_should(directory):
    """Authoritative, recursion offered, a time to live of 5 seconds, the asker's id and RD."""
    query = dns.message.make_query("web", "A", id=77)
    reply = read(directory.answer(query.to_wire(), DB))

    assert query.is_response(reply)
    assert dns.flags.QR | dns.flags.AA | dns.flags.RD | dns.flags.RA == reply.flags
    assert 5 == reply.answer[0].ttl


def test_recursion_flag_is_copied(directory):
    """Who did not set RD gets it back clear, also from the kept answers."""
    for _ in range(2):
        assert read(directory.answer(ask("web"), DB)).flags & dns.flags.RD
        assert not read(directory.answer(ask("web", flags=0), DB)).flags & dns.flags.RD


def test_names_are_seen_on_shared_networks_only(directory):
    """db sees both sides; web and out do not see each other."""
    assert [OUT] == addresses(directory.answer(ask("out"), DB))
    assert isinstance(directory.answer(ask("out"), WEB), Forward)
    assert isinstance(directory.answer(ask("out.back"), WEB), Forward)
    assert [WEB] == addresses(directory.answer(ask("web"), WEB))


def test_a_container_is_named_for_each_network(directory):
    """An alias counts on its own network only."""
    assert ["10.2.0.3"] == addresses(directory.answer(ask("store"), OUT))
    assert isinstance(directory.answer(ask("db"), OUT), Forward)


def test_all_addresses_of_a_container_may_ask(directory):
    """On either network, over either family."""
    for source in (DB, "10.2.0.3"):
        assert [OUT] == addresses(directory.answer(ask("out"), source))
    assert [WEB] == addresses(directory.answer(ask("web"), "fd01::2"))


def test_an_owner_asks_on_its_own_socket(directory):
    """There the address says nothing: it is the container's loopback."""
    assert [WEB] == addresses(directory.answer(ask("web"), as_owner("db")))
    assert isinstance(directory.answer(ask("web"), as_owner("out")), Forward)


@pytest.mark.parametrize("name", ["web", "example.org", "2.0.1.10.in-addr.arpa"])
def test_strangers_are_refused(directory, name):
    """An unknown address learns nothing and reaches no other server through us."""
    assert dns.rcode.REFUSED == code(directory.answer(ask(name), "192.0.2.7"))
    assert dns.rcode.REFUSED == code(directory.answer(ask(name), as_owner("nobody")))


@pytest.mark.parametrize("name", ["example.org", "nosuch", "x.y.example.org", "front"])
def test_other_names_are_forwarded(directory, name):
    """Also single labels, as Docker does; with what the forwarder needs to know."""
    directory.put("web", [member("web", "front", "web", at=(WEB,))], upstreams=("192.0.2.53",))
    said = directory.answer(ask(name, "MX"), WEB)

    assert isinstance(said, Forward)
    assert ("web", ("192.0.2.53",), 15) == (said.owner, said.upstreams, said.query.qtype)


def test_a_container_without_a_way_out_gets_an_error_at_once(directory):
    """On internal networks nothing is forwarded, but own names work."""
    directory.put("web", [member("web", "front", "web", at=(WEB,))], forwards=False)

    assert dns.rcode.SERVFAIL == code(directory.answer(ask("example.org"), WEB))
    assert [DB] == addresses(directory.answer(ask("db"), WEB))


def test_a_new_name_answers_at_once(directory):
    """Also when the same question was answered with another address before."""
    assert [WEB] == addresses(directory.answer(ask("web"), DB))
    directory.put("web2", [member("web2", "front", "web", at=("10.1.0.9",))])

    assert {WEB, "10.1.0.9"} == set(addresses(directory.answer(ask("web"), DB)))
    assert [DB] == addresses(directory.answer(ask("db"), "10.1.0.9"))
    directory.remove("web2")
    assert [WEB] == addresses(directory.answer(ask("web"), DB))


def test_a_removed_name_is_gone_at_once(directory):
    """No kept answer outlives its container, whoever it was kept for."""
    for source in (WEB, DB):
        assert [DB] == addresses(directory.answer(ask("db"), source))
    directory.remove("db")

    assert isinstance(directory.answer(ask("db"), WEB), Forward)
    assert dns.rcode.NXDOMAIN == code(directory.answer(ask("db.front"), WEB))
    assert dns.rcode.REFUSED == code(directory.answer(ask("web"), DB))


def test_put_replaces_all_of_an_owner(directory):
    """Names, networks and addresses it had before no longer count."""
    directory.put("db", [member("db", "front", "base", at=("10.1.0.4",))])

    assert ["10.1.0.4"] == addresses(directory.answer(ask("base"), WEB))
    assert isinstance(directory.answer(ask("db"), WEB), Forward)
    assert isinstance(directory.answer(ask("store"), OUT), Forward)
    assert dns.rcode.REFUSED == code(directory.answer(ask("web"), DB))


def test_a_starting_container_asks_before_it_is_found(directory):
    """Without names it answers nobody, but may ask already."""
    directory.put("new", [member("new", "front", at=("10.1.0.7",))])

    assert [WEB] == addresses(directory.answer(ask("web"), "10.1.0.7"))
    reverse = directory.answer(ask("7.0.1.10.in-addr.arpa", "PTR"), WEB)
    assert dns.rcode.NXDOMAIN == code(reverse)


def test_an_owner_may_be_kept_from_asking(directory):
    """It is found, but its own questions are refused."""
    directory.put("web", [member("web", "front", "web", at=(WEB,))], asks=False)

    assert [WEB] == addresses(directory.answer(ask("web"), DB))
    assert dns.rcode.REFUSED == code(directory.answer(ask("db"), WEB))


def test_an_address_with_a_new_holder_is_the_new_holders(directory):
    """Removing the old one late does not silence the new one."""
    directory.put("heir", [member("heir", "back", "heir", at=(WEB,))])
    directory.remove("web")

    assert [OUT] == addresses(directory.answer(ask("out"), WEB))


def test_removing_the_unknown_is_fine(directory):
    """Teardown may come twice."""
    directory.remove("nobody")
    directory.remove("web")
    directory.remove("web")


def test_nothing_is_left_when_everyone_is_gone(directory):
    """Networks, views and kept answers go with their last owner."""
    for name in ("web", "db", "store"):
        directory.answer(ask(name), DB)
    for owner in ("web", "db", "out"):
        directory.remove(owner)

    assert ({}, {}, {}, {}) == (
        directory._networks, directory._members, directory._views, directory._askers,
    )  # fmt: skip
    assert 0 == directory._kept


def test_each_address_takes_its_turn_as_the_first():
    """A client that takes the first address spreads over all of them."""
    made = Directory()
    made.put("me", [member("me", "net", "me", at=("10.0.0.2",))])
    for number in range(20):
        made.put(f"w{number}", [member(f"w{number}", "net", "web", at=(f"10.0.0.{number + 10}",))])
    answers = [addresses(made.answer(ask("web"), "10.0.0.2")) for _ in range(20)]

    assert {f"10.0.0.{number + 10}" for number in range(20)} == {found[0] for found in answers}
    assert {8} == {len(set(found)) for found in answers}


def test_kept_answers_start_where_the_last_ones_stopped():
    """Constant change does not send everybody to the same container."""
    made = Directory()
    made.put("me", [member("me", "net", "me", at=("10.0.0.2",))])
    for number in range(3):
        made.put(f"w{number}", [member(f"w{number}", "net", "web", at=(f"10.0.0.{number + 10}",))])
    first = set()
    for _ in range(3):
        made.put("other", [member("other", "net", "other", at=("10.0.0.3",))])
        first.add(addresses(made.answer(ask("web"), "10.0.0.2"))[0])

    assert 3 == len(first)


def test_containers_on_the_same_networks_share_kept_answers(directory):
    """So memory grows with names, not with names times containers."""
    for number in range(10, 60):
        directory.put(f"c{number}", [member(f"c{number}", "front", at=(f"10.1.0.{number}",))])
    for number in range(10, 60):
        directory.answer(ask("web"), f"10.1.0.{number}")

    assert 1 == directory._kept


def test_kept_answers_are_bounded(directory, monkeypatch):
    """For one set of networks; the count follows what is really kept."""
    monkeypatch.setattr(answer, "KEPT_PER_VIEW", 4)
    for rtype in range(100, 160):
        for source in (WEB, DB, OUT):
            directory.answer(ask("db", rtype), source)
            directory.answer(ask("store", rtype), source)
            kept = sum(len(view.cache) for view in directory._views.values())
            assert kept == directory._kept <= 3 * 4


def test_kept_answers_are_bounded_over_all_views(directory, monkeypatch):
    """Where no single set of networks has too many, all of them together may."""
    monkeypatch.setattr(answer, "KEPT_MAX", 6)
    for rtype in range(100, 120):
        for source, name in ((WEB, "web"), (OUT, "out")):
            directory.answer(ask(name, rtype), source)

            assert directory._kept <= 6


def test_a_name_given_twice_is_one_name():
    """An alias may repeat the container's name."""
    made = Directory()
    made.put("me", [member("me", "net", "me", "me", at=("10.0.0.2",))])
    assert ["10.0.0.2"] == addresses(made.answer(ask("me"), "10.0.0.2"))
    made.put("me", [member("me", "net", "you", at=("10.0.0.2",))])

    assert isinstance(made.answer(ask("me"), "10.0.0.2"), Forward)


def test_messages_with_options_are_not_kept(directory):
    """Each cookie makes another message; keeping them would only push out the useful ones."""
    for number in range(5):
        cookie = dns.edns.GenericOption(10, bytes(8) + bytes([number]))
        directory.answer(ask("web", use_edns=0, options=[cookie]), DB)

    assert 0 == directory._kept


def test_a_name_no_question_can_carry_is_left_out():
    """A container name of 70 characters is no error; its other names work."""
    made = Directory()
    held = member("me", "net", "n" * 70, "me", at=("10.0.0.2",))
    made.put("me", [held])

    assert ["10.0.0.2"] == addresses(made.answer(ask("me"), "10.0.0.2"))
    reverse = read(made.answer(ask("2.0.0.10.in-addr.arpa", "PTR"), "10.0.0.2"))
    assert "me.net." == str(reverse.answer[0][0])
    made.remove("me")


def test_a_network_no_question_can_carry_still_has_bare_names():
    """Its members are found by their bare names, and have no reverse name."""
    made = Directory()
    made.set_subnets([ip_network("10.0.0.0/24")])
    made.put("me", [member("me", "n" * 70, "me", at=("10.0.0.2",))])

    assert ["10.0.0.2"] == addresses(made.answer(ask("me"), "10.0.0.2"))
    assert dns.rcode.NXDOMAIN == code(made.answer(ask("2.0.0.10.in-addr.arpa", "PTR"), "10.0.0.2"))


def test_names_with_dots_work():
    """A host name may have several parts; the network may follow it."""
    made = Directory()
    made.put("me", [member("me", "my.net", "a.example.org", at=("10.0.0.2",))])

    for name in ("a.example.org", "a.example.org.my.net"):
        assert ["10.0.0.2"] == addresses(made.answer(ask(name), "10.0.0.2"))
    assert isinstance(made.answer(ask("b.example.org"), "10.0.0.2"), Forward)
    assert dns.rcode.NXDOMAIN == code(made.answer(ask("b.my.net"), "10.0.0.2"))


def test_bytes_that_look_like_labels_are_not_mistaken():
    """A label may hold any byte, also the length and letters of a network's name."""
    made = Directory()
    made.set_subnets([])
    made.put("me", [member("me", "net", "me", at=("10.0.0.2",))])
    tricky = dns.message.from_wire(ask("x")[:12] + b"\x06xx\x03net\x00\x00\x01\x00\x01").to_wire()

    assert isinstance(made.answer(tricky, "10.0.0.2"), Forward)


def test_the_same_address_is_given_once():
    """Two attachments with one address are one answer."""
    made = Directory()
    twice = [member("me", network, "me", at=("10.0.0.2",)) for network in ("a", "b")]
    made.put("me", twice)

    assert ["10.0.0.2"] == addresses(made.answer(ask("me"), "10.0.0.2"))


def test_changing_one_container_costs_its_own_networks_only():
    """Answers kept about other networks stay where they are."""
    made = Directory()
    for number in range(3):
        at = (f"10.{number}.0.2",)
        made.put(f"o{number}", [member(f"o{number}", f"net{number}", "web", at=at)])
        made.answer(ask("web"), at[0])
    made.put("o0", [Member(owner="o0", network="net0", names=())])

    assert 2 == made._kept
