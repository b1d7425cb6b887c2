"""Hosts of a lab on a second link: behind a router, and behind a NAT."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from seaway.lab.lifecycle import running_lab
from tests.support.netns import Namespace, Refused
from tests.support.underlay import ROUTER_4, ROUTER_6, second_link, side_address

_READY = """
import os, socket, time
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def lab():
    """Three hosts whose agents do nothing."""
    with tempfile.TemporaryDirectory(prefix="swl") as folder:
        roots = {"state_root": Path(folder, "state"), "run_root": Path(folder, "run")}
        command = [sys.executable, "-c", _READY]
        with running_lab(f"s{os.getpid()}", 3, lambda _host: command, **roots) as lab:
            yield lab


def ask(lab, client, address, port=80, seconds=2.0):
    """Whom the server at *address* sees."""
    return Namespace(lab.machine(client).netns.name).ask(address, port, seconds=seconds)


@pytest.fixture
def serving(lab):
    """Servers on host1 and host2 that say whom they see, over both protocols."""
    first, second = (Namespace(lab.host(name).netns.name) for name in ("host1", "host2"))
    with (
        first.serving(80),
        first.serving(81, address="::"),
        second.serving(80),
        second.serving(81, address="::"),
    ):
        yield


def test_a_router_between_two_links(lab, serving):
    """Both sides reach each other with their own addresses, and host3 its neighbour directly."""
    with second_link(lab, "host2", "host3"):
        for version, port in ((4, 80), (6, 81)):
            first = str(lab.host("host1").v4.ip if version == 4 else lab.host("host1").v6.ip)
            second, third = (side_address(name, version) for name in ("host2", "host3"))
            assert second == ask(lab, "host2", first, port)
            assert first == ask(lab, "host1", second, port)
            assert third == ask(lab, "host3", second, port)
    assert "192.0.2.2" == ask(lab, "host2", "192.0.2.1")


def test_hosts_behind_one_nat(lab, serving):
    """They reach the wire, where both have the router's address; nobody reaches them first."""
    with second_link(lab, "host2", "host3", nat=True):
        assert {ROUTER_4} == {ask(lab, name, "192.0.2.1") for name in ("host2", "host3")}
        assert ROUTER_6 == ask(lab, "host2", "2001:db8:5ea::1", 81)
        with pytest.raises(Refused):
            ask(lab, "host1", side_address("host2"), seconds=0.2)
    assert "192.0.2.1" == ask(lab, "host1", "192.0.2.2")
