"""Connecting and disconnecting networks under open connections.

outside 192.0.2.200 --- 192.0.2.1 eth0 host (agent)          web (attached)
"""

import sys

import pytest

from tests.support.agent import agent_on
from tests.support.conversation import conversation
from tests.support.netns import cable, namespaces

ECHO = """
import socket, threading
def echo(c):
    while data := c.recv(65536):
        c.sendall(data)
s = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    threading.Thread(target=echo, args=(s.accept()[0],), daemon=True).start()
"""

CLIENT = """
import socket, sys
s = socket.create_connection((sys.argv[1], 8080), 3)
for line in sys.stdin:
    s.sendall(line.encode())
    try:
        print(s.recv(100).decode().strip(), flush=True)
    except OSError as err:
        print(err, flush=True)
"""


@pytest.fixture(scope="module")
def site():
    """A host with a client on its wire, and a namespace that serves."""
    with namespaces("host", "outside", "web") as (host, outside, web):
        cable(host, "eth0", "192.0.2.1/24", outside, "eth0", "192.0.2.200/24")
        cable(host, "eth1", "2001:db8:5ea::1/64", outside, "eth1", "2001:db8:5ea::200/64")
        with agent_on(host) as agent:
            agent.network("middle", 2)
            agent.network("first", 1)
            agent.attach("web", web, "middle", publish=["8080:80"])
            with web.started(sys.executable, "-c", ECHO) as server:
                assert "ready" == server.stdout.readline().strip()
                agent.outside = outside
                yield agent


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8:5ea::1"])
def test_open_connections_outlive_a_move_of_the_default_route(site, address):
    """Through a published port they go on when a network that sorts first comes, and goes."""
    with conversation(site.outside, CLIENT, address) as ask:
        assert "before" == ask("before")
        endpoint = {"sandbox": "web", "endpoint": {"network": "first"}}
        site.post("networks/first/connect", endpoint)
        moved = {n["network"]: n["default_route"] for n in site.get("sandboxes/web")["networks"]}
        assert {"middle": [], "first": [4, 6]} == moved
        assert "connected" == ask("connected")
        site.post("networks/first/disconnect", {"sandbox": "web"})
        assert "disconnected" == ask("disconnected")
    assert 0 == site.status()["drops"]["drop_spoofed"]
    assert [] == site.plan()
