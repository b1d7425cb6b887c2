"""What ``seaway ps`` says of a container: Podman's words, and what Podman cannot know."""

from __future__ import annotations

import pytest

from seaway.cli.container_commands import _attached_row

FENCED = "address 10.9.0.2 is held by db on host2: choose another"


@pytest.mark.parametrize(
    ("podman", "error", "shown"),
    [
        ("Up 3 minutes ago", "", "Up 3 minutes"),
        ("Up 3 minutes", FENCED, "Up 3 minutes (network trouble: see inspect)"),
        ("Up 3 minutes ago", FENCED, "Up 3 minutes (network trouble: see inspect)"),
        ("Exited (0) 2 hours ago", FENCED, "Exited (0) 2 hours ago"),
    ],
)
def test_a_container_whose_network_is_in_trouble_shows_it(podman, error, shown):
    """As long as it runs: it does not do what it seems to."""
    found = {
        "id": "0123456789ab",
        "container": "c" * 64,
        "image": "nginx",
        "phase": "running",
        "ports": [],
        "networks": [],
        "name": "web",
        "error": error,
    }

    assert shown == _attached_row(found, {"Status": podman})["Status"]
