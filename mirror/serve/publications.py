"""The publishes of a server's trees: each is `mirror publish FOLDER` in a process of its own, whoever looks on.

    publications = Publications(Terms(command, environment), say)
    publications.begin("www", "/srv/mirrors/www")     # unless one runs already
    async for piece in publications.of("www").follow(0): ...   # Server-Sent Events

A process, so that a publish neither slows those who are being answered nor grows this one; what it holds is on the disk, so that
after a death the next one goes on. What it says (JSON Lines, docs/events.md) is kept as far as somebody who comes late needs it.
All of this is touched by the event loop alone.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

EVENTS_KEPT: Final = 2000
BYTES_KEPT: Final = 2 << 20  # of these: a client may send paths of 64 KiB that cannot be published, and have each told
LINE_MOST: Final = 8 << 20  # of JSON: the summary names up to 10,000 problems
FOLLOW_SECONDS: Final = 25.0  # after which who follows asks again; a proxy may keep a connection no longer
_SILENCE: Final = 5.0  # seconds after which a word is said, so that nobody takes the link for dead
_TOLD: Final = ("phase", "advanced", "problem", "notice", "snapshot", "summary")
_END_SECONDS: Final = 8.0


@dataclass(frozen=True, slots=True)
class Terms:
    """How publishes are run. command: the words before the folder; environment: of the process; at_once: how many, the others wait
    for their turn."""

    command: Sequence[str]
    environment: Mapping[str, str]
    at_once: int = 2


@dataclass
class Publication:
    """One publish. over: it has ended."""

    numbers: itertools.count[int]
    over: bool = False
    process: asyncio.subprocess.Process | None = None
    task: asyncio.Task[None] | None = None
    _events: deque[tuple[int, bytes]] = field(default_factory=deque)
    _kept: int = 0  # bytes of these
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, line: bytes) -> dict[str, Any]:
        """Take in a line of what it says; the event."""
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            return {}
        if not isinstance(values, dict) or values.get("event") not in _TOLD:
            return {}
        kept = {name: value for name, value in values.items() if name not in ("event", "problems", "version", "site", "job")}
        number, name = next(self.numbers), values["event"]
        data = json.dumps(kept, ensure_ascii=True, separators=(",", ":"))
        self._keep(number, f"id: {number}\nevent: {name}\ndata: {data}\n\n".encode())
        self.wake()
        return values

    def _keep(self, number: int, event: bytes) -> None:
        """Keep an event for who follows; the oldest go, the newest stays however long it is."""
        self._events.append((number, event))
        self._kept += len(event)
        while len(self._events) > EVENTS_KEPT or (self._kept > BYTES_KEPT and len(self._events) > 1):
            self._kept -= len(self._events.popleft()[1])

    def wake(self) -> None:
        """Let those who follow look."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """What was said behind number `after` and what is being said, as Server-Sent Events; ends when the publish has, or a while
        later."""
        end = time.monotonic() + FOLLOW_SECONDS
        yield b": mirror\n\n"
        while True:
            changed = self._changed
            for number, event in [each for each in self._events if each[0] > after]:
                after = number
                yield event
            if self.over or time.monotonic() >= end:
                return
            try:
                await asyncio.wait_for(changed.wait(), _SILENCE)
            except TimeoutError:
                yield b": it goes on\n\n"


class Publications:
    """All of one server. say: told (kind, text) how each ended."""

    def __init__(self, terms: Terms, say: Callable[[str, str], None]) -> None:
        self._terms, self._say = terms, say
        self._by_name: dict[str, Publication] = {}
        self._numbers = itertools.count(int(time.time() * 1000))  # higher than those of a server before this one
        self._turns = asyncio.Semaphore(terms.at_once)

    def of(self, name: str) -> Publication | None:
        """The newest publish of the target of that name, None when there was none yet."""
        return self._by_name.get(name)

    def begin(self, name: str, folder: str) -> Publication:
        """Have what waits there published; gives the publish that runs already, if one does."""
        found = self._by_name.get(name)
        if found is None or found.over:
            found = self._by_name[name] = Publication(self._numbers)
            found.task = asyncio.get_running_loop().create_task(self._run(found, name, folder))
        return found

    async def close(self) -> None:
        """Stop what runs; what it has done is kept, and the next one goes on."""
        running = [found for found in self._by_name.values() if found.task is not None and not found.over]
        for found in running:
            if found.process is not None:
                with suppress(ProcessLookupError):
                    found.process.terminate()
            elif found.task is not None:
                found.task.cancel()
        if running:
            await asyncio.wait([found.task for found in running if found.task is not None], timeout=_END_SECONDS)

    async def _run(self, found: Publication, name: str, folder: str) -> None:
        said: dict[str, Any] = {}
        try:
            async with self._turns:
                said = await self._carry_out(found, folder)
        except OSError as error:
            why = error.strerror or str(error)
            said = {"error": {"kind": "error", "what": "cannot start a process", "why": why}}
            found.tell(json.dumps({"event": "summary", **said}).encode())
        finally:
            found.over = True
            found.wake()
        if failure := said.get("error"):
            what = " ".join(filter(None, (failure.get("what"), failure.get("where"))))
            self._say("publish-failed", ": ".join(filter(None, (name, what, failure.get("why")))))
        elif said.get("snapshot"):
            problems = f", {said['problem_count']:,} problems" if said.get("problem_count") else ""
            self._say("published", f"{name}: snapshot {said['snapshot']}{problems}")

    async def _carry_out(self, found: Publication, folder: str) -> dict[str, Any]:
        """Run it to its end; the summary, or why there is none."""
        process = found.process = await asyncio.create_subprocess_exec(
            *self._terms.command,
            folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(self._terms.environment),
            cwd="/",
            limit=LINE_MOST,
            start_new_session=True,
        )
        assert process.stdout is not None
        said: dict[str, Any] = {}
        try:
            async for line in process.stdout:
                told = found.tell(line)
                if told.get("event") == "summary":
                    said = told
        except ValueError:  # a line that is longer than that: what follows is not needed
            process.terminate()
        code = await process.wait()
        if not said:
            said = {"error": {"kind": "temporary", "what": "the process that publishes", "why": f"it ended with {code}"}}
            found.tell(json.dumps({"event": "summary", **said}).encode())
        return said
