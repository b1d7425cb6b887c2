"""Names for containers that were given none."""

from seaway.model.names import check_name
from seaway.model.nicknames import nickname


def test_a_nickname_is_a_valid_name_and_stays():
    """The same identity is called the same, and DNS takes it."""
    name = nickname("0123456789ab", ())

    assert name == check_name("container", name) == nickname("0123456789ab", ())


def test_a_taken_nickname_is_not_given_again():
    """However many there are, the next one differs from all of them."""
    taken: set[str] = set()
    for _ in range(300):
        name = nickname("0123456789ab", taken)
        assert name not in taken
        taken.add(name)
