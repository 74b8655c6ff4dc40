"""A mirror as a web site for people: a snapshot served over HTTP until a signal comes. It only reads.

    serve_site(TargetSpec(StoreSpec("s3://backups/www")), SiteOptions(at="latest"), Job("serve"))

Owns the order in which things begin: the socket, the target, its snapshot, and then the visitors are let in, while the index is
still being read in the background. So the first page does not wait for the size of the site.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from mirror.events import Event, Job, Notice, RunStarted
from mirror.serve import not_installed
from mirror.serve.contents import Contents
from mirror.serve.paths import Objects, Paths
from mirror.serve.places import Places
from mirror.serve.snapshots import LATEST, Snapshots
from mirror.target import TargetSpec
from mirror.webclient.address import host_and_port

LISTEN: Final = ("127.0.0.1", 8080)
MEMORY: Final = 64 << 20
HEAD_SECONDS: Final = 20.0
CONNECTIONS: Final = 1000
GRACE_SECONDS: Final = 3


@dataclass(frozen=True, slots=True)
class SiteOptions:
    """at: which snapshot; `latest` goes on to newer ones. listen: (host, port), port 0 for any that is free. memory: bytes for what
    was asked for lately. certificate, private_key: PEM files for TLS; without them it is plain HTTP, wherever it listens: what
    everybody may see needs no secrecy, as with any web server."""

    at: str = LATEST
    listen: tuple[str, int] = LISTEN
    memory: int = MEMORY
    certificate: str = ""
    private_key: str = ""


@dataclass
class SiteReport:
    """How a run went. snapshot: the one that was served last; answers: to all requests; bytes: of bodies that were sent; failures:
    answers that failed here (5xx, or cut off); interrupted: a signal ended it."""

    target: str = ""
    url: str = ""
    snapshot: int = 0
    answers: int = 0
    bytes: int = 0
    failures: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """130 after a signal, as for every run that is stopped by one."""
        return 130 if self.interrupted else 0


def serve_site(target: TargetSpec, options: SiteOptions, job: Job) -> SiteReport:
    """Serve a snapshot of the target as a web site until a signal comes. UsageError when the extra `serve` is not installed, the
    address cannot be listened on, or the certificate is none."""
    try:
        from mirror.serve import listening, pages
    except ImportError as error:
        raise not_installed(error) from None
    begun, voice = time.monotonic(), Voice(job)
    listening.check_tls(options.certificate, options.private_key)
    with ExitStack() as stack:
        listener = stack.enter_context(closing(listening.listen(*options.listen)))
        snapshots = stack.enter_context(closing(Snapshots(target, options.at, voice.say)))
        job.site = snapshots.site
        job.say(RunStarted("serve", "", snapshots.url))
        voice.speak()
        places = stack.enter_context(closing(Places(snapshots.store, lambda why: voice.say(Notice("damage", why)))))
        places.begin()
        small = options.memory // 8
        objects = Objects(snapshots.store, small)
        contents = Contents(snapshots.store, objects, places, options.memory // 2, snapshots.live())
        app = pages.Pages(snapshots, Paths(objects, 2 * small), contents, voice.say, each=job.each_path)
        scheme = "https" if options.certificate else "http"
        report = SiteReport(snapshots.url, f"{scheme}://{host_and_port(*listener.getsockname()[:2])}/")
        terms = listening.Terms(
            HEAD_SECONDS,
            CONNECTIONS,
            GRACE_SECONDS,
            longest_goes=True,
            certificate=options.certificate,
            private_key=options.private_key,
        )
        told = f"snapshot {snapshots.view.number} of the site {snapshots.site} is served at {report.url}"
        try:
            report.interrupted = listening.run(app, listener, terms, partial(voice.begin, told))
        finally:
            voice.end()
        report.snapshot, report.seconds = snapshots.view.number, time.monotonic() - begun
        report.answers, report.bytes, report.failures = app.count.answers, app.count.bytes, app.count.failures
    return report


@dataclass
class Voice:
    """Events from any thread, said by the one that runs the verb: a job belongs to that one."""

    job: Job
    _waiting: deque[Event] = field(default_factory=deque)
    _loop: asyncio.AbstractEventLoop | None = None
    _own: int = field(default_factory=threading.get_ident)

    def say(self, event: Event) -> None:
        """Say it soon."""
        self._waiting.append(event)
        if self._loop is None:
            return
        if threading.get_ident() == self._own:
            self.speak()
            return
        try:
            self._loop.call_soon_threadsafe(self.speak)
        except RuntimeError:  # the loop has ended: `end` says it
            return

    def speak(self) -> None:
        """Say what waits."""
        while self._waiting:
            self.job.say(self._waiting.popleft())

    def begin(self, told: str) -> None:
        """Visitors are let in. Called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self.speak()
        self.job.say(Notice("listening", told))

    def end(self) -> None:
        """The loop has ended."""
        self._loop = None
        self.speak()
