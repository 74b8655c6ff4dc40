"""The commands: parse, open, call one verb, render. Each takes its session and its words and gives the exit code.

Verbs are imported when they are called: `mirror ls` need not wait for what `mirror sync` loads.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from mirror import config, spelling
from mirror.cli.access import key
from mirror.cli.serving import serve
from mirror.cli.session import Session
from mirror.errors import DamageError, worst_exit
from mirror.events import Change
from mirror.keys import show
from mirror.progress import members

if TYPE_CHECKING:
    from mirror.target import TargetSpec

Command = Callable[[Session, list[str]], int]
_DIFFERENT: Final = 4


def init(session: Session, words: list[str]) -> int:
    """`mirror init TARGET`."""
    from mirror.create import init as make

    report = make(_target(session, words[0]), config.making(session.asked), session.job)
    return session.finish(report, report.exit_code)


def sync(session: Session, words: list[str]) -> int:
    """`mirror sync SRC TARGET`."""
    from mirror.sync import sync as run

    source = config.site_spec(words[0], session.asked)
    target = _target(session, words[1])
    options = config.sync_options(session.asked, session.command)
    if session.changes:
        session.changes.check_apart(source.url, target.store.url)
    session.plan = options.dry_run
    session.job.each_path |= session.plan
    report = run(source, target, options, session.job)
    differs = report.added or report.changed or report.moved or report.deleted or report.described
    return session.finish(report, _code(session, report.exit_code, options.dry_run and differs))


def restore(session: Session, words: list[str]) -> int:
    """`mirror restore TARGET OUT [PATH...]`."""
    from mirror.restore import restore as run

    target, out = _target(session, words[0]), config.site_spec(words[1], session.asked, "OUT")
    options = config.restore_options(session.asked, session.command, words[2:])
    session.plan = options.dry_run
    report = run(target, out, options, session.job)
    differs = report.added or report.changed or report.described or (options.delete and report.extra)
    return session.finish(report, _code(session, report.exit_code, options.dry_run and differs))


def rollback(session: Session, words: list[str]) -> int:
    """`mirror rollback TARGET --at N`."""
    from mirror.rollback import rollback as run

    options = config.rollback_options(session.asked, session.command)
    session.plan = options.dry_run
    report = run(_target(session, words[0]), options, session.job)
    differs = report.added or report.changed or report.moved or report.deleted or report.described
    return session.finish(report, _code(session, report.exit_code, options.dry_run and differs))


def publish(session: Session, words: list[str]) -> int:
    """`mirror publish TARGET`."""
    from mirror.publish import publish as run

    report = run(_target(session, words[0]), config.waiting_options(session.asked), session.job)
    return session.finish(report, report.exit_code)


def verify(session: Session, words: list[str]) -> int:
    """`mirror verify TARGET`."""
    from mirror.verify import verify as run

    report = run(_target(session, words[0]), config.verify_options(session.asked), session.job)
    return session.finish(report, report.exit_code)


def snapshots(session: Session, words: list[str]) -> int:
    """`mirror snapshots TARGET`."""
    from mirror.cli import listing
    from mirror.contents import snapshots as run

    target, max_age = _target(session, words[0]), session.asked.duration("max_age")
    lines = run(target, session.job)
    if session.json:
        for line in lines:
            session.data("listed", listing.snapshot_values(line), "")
    elif not session.quiet:
        for text in listing.snapshot_table(lines):
            session.out.line(text)
    newest = max((line.time for line in lines), default=None)
    age = (datetime.now(UTC) - newest).total_seconds() if newest else None
    if max_age is not None and (age is None or age > max_age):
        why = f"the newest is {listing.age_text(age)} old" if age is not None else "there is none"
        raise DamageError("there is no snapshot young enough in", where=target.store.url,
                          why=f"{why}, --max-age asks for {listing.age_text(max_age)}",
                          hint="does the nightly sync still run?", kind="too-old")  # fmt: skip
    return session.finish_data({"snapshots": len(lines), "age": age})


def diff(session: Session, words: list[str]) -> int:
    """`mirror diff SRC TARGET`, or `mirror diff TARGET 41 42`."""
    from mirror.cli import listing
    from mirror.contents import diff as between
    from mirror.contents import diff_site

    session.plan = True
    if len(words) == 3:
        changes = between(_target(session, words[0]), words[1], words[2], session.job)
    else:
        source = config.site_spec(words[0], session.asked)
        at = session.asked.text("at", "latest")
        changes = diff_site(source, _target(session, words[1]), at, config.look_options(session.asked), session.job)
    counts: Counter[str] = Counter()
    for line, size in changes:
        counts[line.symbol] += 1
        session.job.say(Change(line.symbol, show(line.path), size, show(line.moved_from) if line.moved_from else ""))
    return session.finish_data(listing.change_counts(counts), _code(session, 0, bool(counts)))


def ls(session: Session, words: list[str]) -> int:
    """`mirror ls TARGET [PATH...]`."""
    from mirror.cli import listing
    from mirror.contents import ls as run

    target, at, long = _target(session, words[0]), session.asked.text("at", "latest"), session.asked.switch("long")
    count = 0
    for entry in run(target, at, [os.fsencode(word) for word in words[1:]], session.job):
        count += 1
        if session.json:
            session.data("entry", listing.entry_values(entry), "")
        else:
            session.out.line(listing.long_line(entry) if long else show(entry.path))
    return session.finish_data({"entries": count})


def cat(session: Session, words: list[str]) -> int:
    """`mirror cat TARGET PATH`."""
    from mirror.contents import cat as run

    target, at = _target(session, words[0]), session.asked.text("at", "latest")
    for piece in run(target, at, os.fsencode(words[1]), session.job):
        session.out.data(piece)
    return session.finish_data({})


def sums(session: Session, words: list[str]) -> int:
    """`mirror sums TARGET`."""
    from mirror.cli import listing
    from mirror.contents import sums as run

    target, at = _target(session, words[0]), session.asked.text("at", "latest")
    algorithm = session.asked.choice("hash", spelling.HASHES, spelling.HASHES[0])
    count = 0
    for digest, path in run(target, at, algorithm, session.job):
        count += 1
        session.data("sum", {"hash": algorithm, "sum": digest, "path": show(path)}, listing.sum_line(algorithm, digest, path))
    return session.finish_data({"hash": algorithm, "files": count})


def filter_test(session: Session, words: list[str]) -> int:
    """`mirror filter-test PATH...`."""
    from mirror.cli import listing
    from mirror.explain import explain

    name = session.asked.text("source")
    source = config.site_spec(name, session.asked, "--source") if name else None
    config.filter_of(session.asked)
    included = 0
    for verdict in explain([os.fsencode(word) for word in words], session.asked.rules(), source, session.job):
        included += verdict.included
        session.data("filter", members(verdict), listing.verdict_line(verdict))
    return session.finish_data({"paths": len(words), "included": included})


def _target(session: Session, word: str) -> TargetSpec:
    return config.target_spec(word, session.asked, session.notice)


def _code(session: Session, code: int, differs: object) -> int:
    """The exit code, with --exit-code 4 where something differs."""
    return worst_exit({code, _DIFFERENT if session.asked.switch("exit_code") and differs else 0} - {0})


COMMANDS: Final[dict[str, Command]] = {
    "init": init,
    "sync": sync,
    "restore": restore,
    "rollback": rollback,
    "publish": publish,
    "verify": verify,
    "snapshots": snapshots,
    "diff": diff,
    "ls": ls,
    "cat": cat,
    "sums": sums,
    "filter-test": filter_test,
    "serve": serve,
    "key": key,
}
