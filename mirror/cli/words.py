"""The words of the command line: verbs, their arguments and flags, and what each means. Parsing and help; no verb is called here.

Flags are a table and argparse reads it: loading typer takes 0.12 s and its first option 0.2 s more, longer than a whole unchanged
run (docs/adr/0001-argparse-not-typer.md). Options may stand anywhere between the words; `--` ends them. A flag is a MIRROR_*
variable as well, so nothing is given a default here: config.py knows what was said where, and what holds otherwise.

    >>> parse(VERBS["ls"], ["backup", "--at", "42", "-l", "news"])
    (['backup', 'news'], {'at': '42', 'long': True})
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from mirror.config import RULE_FLAGS
from mirror.errors import UsageError

_WIDTH: Final = 100
_INDENT: Final = 26


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. value: what it takes, for help; empty for a switch. many: it may be given again."""

    name: str
    help: str
    value: str = ""
    short: str = ""
    many: bool = False
    called: str = ""  # its name in Settings, where that differs

    @property
    def dest(self) -> str:
        return self.called or self.name.replace("-", "_")


@dataclass(frozen=True, slots=True)
class Verb:
    """One command. words: its arguments; `[X]` may be left out, `[X...]` may be many. about: the help's text, its first line alone
    in the list of commands."""

    name: str
    words: tuple[str, ...]
    about: str
    flags: tuple[Flag, ...] = field(default=(), repr=False)

    @property
    def usage(self) -> str:
        return f"mirror {self.name} {' '.join(self.words)} [OPTIONS]"


AT: Final = Flag(
    "at", "which snapshot: 42, latest, a time such as 2026-11-20T03:00 (the newest begun by then), tag:NAME", "SNAPSHOT"
)
QUIET: Final = Flag("quiet", "print nothing when all is well (for cron); problems and errors are still printed", short="q")
VERBOSE: Final = Flag("verbose", "print each path that changes, problems as they occur, and requests by kind, to stderr", short="v")
JSON: Final = Flag("json", "JSON Lines on stdout, the last one the summary (docs/events.md)")
LOG: Final = Flag("log-file", "append what happens, with times, to this file", "FILE")
REPORTS: Final = (QUIET, VERBOSE, JSON, LOG)
REACH: Final = (
    Flag("cache-dir", "where this host keeps what makes the next run fast; may be lost at any time", "FOLDER"),
    Flag("endpoint-url", "where an S3 service other than AWS listens", "URL"),
    Flag("region", "the S3 region", "NAME"),
    Flag("profile", "the AWS profile to take credentials from", "NAME"),
    Flag("bwlimit", "at most so many bytes a second to and from the store, such as 10M", "SIZE"),
    Flag("transfers", "requests to the store in flight (default 8)", "N"),
)
WORKERS: Final = Flag("workers", "processes that share the work of a large run; 0: none but this one (default 2)", "N")
MAX_DURATION: Final = Flag("max-duration", "stop after so long, such as 2h; progress is kept, exit 10", "TIME")
DRY_RUN: Final = Flag("dry-run", "print the plan to stdout and write nothing", short="n")
MAX_DELETE: Final = Flag(
    "max-delete", "stop (exit 25) before anything is written when more than N or P% would be deleted; default: above 25% and "
    "256 paths, or above 50%", "N|P%",
)  # fmt: skip
MAKING: Final = (
    Flag(
        "layout", "how a new target is laid out: packed, or tree (a folder to serve); a target that is there knows", "packed|tree"
    ),
    Flag("site", "the name of the site that a target holds: lower-case letters, digits, dots, hyphens", "NAME"),
    Flag("adopt", "make the target in a place that holds other things; they stay (in a tree's way: kept aside)"),
    Flag("new-target", "make a target where this host knew one that is gone (is the disk mounted?)"),
)
RULES: Final = (
    Flag(
        "include",
        "let in what matches; of all rules in the order given, the first that matches decides",
        "PATTERN",
        many=True,
    ),
    Flag("exclude", "leave out what matches (patterns as in .gitignore)", "PATTERN", many=True),
    Flag("filter-from", "rules from a file: lines of '+ PATTERN', '- PATTERN', '# comment'", "FILE", many=True),
)
CHECKSUM: Final = Flag("checksum", "read every file, also where size and times say that nothing changed", short="c")
IGNORE_INODE: Final = Flag(
    "ignore-inode", "a file whose inode alone changed is not read again (for sources that are made anew each night)"
)
DELETE_EXCLUDED: Final = Flag("delete-excluded", "delete what the rules leave out; without this it is kept as it was")
EXIT_CODE: Final = Flag("exit-code", "exit 4 when there are differences")
XATTRS: Final = Flag("xattrs", "mirror extended attributes as well")

SYNC: Final = Verb(
    "sync",
    ("SRC", "TARGET"),
    """Make the target's newest snapshot what the site SRC is now.

    SRC is a folder, s3://bucket/prefix, or any fsspec URL; TARGET a folder or s3://bucket/prefix. What is in SRC is mirrored, a
    slash at the end never matters. What the target has already is not sent; when nothing changed, nothing is written. If the run
    dies, give the same command again: it goes on where it was.""",
    (
        *MAKING,
        DRY_RUN,
        EXIT_CODE,
        CHECKSUM,
        IGNORE_INODE,
        MAX_DELETE,
        Flag("allow-empty-source", "mirror a source that is empty although the last snapshot was not"),
        *RULES,
        DELETE_EXCLUDED,
        XATTRS,
        Flag("max-transfer", "stop when so many bytes have been stored, such as 10G; progress is kept, exit 8", "SIZE"),
        MAX_DURATION,
        Flag(
            "min-free",
            "do not begin when less than this would be free at the target, such as 20G or 5% (default 5%, at most 10 GiB)",
            "SIZE|P%",
        ),
        Flag("tag", "give the snapshot this tag; makes one even if nothing changed", "NAME", many=True),
        Flag("heartbeat", "make a snapshot even if nothing changed"),
        Flag("on-error", "after a path that failed: go on (the default), or stop", "continue|stop"),
        Flag("wait", "wait while another run on this host uses the target, instead of exit 11"),
        WORKERS,
        *REACH,
        *REPORTS,
    ),
)  # fmt: skip

INIT: Final = Verb(
    "init",
    ("TARGET",),
    """Make an empty target.

    `sync --layout` does that too; this is for making it with other rights, or ahead of time. Does nothing when it is there.""",
    (*MAKING, *REACH, *REPORTS),
)

RESTORE: Final = Verb(
    "restore",
    ("TARGET", "OUT", "[PATH...]"),
    """Bring a snapshot, or files and folders of it, back into the folder OUT.

    Nothing in the target is changed. OUT is made; if it is there and not empty, --in-place is needed: then only what differs is
    written, and what is not in the snapshot stays unless --delete. Every byte is checked on the way. PATHs are as `mirror ls`
    prints them. If it was interrupted, give the same command with --in-place: it goes on where it was.""",
    (
        AT,
        Flag("in-place", "restore into a folder that is not empty: write what differs, leave what is there besides"),
        DRY_RUN,
        EXIT_CODE,
        Flag("delete", "with --in-place: delete what is not in the snapshot"),
        MAX_DELETE,
        Flag("overwrite", "files that are there and differ: always (the default), if-newer in the snapshot, or never", "WHEN"),
        CHECKSUM,
        Flag("strict-metadata", "owners, modes or times that could not be set count as failures (exit 23)"),
        Flag("numeric-ids", "set owners by number, not by name"),
        Flag("chown", "give everything to this user and group", "USER[:GROUP]"),
        Flag("chmod", "give everything these modes, such as 644, or D755,F644 for folders and files", "MODES"),
        *RULES,
        Flag("delete-excluded", "with --delete: delete also what the rules leave out"),
        MAX_DURATION,
        WORKERS,
        *REACH,
        *REPORTS,
    ),
)

VERIFY: Final = Verb(
    "verify",
    ("TARGET",),
    """Read everything in the target and check every byte; name what is damaged and what it belongs to.

    Changes nothing. Exit 4 when something is damaged or differs. A verify that was interrupted goes on where it was.""",
    (
        Flag("quick", "look at names and sizes only"),
        Flag("part", "read a part of the target, such as 3/7: the same one each time, so seven nights read all", "N/M"),
        Flag("against", "compare a snapshot with this site, byte by byte", "SRC"),
        AT,
        *RULES,
        MAX_DURATION,
        WORKERS,
        *REACH,
        *REPORTS,
    ),
)

SNAPSHOTS: Final = Verb(
    "snapshots",
    ("TARGET",),
    "List the snapshots: number, time, entries, size, and what changed.",
    (
        Flag(
            "max-age", "exit 4 when the newest snapshot is older than this, such as 26h, or there is none (for monitoring)", "TIME"
        ),
        *REACH,
        *REPORTS,
    ),
)

DIFF: Final = Verb(
    "diff",
    ("SRC TARGET | TARGET SNAPSHOT SNAPSHOT",),
    """Show what a sync of SRC would change, or what changed from one snapshot to another.

    + new, * changed, - deleted, > moved, . described anew (times, modes, owners). Changes nothing.""",
    (
        Flag("at", "for SRC TARGET: the snapshot to compare with", "SNAPSHOT"),
        EXIT_CODE,
        CHECKSUM,
        IGNORE_INODE,
        *RULES,
        DELETE_EXCLUDED,
        XATTRS,
        *REACH,
        *REPORTS,
    ),
)

LS: Final = Verb(
    "ls",
    ("TARGET", "[PATH...]"),
    """List the paths of a snapshot.

    One on each line; what cannot be printed is shown as \\n or \\xNN. With PATHs those and what is below them.""",
    (AT, Flag("long", "mode, size and time as well", short="l"), *REACH, VERBOSE, JSON, LOG),
)

CAT: Final = Verb(
    "cat",
    ("TARGET", "PATH"),
    "Write the content of one file of a snapshot to stdout.",
    (AT, *REACH),
)

SUMS: Final = Verb(
    "sums",
    ("TARGET",),
    """Write the checksums of a snapshot's files, as sha256sum, b3sum, xxhsum and `rclone checksum` read them.

    xxh128 is kept in the snapshot; the others are computed from the contents.""",
    (AT, Flag("hash", "xxh128 (the default), blake3, or sha256", "NAME"), *REACH, VERBOSE, JSON, LOG),
)

VERBS: Final = {verb.name: verb for verb in (INIT, SYNC, RESTORE, VERIFY, SNAPSHOTS, DIFF, LS, CAT, SUMS)}


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
    """(words, what was said by flags). UsageError for anything that cannot be."""
    prog = f"mirror {verb.name}"
    parser = _Parser(prog, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for flag in verb.flags:
        names = [f"--{flag.name}", *([f"-{flag.short}"] if flag.short else [])]
        if not flag.value:
            parser.add_argument(*names, dest=flag.dest, action="store_const", const=True)
            parser.add_argument(f"--no-{flag.name}", dest=flag.dest, action="store_const", const=False)
        else:
            rule = flag.dest in RULE_FLAGS
            parser.add_argument(*names, dest=flag.dest, action=_Rule if rule else "append" if flag.many else "store")
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    namespace, words = parser.parse_known_args(list(arguments[:end]))
    for word in words:
        if word.startswith("-") and word != "-":
            raise _misused(prog, f"there is no option {word.partition('=')[0]}{_near(word, verb)}")
    words += arguments[end + 1 :]
    _check_count(verb, prog, words)
    return words, vars(namespace)


def _near(word: str, verb: Verb) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word.partition("=")[0], [f"--{flag.name}" for flag in verb.flags], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _check_count(verb: Verb, prog: str, words: list[str]) -> None:
    if verb is DIFF:
        if len(words) not in (2, 3):
            raise _misused(prog, f"SRC TARGET or TARGET SNAPSHOT SNAPSHOT is wanted, not {len(words)} words")
        return
    least = [word for word in verb.words if not word.startswith("[")]
    if len(words) < len(least):
        raise _misused(prog, f"{' and '.join(least[len(words) :])} {'is' if len(words) + 1 == len(least) else 'are'} missing")
    if not verb.words[-1].endswith("...]") and len(words) > len(verb.words):
        raise _misused(prog, f"{words[len(verb.words)]!r} is too much, {' and '.join(verb.words)} will do")


# -- help ---------------------------------------------------------------------------------------------------------------


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
    lines += ["", textwrap.fill(note, _WIDTH)]
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
        "Is the site lost? `mirror snapshots TARGET` lists what there is, `mirror restore TARGET OUT` brings it back.",
    ]
    return "\n".join(lines) + "\n"


def _row(left: str, text: str) -> list[str]:
    import textwrap

    filled = textwrap.wrap(text, _WIDTH - _INDENT)
    if len(left) >= _INDENT:
        return [left, *(" " * _INDENT + line for line in filled)]
    return [left.ljust(_INDENT) + filled[0], *(" " * _INDENT + line for line in filled[1:])]
