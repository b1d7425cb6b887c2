"""What a wireguard-go is told when blocks of addresses come and go."""

from __future__ import annotations

import base64
import socket
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from threading import Thread

import pytest

from seaway.errors import KernelError
from seaway.kernel import wireguard
from seaway.plan.resources import WireGuardPeer

LINK = "sww-test"
KEY = base64.b64encode(bytes(range(32))).decode()
OLD = WireGuardPeer(
    link=LINK,
    public_key=KEY,
    allowed=tuple(map(ip_network, ("10.1.0.0/28", "10.1.0.16/28", "169.254.64.2/32"))),
)
NEW = replace(OLD, allowed=tuple(map(ip_network, ("10.1.0.0/28", "169.254.64.2/32", "fd00::/112"))))


@contextmanager
def wireguard_go(folder, answer):
    """Listen as one does, for one request; yields what it was told."""
    told: list[str] = []

    def serve():
        conn, _ = listener.accept()
        with conn:
            data = b""
            while not data.endswith(b"\n\n"):
                data += conn.recv(4096)
            told.extend(data.decode().split("\n"))
            conn.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / f"{LINK}.sock"))
        listener.listen()
        thread = Thread(target=serve)
        thread.start()
        try:
            yield told
        finally:
            thread.join(5)


@pytest.fixture
def words(monkeypatch, tmp_path):
    """What wg(8) is called with."""
    called = []
    monkeypatch.setattr(wireguard, "SOCKETS", tmp_path)
    monkeypatch.setattr(wireguard, "_wg", lambda *words, **_: called.append(words) or "")
    return called


def test_what_stays_allowed_is_allowed_all_the_time(words, tmp_path):
    """Nothing is replaced: what is new is added, what must go is given to nobody, who goes."""
    with wireguard_go(tmp_path, b"errno=0\n\n") as told:
        wireguard.configure([], [(OLD, NEW)])

    nobody = told[1]
    assert nobody.startswith("public_key=")
    assert told == [
        "set=1",
        nobody,
        "allowed_ip=10.1.0.16/28",
        nobody,
        "remove=true",
        f"public_key={bytes(range(32)).hex()}",
        "update_only=true",
        "allowed_ip=fd00::/112",
        "",
        "",
    ]
    assert nobody != told[5]
    assert all("allowed-ips" not in call for call in words)


def test_a_block_that_moves_is_given_last(words, tmp_path):
    """Whichever peer comes first: taken away after that, it would be nobody's."""
    other = replace(OLD, public_key=base64.b64encode(bytes(range(32, 64))).decode(), allowed=())
    heir = replace(other, allowed=OLD.allowed[1:2])
    with wireguard_go(tmp_path, b"errno=0\n\n") as told:
        wireguard.configure([], [(other, heir), (OLD, replace(OLD, allowed=OLD.allowed[:1]))])

    assert told[-5:] == [
        f"public_key={bytes(range(32, 64)).hex()}",
        "update_only=true",
        "allowed_ip=10.1.0.16/28",
        "",
        "",
    ]


def test_a_refusal_is_told(words, tmp_path):
    """With the number that wireguard-go gives."""
    with (
        wireguard_go(tmp_path, b"errno=-22\n\n"),
        pytest.raises(KernelError, match="Invalid argument"),
    ):
        wireguard.configure([], [(OLD, NEW)])


def test_the_kernels_is_told_by_wg(words):
    """There is no socket."""
    wireguard.configure([], [(OLD, NEW)])

    assert "allowed-ips" in words[0]
