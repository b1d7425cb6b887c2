"""What the API says about things: model values as plain JSON-able data."""

from __future__ import annotations

from typing import Any

from seaway.agent.core import Core
from seaway.agent.names import names_of, resolver_of
from seaway.agent.watch import cid_file, pid_file
from seaway.model.network import Network, Subnet
from seaway.model.sandbox import Sandbox
from seaway.plan.sandboxes import Attachment, gateway_endpoint, veth_name


def network_view(core: Core, network: Network) -> dict[str, Any]:
    """Describe a network, with who is on it."""
    members = {}
    for endpoint in core.state.members(network.id):
        sandbox = core.state.sandboxes[endpoint.sandbox]
        members[sandbox.name] = {
            "id": sandbox.id,
            "ipv4": str(endpoint.v4 or ""),
            "ipv6": str(endpoint.v6 or ""),
            "mac": endpoint.mac,
            "phase": sandbox.phase,
        }
    return {
        "name": network.name,
        "id": network.id,
        "driver": network.driver,
        "subnets": [_subnet_view(s) for s in network.subnets],
        "internal": network.internal,
        "options": network.options,
        "labels": network.labels,
        "created": network.created,
        "containers": members,
    }


def _subnet_view(subnet: Subnet) -> dict[str, Any]:
    return {
        "subnet": str(subnet.cidr),
        "gateway": str(subnet.gateway or ""),
        "ip_range": str(subnet.ip_range or ""),
        "aux_addresses": {name: str(address) for name, address in subnet.reserved.items()},
    }


def sandbox_view(core: Core, sandbox: Sandbox) -> dict[str, Any]:
    """Describe a sandbox, with its endpoints and what its resolver should be."""
    attachments = core.state.attachments(sandbox.id)
    resolver = resolver_of(attachments)
    exits = {version: gateway_endpoint(attachments, version) for version in (4, 6)}
    return {
        "name": sandbox.name,
        "id": sandbox.id,
        "container": sandbox.container,
        "image": sandbox.image,
        "phase": sandbox.phase,
        "pid": sandbox.pid,
        "netns": sandbox.netns,
        "attached": not sandbox.made_netns,
        "hostname": sandbox.hostname,
        "labels": sandbox.labels,
        "created": sandbox.created,
        "ports": [p.as_ps() for p in sandbox.published],
        "networks": [_endpoint_view(sandbox, item, exits) for item in attachments],
        "resolver": str(resolver or ""),
        "dns": {
            "servers": [str(address) for address in sandbox.dns.servers],
            "search": sandbox.dns.search,
            "options": sandbox.dns.options,
        },
        "pid_file": str(pid_file(core.run_dir, sandbox.id)),
        "cid_file": str(cid_file(core.run_dir, sandbox.id)),
        "error": core.failures.get(sandbox.id, ""),
    }


def ports_view(sandbox: Sandbox) -> dict[str, Any]:
    """Describe a sandbox's ports one by one; there may be thousands, so only who asks gets them."""
    return {
        "port_lines": [line for p in sandbox.published for line in p.as_port()],
        "asked_ports": [str(spec) for spec in sandbox.asked],
    }


def _endpoint_view(
    sandbox: Sandbox, item: Attachment, exits: dict[int, Attachment | None]
) -> dict[str, Any]:
    endpoint, network = item.endpoint, item.network
    v4, v6 = network.subnet(4), network.subnet(6)
    return {
        "network": network.name,
        "driver": network.driver,
        "endpoint": endpoint.id,
        "interface": endpoint.ifname,
        "host_interface": veth_name(endpoint) if network.routed else "",
        "ipv4": str(endpoint.v4 or ""),
        "ipv6": str(endpoint.v6 or ""),
        "gateway4": str(v4.gateway or "") if v4 else "",
        "gateway6": str(v6.gateway or "") if v6 else "",
        "mac": endpoint.mac,
        "names": names_of(sandbox, endpoint.aliases),
        "gw_priority": endpoint.gw_priority,
        "default_route": [version for version, found in exits.items() if found is item],
    }
