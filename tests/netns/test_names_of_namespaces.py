"""Names of namespaces beside those that ip(8) adds, on a machine that has had none so far."""

from __future__ import annotations

import subprocess
import sys

from tests.support.netns import ENVIRONMENT

CODE = """
import subprocess
from seaway.kernel import netns
FOLDER = "/run/netns"
subprocess.run(["mount", "-t", "tmpfs", "fresh", "/run"], check=True)
netns.share(FOLDER)
netns.create(f"{FOLDER}/ours")
subprocess.run(["ip", "netns", "add", "theirs"], check=True)
netns.share(FOLDER)
netns.remove(f"{FOLDER}/ours")
print(*subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout.split())
"""


def test_a_name_can_be_removed_after_ip_has_added_its_first():
    """That mounts the folder anew, with what is in it; not if we have done so before."""
    done = subprocess.run(
        ["unshare", "--mount", "--", sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        timeout=30,
        env=ENVIRONMENT,
    )
    assert ("theirs", 0) == (done.stdout.strip(), done.returncode), done.stderr
