"""An agent's first steps: alone in its directory, with a socket of its own."""

from __future__ import annotations

import socket

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
