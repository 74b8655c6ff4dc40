"""`--adopt`: a folder that is taken over as a tree keeps what is the site's already, as it is, and what is nobody's.

Truth is what the system says of the folder: inodes, and what is in `.mirror/`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from mirrors import BEGINNING, make_site, noise, settle, target_in, tree, write
from trees import clean, kinds, live, publish, restored

from mirror.events import Job
from mirror.making import Making
from mirror.site import SiteSpec
from mirror.site.live import LiveTree
from mirror.sync import SyncOptions, SyncReport, sync
from mirror.target import TargetSpec
from mirror.verify import verify

ADOPT = Making("tree", "www", adopt=True)


@pytest.fixture
def target(tmp_path: Path) -> TargetSpec:
    return target_in(tmp_path, "live")


def inodes(root: Path) -> dict[str, int]:
    """Of every file below a folder but the store's."""
    found = {
        str(path.relative_to(root)): path.stat().st_ino for path in root.rglob("*") if path.is_file() and not path.is_symlink()
    }
    return {name: number for name, number in found.items() if not name.startswith(".mirror/")}


def packs(root: Path) -> int:
    """Bytes in the packs of a tree."""
    return sum(path.stat().st_size for path in (root / ".mirror" / "packs").rglob("*") if path.is_file())


def test_equal_files_are_neither_written_nor_packed(tmp_path: Path, target: TargetSpec) -> None:
    site, root = make_site(tmp_path / "site"), Path(target.store.url)
    shutil.copytree(site, root, symlinks=True)
    for path in (root / "pages").iterdir():  # other times and modes: they are the same files all the same
        os.utime(path, ns=(BEGINNING + 99, BEGINNING + 99))
        path.chmod(0o600)
    write(root / "unknown" / "of nobody", b"unknown")
    before = inodes(root)
    report = publish(site, target, making=ADOPT)
    assert report.problems == []
    after = inodes(root)
    parted = {"pages/two", "three"}  # names of one file in the site, files of their own in the copy
    assert {name for name in before if after[name] != before[name]} <= parted
    assert (report.bytes_stored, report.bytes_history, packs(root)) == (0, 0, 0)
    assert not [path for path in (root / ".mirror" / "staged").rglob("*") if path.is_file()]
    assert (root / "unknown" / "of nobody").read_bytes() == b"unknown"
    seen = {path: item for path, item in live(target).items() if not path.startswith(b"unknown")}
    assert seen == tree(site)
    assert restored(target, report.snapshot, tmp_path / "out") == tree(site)
    assert verify(target).exit_code == 0
    assert publish(site, target).snapshot == 0


def test_what_differs_is_staged_and_what_stood_there_is_kept(tmp_path: Path, target: TargetSpec) -> None:
    site, root = tmp_path / "site", Path(target.store.url)
    write(site / "same", noise(500_000))
    write(site / "as long", noise(400_000, 1))
    write(site / "longer", noise(300_000, 2))
    write(site / "large", noise(3_000_000, 3))
    settle(site)
    shutil.copytree(site, root)
    write(root / "as long", noise(400_000, 9))
    write(root / "longer", b"short")
    write(root / "large", noise(3_000_000, 3)[:-1] + b"!")
    before = inodes(root)
    report = publish(site, target, making=ADOPT)
    assert kinds(report.problems) == [(name, "drift") for name in ("as long", "large", "longer")]
    assert report.bytes_stored == 3_700_000
    assert live(target) == tree(site)
    assert [name for name, number in inodes(root).items() if number == before[name]] == ["same"]
    aside = root / ".mirror" / "aside" / "1"
    assert (aside / "longer").read_bytes() == b"short"
    assert (aside / "as long").read_bytes() == noise(400_000, 9)


class Stranger:
    """Changes a live file, once, just when the tree is first written to: after it was compared."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.done = path, data, False

    def __call__(self, stamped: object) -> None:
        event = getattr(stamped, "event", None)
        if not self.done and getattr(event, "phase", "") == "commit":
            self.done = True
            write(self.path, self.data)


def test_a_file_changed_after_it_was_compared_is_not_taken_for_the_sites(tmp_path: Path, target: TargetSpec) -> None:
    """As long and as old as what was compared: only reading once more can tell."""
    site, root = tmp_path / "site", Path(target.store.url)
    write(site / "a", b"right")
    write(site / "b", b"other")
    settle(site)
    shutil.copytree(site, root)
    stranger = Stranger(root / "a", b"WRONG")
    job = Job("sync", [stranger])
    report: SyncReport = sync(SiteSpec(str(site)), target, SyncOptions(making=ADOPT, workers=0, min_free=0), job)
    assert stranger.done
    assert kinds(report.problems) == [("a", "drift")]
    assert (root / ".mirror" / "aside" / "1" / "a").read_bytes() == b"WRONG"
    assert live(target) == tree(site)
    assert restored(target, report.snapshot, tmp_path / "out") == tree(site)


def test_a_file_that_somebody_put_there_later_is_adopted_too(tmp_path: Path, target: TargetSpec) -> None:
    """Also after the first night: a colleague copied the page by hand before the sync came."""
    site, root = tmp_path / "site", Path(target.store.url)
    write(site / "a", b"one")
    settle(site)
    clean(site, target)
    write(site / "new", noise(200_000))
    settle(site)
    shutil.copy2(site / "new", root / "new")
    number = (root / "new").stat().st_ino
    report = clean(site, target)
    assert ((root / "new").stat().st_ino, report.bytes_stored, report.bytes_history) == (number, 0, 0)


def test_a_draft_of_a_dead_run_is_no_way_around(tmp_path: Path, target: TargetSpec) -> None:
    site, root = make_site(tmp_path / "site"), Path(target.store.url)
    shutil.copytree(site, root, symlinks=True)
    (root / ".mirror").mkdir(mode=0o700)
    with LiveTree(str(root)) as there:
        os.write(there.staging.begin(b"index.html"), b"stale")
    number = (root / "index.html").stat().st_ino
    assert publish(site, target, making=ADOPT).problems == []
    assert (root / "index.html").stat().st_ino == number
    assert live(target) == tree(site)
