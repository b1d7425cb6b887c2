"""What the kernel that the tests run on has, for the marker needs_kernel of tests/conftest.py.

@pytest.mark.needs_kernel("wireguard", "ipvlan")    # kinds of links, as ip(8) calls them
"""

from __future__ import annotations

import functools
import os
import subprocess
from typing import Final

IN_THE_VM: Final = bool(os.environ.get("SEAWAY_VM"))
"""Set by packaging/vm/inside: this kernel is Debian's, and has all that a test may need."""


@functools.cache
def has_link(kind: str) -> bool:
    """Does the kernel know this kind of link?  Tries in a namespace that is gone at once.

    That the try fails for want of settings shows that the kind is known.
    """
    probe = ("ip", "link", "add", "link", "lo", "name", "probe", "type", kind)
    done = subprocess.run(["unshare", "--net", "--", *probe], capture_output=True, text=True)
    assert "unshare" not in done.stderr, done.stderr
    return "Unknown device type" not in done.stderr
