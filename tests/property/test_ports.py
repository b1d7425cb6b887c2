"""Published ports: what must hold for any of them."""

from hypothesis import given
from hypothesis import strategies as st

from seaway.errors import InvalidSpec
from seaway.model.ports import PORT_MAX, PortSpec, Protocol, overlapping, parse_publish

addresses = (
    st.ip_addresses()
    .filter(lambda a: not a.is_multicast and not a.is_link_local)
    .filter(lambda a: a.version == 4 or a.ipv4_mapped is None)
)


@st.composite
def specs(draw):
    host_ip = draw(st.none() | addresses)
    count = draw(st.integers(1, 20))
    container_port = draw(st.integers(1, PORT_MAX - count + 1))
    length = count if count > 1 else draw(st.integers(1, 20))
    first = draw(st.none() | st.integers(1, PORT_MAX - length + 1))
    family = host_ip.version if host_ip else None
    clients = draw(st.lists(st.ip_addresses(v=family) if family else st.ip_addresses(), max_size=4))
    return PortSpec(
        host_ip=host_ip,
        host_first=first,
        host_last=None if first is None else first + length - 1,
        container_port=container_port,
        count=count,
        protocol=draw(st.sampled_from(Protocol)),
        sources=tuple(parse_publish(f"1,from={c}").sources[0] for c in clients),
    )


@given(specs())
def test_writing_and_reading_gives_the_same(spec):
    """The text of a specification parses back to an equal one."""
    assert spec == parse_publish(str(spec))


@given(st.text("0123456789:-/.,=[]abcdfghimnoprstu;%é\n"))
def test_any_text_is_read_or_refused(text):
    """Whatever is typed after -p, the answer is a value or one clear line."""
    answer = ""
    try:
        parse_publish(text)
    except InvalidSpec as err:
        answer = str(err)

    assert "\n" not in answer


few_hosts = st.sampled_from([None, "0.0.0.0", "::", "127.0.0.1", "127.0.0.2", "::1"])


@st.composite
def published(draw):
    first = draw(st.integers(1, 6))
    last = draw(st.integers(first, 6))
    host = draw(few_hosts)
    where = "" if host is None else f"[{host}]:"
    protocol = draw(st.sampled_from(["tcp", "udp"]))
    return parse_publish(f"{where}{first}-{last}:{first}-{last}/{protocol}").bound_at(first)


def sockets(mapping):
    return {
        (mapping.protocol, address.version, address, port)
        for address in mapping.addresses
        for port in range(mapping.host_port, mapping.host_last + 1)
    }


def one_socket_clashes(a, b):
    wild = a[2].is_unspecified or b[2].is_unspecified
    return a == b or (wild and a[:2] == b[:2] and a[3] == b[3])


@given(published(), published())
def test_mappings_clash_exactly_when_two_of_their_sockets_do(a, b):
    """Comparing ranges gives the same answer as comparing every single socket."""
    expected = any(one_socket_clashes(x, y) for x in sockets(a) for y in sockets(b))

    assert expected == overlapping(a, b)


@given(specs(), st.integers(1, PORT_MAX - 20))
def test_every_container_port_is_listed_once_per_address(spec, host_port):
    """docker port's lines are as many as container ports times addresses."""
    mapping = spec.bound_at(host_port)

    assert spec.count * len(mapping.addresses) == len(set(mapping.as_port()))
