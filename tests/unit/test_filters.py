"""``--filter`` selects as Docker's does."""

import pytest

from seaway.cli.filters import NETWORK, select
from seaway.cli.flags import UsageError

FRONT = {"name": "front", "id": "a1", "driver": "bridge", "labels": {"tier": "web"}}
BACK = {"name": "back", "id": "b2", "driver": "macvlan", "labels": {"tier": "db", "old": ""}}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([], ["front", "back"]),
        (["name=fro"], ["front"]),
        (["name=fro", "name=bac"], ["front", "back"]),
        (["name=fro", "driver=macvlan"], []),
        (["label=tier"], ["front", "back"]),
        (["label=tier=db"], ["back"]),
        (["label=old"], ["back"]),
        (["id=a"], ["front"]),
    ],
)
def test_selection(filters, expected):
    """One key twice is "or", two keys are "and"."""
    assert expected == [n["name"] for n in select([FRONT, BACK], filters, NETWORK)]


@pytest.mark.parametrize("text", ["name", "colour=red", "=x"])
def test_a_wrong_filter_names_the_right_ones(text):
    """The message lists the keys there are."""
    with pytest.raises(UsageError, match="driver=, id=, label=, name="):
        select([FRONT], [text], NETWORK)
