"""JSON by the C half of the json module alone.

Importing json brings re and enum with it, 7 of the 20 milliseconds that a
command would take; the scanner itself is C and needs neither.  The agent's
own answers are all that is read with it.
"""

from __future__ import annotations

from _json import encode_basestring_ascii, make_scanner

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Plain:
    """What the scanner wants to know: json.JSONDecoder's defaults."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}  # noqa: RUF012 - the scanner's own, emptied by it


_scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_Plain())  # type: ignore[arg-type]


def loads(data: bytes | str) -> Any:
    """Read one JSON document.

    Raises:
        ValueError: It is none.
    """
    text = (data.decode() if isinstance(data, bytes) else data).strip()
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        raise ValueError("not JSON") from None
    if end != len(text):
        raise ValueError("more than one JSON document")
    return value


def dumps(value: Any) -> str:
    """Write plain data: dicts with text keys, lists, text, numbers, booleans, None."""
    if isinstance(value, str):
        return str(encode_basestring_ascii(value))
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{dumps(k)}:{dumps(v)}" for k, v in value.items()) + "}"
    return "[" + ",".join(map(dumps, value)) + "]"
