"""Targets of layout `tree`: people see just the site, every snapshot comes back, and what is not ours is never destroyed.

Truth is what the system says of the folders.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from drive import as_nobody, give_to_nobody, shape, shared_folder
from fsspec.implementations.memory import MemoryFileSystem
from mirrors import BEGINNING, make_site, noise, settle, target_in, tree, write
from msgspec.structs import replace
from trees import MAKE, Night, Walk, all_restore, clean, differing, kinds, live, publish, restored, some_of
from xxhash import xxh3_128_digest

from mirror import log
from mirror.chunking import chunk_id
from mirror.contents import cat, ls, snapshots, sums
from mirror.envelope import SEGMENT
from mirror.errors import DamageError, InTheWayError, UsageError
from mirror.events import Job, PhaseBegan, Stamped
from mirror.making import Making
from mirror.manifest import File, cut_entries
from mirror.plan import DeletionLimit
from mirror.restore import RestoreOptions, restore
from mirror.site import Site, SiteSpec
from mirror.site.live import Staging
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.store import StoreSpec
from mirror.store.fs import FolderStore
from mirror.sync import SyncOptions, sync
from mirror.target import TargetSpec, open_target
from mirror.transfer import up
from mirror.verify import VerifyOptions, verify

__all__ = ["shared_folder"]
EVERYTHING = DeletionLimit(percent=100)


@pytest.fixture
def target(tmp_path: Path) -> TargetSpec:
    return target_in(tmp_path, "live")


@pytest.mark.parametrize("seed", some_of(range(12), 2))
def test_a_walk_of_edits(tmp_path: Path, target: TargetSpec, seed: int) -> None:
    walk = Walk(tmp_path / "site", seed)
    nights: dict[int, Night] = {}
    for _ in range(8):
        report = clean(walk.root, target, max_delete=EVERYTHING)
        if report.snapshot:
            nights[report.snapshot] = tree(walk.root)
        walk.edit()
    assert len(nights) > 4
    all_restore(target, nights, tmp_path)


def test_what_a_tree_is(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    report = clean(site, target)
    root = Path(target.store.url)
    assert (report.target, report.snapshot, report.entries) == (str(root), 2, len(tree(site)))
    assert stat.S_IMODE((root / ".mirror").stat().st_mode) == 0o700
    assert not list((root / ".mirror" / "packs").rglob("*")) if (root / ".mirror" / "packs").exists() else True
    assert json.loads((root / ".mirror" / "mirror.json").read_text())["layout"] == "tree"
    assert [path for path in ls(target) if path.path.startswith(b".mirror")] == []
    before = shape(root)
    again = clean(site, target)
    assert (again.snapshot, again.requests.get("create", 0)) == (0, 0)
    assert again.requests["get"] <= 5
    assert shape(root) == before


def test_history_is_what_was_displaced(tmp_path: Path, target: TargetSpec) -> None:
    """Only what goes is packed: not what is new, not what stays, not what moves."""
    site = tmp_path / "site"
    for name in ("stays", "moves", "goes", "changes"):
        write(site / name, noise(100_000, len(name) + ord(name[0])))
    settle(site)
    first = clean(site, target)
    was = tree(site)
    (site / "moves").rename(site / "moved")
    (site / "goes").unlink()
    write(site / "changes", noise(100_000, 99), BEGINNING + 1)
    write(site / "new", noise(100_000, 98), BEGINNING + 1)
    settle(site)
    second = clean(site, target)
    packs = [path.stat().st_size for path in (Path(target.store.url) / ".mirror" / "packs").rglob("*") if path.is_file()]
    assert 200_000 < sum(packs) < 210_000
    assert (first.bytes_history, second.bytes_history) == (0, sum(packs))
    assert (second.bytes_new, second.bytes_stored) == (300_000, 300_000)  # staged
    assert verify(target).exit_code == 0
    all_restore(target, {first.snapshot: was, second.snapshot: tree(site)}, tmp_path)


def test_unchanged_parts_of_a_large_file_are_taken_from_the_old_one(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    data = noise(5_000_000)
    write(site / "big", data)
    settle(site)
    clean(site, target)
    for number, fresh in enumerate((b"x" + data, data[:1_000_000] + data[3_000_000:], data * 2, bytes(3_000_000) + data, b"small")):
        write(site / "big", fresh, BEGINNING + 1 + number)
        settle(site)
        clean(site, target)


def test_what_cannot_be_kept_aside_stays_and_the_rest_goes_on(tmp_path: Path, target: TargetSpec) -> None:
    site, root = tmp_path / "site", Path(target.store.url)
    for name in ("a.html", "b.html"):
        write(site / name, b"one")
    settle(site)
    clean(site, target)
    write(root / "a.html", b"a stranger's", BEGINNING + 50)
    write(root / ".mirror" / "aside", b"in the way")
    for name in ("a.html", "b.html"):
        write(site / name, b"two", BEGINNING + 1)
    settle(site)
    assert kinds(publish(site, target).problems) == [("a.html", "unwritable")]
    assert (root / "a.html").read_bytes() == b"a stranger's"
    assert (root / "b.html").read_bytes() == b"two"
    (root / ".mirror" / "aside").unlink()
    assert kinds(publish(site, target).problems) == [("a.html", "drift")]
    assert live(target) == tree(site)


def test_a_file_changed_behind_our_back_is_kept_aside(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    clean(site, target)
    root = Path(target.store.url)
    write(root / "index.html", b"<h1>hell0</h1>\n")  # as long and as old as ours
    write(root / "pages" / "page-03.html", b"a stranger's page", BEGINNING + 50)
    write(root / "pages" / "page-04.html", b"a stranger's, where ours goes", BEGINNING + 50)
    (root / "pages" / "page-05.html").unlink()
    (root / "link").unlink()
    (root / "link").symlink_to("stranger")
    write(site / "index.html", b"<h1>new</h1>\n", BEGINNING + 1)
    for number in (3, 5):
        write(site / "pages" / f"page-{number:02}.html", b"new page", BEGINNING + 1)
    (site / "pages" / "page-04.html").unlink()
    (site / "link").unlink()
    (site / "link").symlink_to("elsewhere")
    settle(site)
    report = publish(site, target)
    assert kinds(report.problems) == [
        ("link", "drift"),
        ("pages/page-05.html", "drift"),
        ("index.html", "drift"),
        ("pages/page-03.html", "drift"),
        ("pages/page-04.html", "drift"),
    ]
    assert report.exit_code == 24
    assert live(target) == tree(site)
    aside = root / ".mirror" / "aside" / "3"
    assert (aside / "index.html").read_bytes() == b"<h1>hell0</h1>\n"
    assert (aside / "pages" / "page-03.html").read_bytes() == b"a stranger's page"
    assert (aside / "pages" / "page-04.html").read_bytes() == b"a stranger's, where ours goes"
    assert os.readlink(aside / "link") == "stranger"
    body = json.loads((root / ".mirror" / "log" / "000000000003.json").read_text())
    assert body["kind"] == "publishing"
    assert body["expected"] not in (None, json.loads((root / ".mirror" / "log" / "000000000002.json").read_text())["manifest"])
    assert clean(site, target).snapshot == 0
    damaged = [problem.path for problem in verify(target).problems]
    assert damaged == ["index.html", "pages/page-03.html", "pages/page-04.html", "pages/page-05.html"]


def test_other_peoples_files_stay(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    clean(site, target)
    root = Path(target.store.url)
    write(root / "foreign", b"foreign")
    write(root / "odd" / "foreign too", b"foreign too")
    write(root / "will come", b"a stranger was here first")
    shutil.rmtree(site / "odd")
    write(site / "will come", b"ours")
    settle(site)
    report = publish(site, target)
    assert kinds(report.problems) == [("will come", "drift")]
    assert (root / "foreign").read_bytes() == b"foreign"
    assert sorted(os.listdir(root / "odd")) == ["foreign too"]
    assert (root / "will come").read_bytes() == b"ours"
    found = verify(target)
    assert (found.exit_code, sorted(kinds(found.problems))) == (
        0,
        [("foreign", "extra"), ("odd/", "extra"), ("odd/foreign too", "extra")],
    )


def test_what_is_in_the_way_and_not_ours_fails_its_item_only(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    was = tree(site)
    first = clean(site, target)
    root = Path(target.store.url)
    (root / "index.html").unlink()
    write(root / "index.html" / "foreign", b"in the way")
    write(site / "index.html", b"new", BEGINNING + 1)
    write(site / "pages" / "page-01.html", b"new", BEGINNING + 1)
    (site / "empty").unlink()
    settle(site)
    report = publish(site, target)
    assert kinds(report.problems) == [("index.html", "unwritable")]
    assert report.exit_code == 23
    assert (root / "index.html" / "foreign").read_bytes() == b"in the way"
    assert (root / "pages" / "page-01.html").read_bytes() == b"new"
    assert (root / "empty").exists(), "something was deleted although an item had failed"
    newest = snapshots(target)[-1]
    assert (newest.complete, newest.problems) == (False, 1)
    shutil.rmtree(root / "index.html")
    report = publish(site, target)
    assert kinds(report.problems) == [("index.html", "drift")]  # gone from where the last snapshot says it is
    assert live(target) == tree(site)
    back = restore(target, str(tmp_path / "out"), RestoreOptions(at=str(first.snapshot), workers=0))
    assert kinds(back.problems) == [("index.html", "damaged")], "its only copy was deleted by somebody else"
    del was[b"index.html"]
    assert tree(tmp_path / "out") == was


def test_a_folder_with_other_things_is_adopted_only_when_asked(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    root = Path(target.store.url)
    shutil.copytree(site, root, symlinks=True)
    write(root / "index.html", b"another")
    write(root / "unknown", b"unknown")
    with pytest.raises(UsageError, match="it holds other things"):
        publish(site, target)
    assert not (root / ".mirror").exists()
    kept = (root / "big.bin").stat().st_ino
    report = publish(site, target, making=Making("tree", "www", adopt=True))
    assert kinds(report.problems) == [("index.html", "drift")]
    assert (root / "big.bin").stat().st_ino == kept
    assert (root / ".mirror" / "aside" / "1" / "index.html").read_bytes() == b"another"
    seen = live(target)
    assert seen.pop(b"unknown").kind == "file"
    assert seen == tree(site)
    assert restored(target, report.snapshot, tmp_path / "out") == tree(site)


def test_a_second_run_at_once_is_told(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    clean(site, target)
    with open_target(target, lock=True), pytest.raises(InTheWayError, match="another run on this host"):
        publish(site, target)


def test_a_dry_run_writes_nothing(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    root = Path(target.store.url)
    assert publish(site, target, dry_run=True).added == len(tree(site))
    assert not root.exists()
    clean(site, target)
    write(site / "index.html", b"new", BEGINNING + 1)
    (site / "empty").unlink()
    settle(site)
    before = shape(root)
    report = publish(site, target, dry_run=True)
    assert (report.changed, report.deleted) == (1, 1)
    assert shape(root) == before


def test_the_store_of_a_tree_is_no_part_of_any_site(tmp_path: Path, target: TargetSpec) -> None:
    """Neither of the site that is mirrored into a tree, nor when a tree is mirrored somewhere else."""
    site = make_site(tmp_path / "site")
    write(site / ".mirror" / "packs" / "evil", b"evil")
    settle(site)
    report = publish(site, target)
    assert report.rules == {"- /.mirror": 1}
    assert not (Path(target.store.url) / ".mirror" / "packs" / "evil").exists()
    shutil.rmtree(site / ".mirror")
    write(site / ".mirror", b"a file of that name")
    settle(site)
    assert publish(site, target).problems == []
    (site / ".mirror").unlink()
    settle(site)
    clean(site, target)
    other = target_in(tmp_path, "packed")
    copied = sync(SiteSpec(target.store.url), other, SyncOptions(making=Making("packed", "www"), workers=0))
    assert copied.rules == {"- /.mirror": 1}
    assert restored(other, copied.snapshot, tmp_path / "out").keys() == tree(site).keys()
    assert verify(other, VerifyOptions(against=SiteSpec(target.store.url))).exit_code == 0


def test_ends_that_lie_within_each_other_are_refused(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    clean(site, target)
    root = Path(target.store.url)
    for source, place in ((root / "pages", root), (root / ".mirror", root), (site, site / "pages"), (root, root)):
        with pytest.raises(UsageError):
            publish(source, TargetSpec(StoreSpec(str(place)), target.cache))
    with pytest.raises(UsageError, match="it is the store of a tree"):
        publish(site, TargetSpec(StoreSpec(str(root / ".mirror")), target.cache))


def test_the_site_may_have_files_named_as_those_of_a_store(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    write(site / "mirror.json", b"{}")
    write(site / "log" / "000000000001.json", b"{}")
    settle(site)
    first = clean(site, target)
    assert clean(site, target).snapshot == 0
    assert restored(target, first.snapshot, tmp_path / "out") == tree(site)


def test_readers_find_moved_content(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    first = clean(site, target).snapshot
    texts = {path: (site / path).read_bytes() for path in ("zeros", "big.bin", "pages/page-09.html")}
    for number, path in enumerate(texts):
        (site / path).rename(site / f"moved-{number}")
    settle(site)
    clean(site, target)
    for path, text in texts.items():
        assert b"".join(cat(target, str(first), path)) == text
    found = {path: digest for digest, path in sums(target, str(first), "sha256")}
    assert all(found[path.encode()] == hashlib.sha256(text).hexdigest() for path, text in texts.items())


def test_a_lost_live_file_is_damage_and_only_that(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    first = clean(site, target).snapshot
    (Path(target.store.url) / "index.html").write_bytes(b"<h1>hell0</h1>\n")
    with pytest.raises(DamageError, match=r"no pack has index\.html, nor has the live tree"):
        list(cat(target, str(first), "index.html"))
    report = restore(target, str(tmp_path / "out"), RestoreOptions(at=str(first), workers=0))
    assert kinds(report.problems) == [("index.html", "damaged")]
    assert report.exit_code == 4
    found = verify(target)
    assert kinds(found.problems) == [("index.html", "differs"), ("index.html", "damaged")]


def test_what_is_to_be_deleted_may_be_gone_already(tmp_path: Path, target: TargetSpec) -> None:
    """Somebody has cleaned up in the live tree, and the site then did the same, while other paths have to be read and packed."""
    site = tmp_path / "site"
    for name in ("a", "b", "c"):
        write(site / name, name.encode() * 100)
    clean(site, target)
    (Path(target.store.url) / "b").unlink()
    (site / "b").unlink()
    write(site / "a", b"another", BEGINNING + 1)
    write(site / "c", b"another", BEGINNING + 1)
    settle(site)
    report = publish(site, target)
    assert kinds(report.problems) == [("b", "drift")]
    os.utime(target.store.url, ns=(BEGINNING, BEGINNING))
    assert not differing(live(target), tree(site))
    assert restored(target, report.snapshot, tmp_path / "out") == tree(site)


def test_a_hard_link_to_a_file_that_somebody_changed_stands_alone(tmp_path: Path, target: TargetSpec) -> None:
    """The file that it leads to has not changed in the site, so no sync looks at it; the link must not fail for ever."""
    site = tmp_path / "site"
    write(site / "a", b"what it should be")
    write(site / "gone", b"gone")
    clean(site, target)
    there = Path(target.store.url)
    (there / "a").write_bytes(b"spoilt")
    os.link(site / "a", site / "b")
    (site / "gone").unlink()
    settle(site)
    report = publish(site, target)
    assert report.problems == []
    assert (there / "b").read_bytes() == b"what it should be"
    assert not (there / "gone").exists()
    assert publish(site, target).snapshot == 0
    assert restored(target, report.snapshot, tmp_path / "out") == tree(site)
    os.utime(site / "a", ns=(BEGINNING + 1, BEGINNING + 1))
    assert kinds(publish(site, target).problems) == [("a", "drift")]
    assert (there / "a").read_bytes() == b"what it should be"
    assert (there / "a").stat().st_ino == (there / "b").stat().st_ino


def test_a_source_without_folders(tmp_path: Path, target: TargetSpec) -> None:
    """As S3 lists: files only. Folders are made for them, and go with the last of them."""
    MemoryFileSystem.store.clear()
    fs = MemoryFileSystem()
    fs.pipe({"/site/a/b/one": b"one", "/site/a/two": b"two", "/site/three": b"three"})
    options = SyncOptions(making=MAKE, workers=0, max_delete=EVERYTHING)
    assert sync(SiteSpec("memory://site"), target, options).problems == []
    root = Path(target.store.url)
    assert (root / "a" / "b" / "one").read_bytes() == b"one"
    fs.rm("/site/a/b/one")
    report = sync(SiteSpec("memory://site"), target, options)
    assert report.problems == []
    assert not (root / "a" / "b" / "one").exists()


def test_without_the_rights_of_root(shared_folder: Path) -> None:
    """Folders and files that are closed to their owner are published, changed and restored as they are."""
    site, place = make_site(shared_folder / "site"), shared_folder / "live"
    write(site / "shut" / "in", b"inside")
    write(site / "locked", b"read only")
    os.chmod(site / "locked", 0o400)
    settle(site)
    os.chmod(site / "shut", 0o555)
    give_to_nobody(shared_folder)
    shared_folder.chmod(0o777)
    options = ("--layout", "tree", "--cache-dir", shared_folder / "cache", "--min-free", "0")
    done = as_nobody("sync", site, place, *options)
    assert done.code == 0, done.err
    assert stat.S_IMODE((place / "shut").stat().st_mode) == 0o555
    first = tree(site)
    os.chmod(site / "shut", 0o755)
    write(site / "shut" / "in", b"other", BEGINNING + 1)
    write(site / "shut" / "more", b"more")
    write(site / "locked", b"still read only", BEGINNING + 1)
    (site / "hollow" / "er").rmdir()
    settle(site)
    os.chmod(site / "shut", 0o555)
    give_to_nobody(site)
    done = as_nobody("sync", site, place, *options)
    assert done.code == 0, done.err
    target = TargetSpec(StoreSpec(str(place)))
    assert live(target) == tree(site)
    for at, night in ((2, first), (4, tree(site))):
        done = as_nobody("restore", place, shared_folder / f"out-{at}", "--at", at)
        assert done.code == 0, done.err
        assert tree(shared_folder / f"out-{at}") == night


def test_a_record_that_lies_leads_nowhere(tmp_path: Path, target: TargetSpec) -> None:
    """A publishing, left open by somebody who may write into the store, names paths of the store itself and below a link."""
    site = make_site(tmp_path / "site")
    clean(site, target)
    root, outside = Path(target.store.url), tmp_path / "outside"
    outside.mkdir()
    (root / "way out").symlink_to(outside)
    store = FolderStore(str(root / ".mirror"))
    head = log.read_head(store)
    assert head
    reader, writer = ManifestReader(store, None), ManifestWriter(store, 0, {})
    evil = File(b"", 4, xxh3_128_digest(b"evil"), 0, chunk_id(b"evil"), mtime=BEGINNING)
    paths = (b".mirror/latest.json", b".mirror/log/000000000009.json", b"way out/in")
    entries = sorted([*reader.entries(head.manifest), *(replace(evil, path=path) for path in paths)], key=lambda entry: entry.path)
    manifest = writer.tree((writer.put(SEGMENT, piece) for piece in cut_entries(entries)), root_is_node=True)
    for path in paths:
        staging = Staging(str(root))
        fd = staging.begin(path)
        os.write(fd, b"evil")
        os.close(fd)
        staging.close()
    members = {name: head.body[name] for name in ("source", "started", "tags", "filters", "totals", "parents")}
    expected = log.ref_json(head.manifest)
    body = log.draft(
        log.PUBLISHING, head.body["target"], head, head.live, **members, manifest=log.ref_json(manifest), expected=expected
    )
    assert isinstance(log.append(store, body), log.Record)
    report = publish(site, target)
    assert {path for path, kind in kinds(report.problems) if kind == "unwritable"} == {os.fsdecode(path) for path in paths}
    assert list(outside.iterdir()) == []
    assert json.loads((root / ".mirror" / "latest.json").read_text())["number"] > 3
    assert clean_but_for(site, target, b"way out") == {}


def clean_but_for(site: Path, target: TargetSpec, foreign: bytes) -> dict[bytes, object]:
    """How the live folder differs from the site, a foreign path and the root's time aside."""
    wrong = differing(live(target), tree(site))
    return {path: how for path, how in wrong.items() if path not in (foreign, b"")}


def test_a_file_of_many_parts_comes_from_the_live_tree_and_from_packs(tmp_path: Path, target: TargetSpec) -> None:
    """Longer than a batch: a restore that finds it in packs writes it in parts, one that finds it in the tree as a whole."""
    site = tmp_path / "site"
    data = noise(70 << 20)
    write(site / "huge", data)
    settle(site)
    nights = {clean(site, target).snapshot: tree(site)}
    (site / "huge").rename(site / "moved")
    settle(site)
    nights[clean(site, target, max_delete=EVERYTHING).snapshot] = tree(site)
    all_restore(target, nights, tmp_path)
    write(site / "moved", data[: 1 << 20] + b"cut", BEGINNING + 1)
    settle(site)
    nights[clean(site, target).snapshot] = tree(site)
    all_restore(target, nights, tmp_path)


def test_owners_of_live_files(tmp_path: Path, target: TargetSpec) -> None:
    """Who may give files away publishes them under their owners, new, changed and described anew; everybody else under his own."""
    mine, theirs = (os.geteuid(), os.getegid()), (12_345, 23_456)
    if os.geteuid():
        theirs = mine
    site = tmp_path / "site"
    write(site / "ours.html", b"ours")
    write(site / "theirs.html", b"theirs")
    os.chown(site / "theirs.html", *theirs)
    settle(site)
    clean(site, target)
    live_folder = Path(target.store.url)

    def owners() -> list[tuple[int, int]]:
        return [(seen.st_uid, seen.st_gid) for seen in (os.lstat(live_folder / name) for name in ("ours.html", "theirs.html"))]

    assert owners() == [mine, theirs]
    write(site / "ours.html", b"theirs now", BEGINNING + 1)
    os.chown(site / "ours.html", *theirs)
    os.chown(site / "theirs.html", *mine)
    settle(site)
    clean(site, target)
    assert owners() == [theirs, mine]


def test_drafts_that_are_gone_when_they_are_to_be_published(tmp_path: Path, target: TargetSpec) -> None:
    """Into an empty tree files are put without a look at their drafts; what has none is read from the site once more."""
    site = make_site(tmp_path / "site")
    gone = []

    def hear(stamped: Stamped) -> None:
        if isinstance(stamped.event, PhaseBegan) and stamped.event.phase == "write":
            for draft in (Path(target.store.url) / ".mirror" / "staged").glob("*/*"):
                draft.unlink()
                gone.append(draft)

    report = sync(SiteSpec(str(site)), target, SyncOptions(making=MAKE, workers=0, min_free=0), Job("sync", [hear]))
    assert len(gone) > 3
    assert report.problems == []
    assert not differing(live(target), tree(site))


def test_what_cannot_be_read_and_kept_is_not_deleted_either(
    tmp_path: Path, target: TargetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    write(site / "index.html", b"<p>stays")
    write(site / "gone.bin", b"the only copy")
    clean(site, target)
    fetch = up.fetch

    def broken_disk(site: Site, path: bytes, *more: Any) -> up.Fetched:
        if path == b"gone.bin":
            return up.Fetched(path, problem="unreadable", why="Input/output error")
        return fetch(site, path, *more)

    monkeypatch.setattr(up, "fetch", broken_disk)
    (site / "gone.bin").unlink()
    report = publish(site, target, max_delete=DeletionLimit(percent=100))
    assert kinds(report.problems) == [("gone.bin", "unwritable")]
    assert (Path(target.store.url) / "gone.bin").read_bytes() == b"the only copy"
    assert restored(target, 2, tmp_path / "out").keys() >= {b"gone.bin", b"index.html"}
