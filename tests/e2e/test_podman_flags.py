"""The table of Podman's flags against the Podman that is installed."""

import re
import subprocess

import pytest

from seaway.cli.podman_flags import PODMAN_RUN

ROW = re.compile(r"^ +(?:-(?P<short>\w), )?--(?P<long>[a-z0-9-]+)(?P<value> \S+)?(?:  |$)")


@pytest.mark.parametrize("command", ["run", "create"])
def test_the_table_agrees_with_podman(command):
    """Every flag in Podman's own help is known here, with the same need of a value."""
    told = subprocess.run(
        ["podman", command, "--help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    rows = [row for line in told.splitlines() if (row := ROW.match(line)) and row["long"] != "help"]

    assert len(rows) > 100
    assert [] == [r["long"] for r in rows if r["value"] and r["long"] not in PODMAN_RUN.values]
    assert [] == [
        r["long"] for r in rows if not r["value"] and r["long"] not in PODMAN_RUN.booleans
    ]
    shorts = {r["short"]: r["long"] for r in rows if r["short"]}
    assert shorts.items() <= PODMAN_RUN.shorts.items()
