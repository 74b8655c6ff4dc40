"""Worker processes that die, fail, are interrupted or orphaned; and writes in the background."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from mirrors import write

from mirror.errors import DamageError, MirrorError
from mirror.workers import Ask, Background, Crew, Tell, example_task

# -- tasks: run in the workers ----------------------------------------------------------------------------------------


def identify_self(ask: Ask, tell: Tell, number: int) -> tuple[int, int]:
    tell(("begun", number))
    return os.getpid(), ask(number)


def die_while(ask: Ask, tell: Tell, marks: str, number: int, deaths: int, how: str) -> int:
    """Dies `deaths` times, then gives its number."""
    mark = Path(marks) / f"{number}-{os.getpid()}"
    mark.touch()
    if len(list(Path(marks).glob(f"{number}-*"))) <= deaths:
        if how == "mid-message":
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()
            tell(b"x" * (64 << 20))
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(ask: Ask, tell: Tell, what: str) -> Any:
    if what == "damage":
        raise DamageError("cannot use", where="packs/x", why="it is red", hint="paint it", kind="red")
    if what == "connection":
        raise ConnectionResetError("by peer")
    if what == "unpicklable":

        class Local(Exception):
            pass

        raise Local("only here")
    if what == "result":
        return lambda: None
    raise ValueError(what)


def wait_long(ask: Ask, tell: Tell, marks: str) -> None:
    (Path(marks) / str(os.getpid())).touch()
    time.sleep(60)


def mark_and_fail(marks: str) -> None:
    (Path(marks) / str(os.getpid())).touch()
    raise ValueError("no matter")


def ask_often(ask: Ask, tell: Tell, marks: str) -> None:
    (Path(marks) / str(os.getpid())).touch()
    for _ in range(600):
        try:
            ask(1)
        except Exception:  # noqa: BLE001 - as a task would that goes on to the next file
            continue
        time.sleep(0.1)


# -- what goes right --------------------------------------------------------------------------------------------------


def test_workers_get_ready_before_there_is_a_task(tmp_path: Path) -> None:
    with Crew(2) as crew:
        crew.warm(partial(mark_and_fail, str(tmp_path)))
        give_up = time.monotonic() + 30
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < give_up:
            time.sleep(0.02)
        ready = {int(path.name) for path in tmp_path.iterdir()}
        assert ready == set(crew.pids)
        results = crew.run(identify_self, ((n,) for n in range(4)), on_ask=lambda number, question: question)
        assert {process for _, (process, _) in results} <= ready


@pytest.mark.parametrize("processes", [0, 1, 3])
def test_every_task_is_answered_and_asks_in_the_callers_thread(processes: int) -> None:
    here, threads, begun = threading.get_ident(), set(), []
    told = []

    def answer(number: int, question: int) -> int:
        threads.add(threading.get_ident())
        assert question == number + 100
        return question * 2

    with Crew(processes) as crew:
        results = list(
            crew.run(
                identify_self,
                ((n + 100,) for n in range(8)),
                on_ask=answer,
                on_tell=lambda number, remark: told.append((number, remark)),
                on_begin=begun.append,
            )
        )
        again = list(crew.run(example_task, [(1,)], on_ask=lambda number, question: 5))
    assert sorted((number, twice) for number, (_, twice) in results) == [(n, 2 * (n + 100)) for n in range(8)]
    assert threads == {here}
    assert begun == list(range(8))
    assert sorted(told) == [(n, ("begun", n + 100)) for n in range(8)]
    assert again == [(0, 50)]
    pids = {pid for _, (pid, _) in results}
    assert (pids == {os.getpid()}) if not processes else (os.getpid() not in pids and 1 <= len(pids) <= processes)
    assert not any(psutil.pid_exists(pid) for pid in pids - {os.getpid()})


def test_no_more_workers_than_tasks() -> None:
    with Crew(4) as crew:
        list(crew.run(example_task, [(1,)], on_ask=lambda number, question: question))
        assert len(crew.pids) == 1


def test_a_path_object_in_sys_path_is_no_obstacle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    with Crew(1) as crew:
        assert list(crew.run(example_task, [(2,)], on_ask=lambda number, question: question)) == [(0, 20)]


# -- deaths -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["at once", "mid-message"])
def test_a_killed_worker_is_replaced_and_its_task_done_by_the_next(tmp_path: Path, how: str) -> None:
    tasks = [(str(tmp_path), number, int(number == 1), how) for number in range(4)]
    with Crew(2) as crew:
        results = list(crew.run(die_while, tasks))
        assert len(crew.pids) == 2
    assert sorted(results) == [(n, n) for n in range(4)]


def test_work_that_kills_two_workers_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match="died twice over the same work: exit status -9") as caught, Crew(2) as crew:
        list(crew.run(die_while, [(str(tmp_path), 0, 2, "at once"), (str(tmp_path), 1, 0, "at once")]))
    assert caught.value.kind == "worker-died"
    assert "--workers 1" in caught.value.hint
    assert not _children()


def test_deaths_over_different_work_do_not_add_up(tmp_path: Path) -> None:
    """A long run on a machine short of memory loses a worker now and then; each time the next one does the work."""
    with Crew(1) as crew:
        results = list(crew.run(die_while, [(str(tmp_path), number, 1, "at once") for number in range(3)]))
    assert sorted(results) == [(n, n) for n in range(3)]


def test_a_worker_that_dies_while_it_is_idle_is_replaced() -> None:
    with Crew(2) as crew:
        list(crew.run(identify_self, [(1,), (2,)]))
        for pid in crew.pids:
            os.kill(pid, signal.SIGKILL)
            psutil.Process(pid).wait(10) if psutil.pid_exists(pid) else None
        results = list(crew.run(example_task, [(1,), (2,), (3,)], on_ask=lambda number, question: question))
    assert sorted(results) == [(0, 10), (1, 20), (2, 30)]


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [0, 1])
def test_errors_cross_with_all_their_fields(processes: int) -> None:
    with pytest.raises(DamageError) as caught, Crew(processes) as crew:
        list(crew.run(fail, [("damage",)]))
    error = caught.value
    assert (error.what, error.where, error.why, error.hint, error.kind) == ("cannot use", "packs/x", "it is red", "paint it", "red")
    assert error.exit_code == 4


@pytest.mark.parametrize(
    ("what", "kind", "text"),
    [
        ("connection", ConnectionResetError, "by peer"),
        ("unpicklable", MirrorError, "Local: only here"),
        ("result", MirrorError, "a worker failed|Can't pickle"),
        ("plain", ValueError, "plain"),
    ],
)
def test_whatever_a_task_raises_ends_the_run_with_it(what: str, kind: type[Exception], text: str) -> None:
    """A task's own ConnectionError was taken for the parent's end: the worker left, twice, and the cause was lost."""
    with pytest.raises((kind, AttributeError) if what == "result" else kind, match=text), Crew(1) as crew:
        list(crew.run(fail, [(what,)]))
    assert not _children()


def test_an_error_of_the_callers_own_ends_the_workers() -> None:
    def full(number: int, remark: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), Crew(2) as crew:
        list(crew.run(identify_self, [(1,), (2,), (3,)], on_tell=full))
    assert not _children()


# -- signals, orphans -------------------------------------------------------------------------------------------------


def test_ctrl_c_is_the_parents_business() -> None:
    """A worker hears nothing of it, not even while it loads."""
    with Crew(1) as crew:
        results = crew.run(identify_self, [(n,) for n in range(2)], on_begin=lambda number: os.kill(crew.pids[0], signal.SIGINT))
        assert len(list(results)) == 2


def test_an_interrupted_parent_ends_its_workers(tmp_path: Path) -> None:
    def interrupt() -> None:
        _until(lambda: len(list(tmp_path.iterdir())) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), Crew(2) as crew:
        list(crew.run(wait_long, [(str(tmp_path),), (str(tmp_path),)]))
    thread.join()
    assert not _children()


def test_workers_whose_parent_is_killed_end_themselves(tmp_path: Path) -> None:
    code = (
        "import sys; from mirror.workers import Crew; from test_workers import ask_often\n"
        f"list(Crew(2).run(ask_often, [({str(tmp_path)!r},), ({str(tmp_path)!r},)], on_ask=lambda number, question: 1))"
    )
    path = os.pathsep.join(each for each in sys.path if each)
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    _until(lambda: len(list(tmp_path.iterdir())) == 2)
    workers = [int(mark.name) for mark in tmp_path.iterdir()]
    assert all(psutil.pid_exists(pid) for pid in workers)
    parent.kill()
    parent.wait()
    _until(lambda: not any(_lives(pid) for pid in workers))


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    """`mirror.sync` at the top of a script, with worker processes: they must not import the script."""
    site = tmp_path / "site"
    for number in range(60):
        write(site / f"{number:03}", os.urandom(1 << 20))
    script = tmp_path / "nightly.py"
    script.write_text(
        "import mirror\n"
        "print('top level')\n"
        f"report = mirror.sync({str(site)!r}, {str(tmp_path / 'target')!r}, layout='packed', workers=2)\n"
        "print(report.exit_code, report.added, report.bytes_read)\n"
    )
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": root}
    )
    assert (done.stdout, done.stderr) == (f"top level\n0 61 {60 << 20}\n", "")


# -- in the background ------------------------------------------------------------------------------------------------


def test_background_calls_are_bounded_and_all_made() -> None:
    running, most, done = 0, 0, []
    lock = threading.Lock()

    def call(number: int) -> Callable[[], None]:
        def run() -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.005)
            with lock:
                running -= 1
                done.append(number)

        return run

    background = Background(3, 6)
    for number in range(40):
        background.add(call(number))
        assert number - len(done) < 6 + 1
    background.settle()
    assert sorted(done) == list(range(40))
    assert 1 < most <= 3
    background.close()


def test_the_first_error_in_the_background_is_raised_and_ends_it() -> None:
    made = []

    def bad() -> None:
        raise DamageError("first")

    def slow() -> None:
        time.sleep(0.02)
        made.append(1)

    background = Background(1, 2)

    def add_all() -> None:
        background.add(bad)
        for _ in range(10):
            background.add(slow)

    with pytest.raises(DamageError, match="first"):
        add_all()
    assert len(made) < 10
    background.close()
    other = Background(2, 4)
    other.add(bad)
    with pytest.raises(DamageError):
        other.settle()
    other.close()


# -- looking around ---------------------------------------------------------------------------------------------------


def _children() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "mirror.workers" in " ".join(child.cmdline())]


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_orphans() -> Iterator[None]:
    yield
    assert not _children()
