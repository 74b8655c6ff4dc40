"""Work in other processes, and writes in the background of this one. Knows nothing of what the work is.

`Crew` runs one function over many tasks in N fresh processes (or, with none, in this one). A task's function gets `ask`, a
question to the process that began the run, and `tell`, a remark to it; both are answered by the thread that iterates over
`run`, so whoever owns the state is never called from two threads. Only tasks, questions, remarks and results cross; file
contents never do.

Processes are begun with a plain `python -c`, never by fork (obstore runs threads: a fork segfaults) and never through the caller's
`__main__` (a script without a guard would run twice). A worker that dies is replaced and its task given to the next one, once.

    >>> list(Crew(0).run(example_task, [(1,), (2,)], on_ask=lambda number, question: question + 1))
    [(0, 20), (1, 30)]
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_futures
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from mirror.errors import MirrorError

Ask = Callable[[Any], Any]
Tell = Callable[[Any], None]
Task = tuple[Any, ...]
_BOOT = "import sys,json; sys.path[:]=json.loads(sys.argv[1]); from mirror.workers import serve; serve(int(sys.argv[2]))"


def example_task(ask: Ask, tell: Tell, number: int) -> int:
    """Ten times the answer to the question `number`; shows the form of a task's function."""
    return 10 * int(ask(number))


class _Worker:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        path = [each for each in sys.path if isinstance(each, str)]
        # A Ctrl-C that comes while it loads waits until it says that it ignores it: no traceback of a worker.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _BOOT, json.dumps(path), str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.connection = Connection(ours.detach())
        self.task: tuple[int, Task] | None = None
        self.deaths = 0

    def begin(self, function: Callable[..., Any], number: int, task: Task) -> None:
        """Give it a task. One that is dead takes it as well: whoever listens to it hears of its end."""
        self.task = (number, task)
        with suppress(ConnectionError):
            self.connection.send((function, task))

    def end(self, kill: bool) -> None:
        self.connection.close()
        if kill:
            self.process.kill()
        self.process.wait()


class Crew:
    """N worker processes; 0: everything in the calling thread. Close it, or use it as a context manager."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._workers: list[_Worker] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for worker in self._workers:
            worker.end(kill=kind is not None or worker.task is not None)
        self._workers = []

    def warm(self, ready: Callable[[], object]) -> None:
        """Begin the processes now, and let each call this while the calling process still finds out what to do: it imports and
        opens what tasks will need. What it raises, the first task will meet."""
        while len(self._workers) < self.processes:
            self._workers.append(_Worker())
            with suppress(ConnectionError):
                self._workers[-1].connection.send((ready, None))

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [worker.process.pid for worker in self._workers]

    def run(
        self,
        function: Callable[..., Any],
        tasks: Iterable[Task],
        *,
        on_ask: Callable[[int, Any], Any] | None = None,
        on_tell: Callable[[int, Any], None] | None = None,
        on_begin: Callable[[int], None] | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """Results as (number of the task, result), in order of completion. The first exception of a task ends the run and is
        raised here. function: importable, `function(ask, tell, *task)`. A task may be told and asked about twice (after a
        worker's death)."""
        ask = on_ask or (lambda number, question: None)
        tell = on_tell or (lambda number, remark: None)
        begin = on_begin or (lambda number: None)
        numbered = enumerate(tasks)
        if not self.processes:
            for number, task in numbered:
                begin(number)
                yield number, function(partial(ask, number), partial(tell, number), *task)
            return
        yield from self._run_apart(function, numbered, ask, tell, begin)

    def _run_apart(
        self,
        function: Callable[..., Any],
        numbered: Iterator[tuple[int, Task]],
        ask: Callable[[int, Any], Any],
        tell: Callable[[int, Any], None],
        begin: Callable[[int], None],
    ) -> Iterator[tuple[int, Any]]:
        for number, task in numbered:
            idle = next((w for w in self._workers if w.task is None), None)
            if idle is None and len(self._workers) < self.processes:
                idle = _Worker()
                self._workers.append(idle)
            while idle is None:
                yield from self._answer(function, ask, tell)
                idle = next((w for w in self._workers if w.task is None), None)
            begin(number)
            idle.begin(function, number, task)
        while any(worker.task for worker in self._workers):
            yield from self._answer(function, ask, tell)

    def _answer(
        self, function: Callable[..., Any], ask: Callable[[int, Any], Any], tell: Callable[[int, Any], None]
    ) -> Iterator[tuple[int, Any]]:
        """Serve whoever has something to say, once."""
        busy = {worker.connection: worker for worker in self._workers if worker.task}
        for ready in wait(list(busy)):
            worker = busy[ready]  # type: ignore[index]
            assert worker.task
            number = worker.task[0]
            try:
                kind, value = worker.connection.recv()
            except (EOFError, OSError):  # OSError: it ended in the middle of a message
                self._replace(worker, function)
                continue
            if kind == "ask":
                answer = ask(number, value)
                with suppress(ConnectionError):
                    worker.connection.send(answer)
            elif kind == "tell":
                tell(number, value)
            elif kind == "done":
                worker.task, worker.deaths = None, 0
                yield number, value
            elif kind == "failed":
                worker.task = None
                raise value

    def _replace(self, worker: _Worker, function: Callable[..., Any]) -> None:
        code = worker.process.wait()
        assert worker.task
        number, task = worker.task
        worker.end(kill=True)
        self._workers.remove(worker)
        if worker.deaths:
            raise MirrorError(
                "a worker process died twice over the same work",
                why=f"exit status {code}",
                hint="out of memory? try --workers 1",
                kind="worker-died",
            )
        fresh = _Worker()
        fresh.deaths = worker.deaths + 1
        self._workers.append(fresh)
        fresh.begin(function, number, task)


def serve(descriptor: int) -> None:
    """A worker process: take tasks from the socket until it closes. Ctrl-C is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    connection = Connection(descriptor)
    gc.set_threshold(50_000, 50, 100)  # batches make many small values and no cycles

    def said(kind: str, value: Any) -> None:
        try:
            connection.send((kind, value))
        except ConnectionError:
            raise _ParentGone from None

    def heard() -> Any:
        try:
            return connection.recv()
        except (EOFError, OSError):
            raise _ParentGone from None

    def ask(question: Any) -> Any:
        said("ask", question)
        return heard()

    try:
        while True:
            function, task = heard()
            if task is None:  # `Crew.warm`
                with suppress(Exception):
                    function()
                continue
            try:
                said("done", function(ask, partial(said, "tell"), *task))
            except Exception as error:  # noqa: BLE001 - raised again in the parent
                said("failed", _portable(error))
    except _ParentGone:
        os._exit(0)  # so are the open temporary files


class _ParentGone(BaseException):
    """Nobody listens any more. No Exception: a task must not take it for a failure of a file or a store, and go on."""


def _portable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever pickling says, the parent must hear of the error
        return MirrorError("a worker failed", why=f"{type(error).__name__}: {error}")
    return error


class Background:
    """Calls in at most N threads with at most `ahead` waiting; `add` blocks past that. The first error is raised by the next
    `add` or by `settle`, and ends it: what has not begun is dropped."""

    def __init__(self, threads: int, ahead: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._ahead = ahead
        self._open: set[Future[Any]] = set()

    def add(self, call: Callable[[], Any]) -> None:
        """Begin the call when there is room."""
        while len(self._open) >= self._ahead:
            done, self._open = wait_futures(self._open, return_when=FIRST_COMPLETED)
            self._check(done)
        self._open.add(self._pool.submit(call))

    def settle(self) -> None:
        """Wait for all of them."""
        done, self._open = wait_futures(self._open)
        self._check(done)

    def _check(self, done: set[Future[Any]]) -> None:
        for future in done:
            if future.exception():
                self._pool.shutdown(wait=True, cancel_futures=True)
                raise future.exception()  # type: ignore[misc]

    def close(self) -> None:
        """Drop what has not begun, wait for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)
