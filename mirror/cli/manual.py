"""Help: what each command takes and does, laid out for a terminal of a hundred columns. Text out; nothing is printed here."""

from __future__ import annotations

from typing import Final

from mirror.cli.words import VERBS, Flag, Verb

_WIDTH: Final = 100
_INDENT: Final = 26


def help_of(verb: Verb) -> str:
    """The help of one command."""
    import textwrap

    first, _, rest = verb.about.partition("\n")
    lines = [f"Usage: {verb.usage}", "", *textwrap.wrap(first, _WIDTH)]
    for paragraph in textwrap.dedent(rest).strip().split("\n\n"):
        lines += ["", textwrap.fill(paragraph, _WIDTH)] if paragraph else []
    lines += ["", "Options:"]
    for flag in (*verb.flags, Flag("help", "this", short="h")):
        short = f"-{flag.short}, " if flag.short else "    "
        named = f"  {short}--{flag.name}{' ' * bool(flag.value)}{flag.value}"
        lines += _row(named, flag.help + ("; may be repeated" if flag.many else ""))
    note = (
        "Each option can be given as a variable: --max-delete as MIRROR_MAX_DELETE, a switch as 1 or 0, a list one a line. "
        "The option counts more, and --no-X switches off what a variable switched on."
    )
    lines += ["", textwrap.fill(note, _WIDTH), "", textwrap.fill(verb.named, _WIDTH)]
    return "\n".join(lines) + "\n"


def help_of_all() -> str:
    """The help of the program."""
    lines = [
        "Usage: mirror COMMAND ... [OPTIONS]",
        "",
        "Exact, verifiable copies of whole sites, kept somewhere else, and brought back when it matters.",
        "",
        "Commands:",
    ]
    for verb in VERBS.values():
        lines += _row(f"  {verb.name}", verb.about.partition("\n")[0])
    lines += [
        "",
        "  mirror COMMAND --help   what a command takes and does",
        "  mirror --version",
        "",
        "Is the site lost? `mirror serve TARGET --site` serves the mirror to people at once, `mirror snapshots",
        "TARGET` lists what there is, `mirror restore TARGET OUT` brings it back.",
    ]
    return "\n".join(lines) + "\n"


def _row(left: str, text: str) -> list[str]:
    import textwrap

    filled = textwrap.wrap(text, _WIDTH - _INDENT)
    if len(left) >= _INDENT:
        return [left, *(" " * _INDENT + line for line in filled)]
    return [left.ljust(_INDENT) + filled[0], *(" " * _INDENT + line for line in filled[1:])]
