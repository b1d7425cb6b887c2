"""JSON by the C half alone means what the json module means."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seaway.cli.lean_json import dumps, loads

documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(documents)
def test_what_is_written_reads_back(value):
    """Both directions agree with the json module."""
    assert value == loads(json.dumps(value))
    assert value == json.loads(dumps(value))
    assert value == loads(dumps(value).encode())


@pytest.mark.parametrize("text", ["", "{", "[1,]", "{}{}", "nope", '{"a" 1}', "1 2"])
def test_what_is_no_document_is_refused(text):
    """Broken text is a ValueError, never half a value."""
    with pytest.raises(ValueError, match=r".*"):
        loads(text)
