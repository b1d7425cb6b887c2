"""Reading command lines: what must hold for any of them."""

from hypothesis import given
from hypothesis import strategies as st

from seaway.cli.flags import Command, Flag, Positional, Takes, UsageError
from seaway.cli.parse import parse
from seaway.cli.podman_flags import PODMAN_RUN

RUN = Command(
    "run",
    flags=[
        Flag("detach", "d"),
        Flag("name", "", Takes.VALUE),
        Flag("publish", "p", Takes.LIST),
    ],
    positionals=[Positional("IMAGE"), Positional("COMMAND", optional=True, many=True)],
    stops_at_first_positional=True,
    passes_unknown=PODMAN_RUN,
)

values = st.text(max_size=6)
theirs = st.sampled_from(sorted(PODMAN_RUN.names - {"detach", "name", "publish"}))


@st.composite
def our_flags(draw):
    """One of our flags in any spelling: (words, name, value)."""
    name, value = draw(st.sampled_from(["detach", "publish", "name"])), draw(values)
    if name == "detach":
        return draw(st.sampled_from([["-d"], ["--detach"], ["--detach=true"]])), name, "true"
    spellings = [[f"--{name}", value], [f"--{name}={value}"]]
    if name == "publish":
        spellings += [["-p", value], [f"-p={value}"]]
    return draw(st.sampled_from(spellings)), name, value


@st.composite
def their_flags(draw):
    """One of Podman's flags in any spelling: (words, None, None)."""
    name, value = draw(theirs), draw(values)
    if name in PODMAN_RUN.booleans:
        return draw(st.sampled_from([[f"--{name}"], [f"--{name}=false"]])), None, None
    return draw(st.sampled_from([[f"--{name}", value], [f"--{name}={value}"]])), None, None


@given(
    st.lists(our_flags() | their_flags(), max_size=8),
    st.lists(values, max_size=4),
)
def test_every_word_arrives_where_it_belongs(flags, command):
    """Ours are understood, Podman's are kept word for word, the command is untouched."""
    argv = [word for words, _, _ in flags for word in words]
    parsed = parse(RUN, [*argv, "image", *command])

    assert [w for words, name, _ in flags if name is None for w in words] == list(parsed.passed)
    assert [v for _, name, v in flags if name == "publish"] == list(parsed.flag("publish").list)
    assert any(name == "detach" for _, name, _ in flags) == parsed.flag("detach").on
    names = [v for _, name, v in flags if name == "name"]
    assert (names[-1] if names else None) == parsed.flag("name").value
    assert "image" == parsed.argument("IMAGE").value
    assert tuple(command) == parsed.argument("COMMAND").list


@given(st.lists(st.sampled_from("itdPq"), min_size=1, max_size=6).map("".join))
def test_letters_mean_the_same_together_and_apart(letters):
    """-itd passes and sets what -i -t -d do."""
    together = parse(RUN, [f"-{letters}", "image"])
    apart = parse(RUN, [*(f"-{letter}" for letter in letters), "image"])

    assert "".join(apart.passed).replace("-", "") == "".join(together.passed).replace("-", "")
    assert apart.flag("detach").on == together.flag("detach").on


@given(st.lists(st.text("-=dpxnameit \n", max_size=8), max_size=6))
def test_any_line_is_read_or_refused(argv):
    """Whatever is typed, the answer is values or one clear line."""
    answer = ""
    try:
        parse(RUN, argv)
    except UsageError as err:
        answer = str(err)

    assert "\n" not in answer
