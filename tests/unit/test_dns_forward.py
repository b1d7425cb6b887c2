"""Whom the forwarder asks, how long it waits, and what it never does."""

import asyncio
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode

from seaway.dns import forward as forward_module
from seaway.dns import wire
from seaway.dns.answer import Forward
from seaway.dns.exchange import Pace
from seaway.dns.forward import Forwarder, Limits
from seaway.dns.upstreams import Upstream
from tests.support.dns import (
    addresses,
    answering,
    ask,
    free_port,
    read,
    silent,
    upstream,
)

FAST = Pace(patience=0.1, total=0.45)
SLOW = Pace(patience=5, total=20)
"""For tests that must not come to depend on waiting."""
ONE = answering("60 A 192.0.2.1")
TWO = answering("60 A 192.0.2.2")
LONG = answering(*(f"60 A 192.0.2.{n}" for n in range(120)))


def forward(name="www.example", owner="me", upstreams=(), **options):
    query = wire.parse_query(ask(name, **options))
    assert isinstance(query, wire.Query)
    return Forward(query=query, owner=owner, upstreams=upstreams)


def forwarder(*servers, pace=SLOW, **options):
    """Return one whose host has these upstream servers, or addresses as text."""
    texts = [server if isinstance(server, str) else server.text for server in servers]
    return Forwarder(lambda: texts, pace=pace, **options)


def dead():
    """Return the address of a port where nobody listens: the kernel refuses at once."""
    return f"127.0.0.1#{free_port()}"


def test_an_upstream_answers():
    """Its records come back under the asker's id, with the asker's spelling."""

    async def scenario():
        async with upstream(ONE) as server:
            reply = await forwarder(server).resolve(forward("wWw.Example", id=9), stream=False)

        assert ["192.0.2.1"] == addresses(reply)
        assert (9, "wWw.Example.") == (read(reply).id, str(read(reply).question[0].name))
        assert "wWw.Example." == str(server.asked[0].question[0].name)
        assert server.asked[0].flags & dns.flags.RD

    asyncio.run(scenario())


def test_no_upstream_is_an_error_at_once():
    """Nobody waits for a server that does not exist."""

    async def scenario():
        reply = await forwarder().resolve(forward(), stream=False)

        assert dns.rcode.SERVFAIL == read(reply).rcode()

    asyncio.run(scenario())


def test_we_never_ask_ourselves():
    """Our own listening addresses are struck from every list."""

    async def scenario():
        async with upstream(ONE) as server:
            made = forwarder(server)
            made.own.add(Upstream(address=ip_address("127.0.0.1"), port=server.port))
            replies = [
                await made.resolve(forward(), stream=False),
                await made.resolve(forward(upstreams=(server.text,)), stream=False),
            ]

        assert [dns.rcode.SERVFAIL] * 2 == [read(reply).rcode() for reply in replies]
        assert [] == server.asked

    asyncio.run(scenario())


def test_an_unreachable_server_costs_no_time():
    """A refused packet leads to the next server at once."""

    async def scenario():
        async with upstream(ONE) as server:
            reply = await forwarder(dead(), server).resolve(forward(), stream=False)

        assert ["192.0.2.1"] == addresses(reply)

    asyncio.run(scenario())


def test_all_servers_unreachable_is_an_error_at_once():
    """There is nothing to wait for."""

    async def scenario():
        reply = await forwarder(dead(), dead()).resolve(forward(), stream=False)

        assert dns.rcode.SERVFAIL == read(reply).rcode()

    asyncio.run(scenario())


def test_a_silent_server_is_passed_over_and_the_good_one_remembered():
    """After one patience the next is asked, and from then on that one first."""

    async def scenario():
        async with upstream(silent) as mute, upstream(ONE) as server:
            made = forwarder(mute, server, pace=Pace(patience=0.1, total=10))
            first = await made.resolve(forward("a.example"), stream=False)
            second = await made.resolve(forward("b.example"), stream=False)

        assert ["192.0.2.1"] == addresses(first) == addresses(second)
        assert (1, 2) == (len(mute.asked), len(server.asked))

    asyncio.run(scenario())


def test_memories_of_good_servers_are_bounded(monkeypatch):
    """There may be a set of servers for each container that ever ran."""
    monkeypatch.setattr(forward_module, "SETS_REMEMBERED", 2)

    async def scenario():
        async with upstream(ONE) as server:
            made = forwarder()
            for number in range(5):
                texts = (server.text, f"192.0.2.{number}")
                await made.resolve(forward(upstreams=texts), stream=False)

        assert len(made._last_good) <= 2

    asyncio.run(scenario())


def test_servers_that_fail_are_passed_over():
    """SERVFAIL and REFUSED from one server are not the last word."""

    async def scenario():
        failing = [answering(rcode=rcode) for rcode in (dns.rcode.SERVFAIL, dns.rcode.REFUSED)]
        async with upstream(failing[0]) as one, upstream(failing[1]) as two, upstream(ONE) as three:
            reply = await forwarder(one, two, three).resolve(forward(), stream=False)
            last = await forwarder(one, two).resolve(forward(), stream=False)

        assert ["192.0.2.1"] == addresses(reply)
        assert dns.rcode.REFUSED == read(last).rcode()

    asyncio.run(scenario())


def test_no_such_name_is_the_last_word():
    """NXDOMAIN is an answer; the next server is not asked for a better one."""

    async def scenario():
        async with upstream(answering(rcode=dns.rcode.NXDOMAIN)) as one, upstream(TWO) as two:
            reply = await forwarder(one, two).resolve(forward(), stream=False)

        assert dns.rcode.NXDOMAIN == read(reply).rcode()
        assert [] == two.asked

    asyncio.run(scenario())


def test_silence_ends_before_the_client_gives_up():
    """The one server is asked again each patience; then comes SERVFAIL."""

    async def scenario():
        async with upstream(silent) as mute:
            loop = asyncio.get_running_loop()
            start = loop.time()
            reply = await forwarder(mute, pace=FAST).resolve(forward(), stream=False)
            took = loop.time() - start

        assert dns.rcode.SERVFAIL == read(reply).rcode()
        assert FAST.total <= took < FAST.total + 1
        assert len(mute.asked) > 1

    asyncio.run(scenario())
    assert (1.0, True) == (Pace().patience, Pace().total < 4.5)


def test_a_late_answer_counts():
    """A slow server's answer is taken although the next one was asked meanwhile."""

    async def scenario():
        held = []

        def late(query, over_tcp):
            held.append(query)

        async with upstream(late) as slow, upstream(silent) as mute:
            made = forwarder(slow, mute, pace=Pace(patience=0.1, total=20))
            task = asyncio.ensure_future(made.resolve(forward(), stream=False))
            async with asyncio.timeout(10):
                while not mute.asked:
                    await asyncio.sleep(0.01)
            slow.send(ONE(held[0], False), slow.peers[0])

            assert ["192.0.2.1"] == addresses(await task)

    asyncio.run(scenario())


def test_ids_and_ports_are_hard_to_guess():
    """Each question goes out with a new id and from a new port, not the client's."""

    async def scenario():
        async with upstream(ONE) as server:
            made = forwarder(server)
            for number in range(40):
                await made.resolve(forward(f"n{number}.example", id=1), stream=False)

        assert len({query.id for query in server.asked}) > 30
        assert len({port for _, port in server.peers}) > 30

    asyncio.run(scenario())


def test_forged_answers_are_ignored():
    """A wrong id, another question, or a question instead of an answer does not count."""

    async def scenario():
        def forged(query, over_tcp):
            reply, lie = ONE(query, over_tcp), TWO(query, over_tcp)
            other = dns.message.make_query("other.example", "A", id=query.id)
            wrong_id = (query.id ^ 1).to_bytes(2, "big") + lie[2:]
            for packet in (wrong_id, TWO(other, over_tcp), query.to_wire(), b"", lie[:-3]):
                server.send(packet, server.peers[-1])
            return reply

        async with upstream(forged) as server:
            reply = await forwarder(server).resolve(forward(), stream=False)

        assert ["192.0.2.1"] == addresses(reply)

    asyncio.run(scenario())


def test_answers_from_elsewhere_do_not_arrive():
    """The socket takes packets from the server it asked only."""

    async def scenario():
        async with upstream(silent) as mute, upstream(TWO) as liar:
            made = forwarder(mute, pace=FAST)
            task = asyncio.ensure_future(made.resolve(forward(), stream=False))
            async with asyncio.timeout(10):
                while not mute.asked:
                    await asyncio.sleep(0.01)
            liar.send(TWO(mute.asked[0], False), mute.peers[0])

            assert dns.rcode.SERVFAIL == read(await task).rcode()

    asyncio.run(scenario())


def test_a_failing_server_may_leave_the_question_out():
    """Old servers answer EDNS with a bare FORMERR; it is passed on so the client falls back."""

    async def scenario():
        def bare(query, over_tcp):
            return query.id.to_bytes(2, "big") + b"\x80\x01" + bytes(8)

        async with upstream(bare) as server:
            reply = await forwarder(server).resolve(forward(use_edns=0), stream=False)

        assert dns.rcode.FORMERR == read(reply).rcode()

    asyncio.run(scenario())


def test_equal_questions_are_answered_from_the_cache():
    """In any case, for any owner of the same servers, with the time that is left."""

    async def scenario():
        now = [1000.0]
        async with upstream(ONE) as server:
            made = forwarder(server, clock=lambda: now[0])
            await made.resolve(forward("www.example"), stream=False)
            now[0] += 10
            hit = made.cached(forward("WWW.EXAMPLE", owner="other"), stream=False)
            assert 50 == read(hit).answer[0].ttl
            await made.resolve(forward(), stream=False)
            assert 1 == len(server.asked)

            now[0] += 51
            assert made.cached(forward(), stream=False) is None
            await made.resolve(forward(), stream=False)
            assert 2 == len(server.asked)

    asyncio.run(scenario())


def test_what_differs_is_asked_anew():
    """Type, EDNS, DO and CD change the answer, and so do not share one."""

    async def scenario():
        async with upstream(ONE) as server:
            made = forwarder(server)
            for options in (
                {}, {"rdtype": "AAAA"}, {"use_edns": 0}, {"want_dnssec": True},
                {"flags": dns.flags.RD | dns.flags.CD},
            ):  # fmt: skip
                rtype = options.pop("rdtype", "A")
                message = dns.message.make_query("www.example", rtype, **options).to_wire()
                query = wire.parse_query(message)
                await made.resolve(Forward(query=query, owner="me"), stream=False)

        assert 5 == len(server.asked)
        assert server.asked[3].ednsflags & dns.flags.DO
        assert server.asked[4].flags & dns.flags.CD

    asyncio.run(scenario())


def test_an_owner_with_its_own_servers_asks_them_only():
    """Answers from one set of servers are never given to users of another."""

    async def scenario():
        async with upstream(ONE) as hosts, upstream(TWO) as own:
            made = forwarder(hosts)
            mine = [forward(), forward(upstreams=(own.text,)), forward()]
            replies = [await made.resolve(each, stream=False) for each in mine]

        assert [["192.0.2.1"], ["192.0.2.2"], ["192.0.2.1"]] == [addresses(r) for r in replies]
        assert (1, 1) == (len(hosts.asked), len(own.asked))

    asyncio.run(scenario())


def test_servers_that_cannot_be_read_are_skipped():
    """What is left of a bad list is used."""

    async def scenario():
        async with upstream(ONE) as server:
            made = forwarder()
            mine = forward(upstreams=("no.such", server.text))

            assert ["192.0.2.1"] == addresses(await made.resolve(mine, stream=False))

    asyncio.run(scenario())


async def at_once(made, forwards):
    """Resolve all of *forwards* at the same time."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(made.resolve(each, stream=False)) for each in forwards]
    return [task.result() for task in tasks]


def test_an_owners_equal_questions_share_a_flight_and_others_do_not():
    """Two of mine are one packet; another owner's is its own, even with the same servers."""

    async def scenario():
        async with upstream(ONE) as server:
            made = forwarder(server)
            mine = [forward(id=1), forward(id=2), forward(owner="other", id=3)]
            replies = await at_once(made, mine)

        assert [1, 2, 3] == [read(reply).id for reply in replies]
        assert 2 == len(server.asked)

    asyncio.run(scenario())


def test_a_loop_through_a_container_ends():
    """A resolver that asks us the question we asked it gets one more packet, then silence."""

    async def scenario():
        async with asyncio.TaskGroup() as group:

            def pihole(query, over_tcp):
                message = query.to_wire()
                again = Forward(query=wire.parse_query(message), owner="pihole")
                group.create_task(made.resolve(again, stream=False))

            async with upstream(pihole) as looping:
                made = forwarder(looping, pace=FAST)
                reply = await made.resolve(forward(), stream=False)
                sent = len(looping.asked)

        assert dns.rcode.SERVFAIL == read(reply).rcode()
        assert sent <= 2 * (FAST.total / FAST.patience + 1)

    asyncio.run(scenario())


def test_questions_under_way_are_bounded():
    """Above the bounds comes SERVFAIL at once; places are free again afterwards."""

    async def scenario():
        async with upstream(silent) as mute:
            made = forwarder(mute, pace=FAST, limits=Limits(total=4, per_owner=3))
            mine = [forward(f"n{number}.example") for number in range(5)]
            others = [forward(f"n{number}.example", owner="other") for number in range(2)]
            replies = await at_once(made, mine + others)
            assert {dns.rcode.SERVFAIL} == {read(reply).rcode() for reply in replies}
            assert {f"n{n}.example." for n in range(3)} == {
                str(q.question[0].name) for q in mute.asked[:4]
            }
            assert 4 == len({(str(q.question[0].name), peer) for q, peer in zip(
                mute.asked, mute.peers, strict=True)})  # fmt: skip

            mute.behave = ONE
            assert ["192.0.2.1"] == addresses(await made.resolve(mine[4], stream=False))

    asyncio.run(scenario())
    assert (1024, 128) == (Limits().total, Limits().per_owner)


def test_a_truncated_answer_is_passed_on_over_udp():
    """The client comes back over TCP if it needs the rest; nothing of it is kept."""

    async def scenario():
        async with upstream(LONG) as server:
            made = forwarder(server)
            for _ in range(2):
                reply = read(await made.resolve(forward(), stream=False))
                assert reply.flags & dns.flags.TC

        assert [False, False] == server.over_tcp

    asyncio.run(scenario())


def test_a_truncated_answer_is_fetched_over_tcp_for_a_tcp_client():
    """And then kept: a later UDP client gets as much of it as fits."""

    async def scenario():
        async with upstream(LONG) as server:
            made = forwarder(server)
            whole = await made.resolve(forward(), stream=True)
            part = made.cached(forward(), stream=False)

        assert 120 == len(addresses(whole))
        assert [False, True] == server.over_tcp
        assert read(part).flags & dns.flags.TC
        assert 0 < len(addresses(part)) < 120
        assert len(part) <= 512

    asyncio.run(scenario())


def test_a_server_that_breaks_off_over_tcp_is_passed_over():
    """The next server gives the answer."""

    async def scenario():
        def breaks(query, over_tcp):
            return None if over_tcp else LONG(query, over_tcp)

        async with upstream(breaks) as one, upstream(TWO) as two:
            reply = await forwarder(one, two).resolve(forward(), stream=True)

        assert ["192.0.2.2"] == addresses(reply)

    asyncio.run(scenario())


def test_upstreams_over_ipv6_work():
    """Written with brackets or with a hash."""

    async def scenario():
        async with upstream(ONE, host="::1") as server:
            for text in (f"[::1]:{server.port}", f"::1#{server.port}"):
                made = forwarder(text)
                assert ["192.0.2.1"] == addresses(await made.resolve(forward(), stream=True))

    asyncio.run(scenario())


def test_a_link_local_server_on_a_missing_interface_is_unreachable():
    """The interface named in resolv.conf may be gone."""

    async def scenario():
        reply = await forwarder("fe80::1%nosuch0").resolve(forward(), stream=False)

        assert dns.rcode.SERVFAIL == read(reply).rcode()

    asyncio.run(scenario())
