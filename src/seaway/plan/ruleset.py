"""The fixed part of our nftables table: every chain, counter, set and map.

Nothing in here depends on networks or containers; those are elements of the
sets and maps (O(1) per packet, O(change) per change).  The picture, and why
each chain stands where it stands, is in docs/internals/nftables.md.
"""

from __future__ import annotations

from typing import Final

from seaway.model.cluster import TUNNELS
from seaway.model.names import VETH_PREFIX
from seaway.plan.resources import TABLE, WIREGUARD_PREFIX, Ruleset

DROPS: Final = {
    "drop_spoofed": "an endpoint sent with an address or MAC that is not its own",
    "drop_loopback": "a packet for 127.0.0.0/8 came in on a real link",
    "drop_not_allowed": "a client outside the from= list of a published port",
    "drop_isolated": "a new connection to another network or engine, past its published ports, "
    "or of an endpoint to what hosts of the cluster have for each other",
    "drop_internal": "traffic into or out of an --internal network",
    "drop_clear": "a packet of an encrypted network, from or to another host without WireGuard",
    "drop_not_a_peer": "VXLAN from an address that is no host of the cluster, or made by others",
    "drop_invalid": "a packet that belongs to no connection (conntrack says invalid)",
}
"""Every way we drop a packet: counter name -> what it means."""

INTERVAL: Final = "flags interval;"

SETS: Final = {
    # set name without family digit: (type, flags); {ip} is ipv4_addr or ipv6_addr
    "from": ("ifname . ether_addr . {ip}", ""),
    "same_network": ("{ip} . {ip}", INTERVAL),
    "internal": ("{ip}", INTERVAL),
    "masquerade": ("{ip}", INTERVAL),
    "hairpin": ("{ip} . {ip}", ""),
    "guarded": ("{ip} . inet_proto . inet_service", INTERVAL),
    "allowed": ("{ip} . {ip} . inet_proto . inet_service", INTERVAL),
    "overlay": ("{ip}", INTERVAL),
    "encrypted": ("{ip}", INTERVAL),
    "vxlan_peer": ("{ip}", ""),
    "host_address": ("{ip}", ""),
}

MAPS: Final = {
    "gateway": ("{ip} : {ip}", INTERVAL),
    "publish_any": ("inet_proto . inet_service : {ip} . inet_service", ""),
    "publish_on": ("{ip} . inet_proto . inet_service : {ip} . inet_service", ""),
    "publish_range": ("{ip} . inet_proto . inet_service : {ip}", INTERVAL),
    # The mark is always 0 there.  With one field alone, nft would read all the map's intervals
    # before it adds one: 5 ms of 2,000; with two the kernel looks for overlaps: 0.3 ms.
    "block_of": ("{ip} . mark : mark", INTERVAL),
    "address_of": ("{ip} : mark", ""),
}

EXIT_BRIDGES: Final = "exit_bridges"
"""Set of the bridges that lead to other machines; any other is taken for another engine's."""

TUNNEL_LINKS: Final = "tunnel_links"
"""Set of our tunnels' devices."""

UNDERLAY_LINKS: Final = "underlay_links"
"""Set of the links by which packets of other hosts may come without a tunnel."""

VXLAN_PORT: Final = "vxlan_port"
"""Set of the one UDP port of VXLAN, empty where there is none."""

HOST_PORT: Final = "host_port"
"""Set of the TCP ports that hosts of the cluster have for each other, and for nobody else."""

HOST_BY_VXLAN: Final = "host_by_vxlan"
HOST_ON_LINK: Final = "host_on_link"
"""Sets of other hosts: their MAC address, in a tunnel or on a link of ours, and number."""

PLAIN_SETS: Final = {
    EXIT_BRIDGES: "ifname",
    TUNNEL_LINKS: "ifname",
    UNDERLAY_LINKS: "ifname",
    VXLAN_PORT: "inet_service",
    HOST_PORT: "inet_service",
    HOST_BY_VXLAN: "ether_addr . mark",
    HOST_ON_LINK: "ether_addr . mark",
}
"""Sets that are not about one IP version: name -> type."""

_FAMILIES: Final = {"4": "ipv4_addr", "6": "ipv6_addr"}

_CHAINS: Final = """
chain raw_prerouting {
    type filter hook prerouting priority raw; policy accept;
    iif != "lo" ip daddr 127.0.0.0/8 counter name "drop_loopback" drop
    iifname != "@veth@*" goto from_outside
    iifname . ether saddr . ip saddr @from4 accept
    iifname . ether saddr . ip6 saddr @from6 accept
    ip6 saddr { ::, fe80::/10 } icmpv6 type @nd@ accept
    counter name "drop_spoofed" drop
}
chain from_outside {
    ip saddr @overlay4 goto from_host
    ip6 saddr @overlay6 goto from_host
    iifname "@tunnel@*" iifname @tunnel_links goto from_tunnel
    udp dport @vxlan_port notrack
}
chain raw_output {
    type filter hook output priority raw; policy accept;
    udp dport @vxlan_port notrack
}
chain from_host {
    iif "lo" accept
    iifname "@wireguard@*" accept
    ip saddr @encrypted4 counter name "drop_clear" drop
    ip6 saddr @encrypted6 counter name "drop_clear" drop
    meta mark set 0
    meta mark set ip saddr . meta mark map @block_of4
    meta mark set ip saddr map @address_of4
    meta mark set ip6 saddr . meta mark map @block_of6
    meta mark set ip6 saddr map @address_of6
    iifname @tunnel_links ether saddr . meta mark @host_by_vxlan goto known_host
    iifname @underlay_links ether saddr . meta mark @host_on_link goto known_host
    counter name "drop_spoofed" drop
}
chain known_host {
    meta mark set 0
}
chain from_tunnel {
    ip saddr @tunnels@ accept
    counter name "drop_spoofed" drop
}
chain input {
    type filter hook input priority filter; policy accept;
    udp dport @vxlan_port goto hosts_only
    iifname "@veth@*" tcp dport @host_port counter name "drop_isolated" drop
}
chain hosts_only {
    ip saddr @vxlan_peer4 accept
    ip6 saddr @vxlan_peer6 accept
    counter name "drop_not_a_peer" drop
}
chain nat_prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type != local accept
    ip daddr . meta l4proto . th dport @guarded4 jump guarded
    ip6 daddr . meta l4proto . th dport @guarded6 jump guarded
    jump publish
}
chain guarded {
    ip saddr . ip daddr . meta l4proto . th dport @allowed4 return
    ip6 saddr . ip6 daddr . meta l4proto . th dport @allowed6 return
    counter name "drop_not_allowed" drop
}
chain nat_output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump publish
}
chain publish {
    dnat ip to meta l4proto . th dport map @publish_any4
    dnat ip6 to meta l4proto . th dport map @publish_any6
    dnat ip to ip daddr . meta l4proto . th dport map @publish_on4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish_on6
    dnat ip to ip daddr . meta l4proto . th dport map @publish_range4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @publish_range6
}
chain forward {
    type filter hook forward priority filter; policy accept;
    oifname "@veth@*" goto to_endpoint
    ip daddr @encrypted4 oifname != "@wireguard@*" counter name "drop_clear" drop
    ip6 daddr @encrypted6 oifname != "@wireguard@*" counter name "drop_clear" drop
    tcp flags & (syn | rst) == syn oifname @tunnel_links tcp option maxseg size set rt mtu
    ct state established,related accept
    udp dport @vxlan_port ip daddr @vxlan_peer4 counter name "drop_not_a_peer" drop
    udp dport @vxlan_port ip6 daddr @vxlan_peer6 counter name "drop_not_a_peer" drop
    iifname "@veth@*" goto from_endpoint
    goto between_others
}
chain to_endpoint {
    iifname "@veth@*" ct state established,related accept
    tcp flags & (syn | rst) == syn iifname @tunnel_links tcp option maxseg size set rt mtu
    ct state established,related accept
    ct state invalid counter name "drop_invalid" drop
    iifname "@veth@*" ip saddr . ip daddr @same_network4 accept
    iifname "@veth@*" ip6 saddr . ip6 daddr @same_network6 accept
    ip saddr @overlay4 ip saddr . ip daddr @same_network4 accept
    ip6 saddr @overlay6 ip6 saddr . ip6 daddr @same_network6 accept
    iifname @tunnel_links counter name "drop_isolated" drop
    ip saddr @internal4 counter name "drop_internal" drop
    ip daddr @internal4 counter name "drop_internal" drop
    ip6 saddr @internal6 counter name "drop_internal" drop
    ip6 daddr @internal6 counter name "drop_internal" drop
    ct status dnat accept
    counter name "drop_isolated" drop
}
chain from_endpoint {
    ct state invalid counter name "drop_invalid" drop
    ip daddr @overlay4 goto to_host
    ip6 daddr @overlay6 goto to_host
    ip saddr @internal4 counter name "drop_internal" drop
    ip6 saddr @internal6 counter name "drop_internal" drop
    oifname @tunnel_links counter name "drop_isolated" drop
    tcp dport @host_port ip daddr @host_address4 counter name "drop_isolated" drop
    tcp dport @host_port ip6 daddr @host_address6 counter name "drop_isolated" drop
    meta oifkind "bridge" oifname != @exit_bridges goto to_other_engine
}
chain to_host {
    ip saddr . ip daddr @same_network4 accept
    ip6 saddr . ip6 daddr @same_network6 accept
    counter name "drop_isolated" drop
}
chain between_others {
    ip saddr @overlay4 counter name "drop_isolated" drop
    ip daddr @overlay4 counter name "drop_isolated" drop
    ip6 saddr @overlay6 counter name "drop_isolated" drop
    ip6 daddr @overlay6 counter name "drop_isolated" drop
    iifname @tunnel_links counter name "drop_isolated" drop
    oifname @tunnel_links counter name "drop_isolated" drop
}
chain to_other_engine {
    ct status dnat accept
    counter name "drop_isolated" drop
}
chain nat_postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "@veth@*" goto snat_to_endpoint
    ip daddr @overlay4 goto unchanged
    ip6 daddr @overlay6 goto unchanged
    ip saddr @masquerade4 masquerade
    ip6 saddr @masquerade6 masquerade
}
chain unchanged {
    oifname { "lo", "@wireguard@*" } accept
    ip daddr @encrypted4 counter name "drop_clear" drop
    ip6 daddr @encrypted6 counter name "drop_clear" drop
}
chain snat_to_endpoint {
    ip saddr 127.0.0.0/8 snat ip to ip daddr map @gateway4
    ip6 saddr ::1 snat ip6 to ip6 daddr map @gateway6
    ip saddr . ip daddr @hairpin4 snat ip to ip daddr map @gateway4
    ip6 saddr . ip6 daddr @hairpin6 snat ip6 to ip6 daddr map @gateway6
}
"""

_ND = (
    "{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, "
    "mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report }"
)
"""What a link-local source may say: look for neighbours, join groups; not be a router."""

_WORDS: Final = {
    "veth": VETH_PREFIX,
    "tunnel": "sw",  # how all names of tunnels begin; few others do, so few are looked up
    "wireguard": WIREGUARD_PREFIX,
    "tunnels": str(TUNNELS),
    "nd": _ND,
}
"""What stands between two @ in the chains."""


def set_names() -> tuple[str, ...]:
    """Name every set and map, e.g. from4, from6."""
    by_family = (f"{name}{digit}" for digit in _FAMILIES for name in (*SETS, *MAPS))
    return (*by_family, *PLAIN_SETS)


def ruleset() -> Ruleset:
    """Render the table's fixed part.

    The text creates what is missing and replaces every chain's rules; elements
    of sets and maps stay.  One transaction, so no packet meets half a table.
    """
    lines = [f"table inet {TABLE} {{", *(f"counter {name} {{ }}" for name in DROPS)]
    for digit, ip in _FAMILIES.items():
        for word, declared in (("set", SETS), ("map", MAPS)):
            for name, (of, flags) in declared.items():
                lines.append(f"{word} {name}{digit} {{ type {of.format(ip=ip)}; {flags}")
                lines.append("}")
    lines += (f"set {name} {{ type {of}; }}" for name, of in PLAIN_SETS.items())
    text = _CHAINS
    for word, stands_for in _WORDS.items():
        text = text.replace(f"@{word}@", stands_for)
    lines.append(text)
    lines.append("}")
    return Ruleset(text="\n".join(lines), reason="every host")


def chain_names() -> tuple[str, ...]:
    """Name every chain of the table, in the order they are written."""
    words = (line.split() for line in _CHAINS.splitlines())
    return tuple(w[1] for w in words if w[:1] == ["chain"])
