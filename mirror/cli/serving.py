"""`mirror serve`: parse, call, render."""

from __future__ import annotations

import resource
from typing import Final

from mirror import config, spelling
from mirror.cli.session import Session
from mirror.errors import UsageError

_FILES: Final = 4096  # that a server may have open: connections, live files, folders


def serve(session: Session, words: list[str]) -> int:
    """`mirror serve TARGET --site`."""
    if session.asked.parsed("site", spelling.as_site) is not True:
        raise UsageError("cannot serve", where=words[0], why="it is not said what for", hint="say --site to serve it as a web site")
    from mirror.serve.site import serve_site

    target = config.target_spec(words[0], session.asked, session.notice)
    _allow_files()
    report = serve_site(target, config.serve_site_options(session.asked), session.job)
    return session.finish(report, report.exit_code)


def _allow_files() -> None:
    """As many open files as this process may ask for, up to _FILES: the usual 1024 are few for a server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
