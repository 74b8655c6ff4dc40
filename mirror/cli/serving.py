"""`mirror serve`: parse, call, render."""

from __future__ import annotations

from mirror import config, spelling
from mirror.cli.session import Session
from mirror.errors import UsageError


def serve(session: Session, words: list[str]) -> int:
    """`mirror serve TARGET --site`."""
    if session.asked.parsed("site", spelling.as_site) is not True:
        raise UsageError("cannot serve", where=words[0], why="it is not said what for", hint="say --site to serve it as a web site")
    from mirror.serve.site import serve_site

    target = config.target_spec(words[0], session.asked, session.notice)
    report = serve_site(target, config.serve_site_options(session.asked), session.job)
    return session.finish(report, report.exit_code)
