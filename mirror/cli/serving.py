"""`mirror serve`: parse, call, render. With --site it serves a mirror to people, else it holds targets for clients with keys."""

from __future__ import annotations

import resource
from typing import Final

from mirror import config, spelling
from mirror.cli.session import Session
from mirror.errors import UsageError

_OF_SITE: Final = ("at", "memory", "store", "key_file")
_OF_TARGETS: Final = ("keys", "max_body", "imports", "client_timeout", "min_free")
_FILES: Final = 4096  # that a server may have open: connections, live files, folders


def serve(session: Session, words: list[str]) -> int:
    """`mirror serve TARGET --site`, or `mirror serve ROOT --keys FILE`."""
    asked = session.asked
    as_site = asked.parsed("site", spelling.as_site) is True
    if wrong := [name for name in (_OF_TARGETS if as_site else _OF_SITE) if asked.was_given(name)]:
        why = "it serves a snapshot to people" if as_site else "without --site targets are held for clients"
        raise UsageError("cannot use", where=f"--{wrong[0].replace('_', '-')}", why=why, hint="try `mirror serve --help`")
    if as_site:
        from mirror.serve.site import serve_site

        target = config.target_spec(words[0], asked, session.notice)
        _allow_files()
        shown = serve_site(target, config.serve_site_options(asked), session.job)
        return session.finish(shown, shown.exit_code)
    if not asked.text("keys"):
        hint = "say --site to serve a mirror to people, or --keys FILE to hold targets for clients"
        raise UsageError("cannot serve", where=words[0], why="it is not said what for", hint=hint)
    from mirror.serve.receiver import receive

    _allow_files()
    report = receive(words[0], config.receive_options(asked, session.notice), session.job)
    return session.finish(report, report.exit_code)


def _allow_files() -> None:
    """As many open files as this process may ask for, up to _FILES: the usual 1024 are few for a server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
