"""Receiving: the targets below a folder, for clients with keys, until a signal comes.

    receive("/srv/mirrors", ReceiveOptions(keys="/etc/mirror/keys.json"), Job("serve"))

Owns what must be right before anybody is let in (root, keys, certificate, plain HTTP only on this machine unless it is asked for),
and what is said of the run.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mirror.access import KeyFile
from mirror.errors import UsageError
from mirror.events import Job, Notice, RunStarted
from mirror.keys import MIRROR_KEY, STORE
from mirror.serve import not_installed
from mirror.serve.holding import Holding, Verifying
from mirror.serve.publications import Terms
from mirror.webclient.address import host_and_port, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mirror.serve.holding import Gate
    from mirror.store import MaintainedStore

LISTEN: Final = ("127.0.0.1", 8750)
HEAD_SECONDS: Final = 15.0  # or the time-out of clients, if that is less
HEAD_BYTES: Final = 16 << 10
IDLE_SECONDS: Final = 30
GRACE_SECONDS: Final = 10
CONNECTIONS: Final = 400


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """keys: the server's file of keys. listen: (host, port), port 0 for any that is free. certificate, private_key: PEM files for
    TLS. insecure: plain HTTP beyond this machine. max_body: bytes of an object; imports: objects that are examined at once, eight
    times as many may arrive; client_timeout: seconds that a client may be silent; min_free, min_free_percent: what must stay free
    on the disk, the larger of the two. cache: where indexes of what is there are kept from one run to the next. environment: of the
    processes that publish."""

    keys: str
    listen: tuple[str, int] = LISTEN
    certificate: str = ""
    private_key: str = ""
    insecure: bool = False
    max_body: int = 128 << 20
    imports: int = 4
    client_timeout: float = 30.0
    min_free: int = 256 << 20
    min_free_percent: float = 0.0
    cache: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class ReceiveReport:
    """How a run went. answers: to all requests; refusals: of these; imported: objects that are new; targets: that it ended with;
    interrupted: a signal ended it."""

    root: str = ""
    url: str = ""
    answers: int = 0
    refusals: int = 0
    imported: int = 0
    seconds: float = 0.0
    targets: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """130 after a signal, as for every run that is stopped by one."""
        return 130 if self.interrupted else 0


def receive(
    root: str,
    options: ReceiveOptions,
    job: Job,
    gates: Callable[[MaintainedStore, str, Path | None, bool], Gate] = Verifying,
) -> ReceiveReport:
    """Hold the targets below `root` for clients, until a signal comes. UsageError, AuthError before anybody is let in."""
    try:
        from mirror.serve import listening, protocol
    except ImportError as error:
        raise not_installed(error) from None
    began, root = time.monotonic(), os.path.abspath(root)
    _check(root, options)
    listening.check_tls(options.certificate, options.private_key)
    keys = KeyFile(options.keys)
    keys.keys()
    limits = protocol.Limits(
        options.max_body, 8 * options.imports, options.imports, options.client_timeout, options.min_free, options.min_free_percent
    )
    job.say(RunStarted("serve", "", root))
    with closing(Holding(root, options.cache, gates)) as holding, closing(listening.listen(*options.listen)) as listener:
        app = protocol.Protocol(holding, keys, limits, lambda kind, text: job.say(Notice(kind, text)), _publishing(options))
        scheme = "https" if options.certificate else "http"
        url = f"{scheme}://{host_and_port(options.listen[0], listener.getsockname()[1])}"
        terms = listening.Terms(
            min(HEAD_SECONDS, options.client_timeout),
            CONNECTIONS,
            GRACE_SECONDS,
            idle_seconds=IDLE_SECONDS,
            head_bytes=HEAD_BYTES,
            certificate=options.certificate,
            private_key=options.private_key,
        )
        told = Notice("listening", f"listening on {url}, {_counted(len(holding.names()))}")
        with closing(app):
            interrupted = listening.run(app, listener, terms, lambda: app.begin(lambda: job.say(told)), app.end)
        report = ReceiveReport(root, url, app.answers, app.refusals, app.imported, targets=holding.names(), interrupted=interrupted)
    report.seconds = time.monotonic() - began
    return report


def _check(root: str, options: ReceiveOptions) -> None:
    """UsageError for what cannot be served, or not like this."""
    if not os.path.isdir(root):
        raise UsageError("cannot serve", where=root, why="it is no folder", hint="name the folder that holds the targets")
    if os.path.lexists(os.path.join(root, MIRROR_KEY)) or os.path.lexists(os.path.join(root, STORE, MIRROR_KEY)):
        hint = f"name the folder that it is in: mirror serve {os.path.dirname(root)}"
        raise UsageError("cannot serve", where=root, why="it is a target itself, not the folder that holds targets", hint=hint)
    if not options.certificate and not options.insecure and not is_loopback(options.listen[0]):
        why = "plain HTTP shows everybody on the way what is mirrored"
        hint = "give --certfile and --keyfile, listen on 127.0.0.1 behind a proxy with TLS, or accept that with --insecure"
        raise UsageError("cannot listen on", where=host_and_port(*options.listen), why=why, hint=hint)


def _publishing(options: ReceiveOptions) -> Terms:
    """How what clients bring for trees is published. -P: a folder of a site is not to be taken for a module."""
    room = f"{options.min_free_percent}%" if options.min_free_percent else str(options.min_free)
    cache = ["--cache-dir", str(options.cache)] if options.cache else []
    return Terms(
        [sys.executable, "-P", "-m", "mirror", "publish", "--json", "--wait", "--min-free", room, *cache], options.environment
    )


def _counted(targets: int) -> str:
    return "no target yet" if not targets else f"{targets} target{'s' if targets > 1 else ''}"
