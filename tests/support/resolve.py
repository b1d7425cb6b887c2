"""Asking for names from inside a namespace, and a name server that plays the internet's.

with naming(outside, "203.0.113.1", {"example.com": "198.51.100.7"}) as asked:
    assert ["198.51.100.7"] == look_up(web, gateway, "example.com A")
    assert "192.0.2.1 example.com A" == asked()
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from tests.support.netns import Namespace
from tests.support.talk import lines

_ASK = """
import concurrent.futures, json, sys
import dns.flags, dns.message, dns.query, dns.rcode, dns.reversename
server, seconds, *questions = sys.argv[1:]
def ask(question):
    name, rtype, *over = question.split()
    if rtype == "PTR":
        name = dns.reversename.from_address(name)
    send = dns.query.tcp if over == ["tcp"] else dns.query.udp
    try:
        reply = send(dns.message.make_query(name, rtype), server, timeout=float(seconds))
    except Exception as err:
        return type(err).__name__
    if reply.rcode():
        return dns.rcode.to_text(reply.rcode())
    found = sorted(record.to_text() for rrset in reply.answer for record in rrset)
    return " ".join(found) or "NODATA"
with concurrent.futures.ThreadPoolExecutor(max(len(questions), 1)) as pool:
    print(json.dumps(list(pool.map(ask, questions))))
"""

_SERVE = """
import json, selectors, socket, sys
import dns.message, dns.rcode, dns.rrset
address, records = sys.argv[1], json.loads(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
waiting = selectors.DefaultSelector()
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    s = socket.socket(family, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, 53))
    if kind == socket.SOCK_STREAM:
        s.listen(16)
    waiting.register(s, selectors.EVENT_READ, kind)
def answer(data, peer, over):
    query = dns.message.from_wire(data)
    asked = query.question[0]
    name = asked.name.to_text(omit_final_dot=True)
    rtype = dns.rdatatype.to_text(asked.rdtype)
    print(peer[0], name, rtype, over, flush=True)
    reply = dns.message.make_response(query)
    if name not in records:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif rtype == "A":
        found = records[name].split()
        reply.answer.append(dns.rrset.from_text(asked.name, 60, "IN", "A", *found))
    whole = reply.to_wire(max_size=65535)
    if over == "udp" and len(whole) > 512:
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        return reply.to_wire()
    return whole
print("ready", flush=True)
while True:
    for key, _ in waiting.select():
        if key.data == socket.SOCK_DGRAM:
            data, peer = key.fileobj.recvfrom(65535)
            key.fileobj.sendto(answer(data, peer, "udp"), peer)
            continue
        client, peer = key.fileobj.accept()
        stream = client.makefile("rb")
        reply = answer(stream.read(int.from_bytes(stream.read(2))), peer, "tcp")
        client.sendall(len(reply).to_bytes(2) + reply)
        client.close()
"""


def look_up(space: Namespace, server: str, *questions: str, seconds: float = 3) -> list[str]:
    """Ask *server* "NAME A", "NAME AAAA tcp" or "ADDRESS PTR", all at once, from *space*.

    Returns:
        For each question the data, sorted, a blank between; or "NODATA", "NXDOMAIN", "Timeout"...
    """
    found: list[str] = json.loads(space.python(_ASK, server, str(seconds), *questions))
    return found


@contextmanager
def naming(
    space: Namespace, address: str, records: Mapping[str, str]
) -> Iterator[Callable[[], str]]:
    """Answer A questions from *records* on *address*, UDP and TCP, and NXDOMAIN to all others.

    Yields:
        A function that returns the next question: "192.0.2.1 example.com A udp".
    """
    argv = (sys.executable, "-c", _SERVE, address, json.dumps(records))
    with space.started(*argv) as server:
        heard = lines(server)
        assert "ready" == heard()
        yield heard
