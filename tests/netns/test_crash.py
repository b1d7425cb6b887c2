"""SIGKILL at every step of every operation: nothing is leaked, nothing is lost.

outside 192.0.2.200 --- 192.0.2.1 host          box (to be attached)
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest

from seaway.kernel import netns
from tests.support.crash import OPERATIONS
from tests.support.netns import cable, namespaces


@pytest.fixture
def folder():
    """A run and state dir; what is mounted in it goes, too."""
    with tempfile.TemporaryDirectory(prefix="swc") as made:
        yield Path(made)
        for kept in Path(made).glob("run/netns/*"):
            netns.remove(str(kept))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_at_every_step(operation, folder):
    """After a restart all is as before the operation or as after it, and asking again works."""
    with namespaces("outside", "host", "box") as (outside, host, box):
        cable(outside, "eth0", "192.0.2.200/24", host, "eth0", "192.0.2.1/24")
        command = [sys.executable, "-m", "tests.support.crash", operation, str(folder)]
        found = json.loads(host.run([*command, str(box.path)], seconds=100))

    assert [] == found["problems"]
    assert len(found["steps"]) >= 5
