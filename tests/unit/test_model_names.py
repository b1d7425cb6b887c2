"""Names that users choose, and names that Seaway gives to kernel objects."""

from __future__ import annotations

import pytest

from seaway.errors import InvalidSpec
from seaway.model.names import (
    IFNAME_MAX,
    VETH_PREFIX,
    check_name,
    check_new_name,
    digest,
    ifname,
    mac_for,
    some_of,
)


@pytest.mark.parametrize(
    ("count", "says"), [(0, ""), (1, "0"), (5, "0, 1, 2, 3, 4"), (13, "0, 1, 2, 3, 4 and 8 more")]
)
def test_of_many_some_are_named(count, says):
    """An error has one line, and says that these are not all."""
    assert says == some_of([str(n) for n in range(count)])


@pytest.mark.parametrize("name", ["web", "a", "9", "my-web.server_1", "A" * 63, "a.b.c"])
def test_docker_s_names_are_names(name):
    """What Docker takes is taken, and comes back as it was."""
    assert name == check_name("container", name)


@pytest.mark.parametrize(
    "name", ["", "-web", ".web", "_web", "we b", "wéb", "a/b", "a\n", "web\n", "A" * 64, "a." * 150]
)
def test_what_is_no_name_is_refused_in_one_line(name):
    """The message says what kind of name, which one, and the rule."""
    with pytest.raises(InvalidSpec, match="container name") as caught:
        check_name("container", name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["feedbeefcafe", "0123456789ab"])
def test_nothing_new_is_called_like_an_id(name):
    """It could be meant for something else; what has such a name already stays."""
    with pytest.raises(InvalidSpec, match="looks like an id"):
        check_new_name("container", name)
    assert name == check_name("container", name)
    for other in ("feedbeefcaf", "feedbeefcafez", "feedbeefcafe1", "web"):
        assert other == check_new_name("container", other)


def test_interface_names_are_short_stable_and_different():
    """15 characters, the same each time, different for ids that differ only at the end."""
    first, second = ifname(VETH_PREFIX, "x" * 100 + "1"), ifname(VETH_PREFIX, "x" * 100 + "2")

    assert "swv-" == first[:4]
    assert IFNAME_MAX == len(first)
    assert first == ifname(VETH_PREFIX, "x" * 100 + "1")
    assert first != second


def test_mac_addresses_are_local_and_unicast():
    """The two low bits of the first octet say so (IEEE 802)."""
    found = {mac_for(str(n)) for n in range(100)}

    assert 100 == len(found)
    assert {0b10} == {int(mac[:2], 16) & 0b11 for mac in found}


def test_a_digest_knows_where_its_parts_end():
    """Moving a character from one part to the next gives another digest."""
    assert digest("ab", "c") != digest("a", "bc")
