"""A mirror served as a web site by a process of its own, as the operator starts it, and visitors to it.

with serving(target, "--at", "1") as site:
    site.get("/index.html").status
assert site.summary["answers"] == 1
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from servers import START_SECONDS, Answer, Visitor, comes_up, with_few_files

from mirror.events import Notice, Stamped

ROOT = Path(__file__).parent.parent
STOP_SECONDS = 30


@dataclass
class Served:
    """A running `mirror serve --site`. events: what it has said with --json, by now; port: where it listens."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0
    error: str = ""

    def get(self, url: str, method: str = "GET", **headers: str) -> Answer:
        """One request on a connection of its own, spelt as it is here."""
        with Visitor(self.port) as visitor:
            return visitor.ask(url, method, **headers)

    def told(self, name: str, kind: str = "") -> list[dict[str, Any]]:
        """The events of that name, notices of that kind."""
        return [each for each in self.events if each["event"] == name and (not kind or each["kind"] == kind)]

    def wait_for(self, name: str, kind: str = "", count: int = 1, seconds: float = START_SECONDS) -> list[dict[str, Any]]:
        """The same, once there are so many."""
        give_up = time.monotonic() + seconds
        while len(found := self.told(name, kind)) < count:
            assert time.monotonic() < give_up, (name, kind, self.events)
            time.sleep(0.01)
        return found

    @property
    def summary(self) -> dict[str, Any]:
        """The last line, after the end."""
        assert self.events[-1]["event"] == "summary", (self.events, self.error)
        return self.events[-1]

    @property
    def memory(self) -> int:
        """Bytes of memory that are its own: pages of files do not count."""
        info = psutil.Process(self.process.pid).memory_info()
        return int(info.rss - info.shared)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it as an operator does; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


def stop_when_it_listens(stamped: Stamped) -> None:
    """A listener that ends a server as an operator does."""
    if isinstance(stamped.event, Notice) and stamped.event.kind == "listening":
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def serving(*words: object, files: int = 0, **variables: str) -> Iterator[Served]:
    """`mirror serve WORDS --site --listen 127.0.0.1:0 --json`, once it listens. It is ended, and must have ended well. files: how
    many it may have open, where that is to be few."""
    command = [*with_few_files(files), sys.executable, "-W", "error", "-m", "mirror", "serve", *map(os.fspath, map(str, words))]
    served = Served(
        subprocess.Popen(
            [*command, "--site", "--listen", "127.0.0.1:0", "--json"],
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
        )
    )
    hearing = [threading.Thread(target=_hear, args=(served,)), threading.Thread(target=_hear_errors, args=(served,))]
    for each in hearing:
        each.start()
    try:
        came = comes_up(served.process, lambda: bool(served.told("notice", "listening")))
        assert came, f"it did not come up: {served.error}"
        (notice,) = served.told("notice", "listening")
        served.port = int(re.findall(r"https?://127\.0\.0\.1:([0-9]+)/", notice["text"])[0])
        yield served
        if served.process.poll() is None:
            assert served.stop() == 130, served.error
    finally:
        if served.process.poll() is None:
            served.process.kill()
        served.process.wait()
        for each in hearing:
            each.join()
        for stream in (served.process.stdout, served.process.stderr):
            assert stream
            stream.close()
    assert "Traceback" not in served.error, served.error
    assert "Exception" not in served.error, served.error


def _hear(served: Served) -> None:
    assert served.process.stdout
    for line in served.process.stdout:
        served.events.append(json.loads(line))


def _hear_errors(served: Served) -> None:
    assert served.process.stderr
    for line in served.process.stderr:
        served.error += line
