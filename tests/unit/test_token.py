"""Join tokens, as people paste them."""

from __future__ import annotations

import pytest

from seaway.cluster.token import Token, make_token, parse_token, secret_fits, secret_hash
from seaway.errors import InvalidSpec

GOOD = "SWY1-" + "0123456789abcdef" * 4 + "-" + "fedcba9876543210" * 2


def test_a_token_reads_back_as_it_was_written():
    """str() and parse_token() are each other's reverse."""
    made = make_token("ab" * 32)

    assert made == parse_token(str(made))
    assert 102 == len(str(made))


def test_secrets_differ():
    """Each token has a secret of its own."""
    assert make_token("ab" * 32).secret != make_token("ab" * 32).secret


def test_a_secret_is_not_shown_by_accident():
    """What ends up in a log or a trace has no secret in it."""
    assert "fedcba" not in repr(parse_token(GOOD))


@pytest.mark.parametrize("pasted", [f"  {GOOD}\n", GOOD.upper(), GOOD[:40] + "\n  " + GOOD[40:]])
def test_pasting_may_add_blanks_and_case(pasted):
    """Line ends of a narrow terminal and capital letters do not matter."""
    assert parse_token(GOOD) == parse_token(pasted)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "this is no join token, it does not start with SWY1-: copy the line"),
        ("hello", "this is no join token"),
        ("SWY2-" + GOOD[5:], "starts with SWY2-, not SWY1-: it is of another Seaway's making"),
        (GOOD[:40], "cut off: 40 characters instead of 102"),
        (GOOD + "0", "too long: 103 characters"),
        (GOOD.replace("89", "8o", 1), "mistyped: character 15 is 'o'"),
        (GOOD[:-1] + "g", "mistyped: character 102 is 'g'"),
        (GOOD.replace("f-f", "-ff"), "mistyped: character 69 is '-'"),
        ("SWY1-" + "ab" * 32 + "c" + "d" * 32, "mistyped: character 70 is 'c'"),
        (GOOD.replace("0", "\u0660", 1), "mistyped: character 6 is"),
    ],
)
def test_a_bad_token_says_what_is_wrong(text, says):
    """Cut off, mistyped, foreign: the message names it and says what to copy."""
    with pytest.raises(InvalidSpec) as caught:
        parse_token(text)

    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_the_secret_that_was_kept_fits():
    """Another secret does not fit, and before there is one, none does."""
    token = Token(fingerprint="ab" * 32, secret="cd" * 16)

    assert secret_fits(token.secret, secret_hash(token.secret))
    assert not secret_fits("ce" * 16, secret_hash(token.secret))
    assert not secret_fits("", "")
    assert not secret_fits("\u00e9", secret_hash(token.secret))
