"""An agent's frame: alone in its directory, with a socket of its own, watched by systemd."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from seaway.agent import main
from seaway.errors import Conflict, StoreError


def test_one_agent_has_a_run_directory(tmp_path):
    """Also while it does not answer yet, or no longer; when it has ended, the next one may."""
    with main._alone_in(tmp_path):
        with pytest.raises(Conflict, match="already: stop it first"), main._alone_in(tmp_path):
            pass
    with main._alone_in(tmp_path):
        pass


def test_a_run_directory_that_cannot_be_made(tmp_path):
    """One line says which flag to look at."""
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match="check --run-dir"), main._alone_in(tmp_path / "file"):
        pass


def test_a_dead_agent_s_socket_is_replaced(tmp_path):
    """Its file is in the way of nobody."""
    path = str(tmp_path / main.SOCKET)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)

    with main._listen(tmp_path), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def signs_of_life(folder, monkeypatch, **environment):
    """What systemd is told in the time that four of its words take."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(folder / "notify"))
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(folder / "notify"))
        for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

        async def live():
            async with asyncio.timeout(0.1):
                await main._tell_that_we_live()

        with suppress(TimeoutError):
            asyncio.run(live())
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(systemd.recv(100))
        return found


def test_systemd_hears_that_we_live(tmp_path, monkeypatch):
    """As soon as it asks, and again well within the time it gives."""
    heard = signs_of_life(tmp_path, monkeypatch, WATCHDOG_USEC="75000")

    assert {b"WATCHDOG=1"} == set(heard)
    assert len(heard) >= 2


@pytest.mark.parametrize(
    "environment",
    [{}, {"WATCHDOG_USEC": "75000", "WATCHDOG_PID": str(os.getppid())}, {"WATCHDOG_USEC": "soon"}],
    ids=["nobody", "another process", "nonsense"],
)
def test_nobody_who_did_not_ask_hears_it(tmp_path, monkeypatch, environment):
    """Without a watchdog, with one for another process, or with nonsense, nothing is sent."""
    assert [] == signs_of_life(tmp_path, monkeypatch, **environment)


def test_the_unit_asks():
    """systemd starts a frozen agent anew only if it is told to watch."""
    unit = Path(__file__).parents[2] / "packaging/seaway.service"
    assert "\nWatchdogSec=60\n" in unit.read_text()
