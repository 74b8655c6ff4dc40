"""`mirror sync`: what a snapshot holds is what the folder held, and what a run says of it is true.

Truth is what the system says of the source and of what a restore gives back.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from conftest import S3
from drive import as_nobody, cli, give_to_nobody, process, same, shape, shared_folder, truth
from mirrors import BEGINNING, make_site, mirror, noise, settle, target_in, tree, write

from mirror.events import Change, Job, Notice, Stamped
from mirror.making import Making
from mirror.restore import RestoreOptions, restore
from mirror.site import SiteSpec
from mirror.store import StoreSpec
from mirror.survey import LookOptions
from mirror.sync import SyncOptions, SyncReport, sync
from mirror.target import TargetSpec

__all__ = ["shared_folder"]
MAKE = Making("packed", "www")


class Heard(Job):
    """A job that keeps what is said."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        super().__init__("sync", [self._hear])

    def _hear(self, stamped: Stamped) -> None:
        self.events.append(stamped.event)

    @property
    def lines(self) -> list[str]:
        """symbol, path and, for moves, where from."""
        changes = [event for event in self.events if isinstance(event, Change)]
        return [f"{c.symbol} {c.path}" + (f" from {c.moved_from}" if c.moved_from else "") for c in changes]


def night(site: Path, target: TargetSpec, **options: Any) -> tuple[SyncReport, list[str]]:
    """One sync without problems: its report and its lines."""
    job = Heard()
    report = sync(SiteSpec(str(site)), target, SyncOptions(**({"making": MAKE, "workers": 0} | options)), job)
    assert report.problems == []
    return report, job.lines


def back(target: TargetSpec, out: Path, at: str = "latest", **options: Any) -> Path:
    """A restore without problems."""
    report = restore(target, str(out), RestoreOptions(at=at, workers=0, **options))
    assert (report.problems, report.notices) == ([], [])
    return out


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path / "site")


@pytest.fixture
def target(tmp_path: Path) -> TargetSpec:
    return target_in(tmp_path)


def place(target: TargetSpec) -> Path:
    return Path(target.store.url)


# -- every kind of entry ------------------------------------------------------------------------------------------------


def test_every_kind_of_entry_comes_back(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    write(site / "before 1970", b"old", -1_234_567_890_123_456_789)
    write(site / "mode 0", b"locked")
    write(site / "set-id", b"#!/bin/sh\n")
    (site / "loop").symlink_to("loop")
    (site / "up").symlink_to("..")
    (site / "to folder").symlink_to("pages/")
    with open(site / "sparse", "wb") as stream:
        stream.write(b"begin")
        stream.truncate(20_000_000)
        stream.seek(12_345_678)
        stream.write(b"middle")
    os.utime(site / "sparse", ns=(BEGINNING, BEGINNING))
    (site / "shut").mkdir()
    write(site / "shut" / "inside", b"inside")
    settle(site)
    os.utime(site / "hollow", ns=(-5, -5))
    if os.geteuid() == 0:
        os.chown(site / "one", 12345, 54321)
        os.chown(site / "link", 12345, 54321, follow_symlinks=False)
        os.chown(site / "hollow", 1, 2)
    os.chmod(site / "mode 0", 0)
    os.chmod(site / "set-id", 0o4755)
    os.chmod(site / "hollow", 0o1777)
    os.chmod(site, 0o711)
    if os.geteuid() == 0:
        os.chmod(site / "shut", 0o000)

    report, lines = night(site, target)
    assert report.snapshot == 1
    assert report.added == len(truth(site)) == report.entries
    assert "+ odd/new\\nline" in lines
    assert "+ odd/latin-\\xe9.html" in lines
    same(site, back(target, tmp_path / "out"))
    assert (tmp_path / "out" / "sparse").stat().st_blocks * 512 < 1_000_000


def test_the_roots_own_metadata_is_mirrored(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    night(site, target)
    os.chmod(site, 0o750)
    os.utime(site, ns=(1, 987_654_321))
    report, lines = night(site, target)
    assert (report.described, lines) == (1, [". ./"])
    same(site, back(target, tmp_path / "out"))


def test_an_empty_folder_and_a_lone_file(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    site.mkdir()
    assert night(site, target)[0].entries == 1
    write(site / "a", b"a")
    assert night(site, target)[0].added == 1
    same(site, back(target, tmp_path / "out"))
    assert list(truth(back(target, tmp_path / "first", "1"))) == [b""]


def test_times_that_no_clock_shows(tmp_path: Path, target: TargetSpec, memory_folder: Path) -> None:
    """A broken clock, or a filesystem that stores 64 bits of seconds, gives times that no calendar has."""
    site = memory_folder / "site"
    for number, seconds in enumerate((-(2**31), 2**31, 2**33, 2**34 - 1, 2**40, 2**62, -(2**62))):
        write(site / f"{number}", b"x" * number)
        try:
            os.utime(site / f"{number}", ns=(0, seconds * 10**9 + 5))
        except (OSError, OverflowError):
            os.unlink(site / f"{number}")
    os.symlink("0", site / "link")
    os.utime(site / "link", ns=(0, 2**62 * 10**9), follow_symlinks=False) if memory_folder != tmp_path else None
    os.utime(site, ns=(0, 2**62 * 10**9)) if memory_folder != tmp_path else None
    report, _ = night(site, target)
    assert report.entries == len(truth(site))
    assert night(site, target)[0].snapshot == 0
    listed = cli("ls", place(target), "-l")
    assert (listed.code, len(listed.out.splitlines())) == (0, report.entries)
    assert cli("verify", place(target), "--against", site).code == 0
    assert truth(back(target, tmp_path / "out")).keys() == truth(site).keys()


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where times have 64 bits of seconds, if this system has such a place."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="mirror-test-", dir="/dev/shm"))
    except OSError:
        yield tmp_path
        return
    yield folder
    shutil.rmtree(folder)


def test_a_file_of_many_chunks_that_outgrows_its_class(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    data = noise(9_000_000)
    write(site / "log", data[:2_000_000])
    night(site, target)
    write(site / "log", data[:7_000_000], BEGINNING + 1)
    grown, _ = night(site, target)
    assert grown.bytes_new < 5_100_000, "an appended file costs what was appended"
    write(site / "log", data * 4, BEGINNING + 2)  # 36 MB: class 0 ends at 32 MiB
    assert night(site, target)[0].changed == 1
    for number, size in ((1, 2_000_000), (2, 7_000_000), (3, 36_000_000)):
        out = back(target, tmp_path / f"out{number}", str(number))
        assert (out / "log").stat().st_size == size
        assert (out / "log").read_bytes() == (data * 4)[:size]


# -- what changed -------------------------------------------------------------------------------------------------------


def test_renames_cost_nothing_and_are_called_moves(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    night(site, target)
    (site / "pages").rename(site / "seiten")
    (site / "big.bin").rename(site / "a" / "big again.bin")
    os.utime(site / "a", ns=(BEGINNING, BEGINNING))
    os.utime(site, ns=(BEGINNING, BEGINNING))
    report, lines = night(site, target)
    assert report.moved == 42
    assert report.bytes_new == 0
    assert (report.added, report.deleted) == (1, 1), "the folder itself"
    assert "> a/big again.bin from big.bin" in lines
    assert "> seiten/page-07.html from pages/page-07.html" in lines
    assert not [line for line in lines if line[0] in "+-" and not line.endswith("/")]
    same(site, back(target, tmp_path / "out"))


def test_touch_and_chmod_describe_anew(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    night(site, target)
    os.utime(site / "index.html", ns=(BEGINNING + 5, BEGINNING + 5))
    os.chmod(site / "empty", 0o600)
    os.utime(site / "broken", ns=(7, 7), follow_symlinks=False)
    report, lines = night(site, target)
    assert (report.bytes_new, report.changed, report.described) == (0, 1, 2)
    assert sorted(lines) == ["* broken", ". empty", ". index.html"]
    same(site, back(target, tmp_path / "out"))


def test_a_change_that_keeps_size_and_time(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    """npm gives every file one mtime: ctime tells; without local state only -c does."""
    night(site, target)
    before = truth(site)[b"index.html"]
    write(site / "index.html", b"<h1>HELLO</h1>\n")
    assert truth(site)[b"index.html"].mtime == before.mtime
    assert night(site, target)[1] == ["* index.html"]

    write(site / "index.html", b"<h1>Hallo</h1>\n")
    assert target.cache
    shutil.rmtree(target.cache)
    assert night(site, target)[1] == [], "size and mtime decide where nothing is remembered, as in rsync"
    assert night(site, target, look=LookOptions(checksum=True))[1] == ["* index.html"]
    same(site, back(target, tmp_path / "out"))


def test_hard_links_are_made_changed_and_broken(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "a", b"one content " * 1000)
    os.link(site / "a", site / "m")
    os.link(site / "a", site / "z")
    write(site / "lone", b"lone")
    settle(site)
    night(site, target)
    first = truth(site)

    with open(site / "m", "r+b") as stream:  # all three change
        stream.write(b"ONE")
    os.utime(site / "m", ns=(BEGINNING + 1, BEGINNING + 1))
    settle(site)
    assert night(site, target)[1] == ["* a", "* m", "* z"]
    second = truth(site)

    os.unlink(site / "a")  # another one is the first now
    write(site / "z", b"broken off", BEGINNING + 2)
    os.unlink(site / "z")
    write(site / "z", b"broken off", BEGINNING + 2)
    os.link(site / "lone", site / "lone too")
    settle(site)
    night(site, target)
    for number, there in enumerate((first, second, truth(site)), 1):
        assert truth(back(target, tmp_path / f"out{number}", str(number))) == there


KINDS = {
    "file": lambda p: write(p, b"a file of that name"),
    "folder": lambda p: (write(p / "below" / "x", b"x"), write(p / "y", b"y")),
    "empty folder": lambda p: p.mkdir(),
    "symlink": lambda p: p.symlink_to("keep"),
    "link to folder": lambda p: p.symlink_to("kept"),
}


@pytest.mark.parametrize(("before", "after"), list(permutations(KINDS, 2)))
def test_a_path_changes_its_kind(tmp_path: Path, target: TargetSpec, before: str, after: str) -> None:
    """In the source between two nights, and then in a folder that is restored in place, both ways."""
    site = tmp_path / "site"
    write(site / "keep", b"keep " * 100)
    write(site / "kept" / "a", b"a")
    KINDS[before](site / "p")
    settle(site)
    night(site, target)
    first = truth(site)
    shutil.rmtree(site / "p") if not (site / "p").is_symlink() and (site / "p").is_dir() else os.unlink(site / "p")
    KINDS[after](site / "p")
    settle(site)
    night(site, target)
    assert truth(back(target, tmp_path / "out")) == truth(site)
    assert truth(back(target, tmp_path / "out", "1", in_place=True, delete=True)) == first
    assert truth(back(target, tmp_path / "out", "2", in_place=True, delete=True)) == truth(site)


def test_fifos_and_sockets_are_left_out(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    os.mkfifo(site / "pipe")
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(site)  # a socket's name may have only 107 bytes
        listener.bind("socket")
        os.chdir(here)
        settle(site)
        report = sync(SiteSpec(str(site)), target, SyncOptions(MAKE, workers=0))
    assert {(p.path, p.kind, p.exit_code) for p in report.problems} == {("pipe", "special", 0), ("socket", "special", 0)}
    assert report.exit_code == 0
    os.unlink(site / "pipe")
    os.unlink(site / "socket")
    settle(site)
    same(site, back(target, tmp_path / "out"))


def test_a_file_that_became_a_fifo_is_gone(site: Path, target: TargetSpec) -> None:
    night(site, target)
    os.unlink(site / "index.html")
    os.mkfifo(site / "index.html")
    report = sync(SiteSpec(str(site)), target, SyncOptions(workers=0))
    assert (report.deleted, report.exit_code) == (1, 0)


# -- nothing to do ------------------------------------------------------------------------------------------------------


def test_a_night_without_changes_reads_five_objects_and_writes_none(site: Path, target: TargetSpec) -> None:
    night(site, target)
    write(site / "new", b"new")
    night(site, target)
    time.sleep(2.1)  # until then a file might have changed once more within the same tick of the clock
    assert night(site, target)[0].snapshot == 0
    before = shape(place(target))
    for _ in range(3):
        report, lines = night(site, target)
        assert (report.snapshot, lines, report.files_read, report.bytes_uploaded) == (0, [], 0, 0)
    assert shape(place(target)) == before
    assert sum(report.requests.values()) <= 5, report.requests
    assert "create" not in report.requests


def test_a_night_without_changes_on_s3(site: Path, s3: S3, tmp_path: Path) -> None:
    target = TargetSpec(s3.spec(), tmp_path / "cache")
    night(site, target)
    before = s3.objects()
    time.sleep(2.1)
    assert night(site, target)[0].snapshot == 0
    report, _ = night(site, target)
    assert report.snapshot == 0
    assert sum(report.requests.values()) <= 5, report.requests
    assert s3.objects() == before
    same(site, back(target, tmp_path / "out"))


def test_tags_and_heartbeats_make_snapshots(site: Path, target: TargetSpec) -> None:
    night(site, target)
    assert night(site, target, tags=("release", "v1"))[0].snapshot == 2
    report, lines = night(site, target, heartbeat=True)
    assert (report.snapshot, lines, report.bytes_stored) == (3, [], 0)
    record = json.loads((place(target) / "log" / "000000000002.json").read_bytes())
    assert (record["tags"], record["totals"]["added"]) == (["release", "v1"], 0)
    assert night(site, target)[0].snapshot == 0


def test_a_dry_run_writes_nothing_anywhere(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    everything = shape(tmp_path)
    report, lines = night(site, target, dry_run=True)
    assert (report.snapshot, report.added) == (0, len(truth(site)))
    assert len(lines) == report.added
    assert shape(tmp_path) == everything, "no target, no cache"

    night(site, target)
    (site / "big.bin").rename(site / "bigger.bin")
    write(site / "index.html", b"<h1>new</h1>", BEGINNING + 1)
    os.unlink(site / "empty")
    settle(site)
    assert target.cache
    kept = shape(place(target)), shape(site), {p: there.content for p, there in truth(target.cache).items()}
    report, planned = night(site, target, dry_run=True)
    assert (shape(place(target)), shape(site), {p: there.content for p, there in truth(target.cache).items()}) == kept
    assert (report.moved, report.changed, report.deleted, report.added) == (1, 1, 1, 0)
    assert planned == ["> bigger.bin from big.bin", "- empty", "* index.html"]
    assert night(site, target)[1] == planned, "and then it happens as planned"


# -- limits -------------------------------------------------------------------------------------------------------------


def test_max_transfer_stops_and_the_next_run_goes_on(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    for number in range(3):
        write(site / f"{number}.bin", noise(40 << 20, number))
    time.sleep(2.1)  # a file is remembered once it is older than the clock's grain
    cache = ("--cache-dir", target.cache)
    limits = ("--max-transfer", "60M", "--workers", 0)
    stopped = cli("sync", site, place(target), "--layout", "packed", "--site", "www", *cache, *limits)
    assert stopped.code == 8
    assert "goes on from here" in stopped.error
    assert cli("snapshots", place(target)).out == ""
    held = sum(there.stat().st_size for there in place(target).rglob("packs/*/*"))
    assert 80 << 20 <= held < 90 << 20
    report, _ = night(site, target)
    assert report.snapshot == 1
    assert report.files_resumed == 2
    assert report.bytes_stored < 42 << 20


def test_max_duration_stops_and_the_next_run_goes_on(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    options = ("--max-duration", "0.0001s", "--cache-dir", target.cache)
    stopped = cli("sync", site, place(target), "--layout", "packed", "--site", "www", *options)
    assert stopped.code == 10
    assert "--max-duration" in stopped.error
    assert night(site, target)[0].snapshot == 1
    same(site, back(target, tmp_path / "out"))


def test_a_second_run_on_this_host_waits_or_goes_away(site: Path, target: TargetSpec) -> None:
    night(site, target)
    import fcntl

    write(site / "new", b"new")
    descriptor = os.open(place(target), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        refused = cli("sync", site, place(target))
        assert refused.code == 11
        assert "--wait" in refused.error
        assert cli("ls", place(target)).code == 0, "readers need no lock"
        assert cli("sync", site, place(target), "-n").code == 0
        waiting = process("sync", site, place(target), "--wait")
        time.sleep(1)
        assert waiting.poll() is None
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        _, err = waiting.communicate(timeout=30)
        assert waiting.returncode == 0, err
    finally:
        os.close(descriptor)
    assert "snapshot 2" in err


# -- what moves under our feet ------------------------------------------------------------------------------------------


class Meddler(Job):
    """Does something to the site once its scan is over."""

    def __init__(self, meddle: Any) -> None:
        self._meddle = meddle
        super().__init__("sync", [self._hear])

    def _hear(self, stamped: Stamped) -> None:
        if getattr(stamped.event, "phase", "") == "transfer":
            self._meddle()


def test_files_that_vanish_shrink_and_grow_before_they_are_read(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    night(site, target)
    write(site / "index.html", b"<h1>edited</h1>", BEGINNING + 1)
    write(site / "pages" / "page-01.html", b"edited", BEGINNING + 1)
    write(site / "fresh", b"fresh")

    def meddle() -> None:
        os.unlink(site / "index.html")
        os.unlink(site / "fresh")
        write(site / "pages" / "page-01.html", b"edited once more, and longer", BEGINNING + 2)

    report = sync(SiteSpec(str(site)), target, SyncOptions(workers=0), Meddler(meddle))
    assert {(p.path, p.kind) for p in report.problems} == {("index.html", "vanished"), ("fresh", "vanished")}
    assert report.exit_code == 24
    assert report.snapshot == 2
    out = back(target, tmp_path / "out")
    assert (out / "index.html").read_bytes() == b"<h1>hello</h1>\n", "the last good version stays"
    assert not (out / "fresh").exists()
    assert (out / "pages" / "page-01.html").read_bytes() == b"edited once more, and longer"
    again = sync(SiteSpec(str(site)), target, SyncOptions(workers=0))
    assert (again.problems, again.deleted) == ([], 1)
    same(site, back(target, tmp_path / "out2"))


def test_a_file_that_is_written_while_it_is_read(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "growing.log", noise(60_000_000))
    write(site / "quiet", b"quiet")
    over = threading.Event()

    def grow() -> None:
        with open(site / "growing.log", "r+b") as stream:
            while not over.is_set():
                stream.seek(0, os.SEEK_END)
                stream.write(b"one more line\n")
                stream.flush()
                time.sleep(0.001)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        report = sync(SiteSpec(str(site)), target, SyncOptions(MAKE, workers=0))
    finally:
        over.set()
        writer.join()
    assert {(p.path, p.kind) for p in report.problems} == {("growing.log", "changed")}
    assert report.exit_code == 24
    out = tmp_path / "out"
    assert restore(target, str(out), RestoreOptions(workers=0)).exit_code == 0
    data = (out / "growing.log").read_bytes()
    assert data == (site / "growing.log").read_bytes()[: len(data)], "what was kept is what was there"
    again = sync(SiteSpec(str(site)), target, SyncOptions(workers=0))
    assert (again.problems, again.snapshot) == ([], 2)


def test_a_folder_that_is_swapped_for_a_link_leads_nowhere(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    write(tmp_path / "secret" / "page-00.html", b"SECRET")

    def meddle() -> None:
        (site / "pages").rename(tmp_path / "away")
        (site / "pages").symlink_to(tmp_path / "secret")

    report = sync(SiteSpec(str(site)), target, SyncOptions(MAKE, workers=0), Meddler(meddle))
    assert report.exit_code == 24
    assert {p.kind for p in report.problems} == {"vanished"}
    out = tmp_path / "out"
    restore(target, str(out), RestoreOptions(workers=0))
    assert not [p for p in out.rglob("*") if p.is_file() and b"SECRET" in p.read_bytes()]


# -- without the rights -------------------------------------------------------------------------------------------------


def test_what_may_not_be_read_is_told_and_nothing_is_lost(shared_folder: Path) -> None:
    site, target, cache = shared_folder / "site", shared_folder / "work" / "target", shared_folder / "work" / "cache"
    write(site / "a", b"a")
    write(site / "private", b"first version")
    write(site / "closed" / "inside", b"inside")
    write(site / "gone", b"gone tomorrow")
    (shared_folder / "work").mkdir()
    give_to_nobody(shared_folder / "work")
    give_to_nobody(site)
    options = ("--cache-dir", cache, "--workers", 0)
    assert as_nobody("sync", site, target, "--layout", "packed", *options).code == 0

    write(site / "private", b"second version", BEGINNING + 1)
    os.chmod(site / "private", 0)
    os.chmod(site / "closed", 0)
    os.unlink(site / "gone")
    write(site / "new", b"new")
    done = as_nobody("sync", site, target, *options)
    assert done.code == 23
    assert "! private: permission denied; the previous version is kept" in done.err.lower()
    assert "! closed/: permission denied" in done.err
    assert "nothing was deleted" in done.err
    assert as_nobody("ls", target).out.splitlines() == ["./", "a", "closed/", "closed/inside", "gone", "new", "private"]
    assert as_nobody("cat", target, "private").out == "first version"
    assert as_nobody("cat", target, "closed/inside").out == "inside"
    assert "incomplete" in as_nobody("snapshots", target).out

    os.chmod(site / "private", 0o644)
    os.chmod(site / "closed", 0o755)
    done = as_nobody("sync", site, target, *options)
    assert done.code == 0, done.err
    assert as_nobody("ls", target).out.splitlines() == ["./", "a", "closed/", "closed/inside", "new", "private"]
    assert as_nobody("cat", target, "private").out == "second version"


def test_on_error_stop(shared_folder: Path) -> None:
    site = shared_folder / "site"
    write(site / "a", b"a")
    write(site / "closed" / "b", b"b")
    give_to_nobody(shared_folder)
    os.chmod(site / "closed", 0)
    options = ("--layout", "packed", "--on-error", "stop", "--cache-dir", shared_folder / "c")
    done = as_nobody("sync", site, shared_folder / "target", *options)
    assert done.code == 23
    assert "closed/" in done.error


# -- the same site elsewhere --------------------------------------------------------------------------------------------


def test_a_target_that_was_copied_elsewhere_takes_nothing_new(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    night(site, target)
    shutil.copytree(place(target), tmp_path / "copy", symlinks=True)
    copy = target_in(tmp_path, "copy")
    assert night(site, copy)[0].snapshot == 0
    shutil.rmtree(tmp_path / "cache")
    report, _ = night(site, copy)
    assert (report.snapshot, report.bytes_new) == (0, 0)
    write(site / "more", b"more")
    settle(site)
    report, lines = night(site, copy)
    assert (report.bytes_new, lines) == (4, ["+ more"])
    same(site, back(copy, tmp_path / "out"))


def test_a_target_that_was_set_back_one_night(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    night(site, target)
    shutil.copytree(place(target), tmp_path / "yesterday")
    write(site / "index.html", b"<h1>second night</h1>", BEGINNING + 1)
    write(site / "new.bin", noise(3_000_000, 9))
    settle(site)
    night(site, target)
    shutil.rmtree(place(target))
    shutil.copytree(tmp_path / "yesterday", place(target))
    report, lines = night(site, target)
    assert report.snapshot == 2
    assert set(lines) == {"* index.html", "+ new.bin"}
    assert report.bytes_new > 3_000_000, "what the cache remembers is not there any more"
    assert cli("verify", place(target), "--cache-dir", target.cache).code == 0
    same(site, back(target, tmp_path / "out"))


def test_set_back_but_for_the_hint(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    """The storage below us lost a night, and latest.json still names it."""
    night(site, target)
    shutil.copytree(place(target), tmp_path / "yesterday")
    write(site / "new", b"new")
    settle(site)
    night(site, target)
    hint = (place(target) / "latest.json").read_bytes()
    shutil.rmtree(place(target))
    shutil.copytree(tmp_path / "yesterday", place(target))
    (place(target) / "latest.json").write_bytes(hint)
    assert cli("ls", place(target)).code == 0
    assert night(site, target)[1] == ["+ new"]


def test_two_sources_into_one_target(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    night(site, target)
    shutil.copytree(site, tmp_path / "moved", symlinks=True)
    done = cli("sync", tmp_path / "moved", place(target), "--cache-dir", target.cache)
    assert done.code == 0
    assert f"the last snapshot came from {os.uname().nodename} {site}" in done.err
    write(tmp_path / "other" / "file", b"quite another site")
    done = cli("sync", tmp_path / "other", place(target), "--cache-dir", target.cache)
    assert done.code == 25
    assert str(tmp_path / "other") in done.error


def test_weird_names_for_everything(tmp_path: Path) -> None:
    """Source, target, cache and OUT may be called anything that the system allows."""
    names = (b"sp ace", b"latin-\xe9", b"new\nline", "schön".encode(), b"'quote\"", b"%41?#x", b"--x", b"a:b")
    for number, name in enumerate(names):
        folder = tmp_path / str(number) / os.fsdecode(name)
        site = folder / "site"
        write(site / "file", name)
        target = TargetSpec(StoreSpec(str(folder / "target")), folder / "cache")
        night(site, target)
        write(site / "two", name * 2)
        night(site, target)
        same(site, back(target, folder / "out"))
        assert cli("sync", site, folder / "target", "--cache-dir", folder / "cache", "--json").code == 0
        assert cli("verify", folder / "target", "--cache-dir", folder / "cache").code == 0


def test_many_workers_and_none_give_the_same(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for number in range(5):
        write(site / f"{number}.bin", noise(14_000_000, number % 3))
    alone, crowd = target_in(tmp_path, "alone", cache=False), target_in(tmp_path, "crowd", cache=False)
    one = mirror(site, alone)
    two = mirror(site, crowd, workers=2)
    assert (one.entries, one.bytes, one.bytes_new) == (two.entries, two.bytes, two.bytes_new)
    assert one.bytes_new == 3 * 14_000_000
    manifests = [{p.name for p in (place(t) / "manifests").rglob("*") if p.is_file()} for t in (alone, crowd)]
    assert manifests[0] == manifests[1]
    restore(crowd, str(tmp_path / "out"), RestoreOptions(workers=2))
    same(site, tmp_path / "out")


def test_the_modes_of_the_target_are_private(site: Path, target: TargetSpec) -> None:
    night(site, target)
    for path in [place(target), *place(target).rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_tree_is_read_by_the_truth(site: Path) -> None:
    """Two ways to look at a folder agree, so neither is blind."""
    one, two = tree(site), truth(site)
    assert one.keys() == two.keys()
    assert {p: (i.kind, i.mode, i.mtime) for p, i in one.items()} == {p: (i.kind, i.mode, i.mtime) for p, i in two.items()}


def test_notices_are_notices(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    night(site, target)
    shutil.copytree(site, tmp_path / "moved", symlinks=True)
    job = Heard()
    sync(SiteSpec(str(tmp_path / "moved")), target, SyncOptions(workers=0), job)
    assert [event.kind for event in job.events if isinstance(event, Notice)] == ["source-moved"]
