"""A publish on another machine: asked for, and followed to its end.

    done = publish_there(target, head, job, on_problem)

The `mirror serve` that holds a tree publishes it in a process of its own, whether anybody looks on or not. What it says meanwhile
is shown as this run's own progress. Whether it is done is not believed but read in the log: the import waits no more, nothing is
open, and the newest snapshot names it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from mirror import log
from mirror.errors import InterruptedRunError, InTheWayError, MirrorError, TemporaryError
from mirror.events import PROBLEM_KINDS as KINDS
from mirror.events import Advanced, Job, Notice, PhaseBegan, Problem, SnapshotCommitted
from mirror.store.served import ALIVE, ServedStore, Told
from mirror.target import Target
from mirror.unfinished import unfinished

_PATIENCE: Final = 60.0  # seconds without a word from the server, or without an end that the log knows
_QUIET: Final = 60.0  # seconds without news, after which that is said
_PAUSE: Final = 1.0
_DEATHS: Final = 5  # after which it is not asked for again
# Kinds of failures after which it is asked for again: the process said nothing of its end, or was ended together with the server.
DIED: Final = ("temporary", "interrupted")


class Published(NamedTuple):
    """record: the snapshot, None where nothing is published; bytes_history: of packs for what was displaced."""

    record: log.Record | None
    bytes_history: int = 0


def publish_there(target: Target, head: log.Record | None, job: Job, on_problem: Callable[[Problem], None]) -> Published | None:
    """Have the server publish what waits, or finish what is open, as of a head. None when the key has not the right to: then it
    waits. InTheWayError when something else was published instead, or another's publish is open that this key may not have
    finished; the error that the server met; TemporaryError when it says nothing any more."""
    waits = int(head.body.get("waits") or 0) if head else 0
    if head is None or not (waits or unfinished(target.store, head) is not None):
        return Published(log.newest_snapshot(target.store, head))
    following = _Following(ServedStore(target.spec.store), job, on_problem)
    try:
        newest = _followed(target, head, following)
    except KeyboardInterrupt:
        hint = "the server goes on with the publish; run the same command again to see its end"
        raise InterruptedRunError("interrupted", hint=hint) from None
    return Published(newest, following.history) if newest is not None else None


def _followed(target: Target, head: log.Record, following: _Following) -> log.Record | None:
    """Ask, and listen until it is done: the newest snapshot; None when the key has not the right to ask."""
    waits = int(head.body.get("waits") or 0)
    since, died = time.monotonic(), 0
    while True:
        may = following.store.publish()
        if not may and head.body.get("waits"):
            return None
        if following.listen():  # without the right as well: it may be going on, for somebody who has it
            since = time.monotonic()
        newer = log.read_head(target.store, head.number)
        assert newer is not None
        head = newer
        if not head.body.get("waits") and unfinished(target.store, head) is None:
            break
        if following.failure:
            died += following.failure.get("kind") in DIED
            if following.failure.get("kind") not in DIED or died >= _DEATHS:
                raise _error(target, following.failure)
        if not may and time.monotonic() - since > _PATIENCE / 2:
            why = f"a publish is open since before record {head.number}, and this key has not the right to have it finished"
            hint = f"try again when it is done; if it was left, somebody with that right says: mirror publish {target.url}"
            raise InTheWayError("cannot go on", where=target.url, why=why, hint=hint)
        if time.monotonic() - since > _PATIENCE:
            hint = "look at the log of the server; run the same command again to go on"
            raise TemporaryError("cannot publish", where=target.url, why="the server does not come to an end with it", hint=hint)
        time.sleep(_PAUSE)
    target.state.remember("head", str(head.number))
    newest = log.newest_snapshot(target.store, head)
    if waits and (newest is None or newest.body.get("import") != waits):
        why = f"another run published into it meanwhile, so record {waits} was overtaken"
        raise InTheWayError("cannot publish", where=target.url, why=why, hint="run the same command again")
    return newest


class _Following:
    """What a server says of its publish, said again here. failure: the error that ended it."""

    def __init__(self, store: ServedStore, job: Job, on_problem: Callable[[Problem], None]) -> None:
        self.store, self._job, self._on_problem = store, job, on_problem
        self._heard = 0
        self._news = time.monotonic()
        self.history = 0
        self.failure: dict[str, Any] = {}

    def listen(self) -> bool:
        """Hear it until the stream ends; whether a publish is going on there. It may be long without news: it waits for another
        run, or for its turn, or looks through millions of entries."""
        before, alive, self.failure = self._heard, False, {}
        try:
            for told in self.store.follow(self._heard):
                if told.name == ALIVE:
                    alive = True
                    self._say_if_quiet()
                    continue
                self._heard, self._news = max(self._heard, told.number), time.monotonic()
                self._say(told)
        except TemporaryError:
            pass  # the link broke, or the server ends: it is asked again
        return alive or self._heard > before

    def _say_if_quiet(self) -> None:
        if time.monotonic() - self._news >= _QUIET:
            text = "the server goes on, and has had nothing new to say for a minute; Ctrl-C leaves it to end the publish alone"
            self._job.say(Notice("quiet", text))
            self._news = time.monotonic() + 9 * _QUIET

    def _say(self, told: Told) -> None:
        values = told.values
        match told.name:
            case "phase":
                self._job.say(PhaseBegan(_text(values, "phase"), _count(values, "files"), _count(values, "bytes")))
            case "advanced":
                self._job.say(Advanced(_count(values, "files"), _count(values, "bytes")))
            case "problem":
                if _text(values, "kind") in KINDS:
                    self._on_problem(Problem(*(_text(values, name) for name in ("path", "kind", "why", "hint"))))
            case "notice":
                self._job.say(Notice(_text(values, "kind"), f"the server: {_text(values, 'text')}"))
            case "snapshot":
                self._job.say(SnapshotCommitted(_count(values, "snapshot")))
            case "summary":
                self.history = _count(values, "bytes_history")
                error = values.get("error")
                self.failure = error if isinstance(error, dict) else {}


def _error(target: Target, failure: dict[str, Any]) -> MirrorError:
    """What ended a publish there, as an error here."""
    what = " ".join(filter(None, (_text(failure, "what"), _text(failure, "where"))))
    why = ": ".join(filter(None, ("the server says", what, _text(failure, "why"))))
    hint = _text(failure, "hint") or "look at the log of the server"
    kind = TemporaryError if _text(failure, "kind") in ("disk-full", *DIED) else MirrorError
    return kind("cannot publish", where=target.url, why=why, hint=hint)


def _text(values: dict[str, Any], name: str) -> str:
    found = values.get(name, "")
    return "".join(each if each.isprintable() else " " for each in found)[:2000] if isinstance(found, str) else ""


def _count(values: dict[str, Any], name: str) -> int:
    found = values.get(name, 0)
    return found if type(found) is int and found >= 0 else 0
