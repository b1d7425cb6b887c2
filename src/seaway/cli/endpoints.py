"""Network flags, as commands that attach something share them, turned into API requests."""

from __future__ import annotations

from seaway.cli.flags import UsageError

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from seaway.cli.parse import Parsed

_KEYS = ("name", "alias", "ip", "ip6", "mac-address", "gw-priority", "driver-opt", "interface")


def pairs(parsed: Parsed, flag: str) -> dict[str, str]:
    """Read the ``KEY=VALUE`` values of a flag; a bare KEY has an empty value."""
    found = {}
    for text in parsed.flag(flag).list:
        key, _, value = text.partition("=")
        if not key:
            raise UsageError(f"--{flag} {text!r} is not KEY=VALUE")
        found[key] = value
    return found


def endpoint(
    network: str,
    *,
    aliases: Sequence[str] = (),
    ip: str | None = None,
    ip6: str | None = None,
    mac: str | None = None,
    priority: str | None = None,
) -> dict[str, Any]:
    """Build the request to attach to one network."""
    return {
        "network": network,
        "aliases": list(aliases),
        "ip": ip or "",
        "ip6": ip6 or "",
        "mac": mac or "",
        "gw_priority": _number(priority),
    }


def _number(text: str | None) -> int:
    try:
        return int(text or "0")
    except ValueError:
        raise UsageError(f"gw-priority {text!r} is not a whole number") from None


def endpoints(parsed: Parsed, default: str) -> list[dict[str, Any]]:
    """Read ``--network`` with the flags that go with its first value.

    Args:
        default: The network when none is named.

    Raises:
        UsageError: An unknown key, or one thing said twice.
    """
    found = [_one(text) for text in parsed.flag("network").list or (default,)]
    first = found[0]
    for key, flag in (("ip", "ip"), ("ip6", "ip6"), ("mac", "mac-address")):
        if (value := parsed.flag(flag).value) is not None:
            if first[key]:
                raise UsageError(f"--{flag} and {flag}= in --network say the same: drop one")
            first[key] = value
    if (priority := parsed.flag("gw-priority").value) is not None:
        first["gw_priority"] = _number(priority)
    first["aliases"] += parsed.flag("network-alias").list
    return found


def _one(text: str) -> dict[str, Any]:
    """Read one --network: a name, or Docker's ``name=...,alias=...,ip=...``."""
    if "=" not in text:
        return endpoint(text)
    values: dict[str, list[str]] = {}
    for field in text.split(","):
        key, equals, value = field.partition("=")
        if not equals or key.lower() not in _KEYS:
            raise UsageError(f"--network {text!r}: {field!r} is not one of {', '.join(_KEYS)}=")
        values.setdefault(key.lower(), []).append(value)
    if "name" not in values:
        raise UsageError(f"--network {text!r} names no network: add name=")
    last = {key: found[-1] for key, found in values.items()}
    made = endpoint(
        last["name"],
        aliases=values.get("alias", ()),
        ip=last.get("ip"),
        ip6=last.get("ip6"),
        mac=last.get("mac-address"),
        priority=last.get("gw-priority"),
    )
    return made | {"ifname": last.get("interface", "")}


def sandbox(parsed: Parsed, networks: list[dict[str, Any]]) -> dict[str, Any]:
    """Build the part of a sandbox request that ``run`` and ``attach`` share."""
    return {
        "name": parsed.flag("name").value or "",
        "hostname": parsed.flag("hostname").value or "",
        "labels": pairs(parsed, "label"),
        "networks": networks,
        "publish": parsed.flag("publish").list,
        "publish_all": parsed.flag("publish-all").on,
        "expose": list(parsed.flag("expose").list),
        "dns": parsed.flag("dns").list,
        "dns_search": parsed.flag("dns-search").list,
        "dns_options": parsed.flag("dns-option").list,
    }
