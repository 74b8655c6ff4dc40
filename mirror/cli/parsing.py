"""Reading a command line by the table of `words.py`. No verb is called here.

argparse reads it: loading typer takes 0.12 s and its first option 0.2 s more, longer than a whole unchanged run
(docs/adr/0001-argparse-not-typer.md). Options may stand anywhere between the words; `--` ends them.

    >>> parse(VERBS["ls"], ["backup", "--at", "42", "-l", "news"])
    (['backup', 'news'], {'at': '42', 'long': True})
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

from mirror.cli.words import AS_SITE, BOTH, DIFF, FILTER_TEST, KEY, VERBS, Verb
from mirror.config import RULE_FLAGS
from mirror.errors import UsageError

if TYPE_CHECKING:
    from mirror.configfile import Option

_NUMBERS: Final = ("N", "N|P%", "SIZE", "SIZE|P%", "TIME", "SNAPSHOT")
_PLACES: Final = ("FILE", "FOLDER", "SRC", "STORE")
_SERVERS: Final = ("max-body", "imports", "client-timeout")
_SAID: Final = ("config", "source", "release", "take-over", "rights", "keys", *_SERVERS)


def configurable() -> dict[str, Option]:
    """What mirror.toml may say of a mirror besides its ends: every flag but those that have no meaning there, and those that a
    person says once, knowing why."""
    from mirror.configfile import Option

    flags = [flag for verb in VERBS.values() for flag in verb.flags if flag.name not in _SAID and flag is not AS_SITE]
    switches = {flag.name for flag in flags if not flag.value}
    valued = {flag.name: flag for flag in flags if flag.value}
    options = {name: Option(switch=True) for name in switches - valued.keys()} | {
        flag.name: Option(flag.name in switches, flag.many, True, number=flag.value in _NUMBERS, place=flag.value in _PLACES)
        for flag in valued.values()
    }
    return options | {"headers": replace(options["header"], called="header")}  # a list reads better so; both are heeded


class _Rule(argparse.Action):
    """Appends (kind, value) to one list for all kinds of rules: their order on the command line counts."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        kept = getattr(namespace, "rules", None) or []
        namespace.rules = [*kept, (self.dest, values)]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _misused(self.prog, message.removeprefix("argument ").replace(": expected one argument", " needs a value"))


def _misused(prog: str, message: str) -> UsageError:
    return UsageError(message, hint=f"try `{prog} --help`")


def verb_of(name: str) -> Verb:
    """The command of that name. UsageError when there is none."""
    if name in VERBS:
        return VERBS[name]
    if name.startswith("-"):
        raise UsageError(f"{name} stands before the command", hint="try `mirror --help`")
    from difflib import get_close_matches

    near = get_close_matches(name, VERBS, n=1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise UsageError(f"there is no command {name!r}{meant}", hint="try `mirror --help`")


def parse(verb: Verb, arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """(words, what was said by flags). UsageError for flags that cannot be; how many words there must be, `check_count` knows."""
    prog = f"mirror {verb.name}"
    parser = _Parser(prog, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for flag in verb.flags:
        names = [f"--{flag.name}", *([f"-{flag.short}"] if flag.short else [])]
        if not flag.value:
            parser.add_argument(*names, dest=flag.dest, action="store_const", const=True)
            parser.add_argument(flag.opposite, dest=flag.dest, action="store_const", const=False)
        else:
            rule = flag.dest in RULE_FLAGS
            parser.add_argument(*names, dest=flag.dest, action=_Rule if rule else "append" if flag.many else "store")
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    namespace, words = parser.parse_known_args(list(arguments[:end]))
    for word in words:
        if word.startswith("-") and word != "-":
            raise _misused(prog, f"there is no option {word.partition('=')[0]}{_near(word, verb)}")
    return words + list(arguments[end + 1 :]), vars(namespace)


def ends_of(verb: Verb, words: Sequence[str]) -> dict[str, int]:
    """Which of the words are ends, by what each is: `source`, `target`, or `both` for a word that can only be a name."""
    if verb.name in BOTH and len(words) < 3:
        return {"both": 0} if len(words) == 1 else {"source": 0, "target": 1} if words else {}
    return {"target": 0} if words and verb not in (FILTER_TEST, KEY) else {}


def _near(word: str, verb: Verb) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word.partition("=")[0], [f"--{flag.name}" for flag in verb.flags], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def check_count(verb: Verb, words: Sequence[str]) -> None:
    """UsageError when there are too few words, or too many."""
    prog = f"mirror {verb.name}"
    if verb is DIFF:
        if len(words) not in (2, 3):
            raise _misused(prog, f"SRC TARGET or TARGET SNAPSHOT SNAPSHOT is wanted, not {len(words)} words")
        return
    least = [word for word in verb.words if not word.startswith("[")]
    if len(words) < len(least):
        raise _misused(prog, f"{' and '.join(least[len(words) :])} {'is' if len(words) + 1 == len(least) else 'are'} missing")
    if not verb.words[-1].rstrip("]").endswith("...") and len(words) > len(verb.words):
        raise _misused(prog, f"{words[len(verb.words)]!r} is too much, {' and '.join(verb.words)} will do")
