"""Others at a tree while it is published: strangers who edit, delete and add, and readers of old snapshots.

A sync tells its events in its own thread, one after another, so a listener acts just between two steps of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from mirrors import BEGINNING, make_site, noise, settle, target_in, tree, write
from trees import MAKE, Night, all_restore, clean, kinds, live, publish, restored

from mirror.contents import cat
from mirror.errors import InTheWayError
from mirror.events import Event, Job, PhaseBegan, SnapshotCommitted, Stamped
from mirror.site import SiteSpec
from mirror.sync import SyncOptions, SyncReport, sync
from mirror.target import TargetSpec
from mirror.verify import verify


@pytest.fixture
def target(tmp_path: Path) -> TargetSpec:
    return target_in(tmp_path, "live")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path / "site")


def watched(site: Path, target: TargetSpec, act: Callable[[Event], None]) -> SyncReport:
    """A sync; `act` is called with each event."""

    def listen(stamped: Stamped) -> None:
        act(stamped.event)

    options = SyncOptions(making=MAKE, workers=0, min_free=0)
    return sync(SiteSpec(str(site)), target, options, Job("sync", [listen]))


def before_writing(edit: Callable[[], None]) -> Callable[[Event], None]:
    """Calls `edit` once, when all is packed and recorded and the first live file is about to be changed."""
    phases: list[Any] = []

    def act(event: Event) -> None:
        if isinstance(event, PhaseBegan) and event.phase == "write" and not phases:
            phases.append(event)
            edit()

    return act


def night(site: Path, number: int) -> None:
    """An edit of everything that a publish distinguishes."""
    write(site / "index.html", b"<h1>%d</h1>" % number, BEGINNING + number)
    write(site / "pages" / "page-01.html", b"<p>%d</p>" % number, BEGINNING + number)
    write(site / f"new-{number}.css", b"n%d" % number, BEGINNING)
    (site / "zeros").rename(site / "between")
    (site / "between").rename(site / "zeros")
    settle(site)


def test_an_edit_between_packing_and_writing_is_not_overwritten(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    first = clean(site, target).snapshot
    was = tree(site)
    night(site, 2)
    (site / "empty").unlink()
    settle(site)
    root = Path(target.store.url)

    def edit() -> None:
        write(root / "index.html", b"a stranger's", BEGINNING + 70)
        (root / "pages" / "page-01.html").unlink()
        write(root / "new-2.css", b"a stranger's too", BEGINNING + 70)

    report = watched(site, target, before_writing(edit))
    assert sorted(kinds(report.problems)) == [
        ("index.html", "unwritable"),
        ("new-2.css", "unwritable"),
        ("pages/page-01.html", "unwritable"),
    ]
    assert report.exit_code == 23
    assert (root / "index.html").read_bytes() == b"a stranger's"
    assert (root / "new-2.css").read_bytes() == b"a stranger's too"
    assert (root / "empty").exists()
    really = restored(target, report.snapshot, tmp_path / "out")
    assert {path: item for path, item in really.items() if item.kind == "file"} == {
        path: item for path, item in was.items() if item.kind == "file"
    }, "the snapshot does not say what was really written"
    report = publish(site, target)
    assert sorted(kinds(report.problems)) == [("index.html", "drift"), ("new-2.css", "drift"), ("pages/page-01.html", "drift")]
    assert live(target) == tree(site)
    kept = sorted(path.read_bytes() for path in (root / ".mirror" / "aside").rglob("*") if path.is_file())
    assert kept == [b"a stranger's", b"a stranger's too"]
    all_restore(target, {first: was, report.snapshot: tree(site)}, tmp_path)


def test_an_edit_that_keeps_size_and_time_is_noticed_too(site: Path, target: TargetSpec) -> None:
    clean(site, target)
    night(site, 2)
    root = Path(target.store.url)

    def edit() -> None:
        seen = (root / "index.html").stat()
        (root / "index.html").write_bytes(b"X" * seen.st_size)
        os.utime(root / "index.html", ns=(seen.st_mtime_ns, seen.st_mtime_ns))

    report = watched(site, target, before_writing(edit))
    assert kinds(report.problems) == [("index.html", "unwritable")]
    assert set((root / "index.html").read_bytes()) == {ord("X")}


def test_the_last_copy_of_moved_content_is_packed_before_it_is_deleted(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    for number in range(5):
        write(site / f"file-{number}", noise(30_000, number))
    settle(site)
    first = clean(site, target).snapshot
    was = tree(site)
    (site / "file-0").rename(site / "moved")
    (site / "file-1").rename(site / "moved too")
    settle(site)
    root = Path(target.store.url)

    def act(event: Event) -> None:
        if isinstance(event, SnapshotCommitted):  # the deletions are still to come
            write(root / "moved", b"a stranger's", BEGINNING + 70)

    assert watched(site, target, act).problems == []
    assert not (root / "file-0").exists()
    all_restore(target, {first: was}, tmp_path)


def test_old_snapshots_can_be_read_at_any_moment_of_a_publish(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    nights: dict[int, Night] = {clean(site, target).snapshot: tree(site)}
    (site / "big.bin").rename(site / "odd" / "moved.bin")
    (site / "three").unlink()
    (site / "a").rename(site / "b")
    write(site / "a", b"a file now")
    night(site, 2)
    read = []

    def act(event: Event) -> None:
        read.append(event)
        if isinstance(event, PhaseBegan | SnapshotCommitted):
            all_restore(target, nights, tmp_path)
        assert b"".join(cat(target, "2", "big.bin")) == noise(2_000_000)

    report = watched(site, target, act)
    assert report.problems == []
    assert len(read) > 8
    nights[report.snapshot] = tree(site)
    all_restore(target, nights, tmp_path)
    assert verify(target).problems == []


def test_a_verify_during_a_publish_finds_no_fault(site: Path, target: TargetSpec) -> None:
    clean(site, target)
    night(site, 2)
    (site / "empty").unlink()
    (site / "big.bin").rename(site / "moved.bin")
    settle(site)
    found: list[Any] = []

    def act(event: Event) -> None:
        found.extend(verify(target).problems)

    assert watched(site, target, act).problems == []
    assert found == []


def test_a_run_that_meets_another_one_says_so(site: Path, target: TargetSpec) -> None:
    clean(site, target)
    night(site, 2)
    errors: list[str] = []

    def act(event: Event) -> None:
        if isinstance(event, PhaseBegan) and event.phase in ("scan", "write"):
            with pytest.raises(InTheWayError) as caught:
                publish(site, target)
            errors.append(str(caught.value))

    assert watched(site, target, act).problems == []
    assert len(errors) >= 2
    assert all("another run on this host" in error for error in errors)


_SYNCS = """
import os, random, sys
from pathlib import Path
from types import FrameType
from mirror.site import SiteSpec
from mirror.store import StoreSpec
from mirror.sync import SyncOptions, sync
from mirror.target import TargetSpec
site, live = Path(sys.argv[1]), sys.argv[2]
chance = random.Random(5)
for number in range(25):
    files = sorted(path for path in site.rglob("*") if path.is_file() and path.name != "constant")
    for path in chance.sample(files, 12):
        if chance.randrange(2):
            path.rename(path.with_name(f"{number}-{chance.randrange(10**6)}"))
        else:
            path.write_bytes(chance.randbytes(3000))
    report = sync(SiteSpec(str(site)), TargetSpec(StoreSpec(live)), SyncOptions(workers=0, min_free=0))
    assert report.exit_code == 0 or {p.exit_code for p in report.problems} == {24}, report.problems
"""


def test_readers_beside_many_publishes_never_see_damage(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    for number in range(40):
        write(site / f"{number % 4}" / f"file-{number}", noise(3_000, number))
    write(site / "constant", b"constant")
    settle(site)
    first = clean(site, target).snapshot
    was = tree(site)
    command = [sys.executable, "-c", _SYNCS, str(site), target.store.url]
    count = 0
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}) as syncs:
        while syncs.poll() is None:
            assert restored(target, first, tmp_path / "out") == was
            count += 1
    assert syncs.returncode == 0
    assert count >= 5
    assert verify(target).problems == []
    shutil.rmtree(site)


def test_content_that_moves_away_from_an_overwritten_path_is_packed(tmp_path: Path, target: TargetSpec) -> None:
    """The other path may fail, and then there would be none."""
    site = tmp_path / "site"
    for number in range(4):
        write(site / f"file-{number}", noise(30_000, number))
    settle(site)
    first = clean(site, target).snapshot
    was = tree(site)
    (site / "file-0").rename(site / "moved")
    write(site / "file-0", b"overwritten", BEGINNING + 1)
    settle(site)
    root = Path(target.store.url)
    report = watched(site, target, before_writing(lambda: write(root / "moved", b"a stranger's", BEGINNING + 70)))
    assert kinds(report.problems) == [("moved", "unwritable")]
    assert (root / "file-0").read_bytes() == b"overwritten"
    all_restore(target, {first: was}, tmp_path)


@pytest.mark.parametrize("where", ["exchange", "deletion"])
def test_an_edit_between_the_look_and_the_rename_is_put_back(site: Path, target: TargetSpec, where: str) -> None:
    """What a rename displaced is looked at afterwards. The profiler acts in the very moment between the two."""
    clean(site, target)
    write(site / "index.html", b"new", BEGINNING + 1)
    (site / "empty").unlink()
    settle(site)
    root = Path(target.store.url)
    path = root / ("index.html" if where == "exchange" else "empty")
    edited: list[str] = []

    def profile(frame: FrameType, event: str, argument: object) -> None:
        exchanging = event == "call" and frame.f_code.co_name == "rename_noting" and frame.f_locals["flags"] == 2
        taking = event == "c_call" and argument is os.rename and frame.f_code.co_name == "take_away"
        if (exchanging if where == "exchange" else taking) and not edited:
            edited.append(where)
            path.unlink()
            write(path, b"a stranger's", BEGINNING + 70)

    sys.setprofile(profile)
    try:
        report = publish(site, target)
    finally:
        sys.setprofile(None)
    assert edited
    assert kinds(report.problems) == [(path.name, "unwritable")]
    assert path.read_bytes() == b"a stranger's"
