"""`mirror serve`: parse, call, render."""

from __future__ import annotations

from mirror import config
from mirror.cli.session import Session


def serve(session: Session, words: list[str]) -> int:
    """`mirror serve ROOT --keys FILE`."""
    from mirror.serve.receiver import receive

    report = receive(words[0], config.receive_options(session.asked, session.notice), session.job)
    return session.finish(report, report.exit_code)
