"""Runs that are killed or interrupted, as whole process groups, and what the next run has to do again.

A run may lose what it did in its last 30 s or 256 MiB: two batches of 64 MiB in flight, and 128 MiB since the last checkpoint.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from drive import gone
from mirrors import BEGINNING, settle, tree, write

from mirror.transfer.up import UNPROVEN_NS

MIB = 1 << 20
REDO = 256 * MIB
ROOT = str(Path(__file__).parent.parent)


@dataclass
class Ran:
    """A run of the command that has ended: events by name, and how it ended. done: plain bytes of finished batches."""

    code: int
    err: str
    done: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def summary(self) -> dict[str, Any]:
        assert self.events[-1]["event"] == "summary", self.events[-1]
        return self.events[-1]


class Place:
    """A site and its target in folders."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.site, self.target = folder, folder / "site", folder / "target"

    def fill(self, mebibytes: int, seed: int = 0) -> int:
        """Files of all sizes, a quarter of them text; how many bytes. Old enough to be proven when they are read: what changed
        within 2 s of its read is not remembered, and would be read again."""
        chance, size, number = random.Random(seed), 0, 0
        words = [chance.randbytes(3).hex() for _ in range(500)]
        while size < mebibytes * MIB:
            length = chance.choice((20_000, 300_000, MIB, 6 * MIB))
            if number % 4 == 3:
                text = " ".join(chance.choices(words, k=2_000)).encode()
                data = b"\n".join(b"%d %d %s" % (number, n, text) for n in range(length // len(text) + 1))
            else:
                data = os.urandom(length)
            write(self.site / f"{number % 7}" / f"{number:05}", data, BEGINNING + number)
            size += len(data)
            number += 1
        settle(self.site)
        time.sleep(UNPROVEN_NS / 1e9 + 0.1)
        return size

    def sync(
        self,
        *,
        stop: Callable[[Ran], bool] | None = None,
        how: signal.Signals = signal.SIGKILL,
        group: bool = True,
        workers: int = 2,
    ) -> Ran:
        """`mirror sync`; when `stop` says so after an event, the whole process group (or the parent alone) gets the signal."""
        arguments = [str(self.site), str(self.target), "--layout", "packed", "--json", "--min-free", "0", "--workers", str(workers)]
        sizes: dict[int, int] = {}
        with open(self.folder / "stderr", "wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "mirror", "sync", *arguments],
                stdout=subprocess.PIPE,
                stderr=err,
                start_new_session=True,
                env=os.environ | {"PYTHONPATH": ROOT},
            )
        ran = Ran(0, "")
        stopped = False
        with process:
            assert process.stdout
            for line in process.stdout:
                event = json.loads(line) if line.endswith(b"\n") else {"event": "cut"}
                ran.events.append(event)
                if event["event"] == "batch-planned":
                    sizes[event["batch"]] = event["bytes"]
                if event["event"] == "batch-stored":
                    ran.done += sizes[event["batch"]]
                if stop and not stopped and stop(ran):
                    stopped = True
                    (os.killpg if group else os.kill)(process.pid, how)
        if stopped and group:
            gone(process.pid)
        ran.code = process.returncode
        ran.err = (self.folder / "stderr").read_text()
        assert "Traceback" not in ran.err, ran.err
        return ran

    def restored(self, at: str = "latest") -> bool:
        """Whether the snapshot comes back as the site is now."""
        out = self.folder / "out"
        command = [sys.executable, "-m", "mirror", "restore", str(self.target), str(out), "--at", at]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ROOT})
        assert done.returncode == 0, done.stderr
        same = tree(out) == tree(self.site)
        shutil.rmtree(out)
        return same

    def leftovers(self) -> list[Path]:
        return list((self.target / ".mirror-tmp").glob("*"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    yield Place(tmp_path)
    shutil.rmtree(tmp_path)


def past(share: float, total: int) -> Callable[[Ran], bool]:
    return lambda ran: ran.done >= share * total


def check_resumed(ran: Ran, total: int, done: int, redo: int = REDO) -> None:
    """That a run after one that had finished `done` bytes did little again."""
    report = ran.summary
    assert ran.code == 0, ran.err
    assert report["files_resumed"] > 0
    assert report["bytes_read"] <= total - done + redo
    assert report["bytes_stored"] <= total - done + redo


def test_a_first_sync_killed_at_80_percent_is_not_begun_again(place: Place) -> None:
    total = place.fill(340)
    killed = place.sync(stop=past(0.8, total))
    assert killed.code == -signal.SIGKILL
    again = place.sync()
    check_resumed(again, total, killed.done)
    assert again.summary["bytes_read"] < total - 16 * MIB  # 80 % less the 256 MiB that a kill may cost: two checkpoints
    assert "files had been read by an earlier run" in again.err
    assert not place.leftovers()
    assert place.restored()


@pytest.mark.parametrize(("how", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False)], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_sync_keeps_every_finished_batch(place: Place, how: signal.Signals, group: bool) -> None:
    total = place.fill(140)
    stopped = place.sync(stop=past(0.2, total), how=how, group=group)
    assert stopped.code == 130
    assert stopped.err.splitlines()[-1] == "mirror: interrupted; progress is kept; run the same command again to go on"
    assert stopped.summary["error"]["kind"] == "interrupted"
    assert stopped.done >= total // 5
    again = place.sync()
    check_resumed(again, total, stopped.done, redo=0)
    assert place.restored()
    assert place.sync().summary["snapshot"] == 0


def test_a_sync_killed_while_it_commits_has_not_happened_or_has(place: Place) -> None:
    """Whatever was on its way: the next run makes the snapshot, or finds it made."""
    for number in range(3000):
        write(place.site / f"{number % 30:02}" / f"{number}", b"%d" % number)
    settle(place.site)
    killed = place.sync(stop=lambda ran: ran.events[-1].get("phase") == "commit")
    assert killed.code in (0, -signal.SIGKILL)
    write(place.site / "later", b"later")
    settle(place.site)
    again = place.sync()
    assert again.code == 0
    assert again.summary["snapshot"] in (1, 2)
    assert again.summary["bytes_new"] < 100, "the packs of the killed run are used"
    assert not place.leftovers()
    assert place.restored()


def test_kills_at_any_moment_in_a_row(place: Place) -> None:
    """Before the target is made, while it scans, reads, stores, commits, leaves: always a run later all is well."""
    total = place.fill(60)
    chance = random.Random(9)
    for round_ in range(5):
        moment = chance.choice((1, 2, 3, 5, 8, 12))
        ran = place.sync(stop=lambda ran, moment=moment: len(ran.events) == moment)
        assert ran.code in (0, -signal.SIGKILL)
        write(place.site / "round", b"%d" % round_, BEGINNING + round_)
        settle(place.site)
    last = place.sync()
    assert last.code == 0, last.err
    assert last.summary["bytes_read"] <= total + 1
    assert place.restored()
    assert place.sync().summary["snapshot"] == 0
    assert not place.leftovers()


@pytest.mark.long
def test_two_kills_in_a_row_of_a_big_sync(place: Place) -> None:
    total = place.fill(900)
    first = place.sync(stop=past(0.5, total))
    assert first.code == -signal.SIGKILL
    second = place.sync(stop=past(0.3, total))
    assert second.code == -signal.SIGKILL
    third = place.sync()
    check_resumed(third, total, first.done + second.done - REDO)
    assert not place.leftovers()
    assert place.restored()


@pytest.mark.long
def test_an_incremental_sync_killed_at_80_percent(place: Place) -> None:
    place.fill(50)
    assert place.sync().code == 0
    before = tree(place.site)
    shutil.copytree(place.site, place.folder / "old", symlinks=True)
    shutil.rmtree(place.site / "3")
    shutil.copytree(place.folder / "old", place.site / "kept", symlinks=True)
    total = place.fill(600, seed=5)
    killed = place.sync(stop=past(0.8, total))
    assert killed.code == -signal.SIGKILL
    again = place.sync()
    check_resumed(again, total + 50 * MIB, killed.done)
    assert place.restored()
    now = place.site
    place.site = place.folder / "old"
    assert {path: item for path, item in tree(place.site).items() if item.kind == "file"} == {
        path: item for path, item in before.items() if item.kind == "file"
    }
    out = place.folder / "first"
    command = [sys.executable, "-m", "mirror", "restore", str(place.target), str(out), "--at", "1"]
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": ROOT}).returncode == 0
    assert tree(out) == before
    place.site = now


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
def test_five_kills_at_random_moments(place: Place, seed: int) -> None:
    """By time, not by event: also in the middle of writes."""
    total = place.fill(150, seed)
    chance = random.Random(seed)
    for round_ in range(5):
        pause = chance.uniform(0.05, 3.0)
        waited: list[float] = []

        def in_a_while(ran: Ran, pause: float = pause, waited: list[float] = waited) -> bool:
            if not waited:
                waited.append(pause)
                time.sleep(pause)
            return True

        ran = place.sync(stop=in_a_while)
        assert ran.code in (0, -signal.SIGKILL)
        write(place.site / "round", b"%d" % round_, BEGINNING + round_)
        settle(place.site)
    last = place.sync()
    assert last.code == 0, last.err
    assert last.summary["bytes_read"] <= total + 1
    assert place.restored()
    assert not place.leftovers()
