"""Joining, renewing and handing the authority on, over real connections on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from seaway import errors
from seaway.cluster import join_client, joining, pki
from seaway.cluster.credentials import Credentials, write_file
from seaway.cluster.join_limits import Limits
from seaway.cluster.join_server import JoinServer, listen
from seaway.cluster.joining import Refused, Removed, Server, Unreachable
from seaway.cluster.token import Token, make_token, secret_hash

STORE = pki.Holder(id="aaaaaaaaaaaa", name="store1", addresses=(ip_address("127.0.0.1"),))


class Gate:
    """The agent's part: remembers whom it let in."""

    def __init__(self, token: Token) -> None:
        self.token = token
        self.hosts: dict[str, joining.JoinRequest] = {}
        self.stores: set[str] = set()
        self.elsewhere: list[Server] = []
        self.peers: list[str] = []

    def secret(self) -> str:
        return secret_hash(self.token.secret)

    def signers(self) -> list[Server]:
        return self.elsewhere

    async def admit(self, request, peer):
        await asyncio.sleep(0)  # as a transaction would: others get their turn
        if request.name in {one.name for one in self.hosts.values()}:
            raise errors.Conflict(f"a host named {request.name} is there: choose another name")
        number = len(self.hosts) + 1
        host = f"{number:012x}"
        self.hosts[host] = request
        self.peers.append(str(peer))
        return joining.Admission(
            id=host,
            number=number,
            name=request.name,
            addresses=request.addresses,
            cluster="{}",
            etcd=("https://127.0.0.1:7901",),
        )

    async def renew(self, host, identity, addresses, _peer):
        found = self.hosts.get(host)
        if found is None:
            raise Removed("this host was removed: leave the cluster and join again")
        if found.identity != identity:
            raise Refused("another host has this id")
        return pki.Holder(id=host, name=found.name, addresses=addresses)

    async def may_sign(self, host):
        return host in self.stores


@pytest.fixture
def store(tmp_path):
    """Credentials of the first host."""
    made = Credentials(tmp_path / "store")
    made.create_authority("c0ffee123456")
    made.sign_own(STORE)
    return made


@pytest.fixture
def gate(store):
    return Gate(make_token(store.fingerprint()))


def descriptors():
    """How many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def serving(credentials, gate, **limits):
    """A join server on a free port; nothing of it is left at the end."""
    open_before = descriptors()
    listeners = listen(0)
    server = JoinServer(credentials, gate, Limits(**limits))
    task = asyncio.create_task(server.serve(listeners))
    try:
        yield Server("127.0.0.1", listeners[0].getsockname()[1])
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            while descriptors() > open_before:
                await asyncio.sleep(0.01)


def candidate(credentials, name="host2"):
    """What a host says of itself."""
    return joining.JoinRequest(
        name=name,
        csr=credentials.request(name),
        addresses=("192.0.2.2", "2001:db8::2"),
        mac="02:00:00:00:00:02",
        version="1.0",
    )


async def member(tmp_path, gate, server, name="host2"):
    """Join as *name* and keep what that brings."""
    made = Credentials(tmp_path / name)
    admission = await join_client.join([server], gate.token, candidate(made, name))
    made.save(admission.certificate, admission.ca)
    return made, admission


async def raw(server, *lines):
    """Say *lines* without any care, and return what comes back until the end."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*server, ssl=context, limit=1 << 20)
        for one in lines:
            writer.write(one)
        data = await reader.read()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return [json.loads(one) for one in data.splitlines()]


async def ended(reader):
    """Wait until the other end hangs up."""
    async with asyncio.timeout(5):
        with suppress(OSError):
            assert b"" == await reader.read()


# -- joining ----------------------------------------------------------------------------------


def test_a_host_with_the_token_gets_in(store, gate, tmp_path):
    """It ends up with a certificate that OpenSSL takes."""

    async def run():
        async with serving(store, gate) as server:
            return await member(tmp_path, gate, server)

    made, admission = asyncio.run(run())
    (request,) = gate.hosts.values()

    assert (1, "host2", "{}") == (admission.number, admission.name, admission.cluster)
    assert ("https://127.0.0.1:7901",) == admission.etcd
    assert made.identity() == request.identity
    assert "" == request.secret
    assert store.ca_pem() == made.ca_pem()
    assert ["127.0.0.1"] == gate.peers
    made.server_context()


def test_a_host_s_certificate_serves_and_calls(store, gate, tmp_path):
    """Two members talk TLS with each other, names checked at both ends."""

    async def run():
        async with serving(store, gate) as server:
            made, _ = await member(tmp_path, gate, server)
        told = asyncio.get_running_loop().create_future()

        async def met(_reader, writer):
            told.set_result(writer.get_extra_info("peercert")["subject"])
            writer.close()

        other = await asyncio.start_server(met, "127.0.0.1", 0, ssl=store.server_context())
        async with other:
            port = other.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=made.client_context()
            )
            await ended(reader)
            writer.close()
        return await told

    assert ((("commonName", "000000000001"),),) == asyncio.run(run())


def test_two_hosts_join_at_once(store, gate, tmp_path):
    """Each gets its own number and certificate."""

    async def run():
        async with serving(store, gate) as server, asyncio.TaskGroup() as group:
            return [group.create_task(member(tmp_path, gate, server, f"host{n}")) for n in range(6)]

    numbers = [task.result()[1].number for task in asyncio.run(run())]

    assert [1, 2, 3, 4, 5, 6] == sorted(numbers)


def test_an_error_of_the_cluster_reaches_the_host(store, gate, tmp_path):
    """With its class and its words: here, a name that is taken."""

    async def run():
        async with serving(store, gate) as server:
            await member(tmp_path, gate, server)
            with pytest.raises(errors.Conflict, match="a host named host2 is there"):
                await join_client.join(
                    [server], gate.token, candidate(Credentials(tmp_path / "x"), "host2")
                )

    asyncio.run(run())


def test_an_error_of_unknown_class_is_still_an_error():
    """A newer server's class becomes Refused, with the message as it is."""
    error = joining.error_of(joining.Refusal(kind="NoSuchClass", message="no luck today"))

    assert (Refused, "no luck today") == (type(error), str(error))


def test_a_wrong_secret_does_not_get_in(store, gate, tmp_path):
    """The message names the command that prints the right one."""

    async def run():
        async with serving(store, gate) as server:
            wrong = make_token(gate.token.fingerprint)
            with pytest.raises(Refused, match=r"was replaced by a newer one: .*cluster token"):
                await join_client.join([server], wrong, candidate(Credentials(tmp_path / "x")))

    asyncio.run(run())
    assert {} == gate.hosts


def test_who_keeps_guessing_has_to_pause(store, gate, tmp_path):
    """After some failures the server hangs up before anything is said."""

    async def run():
        async with serving(store, gate, attempts=2, pause=60) as server:
            wrong = make_token(gate.token.fingerprint)
            request = candidate(Credentials(tmp_path / "x"))
            for expected in (Refused, Refused, Unreachable):
                with pytest.raises(expected):
                    await join_client.join([server], wrong, request)
            with pytest.raises(Unreachable, match=r"hangs up|connection"):
                await join_client.join([server], gate.token, request)

    asyncio.run(run())
    assert {} == gate.hosts


@pytest.mark.parametrize(
    "change",
    [
        {"name": "no name!"},
        {"addresses": ()},
        {"addresses": ("192.0.2.1", "192.0.2.2")},
        {"addresses": ("elsewhere",)},
        {"csr": "none"},
    ],
)
def test_a_request_that_makes_no_sense_is_refused(store, gate, tmp_path, change):
    """Before the cluster does anything for it."""
    request = candidate(Credentials(tmp_path / "x"))
    fields = {name: getattr(request, name) for name in request.__struct_fields__}

    async def run():
        async with serving(store, gate) as server:
            with pytest.raises(errors.InvalidSpec):
                await join_client.join(
                    [server], gate.token, joining.JoinRequest(**(fields | change))
                )

    asyncio.run(run())
    assert {} == gate.hosts


def test_the_next_server_is_tried(store, gate, tmp_path):
    """A server that is not there does not keep a host out."""

    async def run():
        with socket.create_server(("127.0.0.1", 0)) as taken:
            gone = Server("127.0.0.1", taken.getsockname()[1])
        async with serving(store, gate) as server:
            request = candidate(Credentials(tmp_path / "x"))
            admission = await join_client.join([gone, server], gate.token, request)
            with pytest.raises(Unreachable, match="Connect"):
                await join_client.join([gone], gate.token, request)
        return admission

    assert 1 == asyncio.run(run()).number


def test_a_server_that_cannot_reach_etcd_is_passed_over(store, gate, tmp_path):
    """The next one may; if none can, each says why."""
    cut_off = Gate(gate.token)

    async def fails(_request, _peer):
        raise errors.StoreError("etcd does not answer: wait")

    cut_off.admit = fails

    async def run():
        request = candidate(Credentials(tmp_path / "x"))
        async with serving(store, gate) as server, serving(store, cut_off) as other:
            with pytest.raises(errors.StoreError, match="etcd does not answer"):
                await join_client.join([other], gate.token, request)
            return await join_client.join([other, server], gate.token, request)

    assert 1 == asyncio.run(run()).number


def test_servers_that_only_point_at_each_other_end(store, gate, tmp_path):
    """Nobody goes in circles: each is asked once."""

    async def run():
        async with serving(store, gate) as server:
            plain, _ = await member(tmp_path, gate, server)
        async with serving(plain, gate) as one, serving(plain, gate) as other:
            gate.elsewhere = [one, other]
            with pytest.raises(Unreachable, match=r"no key to sign with; .* no key to sign with$"):
                await member(tmp_path, gate, one, "host3")

    asyncio.run(run())


def test_a_server_without_the_authority_names_those_that_have_it(store, gate, tmp_path):
    """A host may join by any member's address."""

    async def run():
        async with serving(store, gate) as server:
            plain, _ = await member(tmp_path, gate, server)
            gate.elsewhere = [server]
            async with serving(plain, gate) as other:
                return await member(tmp_path, gate, other, "host3")

    _, admission = asyncio.run(run())

    assert "host3" == admission.name


# -- a man in the middle ----------------------------------------------------------------------


@asynccontextmanager
async def impostor(context, ca):
    """A server that greets with *ca* and keeps everything it is told."""
    heard = bytearray()

    async def met(reader, writer):
        writer.write(joining.line(joining.Greeting(protocol=1, ca=ca)))
        with suppress(OSError):
            while data := await reader.read(65536):
                heard.extend(data)
        writer.close()

    server = await asyncio.start_server(met, "127.0.0.1", 0, ssl=context)
    async with server:
        yield Server("127.0.0.1", server.sockets[0].getsockname()[1]), heard


@pytest.mark.parametrize("says", ["own authority", "the cluster's authority", "noise"])
def test_an_impostor_never_hears_the_secret(store, gate, tmp_path, says):
    """Whatever it greets with: it has no certificate of the token's authority."""
    other = Credentials(tmp_path / "other")
    other.create_authority("c0ffee123456")
    other.sign_own(STORE)
    ca = {
        "own authority": other.ca_pem(),
        "the cluster's authority": store.ca_pem(),
        "noise": "hello",
    }[says]

    async def run():
        async with impostor(other.server_context(), ca) as (server, heard):
            with pytest.raises(Unreachable, match="nothing was told to it"):
                await join_client.join([server], gate.token, candidate(Credentials(tmp_path / "x")))
            return bytes(heard)

    assert b"" == asyncio.run(run())


def test_a_member_s_old_certificate_does_not_make_a_server(store, gate, tmp_path):
    """One that has ended, with its right key, hears nothing either."""
    old = datetime.now(UTC) - timedelta(days=2)
    write_file(store.certificate, store.authority().sign(store.request("x"), STORE, now=old))

    async def run():
        async with impostor(store.server_context(), store.ca_pem()) as (server, heard):
            with pytest.raises(Unreachable, match="ended on"):
                await join_client.join([server], gate.token, candidate(Credentials(tmp_path / "x")))
            return bytes(heard)

    assert b"" == asyncio.run(run())


def test_a_member_does_not_renew_at_an_impostor(store, gate, tmp_path):
    """TLS itself refuses a server that the cluster's authority did not sign."""
    other = Credentials(tmp_path / "other")
    other.create_authority("c0ffee123456")
    other.sign_own(STORE)

    async def run():
        async with serving(store, gate) as server:
            made, admission = await member(tmp_path, gate, server)
        request = joining.RenewRequest(id=admission.id, csr=made.request("x"), addresses=())
        async with impostor(other.server_context(), store.ca_pem()) as (server, heard):
            with pytest.raises(Unreachable, match="does not prove to be of this cluster"):
                await join_client.renew([server], made, request)
            return bytes(heard)

    assert b"" == asyncio.run(run())


# -- strangers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"\n",
        b"hello\n",
        b"\xff\xfe\n",
        b"[]\n",
        b'{"ask":"join"}\n',
        b'{"ask":"unheard of"}\n',
        b'{"ask":"join","name":5,"csr":"","addresses":[]}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_garbage_is_answered_with_an_error(store, gate, said):
    """One line, of class InvalidSpec, and the connection ends."""

    async def run():
        async with serving(store, gate) as server:
            return await raw(server, said)

    greeting, answer = asyncio.run(run())

    assert store.ca_pem() == greeting["ca"]
    assert "InvalidSpec" == answer["kind"]


def test_a_message_that_is_too_long_ends_the_connection(store, gate):
    """Not more than the bound is ever kept."""

    async def run():
        async with serving(store, gate) as server:
            with suppress(OSError):  # it may hang up before all is written
                said = await raw(server, b'{"ask":"' + b"x" * joining.LINE_MAX * 3)
                assert "longer than 262144 bytes" in said[1]["message"]
            assert [1] == [one["protocol"] for one in (await raw(server, b"\n"))[:1]]

    asyncio.run(run())


def test_what_is_no_tls_is_refused(store, gate):
    """A browser or a scanner is hung up on, and counted as a failure."""

    async def run():
        async with serving(store, gate, attempts=1, pause=60) as server:
            reader, writer = await asyncio.open_connection(*server)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            async with asyncio.timeout(5):
                await reader.read()
            writer.close()
            async with asyncio.timeout(5):
                while True:  # until the failure is noted
                    reader, writer = await asyncio.open_connection(*server)
                    with suppress(OSError):
                        if await asyncio.wait_for(reader.read(), 0.05) == b"":
                            writer.close()
                            return
                    writer.close()

    asyncio.run(run())


def test_connections_that_never_start_tls_are_ended(store, gate, tmp_path):
    """And while they are open, up to a bound, others still get in."""

    async def run():
        async with serving(store, gate, per_source=4, handshake=1.0) as server:
            silent = [await asyncio.open_connection(*server) for _ in range(3)]
            await member(tmp_path, gate, server)
            silent += [await asyncio.open_connection(*server) for _ in range(3)]
            for reader, writer in silent:
                await ended(reader)
                writer.close()
            await member(tmp_path, gate, server, "host3")

    asyncio.run(run())


def test_a_client_that_is_too_slow_is_ended(store, gate):
    """One that starts TLS and then says a byte now and then."""

    async def run():
        async with serving(store, gate, request=0.3) as server:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            reader, writer = await asyncio.open_connection(*server, ssl=context)
            await reader.readline()
            async with asyncio.timeout(5):
                with suppress(OSError):
                    while not reader.at_eof():
                        writer.write(b"x")
                        with suppress(TimeoutError):
                            await asyncio.wait_for(reader.read(1), 0.02)
            writer.transport.abort()

    asyncio.run(run())


def test_a_server_that_says_nothing_is_given_up(gate, tmp_path):
    """The client's own bound holds too."""

    async def run():
        with socket.create_server(("127.0.0.1", 0)) as silent:
            server = Server("127.0.0.1", silent.getsockname()[1])
            with pytest.raises(Unreachable, match=r"no answer within 0\.2 s"):
                await join_client.join(
                    [server], gate.token, candidate(Credentials(tmp_path / "x")), timeout=0.2
                )

    asyncio.run(run())


def test_a_bug_in_the_agent_s_part_ends_one_connection(store, gate, tmp_path):
    """The client is told nothing, and the next one is served."""

    async def run():
        async with serving(store, gate) as server:
            right, gate.admit = gate.admit, None
            with pytest.raises(Unreachable):
                await join_client.join([server], gate.token, candidate(Credentials(tmp_path / "x")))
            gate.admit = right
            await member(tmp_path, gate, server)

    asyncio.run(run())


def test_a_server_whose_files_are_gone_hangs_up(store, gate, tmp_path):
    """It says so in its log, and serves again once they are back."""

    async def run():
        async with serving(store, gate) as server:
            kept = store.certificate.read_text()
            store.certificate.unlink()
            with pytest.raises(Unreachable):
                await join_client.join([server], gate.token, candidate(Credentials(tmp_path / "x")))
            write_file(store.certificate, kept)
            await member(tmp_path, gate, server)

    asyncio.run(run())


# -- members ----------------------------------------------------------------------------------


def test_a_certificate_that_has_ended_is_renewed(store, gate, tmp_path):
    """A host that slept for days comes back by its key alone."""

    async def run():
        async with serving(store, gate) as server:
            made, admission = await member(tmp_path, gate, server)
            old = datetime.now(UTC) - timedelta(days=3)
            holder = pki.Holder(id=admission.id, name="host2", addresses=())
            write_file(made.certificate, store.authority().sign(made.request("x"), holder, now=old))
            gate.stores.add(admission.id)
            with pytest.raises(Refused, match="has ended: renew it first"):
                await join_client.fetch_authority([server], made)
            request = joining.RenewRequest(
                id=admission.id, csr=made.request("x"), addresses=("192.0.2.9",)
            )
            renewed = await join_client.renew([server], made, request)
            made.save(renewed.certificate, renewed.ca)
            await join_client.fetch_authority([server], made)
        return made

    made = asyncio.run(run())

    assert made.validity().ends > datetime.now(UTC).timestamp() + 86000


def test_another_key_is_not_renewed(store, gate, tmp_path):
    """To know a host's id is not enough."""

    async def run():
        async with serving(store, gate) as server:
            made, admission = await member(tmp_path, gate, server)
            thief = pki.new_request(pki.new_key(), "x")
            request = joining.RenewRequest(id=admission.id, csr=thief, addresses=())
            with pytest.raises(Refused):
                await join_client.renew([server], made, request)

    asyncio.run(run())


def test_a_removed_host_learns_it_when_it_renews(store, gate, tmp_path):
    """By an error of its own class."""

    async def run():
        async with serving(store, gate) as server:
            made, admission = await member(tmp_path, gate, server)
            gate.hosts.clear()
            request = joining.RenewRequest(id=admission.id, csr=made.request("x"), addresses=())
            with pytest.raises(Removed, match="removed"):
                await join_client.renew([server], made, request)

    asyncio.run(run())


def test_a_host_that_is_to_run_etcd_gets_the_authority(store, gate, tmp_path):
    """And can sign from then on."""

    async def run():
        async with serving(store, gate) as server:
            made, admission = await member(tmp_path, gate, server)
            with pytest.raises(Refused, match="does not run etcd"):
                await join_client.fetch_authority([server], made)
            gate.stores.add(admission.id)
            handed = await join_client.fetch_authority([server], made)
            made.save_authority(handed.certificate, handed.key)
            async with serving(made, gate) as other:
                return made, await member(tmp_path, gate, other, "host3")

    made, (_, admission) = asyncio.run(run())

    assert made.can_sign
    assert "host3" == admission.name


def test_a_stranger_gets_no_authority(store, gate, tmp_path):
    """No certificate, or another cluster's: no key."""
    other = Credentials(tmp_path / "other")
    other.create_authority("c0ffee123456")
    other.sign_own(STORE)
    gate.stores.add(STORE.id)
    write_file(other.ca, store.ca_pem())
    other.crl.unlink()

    async def run():
        async with serving(store, gate) as server:
            _, answer = await raw(server, b'{"ask":"authority"}\n')
            with pytest.raises(Unreachable, match="does not take this host's certificate"):
                await join_client.fetch_authority([server], other)
        return answer

    answer = asyncio.run(run())

    assert ("Refused", True) == (answer["kind"], "show a certificate" in answer["message"])
    assert "key" not in answer


def test_a_revoked_certificate_is_refused_at_once(store, gate, tmp_path):
    """The running server reads the list anew: no key of the authority for a removed host."""

    async def run():
        async with serving(store, gate) as server:
            made, admission = await member(tmp_path, gate, server)
            gate.stores.add(admission.id)
            await join_client.fetch_authority([server], made)
            store.revoke([pki.serial_text(made.identity())])
            with pytest.raises(Removed, match="was removed"):
                await join_client.fetch_authority([server], made)

    asyncio.run(run())
