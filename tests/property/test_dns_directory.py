"""Whatever happened before, a directory answers as one that was made just now."""

from ipaddress import ip_network

import dns.message
from hypothesis import given, settings
from hypothesis import strategies as st

from seaway.dns.answer import Directory, Forward, Member
from tests.support.dns import ask, member

OWNERS = ["a", "b", "c", "d"]
NETWORKS = ["one", "two", "three"]
NAMES = ["web", "db", "www"]

attachments = st.dictionaries(
    st.sampled_from(NETWORKS), st.lists(st.sampled_from(NAMES), max_size=2, unique=True)
)
changes = st.tuples(st.sampled_from(OWNERS), st.none() | attachments)


def address(owner: str, network: str) -> str:
    return f"10.{NETWORKS.index(network)}.0.{OWNERS.index(owner) + 2}"


def members(owner: str, held: dict[str, list[str]]) -> list[Member]:
    return [
        member(owner, network, *names, at=(address(owner, network),))
        for network, names in held.items()
    ]


def empty() -> Directory:
    made = Directory()
    made.set_subnets(ip_network(f"10.{i}.0.0/24") for i, _ in enumerate(NETWORKS))
    return made


def said(directory: Directory, question: bytes, source: str) -> object:
    """Return what the answer means: its code and its records, rotation aside."""
    reply = directory.answer(question, source)
    if isinstance(reply, Forward):
        return "forward", reply.owner
    message = dns.message.from_wire(reply)
    return message.rcode(), {str(r) for rrset in message.answer for r in rrset}


QUESTIONS = [
    *(ask(name, rtype) for name in NAMES for rtype in ("A", "AAAA")),
    *(ask(f"{name}.{network}") for name in NAMES for network in NETWORKS),
    *(ask(f"{host}.0.{n}.10.in-addr.arpa", "PTR") for host in range(2, 7) for n in range(3)),
]
SOURCES = [address(owner, network) for owner in OWNERS for network in NETWORKS]


@settings(deadline=None)
@given(history=st.lists(changes, max_size=8))
def test_history_leaves_no_trace(history):
    """After every change, each asker gets what a fresh directory of the same members says."""
    lived = empty()
    state: dict[str, dict[str, list[str]]] = {}
    for owner, held in history:
        if held is None:
            lived.remove(owner)
            state.pop(owner, None)
        else:
            lived.put(owner, members(owner, held))
            state[owner] = held
        for source in SOURCES[:6]:  # fills the kept answers that the next change must spoil
            said(lived, QUESTIONS[0], source)
    fresh = empty()
    for owner, held in state.items():
        fresh.put(owner, members(owner, held))

    for source in SOURCES:
        for question in QUESTIONS:
            assert said(fresh, question, source) == said(lived, question, source)
    assert len(lived._networks) == len({network for held in state.values() for network in held})
    assert lived._kept == sum(len(view.cache) for view in lived._views.values())
