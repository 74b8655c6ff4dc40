"""What lingers in a tree: `--delete-grace` keeps what left the site for some snapshots more, for visitors with yesterday's page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mirrors import BEGINNING, noise, settle, tree, write
from trees import Night, Walk, all_restore, clean, differing, live, publish

from mirror.envelope import SEGMENT
from mirror.log import Record, read_record
from mirror.manifest import cut_entries
from mirror.plan import DeletionLimit
from mirror.publishing import PublishOptions
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.steps import PAGES, order_of
from mirror.store import StoreSpec
from mirror.store.open import open_store
from mirror.sync import SyncReport
from mirror.target import TargetSpec
from mirror.verify import VerifyOptions, verify


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    release(site, 1)
    return site


@pytest.fixture
def target(tmp_path: Path) -> TargetSpec:
    return TargetSpec(StoreSpec(str(tmp_path / "live")), tmp_path / "cache")


def release(site: Path, number: int) -> None:
    """A release of a generated site: the page keeps its name, its assets have others each time."""
    for path in [*site.glob("static/*"), *site.glob("old-*")]:
        path.unlink()
    write(site / "index.html", b"<h1>%d</h1>" % number, BEGINNING + number)
    write(site / "static" / f"app.{number}.js", noise(3000, number), BEGINNING + number)
    write(site / "static" / f"style.{number}.css", noise(200, 1000 + number), BEGINNING + number)
    write(site / f"old-{number}.html", b"a page of one release", BEGINNING + number)
    settle(site)


def graced(site: Path, target: TargetSpec, grace: int, **options: Any) -> SyncReport:
    report = publish(site, target, publish=PublishOptions(grace=grace), **options)
    assert report.problems == [], report.problems
    return report


def newest(target: TargetSpec) -> Record:
    """The newest snapshot's record."""
    store = open_store(StoreSpec(target.store.url + "/.mirror"))
    numbers = sorted((int(stat.key[4:16]) for stat in store.list("log/")), reverse=True)
    return next(record for record in (read_record(store, number) for number in numbers) if record.kind == "snapshot")


def files(night: Night) -> set[str]:
    return {path.decode() for path in night if not path.endswith(b"/") and path}


def test_assets_stay_for_so_many_snapshots_and_pages_do_not(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    nights = {}
    for number in range(1, 6):
        release(site, number)
        nights[graced(site, target, 2).snapshot] = tree(site)
        extra = files(live(target)) - files(tree(site))
        gone = [old for old in (number - 2, number - 1) if old >= 1]
        assert extra == {f"static/{name}" for old in gone for name in (f"app.{old}.js", f"style.{old}.css")}
        assert verify(target).problems == []
    all_restore(target, nights, tmp_path)


def test_a_later_run_without_grace_deletes_them_all(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    nights = {}
    for number in range(1, 4):
        release(site, number)
        nights[graced(site, target, 5).snapshot] = tree(site)
    assert len(files(live(target)) - files(tree(site))) == 4
    assert graced(site, target, 5).snapshot == 0, "an unchanged night makes no snapshot, so nothing becomes due"
    assert len(files(live(target)) - files(tree(site))) == 4
    nights[clean(site, target).snapshot] = tree(site)  # nothing of the site has changed, and yet: a file may have to go
    assert max(nights) > 0
    assert graced(site, target, 0).snapshot == 0
    assert "lingers" not in newest(target).body
    assert "standing" not in newest(target).body
    all_restore(target, nights, tmp_path)


def test_a_snapshot_without_a_change_counts(site: Path, target: TargetSpec) -> None:
    graced(site, target, 1)
    release(site, 2)
    graced(site, target, 1)
    assert "static/app.1.js" in files(live(target))
    graced(site, target, 1, heartbeat=True)
    assert files(live(target)) == files(tree(site))
    assert verify(target).problems == []


def test_what_comes_back_stays_and_counts_anew(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    nights = {graced(site, target, 2).snapshot: tree(site)}
    release(site, 2)
    nights[graced(site, target, 2).snapshot] = tree(site)
    release(site, 1)
    before = (Path(target.store.url) / "static" / "app.1.js").stat()
    report = graced(site, target, 2)
    nights[report.snapshot] = tree(site)
    after = (Path(target.store.url) / "static" / "app.1.js").stat()
    assert before.st_ino == after.st_ino, "what stood there already was written again"
    assert report.bytes_history < 2000, "what stood there already was packed"
    for number in (3, 4):
        release(site, number)
        nights[graced(site, target, 2).snapshot] = tree(site)
        assert "static/app.1.js" in files(live(target)), "it left the site twice; the second time counts"
    release(site, 5)
    nights[graced(site, target, 2).snapshot] = tree(site)
    assert "static/app.1.js" not in files(live(target))
    all_restore(target, nights, tmp_path)


def test_what_comes_back_with_other_content(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    nights = {graced(site, target, 3).snapshot: tree(site)}
    release(site, 2)
    nights[graced(site, target, 3).snapshot] = tree(site)
    write(site / "static" / "app.1.js", b"another one", BEGINNING + 9)
    settle(site)
    nights[graced(site, target, 3).snapshot] = tree(site)
    assert live(target)[b"static/app.1.js"] == tree(site)[b"static/app.1.js"]
    assert verify(target).problems == []
    all_restore(target, nights, tmp_path)


def test_what_lingers_gives_way(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    """A file where a folder lingers, and a folder where a file does."""
    write(site / "becomes a folder", b"file", BEGINNING)
    write(site / "becomes a file" / "deep" / "a.css", b"deep", BEGINNING)
    write(site / "becomes a file" / "b.css", b"why", BEGINNING)
    settle(site)
    nights = {graced(site, target, 9).snapshot: tree(site)}
    (site / "becomes a folder").unlink()
    for path in ("becomes a file/deep/a.css", "becomes a file/b.css"):
        (site / path).unlink()
    (site / "becomes a file" / "deep").rmdir()
    (site / "becomes a file").rmdir()
    settle(site)
    nights[graced(site, target, 9).snapshot] = tree(site)
    assert {"becomes a folder", "becomes a file/deep/a.css"} <= files(live(target))
    write(site / "becomes a folder" / "inside.css", b"new", BEGINNING)
    write(site / "becomes a file", b"new", BEGINNING)
    settle(site)
    nights[graced(site, target, 9).snapshot] = tree(site)
    assert not (wrong := differing(live(target), tree(site))), wrong
    assert verify(target).problems == []
    all_restore(target, nights, tmp_path)


def test_folders_go_with_the_last_that_lingers_in_them(site: Path, target: TargetSpec) -> None:
    write(site / "static" / "img" / "a.png", b"png", BEGINNING)
    write(site / "empty" / "too" / "page.html", b"page", BEGINNING)
    settle(site)
    graced(site, target, 1)
    for path in ("static/img/a.png", "empty/too/page.html"):
        (site / path).unlink()
    for path in ("static/img", "empty/too", "empty"):
        (site / path).rmdir()
    settle(site)
    graced(site, target, 1)
    assert b"static/img/" in live(target)
    assert b"empty/" not in live(target), "nothing lingers in it"
    graced(site, target, 1, heartbeat=True)
    assert not (wrong := differing(live(target), tree(site))), wrong


def test_a_hard_link_that_lingers_is_not_touched_through_its_other_name(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    write(site / "a.css", noise(4000), BEGINNING)
    (site / "b.css").hardlink_to(site / "a.css")
    settle(site)
    nights = {graced(site, target, 5).snapshot: tree(site)}
    (site / "b.css").unlink()
    settle(site)
    nights[graced(site, target, 5).snapshot] = tree(site)
    (site / "a.css").chmod(0o600)
    settle(site)
    nights[graced(site, target, 5).snapshot] = tree(site)
    root = Path(target.store.url)
    assert (root / "a.css").stat().st_mode & 0o777 == 0o600
    assert (root / "b.css").stat().st_mode & 0o777 == 0o644
    assert (root / "b.css").read_bytes() == noise(4000)
    assert verify(target).problems == []
    all_restore(target, nights, tmp_path)


def test_verify_looks_at_what_lingers(site: Path, target: TargetSpec) -> None:
    first = graced(site, target, 1).snapshot
    release(site, 2)
    graced(site, target, 1)
    root = Path(target.store.url)
    (root / "static" / "app.1.js").write_bytes(noise(3000, 77))
    (root / "static" / "style.1.css").unlink()
    found = {(problem.path, problem.kind) for problem in verify(target).problems}
    assert found == {(path, kind) for path in ("static/app.1.js", "static/style.1.css") for kind in ("differs", "damaged")}
    assert {problem.path for problem in verify(target, VerifyOptions(quick=True)).problems} >= {"static/style.1.css"}
    whys = [problem.why for problem in verify(target).problems if problem.kind == "damaged"]
    assert all(f"snapshot {first}" in why for why in whys)


def test_what_somebody_changed_is_kept_aside_when_it_is_due(site: Path, target: TargetSpec) -> None:
    graced(site, target, 1)
    release(site, 2)
    graced(site, target, 1)
    root = Path(target.store.url)
    write(root / "static" / "app.1.js", b"somebody's work", BEGINNING + 99)
    release(site, 3)
    report = publish(site, target)
    assert [(problem.path, problem.kind) for problem in report.problems] == [("static/app.1.js", "drift")]
    assert [path.read_bytes() for path in (root / ".mirror" / "aside").rglob("app.1.js")] == [b"somebody's work"]
    assert not (root / "static" / "app.1.js").exists()


def test_after_a_failure_nothing_is_deleted_and_the_next_run_deletes_what_is_due(
    site: Path, target: TargetSpec, tmp_path: Path
) -> None:
    nights = {graced(site, target, 1).snapshot: tree(site)}
    release(site, 2)
    nights[graced(site, target, 1).snapshot] = tree(site)
    root = Path(target.store.url)
    write(site / "blocked.css", b"blocked", BEGINNING)
    release(site, 3)
    (root / "blocked.css").mkdir()
    write(root / "blocked.css" / "strange", b"not ours", BEGINNING)
    report = publish(site, target, publish=PublishOptions(grace=1))
    assert [problem.path for problem in report.problems] == ["blocked.css"]
    standing = files(live(target)) - {"blocked.css/strange"}
    assert standing == (files(tree(site)) - {"blocked.css"}) | {"old-2.html"} | {
        f"static/{name}" for old in (1, 2) for name in (f"app.{old}.js", f"style.{old}.css")
    }
    record = newest(target)
    assert not record.body["complete"]
    assert record.manifest.entries == len(live(target)) - 2 - 4, "what lingers is no part of the snapshot"
    assert {problem.path for problem in verify(target).problems} == {"blocked.css/", "blocked.css/strange"}
    (root / "blocked.css" / "strange").unlink()
    (root / "blocked.css").rmdir()
    nights[graced(site, target, 1).snapshot] = tree(site)
    assert not (wrong := differing(live(target), tree(site))), wrong  # an incomplete snapshot is one, too
    assert verify(target).problems == []
    all_restore(target, nights, tmp_path)


def test_what_could_not_be_deleted_when_it_was_due_goes_with_the_next_snapshot(site: Path, target: TargetSpec) -> None:
    """Also if that one changes nothing: it is known to stand there, though no list says since when."""
    graced(site, target, 1)
    (site / "static" / "app.1.js").unlink()
    settle(site)
    graced(site, target, 1)
    root = Path(target.store.url)
    write(site / "blocked.css", b"blocked", BEGINNING)
    settle(site)
    write(root / "blocked.css" / "strange", b"not ours", BEGINNING)
    assert [problem.path for problem in publish(site, target).problems] == ["blocked.css"]
    assert (root / "static" / "app.1.js").exists(), "a file failed, so nothing is deleted"
    (site / "blocked.css").unlink()
    settle(site)
    (root / "blocked.css" / "strange").unlink()
    (root / "blocked.css").rmdir()
    assert verify(target).problems == []
    graced(site, target, 3, heartbeat=True)
    assert files(live(target)) == files(tree(site))
    assert verify(target).problems == []


def test_the_manifest_of_what_stands_is_cut_as_if_cut_anew(site: Path, target: TargetSpec) -> None:
    """Thousands of files, so that there are many segments and forced cuts; a few linger here and there."""
    for number in range(9000):
        write(site / "many" / f"{number * 7919 % 9000:04}.bin", b"%d" % number, BEGINNING)
    settle(site)
    graced(site, target, 3)
    for number in (0, 5, 4097, 4098, 8998, 8999, *range(6000, 6040)):
        (site / "many" / f"{number:04}.bin").unlink()
    settle(site)
    graced(site, target, 3, max_delete=DeletionLimit(percent=100))
    store = open_store(StoreSpec(target.store.url + "/.mirror"))
    record, reader = newest(target), ManifestReader(store, None)
    assert record.standing.entries == record.manifest.entries + 46
    writer = ManifestWriter(store, 0, {})
    pieces = cut_entries(reader.entries(record.standing))
    assert writer.tree((writer.put(SEGMENT, piece) for piece in pieces), root_is_node=True) == record.standing
    shared = {ref.digest for ref in reader.leaves(record.manifest, SEGMENT)} & {
        ref.digest for ref in reader.leaves(record.standing, SEGMENT)
    }
    assert shared, "each segment was written again"


def test_what_the_record_says(site: Path, target: TargetSpec) -> None:
    graced(site, target, 2)
    release(site, 2)
    graced(site, target, 2)
    graced(site, target, 2, heartbeat=True)
    body = newest(target).body
    assert [ref is not None for ref in body["lingers"]] == [False, True]
    assert body["lingers"][1]["count"] == 2
    assert body["standing"]["count"] == body["manifest"]["count"] + 2
    json.dumps(body)


class Shadow:
    """What is to linger, told from the nights alone."""

    def __init__(self) -> None:
        self.last: Night = {}
        self.ages: dict[bytes, int] = {}
        self.items: Night = {}

    def step(self, now: Night, grace: int) -> Night:
        """The live tree after a snapshot of this night: the files that linger beside it."""
        for path in list(self.items):
            self.ages[path] += 1
        for path, item in self.last.items():
            if path not in now and path and not path.endswith(b"/") and order_of(path) != PAGES:
                self.ages[path], self.items[path] = 0, item
        for path in list(self.items):
            above = [path[:at] for at in range(len(path)) if path[at : at + 1] == b"/"]
            if self.ages[path] >= grace or path in now or path + b"/" in now or any(each in now for each in above):
                del self.items[path], self.ages[path]
        self.last = now
        return self.items


@pytest.mark.parametrize("grace", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_a_random_site_and_what_lingers_of_it(tmp_path: Path, seed: int, grace: int) -> None:
    walk, target = Walk(tmp_path / "site", seed), TargetSpec(StoreSpec(str(tmp_path / "live")), tmp_path / "cache")
    shadow, nights = Shadow(), {}
    for number in range(8):
        report = graced(walk.root, target, grace, max_delete=DeletionLimit(percent=100))
        if report.snapshot:
            nights[report.snapshot] = tree(walk.root)
            wanted = shadow.step(nights[report.snapshot], grace)
        seen = live(target)
        extra = {path: item for path, item in seen.items() if path not in nights[max(nights)]}
        missing = {path: item for path, item in nights[max(nights)].items() if seen.get(path) != item}
        assert not missing, (number, missing)
        assert {path: item for path, item in extra.items() if not path.endswith(b"/")} == wanted, number
        assert all(any(file.startswith(folder) for file in wanted) for folder in extra if folder.endswith(b"/"))
        assert verify(target).problems == []
        walk.edit()
    all_restore(target, nights, tmp_path)
