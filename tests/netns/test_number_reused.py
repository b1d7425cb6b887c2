"""A process that was attached by its number has ended, and the number is another's: hands off.

The number is not really given out twice; the stored record is changed instead, which is the
same to an agent that starts.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import replace

from seaway.agent.state import Change, State
from seaway.kernel import netns
from seaway.store.sqlite import SqliteStore
from tests.support.agent import agent_on
from tests.support.netns import cable, namespaces, wait_until

TTL = "/proc/sys/net/ipv4/ip_default_ttl"
SYSCTLS = {"net.ipv4.ip_default_ttl": "77"}
BODY = {"name": "svc", "networks": [{"network": "front"}], "sysctls": SYSCTLS}


@contextmanager
def stored(agent):
    """The state of an agent that does not run."""
    store = SqliteStore(agent.state_dir / "state.db")
    try:
        yield State(store)
    finally:
        store.close()


@contextmanager
def living_in(space):
    """The number of a process in *space*."""
    with space.started("sleep", "1000") as process:
        wait_until(lambda: netns.same(netns.of_pid(process.pid), str(space.path)))
        yield process.pid


def look_at(space):
    """What an agent could change there."""
    words = ("ip -o link", "ip -o address", "ip route", "ip -6 route", f"cat {TTL}")
    return [space.run(line) for line in words]


def test_a_stranger_s_namespace_is_not_touched():
    """Neither another process's nor the host's own: no link, address, route or setting."""
    with namespaces("outside", "host", "box", "other") as (outside, host, box, other):
        cable(outside, "uplink", "192.0.2.200/24", host, "uplink", "192.0.2.1/24")
        host.run("ip route add default via 192.0.2.200")
        with agent_on(host) as agent:
            agent.network("front", 1)
            for stranger in (other, host):
                with living_in(box) as pid:
                    agent.post("sandboxes", BODY | {"pid": pid})
                    agent.kill()
                    wait_until(lambda: "eth0" in box.run("ip -o link"))
                before = look_at(other), host.run(f"cat {TTL}"), host.run("ip route show default")
                with living_in(stranger) as pid:
                    with stored(agent) as state:
                        was = state.sandbox("svc")
                        path = netns.of_pid(pid)
                        asyncio.run(state.commit(Change(put=[replace(was, pid=pid, netns=path)])))
                    agent.start()
                    after = (
                        look_at(other),
                        host.run(f"cat {TTL}"),
                        host.run("ip route show default"),
                    )

                assert before == after
                assert [] == agent.get("sandboxes") == agent.plan()
                assert "eth0" not in host.run("ip -o link")
