"""Published ports, with real containers: every form, from everywhere, and nothing beyond."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from seaway.plan.host import GATEWAY_MAC
from tests.support.frames import mac_of, send, syn, udp
from tests.support.netns import Refused, wait_until
from tests.support.site import CLIENT, CLIENT6, HOST, HOST6, INTERNET, Container, Site, running_site
from tests.support.talk import answering, calling, reach, recording, tell

OWN = "192.0.2.77"  # a second address of the host


class Form(NamedTuple):
    """A way to write -p.  Every one has container ports of its own, to tell them apart."""

    publish: str
    container: range
    host: range | None = None  # None: the agent chooses
    address: str = ""
    kind: str = "tcp"

    @property
    def shown(self) -> tuple[str, ...]:
        """The addresses that ``seaway port`` shows."""
        if not self.address:
            return ("0.0.0.0", "[::]")
        return (f"[{self.address}]" if ":" in self.address else self.address,)


def _span(first: int, last: int) -> range:
    return range(first, last + 1)


FORMS = (
    Form("7001", _span(7001, 7001)),
    Form("8080:7002", _span(7002, 7002), _span(8080, 8080)),
    Form(f"{OWN}:8083:7003", _span(7003, 7003), _span(8083, 8083), OWN),
    Form(f"{HOST}::7004", _span(7004, 7004), None, HOST),
    Form(f"[{HOST6}]:8081:7005", _span(7005, 7005), _span(8081, 8081), HOST6),
    Form(f"{HOST6}:8082:7006", _span(7006, 7006), _span(8082, 8082), HOST6),
    Form(f"[{HOST6}]::7007", _span(7007, 7007), None, HOST6),
    Form("7010-7012", _span(7010, 7012)),
    Form("7020-7022:7020-7022", _span(7020, 7022), _span(7020, 7022)),
    Form("8030-8032:7030-7032", _span(7030, 7032), _span(8030, 8032)),
    Form(f"{HOST}:8040-8041:7040-7041", _span(7040, 7041), _span(8040, 8041), HOST),
    Form("8050-8059:7050", _span(7050, 7050), _span(8050, 8050)),
    Form("8060:7060/udp", _span(7060, 7060), _span(8060, 8060), kind="udp"),
    Form("7061-7062:7061-7062/udp", _span(7061, 7062), _span(7061, 7062), kind="udp"),
    Form("7063/udp", _span(7063, 7063), kind="udp"),
    Form("8064:7064/TCP", _span(7064, 7064), _span(8064, 8064)),
    Form("target=7070,published=8070", _span(7070, 7070), _span(8070, 8070)),
    Form(
        f"published=8071,target=7071,protocol=udp,host_ip={HOST}",
        *(_span(7071, 7071), _span(8071, 8071), HOST, "udp"),
    ),
    Form("0:7080", _span(7080, 7080)),
)
_GET = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=5).read().decode())"
OF_BOTH = {"0.0.0.0": HOST, "[::]": f"[{HOST6}]"}


@pytest.fixture(scope="module")
def site():
    """A host for this module, with a second address."""
    with running_site("ee-ports") as site:
        site.host.run(f"ip address add {OWN}/24 dev eth0")
        yield site
        site.host.run(f"ip address del {OWN}/24 dev eth0")


@pytest.fixture(scope="module")
def forms(site):
    """A container that publishes in every form and answers on every port."""
    published = [word for form in FORMS for word in ("-p", form.publish)]
    ports = {
        kind: [port for form in FORMS if form.kind == kind for port in form.container]
        for kind in ("tcp", "udp")
    }
    with (
        site.container("forms", *published) as forms,
        answering(forms, "forms", tcp=ports["tcp"], udp=ports["udp"]),
    ):
        yield forms


@pytest.fixture(scope="module")
def street(site):
    """The container web on the network "here", its neighbour there, and a stranger elsewhere."""
    publish = ("-p", "9080:80", "-p", "9080:80/udp")
    with (
        site.networks("here", "there"),
        site.container("web", "--network", "here", *publish) as web,
        site.container("neighbour", "--network", "here") as neighbour,
        site.container("stranger", "--network", "there") as stranger,
        answering(web, "web", tcp=(80, 81), udp=(80, 81)),
    ):
        people = {"web": web, "neighbour": neighbour, "stranger": stranger}
        yield people | {"host": site.host, "outside": site.outside}


def published(site: Site, name: str) -> str:
    """The first place that ``seaway port`` tells of."""
    return site.seaway("port", name).splitlines()[0].partition(" -> ")[2]


# -- forms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.publish)
def test_every_form_is_reached_where_it_says(site, forms, form):
    """Each way to write -p is shown by ``port`` and reached from outside just there."""
    questions, answers = [], []
    for offset, inner in enumerate(form.container):
        places = site.seaway("port", "forms", f"{inner}/{form.kind}").splitlines()
        port = int(places[0].rpartition(":")[2])
        assert [f"{where}:{port}" for where in form.shown] == places
        assert form.host is None or port in (form.host[offset:] if offset else form.host)
        for where in form.shown:
            questions.append(f"{form.kind}://{OF_BOTH.get(where, where)}:{port}")
            answers.append(f"forms {inner} {CLIENT6 if '[' in where else CLIENT}")

    assert answers == reach(site.outside, *questions)


def test_ps_and_inspect_show_the_same_ports(site, forms):
    """``ps`` lists what is bound, ranges as one; ``inspect`` has the same and the lines of port."""
    (row,) = [c for c in site.json("ps") if c["Names"] == "forms"]
    view = forms.view()

    assert ", ".join(view["ports"]) == row["Ports"]
    assert "0.0.0.0:8080->7002/tcp, [::]:8080->7002/tcp" in row["Ports"]
    assert f"{OWN}:8083->7003/tcp" in row["Ports"]
    assert "0.0.0.0:8030-8032->7030-7032/tcp, [::]:8030-8032->7030-7032/tcp" in row["Ports"]
    assert "0.0.0.0:7061-7062->7061-7062/udp" in row["Ports"]
    assert site.seaway("port", "forms").splitlines() == view["port_lines"]
    assert sum(len(form.container) * len(form.shown) for form in FORMS) == len(view["port_lines"])


def test_an_address_publishes_on_itself_only(site, forms):
    """A port published on one address of the host is refused on its others."""
    assert ["forms 7003 192.0.2.200", "forms 7002 192.0.2.200", "refused", "refused"] == reach(
        site.outside,
        f"tcp://{OWN}:8083",
        f"tcp://{HOST}:8080",
        f"tcp://{HOST}:8081",  # published on an IPv6 address
        f"tcp://{OWN}:8040",
    )


def test_one_element_for_a_port_or_a_range(site):
    """A mapping is one element of a map, and so is a range that keeps its numbers, however long."""
    maps = [f"publish_{kind}{version}" for kind in ("any", "on", "range") for version in (4, 6)]
    before = {name: len(site.elements(name)) for name in maps}

    def grown() -> dict[str, int]:
        return {n: d for n in maps if (d := len(site.elements(n)) - before[n])}

    with site.container("long", "-p", "20000-29999:20000-29999/udp"):
        assert {"publish_range4": 1, "publish_range6": 1} == grown()
    with site.container("one", "-p", "20000:80", "-p", "127.0.0.1:20001:80"):
        assert {"publish_any4": 1, "publish_any6": 1, "publish_on4": 1} == grown()
    assert {} == grown()


def test_sctp_ports_are_mapped(site):
    """An SCTP port gets its element, whether or not this kernel speaks SCTP itself."""
    with site.container("signal", "-p", "9090:3868/sctp") as signal_point:
        element = [["sctp", 9090], {"concat": [signal_point.on()["ipv4"], 3868]}]

        assert "3868/sctp -> 0.0.0.0:9090\n3868/sctp -> [::]:9090" == site.seaway("port", "signal")
        assert [{"concat": element[0]}, element[1]] in site.elements("publish_any4")
        taken = site.attempt("run", "-d", "-p", "9090:1/sctp", "busybox")
        assert (1, 1) == (taken.status, taken.err.count("\n"))
        assert "signal" in taken.err


def test_publish_all_takes_what_the_image_and_expose_name(site):
    """-P publishes the ports an image exposes and those of --expose, but not one that -p has."""
    flags = ("-P", "--expose", "7000-7001", "--expose", "53/udp", "--expose", "90", "-p", "9190:90")
    with site.container("all", *flags, image="nginx") as everything:
        with answering(everything, "all", tcp=(7000, 7001, 90), udp=(53,)):
            places = dict(
                line.split(" -> ")
                for line in site.seaway("port", "all").splitlines()
                if "[" not in line
            )
            ports = {inner: place.rpartition(":")[2] for inner, place in places.items()}

            assert {"80/tcp", "7000/tcp", "7001/tcp", "53/udp", "90/tcp"} == ports.keys()
            assert "9190" == ports["90/tcp"]
            assert [f"all {n} {CLIENT}" for n in (7000, 7001, 53)] == reach(
                site.outside,
                f"tcp://{HOST}:{ports['7000/tcp']}",
                f"tcp://{HOST}:{ports['7001/tcp']}",
                f"udp://{HOST}:{ports['53/udp']}",
            )
            url = f"http://{HOST}:{ports['80/tcp']}/"
            assert "nginx" in site.outside.python(_GET, url)


# -- from where --------------------------------------------------------------------------------

# who asks, which address of the host, what address arrives ("=" its own, "gateway" of here)
SEEN = (
    ("outside", HOST, CLIENT),
    ("outside", HOST6, CLIENT6),
    ("host", HOST, HOST),
    ("host", HOST6, HOST6),
    ("host", "127.0.0.1", "gateway4"),
    ("host", "127.0.0.9", "gateway4"),
    ("host", "::1", "gateway6"),
    ("neighbour", HOST, "ipv4"),
    ("neighbour", HOST6, "ipv6"),
    ("neighbour", "gateway4", "ipv4"),
    ("stranger", HOST, "ipv4"),
    ("stranger", HOST6, "ipv6"),
    ("stranger", "gateway6", "ipv6"),
    ("web", HOST, "gateway4"),
    ("web", HOST6, "gateway6"),
)


@pytest.mark.parametrize(("who", "address", "seen"), SEEN, ids=lambda value: value)
def test_everyone_reaches_a_published_port(street, who, address, seen):
    """From outside, the host, its loopback, other containers and itself; who asks is seen."""
    asker = street[who]
    own = asker.view()["networks"][0] if isinstance(asker, Container) else {}
    address, seen = (
        own.get(address, address),
        own.get(seen) or street["web"].on("here").get(seen, seen),
    )
    where = f"[{address}]:9080" if ":" in address else f"{address}:9080"

    assert [f"web 80 {seen}"] * 2 == reach(asker, f"tcp://{where}", f"udp://{where}")


def test_a_container_on_the_same_network_needs_no_published_port(street):
    """Neighbours reach every port of each other, at the container's own address."""
    web, me = street["web"].on("here"), street["neighbour"].on("here")

    assert [f"web 81 {me['ipv4']}", f"web 81 {me['ipv6']}", f"web 81 {me['ipv4']}"] == reach(
        street["neighbour"],
        f"tcp://{web['ipv4']}:81",
        f"tcp://[{web['ipv6']}]:81",
        f"udp://{web['ipv4']}:81",
    )


def test_only_the_published_port_is_open(site, street):
    """A port that is not published is refused at the host, and dropped at the container."""
    web = street["web"].on("here")
    site.outside.run(f"ip route add {web['ipv4']} via {HOST}")
    site.outside.run(f"ip -6 route add {web['ipv6']} via {HOST6}")
    before = site.drops("isolated")

    assert ["refused", "refused", "refused"] == reach(
        site.outside, f"tcp://{HOST}:81", f"tcp://[{HOST6}]:81", f"udp://{HOST}:81"
    )
    # not even a published port can be had past the host's address
    targets = [
        f"{kind}://{at}"
        for kind in ("tcp", "udp")
        for port in (80, 81)
        for at in (f"{web['ipv4']}:{port}", f"[{web['ipv6']}]:{port}")
    ]
    assert ["silence"] * 8 == reach(site.outside, *targets, seconds=0.4)
    assert before + 8 <= site.drops("isolated")


# -- loopback ----------------------------------------------------------------------------------


def test_a_port_on_loopback_is_for_the_host_alone(site, street):
    """What is published on 127.0.0.1 and ::1 is reached there by the host, and by nobody else."""
    ports = ("127.0.0.1:9180:80", "127.0.0.1:9180:80/udp", "[::1]:9180:80", "[::1]:9180:80/udp")
    flags = [word for port in ports for word in ("-p", port)]
    macs = (mac_of(site.outside, "eth0"), mac_of(site.host, "eth0"))
    with site.container("secret", *flags) as secret, recording(secret, 80) as heard:
        own = secret.on()
        site.outside.run(f"ip route add {own['ipv4']} via {HOST}")
        site.outside.run(f"ip -6 route add {own['ipv6']} via {HOST6}")
        looped, isolated = site.drops("loopback"), site.drops("isolated")

        send(
            site.outside,
            "eth0",
            [
                udp(macs, CLIENT, "127.0.0.1", 9180),
                syn(macs, CLIENT, "127.0.0.1", 9180),
                udp(macs, "127.0.0.1", "127.0.0.1", 9180),
                udp(macs, HOST, "127.0.0.1", 9180),
                udp(macs, CLIENT6, "::1", 9180),
                syn(macs, CLIENT6, "::1", 9180),
            ],
        )
        send(
            street["neighbour"],
            "eth0",
            [
                udp(
                    (street["neighbour"].on("here")["mac"], GATEWAY_MAC),
                    street["neighbour"].on("here")["ipv4"],
                    "127.0.0.1",
                    9180,
                ),
            ],
        )
        for address in (HOST, own["ipv4"], HOST6, own["ipv6"]):
            for port in (80, 9180):
                tell(site.outside, address, port, "crafted")
        for address in ("127.0.0.1", "::1"):
            tell(site.host, address, 9180, "wanted")

        assert {f"{own['gateway4']} wanted", f"{own['gateway6']} wanted"} == {heard(), heard()}
        assert looped + 5 == site.drops("loopback")
        assert isolated + 4 == site.drops("isolated")


def test_distinct_loopback_addresses_are_distinct_places(site):
    """One port number on two loopback addresses leads to two containers."""
    with (
        site.container("first", "-p", "127.0.0.1:9190:80") as first,
        site.container("second", "-p", "127.0.0.2:9190:80") as second,
        answering(first, "first", tcp=(80,)),
        answering(second, "second", tcp=(80,)),
    ):
        found = reach(site.host, "tcp://127.0.0.1:9190", "tcp://127.0.0.2:9190")

        assert ["first", "second"] == [reply.split()[0] for reply in found]
        assert ["refused"] == reach(site.host, "tcp://127.0.0.3:9190")


# -- allow lists -------------------------------------------------------------------------------


def test_only_clients_of_the_list_get_in(site, street):
    """from= lets in its ranges of both families; everybody else's packets are counted."""
    lists = f"from={CLIENT}/32,198.51.100.0/24,{CLIENT6}/128"
    flags = ("-p", f"9200:80,{lists}", "-p", f"9200:80/udp,{lists}", "-p", "9201:81,from=::/0")
    with site.container("guarded", *flags) as guarded:
        with answering(guarded, "guarded", tcp=(80, 81), udp=(80,)):
            before = site.drops("not_allowed")
            assert lists in guarded.view()["asked_ports"][0]
            wanted = [f"tcp://{HOST}:9200", f"udp://{HOST}:9200", f"tcp://[{HOST6}]:9200"]
            assert [f"guarded 80 {c}" for c in (CLIENT, CLIENT, CLIENT6)] == reach(
                site.outside, *wanted
            )
            assert [f"guarded 81 {CLIENT6}"] == reach(site.outside, f"tcp://[{HOST6}]:9201")
            assert before == site.drops("not_allowed")

            assert ["silence"] * 2 == reach(site.outside, *wanted[:2], source=INTERNET, seconds=0.3)
            assert ["silence"] * 3 == reach(street["neighbour"], *wanted, seconds=0.3)
            # a list of one family lets in none of the other
            assert ["silence"] == reach(site.outside, f"tcp://{HOST}:9201", seconds=0.3)
            assert before + 6 <= site.drops("not_allowed")


# -- really bound ------------------------------------------------------------------------------

_BIND = """
import socket, sys
kind, address, port = sys.argv[1:]
s = socket.socket(
    socket.AF_INET6 if ":" in address else socket.AF_INET,
    socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM,
)
s.bind((address, int(port)))
"""


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "127.0.0.1", "::1", HOST, HOST6])
def test_nobody_else_can_bind_a_published_port(site, street, kind, address):
    """The host port is held by a real socket, on every address of both families."""
    with pytest.raises(Refused, match="Address already in use"):
        site.host.python(_BIND, kind, address, "9080")


def refused(site: Site, *words: str) -> str:
    """Run a command that fails: one line on stderr, status 1, and nothing changed."""
    before = site.snapshot()
    done = site.attempt(*words)
    assert (1, "", 1) == (done.status, done.out, done.err.count("\n")), done
    assert before == site.snapshot()
    return done.err.strip()


def test_a_clash_names_the_process_that_has_the_port(site):
    """A port that some process holds is refused with its name and number, and nothing is left."""
    with site.host.serving(9210) as pid:
        told = refused(site, "run", "-d", "-p", "9209-9210:80-81", "--name", "late", "busybox")

        assert f"(pid {pid})" in told
        assert "9210/tcp" in told
    assert ["refused"] == reach(site.outside, f"tcp://{HOST}:9209")  # its other port is free again


@pytest.mark.parametrize(
    "publish", ["9080:1", "127.0.0.1:9080:1", f"{HOST}:9080:1/udp", "[::1]:9080:1", "9078-9080:1-3"]
)
def test_a_clash_names_the_container_that_has_the_port(site, street, publish):
    """A port published by another container, on any address, is refused with its name."""
    told = refused(site, "run", "-d", "-p", publish, "--name", "late", "busybox")

    assert "container web" in told
    assert "9080" in told


def test_one_request_cannot_have_a_port_twice(site):
    """Two -p that want the same port of the host are refused as such."""
    told = refused(site, "run", "-d", "-p", "9211:80", "-p", "127.0.0.1:9211:81", "busybox")

    assert "9211/tcp" in told
    assert "twice" in told


def test_a_range_takes_the_first_free_port(site, street):
    """With several host ports for one container port, a taken one is passed over."""
    with site.container("range", "-p", "9079-9082:80") as first:
        assert "0.0.0.0:9079" == published(site, "range")
        with site.container("again", "-p", "9079-9082:80"):
            assert "0.0.0.0:9081" == published(site, "again")  # 9080 is web's
    assert first.name == "range"


# -- coming and going --------------------------------------------------------------------------


def test_ports_go_with_stop_and_come_with_start(site):
    """A stopped container publishes nothing and lets its port go; started, it has it again."""
    with site.container("web1", "-p", "9220:80", "-p", "80") as web1:
        chosen = site.seaway("port", "web1")
        with answering(web1, "web1", tcp=(80,)):
            assert [f"web1 80 {CLIENT}"] == reach(site.outside, f"tcp://{HOST}:9220")
        site.seaway("stop", "-t", "0", "web1")

        assert ["refused", "refused"] == reach(
            site.outside, f"tcp://{HOST}:9220", f"tcp://[{HOST6}]:9220"
        )
        assert "" == site.seaway("port", "web1")
        assert ["web1 "] == [
            f"{c['Names']} {c['Ports']}" for c in site.json("ps", "-a") if c["Names"] == "web1"
        ]
        site.host.python(_BIND, "tcp", "0.0.0.0", "9220")

        site.seaway("start", "web1")
        assert chosen == site.seaway("port", "web1")
        with answering(web1, "web1", tcp=(80,)):
            assert [f"web1 80 {CLIENT}"] == reach(site.outside, f"tcp://{HOST}:9220")


def test_start_is_refused_while_another_has_the_port(site):
    """A stopped container whose port was taken meanwhile stays stopped and says by whom."""
    with site.container("sleepy", "-p", "9221:80"):
        site.seaway("stop", "-t", "0", "sleepy")
        with site.host.serving(9221) as pid:
            assert f"(pid {pid})" in refused(site, "start", "sleepy")
        with site.container("quick", "-p", "9221:80"):
            assert "container quick" in refused(site, "start", "sleepy")
        assert "sleepy" == site.seaway("start", "sleepy")


def test_a_chosen_port_stays_the_same(site):
    """A port the agent chose is the same after a restart, by us or by the engine's own policy."""
    flags = ("--restart", "always", "-p", "80", "-p", "9230-9233:80", "-p", "81-83", "-p", "80/udp")
    with site.container("steady", *flags) as steady:
        before = site.seaway("port", "steady")
        site.seaway("restart", "-t", "0", "steady")
        assert before == site.seaway("port", "steady")

        pid = steady.view()["pid"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: steady.view()["pid"] not in (0, pid), what="started again by Podman")
        assert before == site.seaway("port", "steady")
        port = before.splitlines()[0].rpartition(":")[2]
        with answering(steady, "steady", tcp=(80,)):
            assert [f"steady 80 {CLIENT}"] == reach(site.outside, f"tcp://{HOST}:{port}")


def test_a_closed_connection_does_not_keep_the_port(site):
    """A port whose connections have just ended can be published again at once."""
    for label in ("old", "new"):
        with site.container(label, "-p", "9240:80") as container:
            with answering(container, label, tcp=(80,)):
                targets = (f"tcp://{HOST}:9240", f"tcp://[{HOST6}]:9240")
                assert [f"{label} 80 {c}" for c in (CLIENT, CLIENT6)] == reach(
                    site.outside, *targets
                )
                assert label in reach(site.host, "tcp://127.0.0.1:9240")[0]


def test_udp_flows_move_to_the_new_container_at_once(site):
    """A client that keeps its socket gets answers from whoever publishes the port now."""
    places = [(site.outside, HOST), (site.outside, HOST6), (site.host, "127.0.0.1")]
    with ExitStack() as clients:
        asks = [
            (clients.enter_context(calling(space, address, port)), inner)
            for space, address in places
            for port, inner in ((9250, 9250), (9251, 53))
        ]
        ports = ("-p", "9250:9250/udp", "-p", "9251:53/udp")
        for label, more in (("old", ()), ("new", ("-p", "9252-9272:9252-9272/udp"))):
            for ask, _ in asks:  # before there is such a port, and again between the two
                assert ask(0.2) in ("refused", "silence")
            with site.container(label, *ports, *more) as container:
                with answering(container, label, udp=(9250, 53)):
                    assert [f"{label} {inner}" for _, inner in asks] == [
                        " ".join(ask().split()[:2]) for ask, _ in asks
                    ]
