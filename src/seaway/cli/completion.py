"""Shell completion: what may come next on the line, and the scripts that ask.

The scripts call ``seaway __complete -- WORDS`` with the words after "seaway" up
to the one under the cursor, and offer the lines it prints.
"""

from __future__ import annotations

from seaway.cli.flags import Command, Group, Takes, UsageError
from seaway.cli.parse import Reader
from seaway.errors import SeawayError

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Source = Callable[[str], Iterable[str]]
    """Given the ``completes`` of a flag or positional, returns what exists: names."""


def complete(
    tree: Group, words: Sequence[str], cursor: int, source: Source = lambda _: ()
) -> list[str]:
    """Return what the word under the cursor may become.

    Args:
        words: The line without the program's name.
        cursor: Index of the word to complete; one past the end starts a new word.
        source: Looks up names, e.g. of networks.  An error of ours from it
            means that there is nothing to offer: completion never complains.

    Returns:
        Whole words in the order of the tables, names sorted; empty when
        anything may follow, so the shell can offer files.
    """
    current = words[cursor] if cursor < len(words) else ""
    try:
        node, reader = _walk(tree, words[:cursor])
        return [word for word in _offers(node, reader, current, source) if word.startswith(current)]
    except SeawayError:
        return []


def _walk(tree: Group, words: Sequence[str]) -> tuple[Command | Group, Reader]:
    """Read the words before the cursor; they lead to a node and into its middle."""
    node: Command | Group = tree
    reader = Reader(tree.opening())
    for word in words:
        reader.read(word)
        if isinstance(node, Group) and reader.words:
            child = node.child(word)
            if child is None:
                raise UsageError(f"no command {word!r}")
            node = child
            reader = Reader(node.opening() if isinstance(node, Group) else node)
    return node, reader


def _offers(node: Command | Group, reader: Reader, current: str, source: Source) -> Iterator[str]:
    dashed, equals, _ = current.partition("=")
    if reader.expects is not None:
        yield from _values(reader.expects.choices, reader.expects.completes, source)
    elif reader.expects_passed:
        return
    elif not reader.ended and current.startswith("--") and equals:
        flags = [f for f in reader.command.flags if f"--{f.long}" == dashed]
        for flag in flags:
            for value in _values(flag.choices, flag.completes, source):
                yield f"{dashed}={value}"
    elif not reader.ended and current.startswith("-"):
        yield from _flag_names(reader)
    elif isinstance(node, Group):
        yield from (child.name for child in node.children if not child.hidden)
    else:
        yield from _words(node, reader, source)


def _flag_names(reader: Reader) -> Iterator[str]:
    """Offer every flag that may still be given, and another program's after ours."""
    for flag in reader.command.flags:
        if not flag.hidden and (flag.takes == Takes.LIST or flag.long not in reader.given):
            yield f"--{flag.long}"
    yield "--help"
    if foreign := reader.command.passes_unknown:
        ours = {name for flag in reader.command.flags for name in (flag.long, *flag.aliases)}
        yield from (f"--{name}" for name in sorted(foreign.names - ours))


def _words(command: Command, reader: Reader, source: Source) -> Iterator[str]:
    """Offer values for the positional that comes next, without those already there."""
    place = len(reader.words)
    last = len(command.positionals) - 1
    if last >= 0 and command.positionals[last].many:
        place = min(place, last)
    if place <= last:
        positional = command.positionals[place]
        offers = _values(positional.choices, positional.completes, source)
        yield from (word for word in offers if word not in reader.words)


def _values(choices: Sequence[str], completes: str, source: Source) -> Iterable[str]:
    if choices:
        return choices
    return sorted(source(completes)) if completes else ()


def render_completion(shell: str) -> str:
    """Return the script that teaches *shell* to complete ``seaway``.

    Args:
        shell: "bash", "zsh" or "fish".

    Raises:
        UsageError: Another shell.

    Source:
        bash(1), Programmable Completion; zshcompsys(1); complete in fish(1).
    """
    if shell not in SCRIPTS:
        raise UsageError(f"no completion for {shell!r}: choose one of {', '.join(SCRIPTS)}")
    return SCRIPTS[shell]


_BASH = r"""# bash completion for seaway: source this file, or put it into
# /usr/share/bash-completion/completions/seaway
_seaway() {
    # bash cuts words at = and : too; join them as they were typed.
    local -a words=()
    local word joins= i
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ ${#words[@]} -gt 0 && ( $joins || $word == [=:]* ) ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
        [[ $word == *[=:] ]] && joins=yes || joins=
    done
    local last=${words[${#words[@]} - 1]}
    local typed=${last%"${last##*[=:]}"}
    mapfile -t COMPREPLY < <(seaway __complete -- "${words[@]}" 2>/dev/null)
    COMPREPLY=("${COMPREPLY[@]#"$typed"}")
}
complete -o bashdefault -o default -F _seaway seaway
"""

_ZSH = r"""#compdef seaway
# zsh completion for seaway: put this file as _seaway into a folder of $fpath,
# or source it after compinit.
_seaway() {
    local -a found
    found=(${(f)"$(seaway __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    if (( ${#found} )); then
        compadd -Q -a found
    else
        _files
    fi
}
if [[ $funcstack[1] == _seaway ]]; then
    _seaway "$@"
else
    compdef _seaway seaway
fi
"""

_FISH = r"""# fish completion for seaway: put this file into ~/.config/fish/completions/
function __seaway_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (seaway __complete -- $words[2..-1] 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c seaway -f -a '(__seaway_complete)'
"""

SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
"""The shells we have a script for."""
