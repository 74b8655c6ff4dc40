"""Names of mirrors among the words: what mirror.toml says of them takes their place.

A bare word where SRC or TARGET is wanted is a name if the configuration knows it, else a folder, as ever. What has a `/`, begins
with `.` or is a URL is never a name, and so a run whose ends are all of that kind does not read the file (unless --config says so):
it does the same in whatever folder it is started. A run has one mirror, whose options hold; flags and variables count more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mirror import config
from mirror.cli import parsing, words
from mirror.config import Settings
from mirror.errors import UsageError

if TYPE_CHECKING:
    from mirror.configfile import NamedMirror

_FLAGS: Final = {"filter-test": "source", "verify": "against"}  # that take a site, and so may name a mirror's


def resolve(
    verb: words.Verb, said: list[str], given: Mapping[str, Any], variables: Mapping[str, str], say: Callable[[str, str], None]
) -> tuple[list[str], Settings]:
    """(words, settings) of a command, names replaced by the ends that they stand for. given, variables: as `Settings` takes them;
    say: told (kind, text). UsageError for a wrong configuration, an end that the mirror does not have, or two mirrors."""
    asked = Settings(given, variables)
    ends = parsing.ends_of(verb, said)
    places = {end: said[index] for end, index in ends.items()}
    flag = _FLAGS.get(verb.name, "")
    if flag:
        places[flag] = asked.text(flag)
    bare = {end: word for end, word in places.items() if is_bare(word)}
    path = config.configuration_file(asked) if bare or "config" in given else ""
    if not path:
        return said, asked
    from mirror.configfile import read

    known = read(path, parsing.configurable())
    found = {end: known[word] for end, word in bare.items() if word in known}
    if "both" in bare and not found:
        _unknown(bare["both"], path, known)
    if not found:
        return said, asked
    if len({mirror.name for mirror in found.values()}) > 1:
        both = " and ".join(repr(mirror.name) for mirror in found.values())
        raise UsageError("cannot use", where=both, why="each is a mirror with options of its own", hint="name one of them")
    (mirror,) = {mirror.name: mirror for mirror in found.values()}.values()
    if os.path.isdir(mirror.name):
        say("named-mirror", f"{mirror.name} is the mirror of that name, {mirror.called}; the folder is ./{mirror.name}")
    names = {flag.dest for flag in verb.flags}
    heeded = {name: value for name, value in mirror.values.items() if name in names or (name == "rules" and "exclude" in names)}
    if flag in found:
        given = {**given, flag: _end(mirror, "source")}
    if found.keys() & {"target", "both"}:
        heeded["named"] = mirror.name, mirror.called
    return _replaced(said, ends, found), Settings(given, variables, heeded)


def is_bare(word: str) -> bool:
    """Whether a word can be the name of a mirror.

    >>> [word for word in ("docs", "./docs", "a/b", "..", "memory://x", "") if is_bare(word)]
    ['docs']
    """
    return bool(word) and "/" not in word and not word.startswith(".")


def _replaced(said: list[str], ends: Mapping[str, int], found: Mapping[str, NamedMirror]) -> list[str]:
    """The words with the ends that names stand for."""
    if "both" in found:
        return [_end(found["both"], "source"), _end(found["both"], "target")]
    out = list(said)
    for end in found.keys() & ends.keys():
        out[ends[end]] = _end(found[end], end)
    return out


def _end(mirror: NamedMirror, end: str) -> str:
    place = mirror.source if end == "source" else mirror.target
    if not place:
        raise UsageError(
            "cannot use the mirror", where=mirror.name, why=f"{mirror.called} gives it no {end}", hint=f"add {end} = ..."
        )
    return place


def _unknown(word: str, path: str, known: Mapping[str, NamedMirror]) -> None:
    """A word that stands alone where two are wanted can only have been meant as a name."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
    raise UsageError("cannot find a mirror named", where=repr(word), why=f"{path} has none of that name", hint=hint)
