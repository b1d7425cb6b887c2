"""Which changes of the rules are our own, where processes have other numbers than outside."""

from __future__ import annotations

import sys

from tests.support.netns import namespaces

HEAR = """
import asyncio, os, subprocess, sys
from seaway.agent.drift import DriftMonitor
from seaway.kernel.nft import Nft

heard = []
monitor = DriftMonitor(dict, (), heard.append, lambda: heard.append("others"))
nft = Nft()
nft.run("add table inet seaway")
nft.run("add chain inet seaway mine")
nft.run("add chain inet seaway mine2")

async def main():
    async with asyncio.TaskGroup() as group:
        task = group.create_task(monitor.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.to_thread(lambda: None)
        print(os.getpid(), heard)
        subprocess.run(["nft", "add", "chain", "inet", "seaway", "theirs"], check=True)
        async with asyncio.timeout(10):
            while not heard:
                await asyncio.sleep(0.01)
        print(heard)
        nft.run("delete chain inet seaway theirs")
        subprocess.run(["nft", "add", "table", "inet", "other"], check=True)
        async with asyncio.timeout(10):
            while "others" not in heard:
                await asyncio.sleep(0.01)
        print(heard)
        task.cancel()

asyncio.run(main())
"""


def test_our_own_changes_are_known_in_a_pid_namespace_of_our_own():
    """The kernel announces numbers of the outermost one, where ours is none of ours."""
    changed = "our nftables rules were changed"
    for unshare in ((), ("unshare", "--pid", "--fork", "--kill-child")):
        with namespaces("host") as (host,):
            first, *rest = host.run([*unshare, sys.executable, "-c", HEAR]).splitlines()

        assert first.endswith(" []")
        assert [f"['{changed}']", f"['{changed}', 'others']"] == rest
        assert not unshare or "1 []" == first
