"""The commands: parse, open, call one verb, render. Each takes its session and its words and gives the exit code.

Verbs are imported when they are called: `mirror ls` need not wait for what `mirror sync` loads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mirror import config
from mirror.cli.session import Session
from mirror.errors import worst_exit

Command = Callable[[Session, list[str]], int]
_DIFFERENT: Final = 4


def init(session: Session, words: list[str]) -> int:
    """`mirror init TARGET`."""
    from mirror.create import init as make

    target = config.target_spec(words[0], session.asked, session.notice)
    report = make(target, config.making(session.asked), session.job)
    return session.finish(report, report.exit_code)


def sync(session: Session, words: list[str]) -> int:
    """`mirror sync SRC TARGET`."""
    from mirror.sync import sync as run

    source = config.site_spec(words[0], session.asked)
    target = config.target_spec(words[1], session.asked, session.notice)
    options = config.sync_options(session.asked, session.command)
    session.plan = options.dry_run
    report = run(source, target, options, session.job)
    differs = report.added or report.changed or report.moved or report.deleted or report.described
    codes = {report.exit_code}
    if options.dry_run and differs and session.asked.switch("exit_code"):
        codes.add(_DIFFERENT)
    return session.finish(report, worst_exit(codes - {0}))


COMMANDS: Final[dict[str, Command]] = {"init": init, "sync": sync}
