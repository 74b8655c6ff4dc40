"""`mirror rollback`: people see an older snapshot again, one can go forward, nothing is lost by it, and the next night waits.

Truth is what the system says of the folders, and what the log's files hold.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from drive import as_nobody, cli, give_to_nobody, shape, shared_folder, shell
from killed import run_killed
from mirrors import BEGINNING, in_memory, make_site, mirror, noise, settle, target_in, three_nights, tree, write
from msgspec.structs import replace
from test_tree_crash import change, prepared
from trees import Night, Walk, all_restore, clean, differing, kinds, live, publish, restored, some_of
from xxhash import xxh3_128_digest

from mirror import log
from mirror.chunking import chunk_id
from mirror.contents import snapshots
from mirror.envelope import SEGMENT
from mirror.errors import DamageError, DeletionGuardError, InTheWayError, MirrorError, TargetMissingError, UsageError
from mirror.events import Job, Notice, PhaseBegan, Stamped
from mirror.hold import append, begin, hold_of
from mirror.making import Making
from mirror.manifest import File, cut_entries
from mirror.plan import DeletionLimit
from mirror.rollback import RollbackOptions, RollbackReport, rollback
from mirror.site import Filter, SiteSpec
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.store import StoreSpec
from mirror.store.fs import FolderStore
from mirror.sync import SyncOptions, sync
from mirror.target import TargetSpec
from mirror.verify import verify

__all__ = ["shared_folder"]
EVERYTHING = DeletionLimit(percent=100)


@pytest.fixture
def target(tmp_path: Path) -> TargetSpec:
    return target_in(tmp_path, "live")


def back(target: TargetSpec, at: int | str, job: Job | None = None, **options: Any) -> RollbackReport:
    """A rollback that may delete whatever it has to."""
    given = {"at": str(at), "workers": 0, "min_free": 0, "max_delete": EVERYTHING} | options
    return rollback(target, RollbackOptions(**given), job)


def store_of(target: TargetSpec) -> Path:
    """The folder that its store is in."""
    root = Path(target.store.url)
    return root / ".mirror" if (root / ".mirror").exists() else root


def records(target: TargetSpec) -> list[dict[str, Any]]:
    """The log as it is on the disk."""
    return [json.loads(path.read_text()) for path in sorted((store_of(target) / "log").iterdir())]


def waits(site: Path, target: TargetSpec, **options: Any) -> InTheWayError:
    """The error with which a sync stops at a hold."""
    with pytest.raises(InTheWayError) as caught:
        publish(site, target, **options)
    assert (caught.value.kind, caught.value.exit_code) == ("held", 11)
    return caught.value


def seen(target: TargetSpec, night: Night) -> None:
    """People see just that night, and nothing is left of what made it so."""
    assert not (wrong := differing(live(target), night)), wrong
    staged = store_of(target) / "staged"
    assert [path for path in staged.rglob("*") if not path.is_dir()] == []


# -- back and forth


@pytest.mark.parametrize("seed", some_of(range(10), 3))
def test_a_walk_back_and_forth(tmp_path: Path, target: TargetSpec, seed: int) -> None:
    walk, chance = Walk(tmp_path / "site", seed), random.Random(seed)
    nights: dict[int, Night] = {}
    for _ in range(4):
        if number := clean(walk.root, target, max_delete=EVERYTHING, release=True).snapshot:
            nights[number] = tree(walk.root)
        walk.edit()
        for number in chance.sample(sorted(nights), min(len(nights), 2)):
            report = back(target, number)
            assert (report.problems, report.rollback_of) == ([], number)
            seen(target, nights[number])
            if report.snapshot:
                nights[report.snapshot] = nights[number]
    assert len(nights) > 5
    all_restore(target, nights, tmp_path)
    assert verify(target).problems == []


def test_what_a_rollback_is(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    good = clean(site, target).snapshot
    was = tree(site)
    write(site / "index.html", b"<h1>broken</h1>\n", BEGINNING + 1)
    write(site / "pages" / "new.html", b"<p>new</p>\n")
    (site / "zeros").rename(site / "a" / "moved zeros")
    (site / "empty").unlink()
    settle(site)
    bad = clean(site, target).snapshot
    objects = sorted((store_of(target) / "manifests").rglob("*.0"))
    report = back(target, good)
    assert (report.added, report.changed, report.moved, report.deleted, report.described) == (1, 1, 1, 1, 0)
    assert (report.parent, report.rollback_of, report.files_staged) == (bad, good, 3)
    seen(target, was)
    record = next(each for each in records(target) if each["number"] == report.snapshot)
    before = next(each for each in records(target) if each["number"] == good)
    assert (record["kind"], record["parents"], record["rollback_of"]) == ("snapshot", [bad], good)
    assert (record["manifest"], record["source"], record["complete"]) == (before["manifest"], before["source"], True)
    assert {key: record["totals"][key] for key in ("added", "changed", "moved", "deleted")} == {
        "added": 1, "changed": 1, "moved": 1, "deleted": 1
    }  # fmt: skip
    fresh = set((store_of(target) / "manifests").rglob("*.0")) - set(objects)
    assert len(fresh) == 2, "more than the list of changes was written"
    forward = back(target, bad)
    seen(target, tree(site))
    all_restore(target, {good: was, report.snapshot: was, bad: tree(site), forward.snapshot: tree(site)}, tmp_path)
    assert [line.rollback_of for line in snapshots(target)] == [0, 0, good, bad]


def test_a_dry_run_shows_it_and_writes_nothing(tmp_path: Path, target: TargetSpec) -> None:
    site, _, nights = prepared(tmp_path)
    change(site)
    clean(site, target, max_delete=EVERYTHING)
    before = shape(Path(target.store.url))
    planned = cli("rollback", target.store.url, "--at", min(nights), "-n", "--cache-dir", target.cache)
    assert planned.code == 0
    assert shape(Path(target.store.url)) == before
    told = cli("rollback", target.store.url, "--at", min(nights), "-v", "--cache-dir", target.cache, "--max-delete", "100%")
    assert told.code == 0
    lines = planned.out.splitlines()
    assert "* index.html" in lines
    assert "> moves.png (was pages/moved.png)" in lines
    assert "- pages/new.html" in lines
    assert [line for line in told.err.splitlines() if line[:2] in ("+ ", "* ", "- ", "> ", ". ")] == lines
    again = cli("rollback", target.store.url, "--at", max(nights), "-n", "--exit-code", "--cache-dir", target.cache)
    assert again.code == 4


def test_the_guard_holds(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    for number in range(3):
        write(site / f"{number}.html", b"%d" % number)
    settle(site)
    first = clean(site, target).snapshot
    was = tree(site)
    for number in range(9):
        write(site / f"new-{number}.html", b"new %d" % number)
    settle(site)
    clean(site, target)
    before = shape(Path(target.store.url))
    with pytest.raises(DeletionGuardError, match="9 of 13 entries"):
        back(target, first, max_delete=DeletionLimit())
    assert shape(Path(target.store.url)) == before
    done = cli("rollback", target.store.url, "--at", first, "--cache-dir", target.cache)
    assert done.code == 25
    hint = done.error.partition("accept it once: ")[2]
    assert hint.endswith("--max-delete 9")
    assert shell(hint).code == 0
    seen(target, was)


def test_moves_are_no_deletions(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    for number in range(9):
        write(site / "old" / f"{number}.html", b"page %d" % number)
    settle(site)
    first = clean(site, target).snapshot
    was = tree(site)
    (site / "old").rename(site / "new")
    settle(site)
    clean(site, target)
    report = back(target, first, max_delete=DeletionLimit(number=1))
    assert (report.moved, report.deleted) == (9, 1)  # the folder itself
    seen(target, was)


def test_many_files_cost_few_requests_and_each_block_once(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    for number in range(3000):
        write(site / f"{number % 50}" / f"{number}.html", f"<p>{number}</p>".encode() * 20)
    settle(site)
    first = clean(site, target).snapshot
    was = tree(site)
    for number in range(3000):
        write(site / f"{number % 50}" / f"{number}.html", f"<p>changed {number}</p>".encode() * 20, BEGINNING + 1)
    settle(site)
    clean(site, target)
    report = back(target, first)
    assert (report.changed, report.files_staged) == (3000, 3000)
    assert sum(report.requests.values()) < 60, report.requests
    seen(target, was)


def test_large_files_come_back_with_workers(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    data = noise(70 << 20)  # more than a batch: in parts
    write(site / "huge.iso", data)
    write(site / "sparse.img", bytes(5 << 20) + b"end")
    write(site / "style.css", b"a{}")
    settle(site)
    first = clean(site, target).snapshot
    was = tree(site)
    write(site / "huge.iso", b"gone", BEGINNING + 1)
    write(site / "sparse.img", b"gone too", BEGINNING + 1)
    settle(site)
    clean(site, target)
    assert back(target, first, workers=2).problems == []
    seen(target, was)


def test_a_huge_file_that_only_moved_comes_from_the_live_tree(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "huge.iso", noise(66 << 20))
    settle(site)
    first = clean(site, target).snapshot
    was = tree(site)
    (site / "huge.iso").rename(site / "renamed.iso")
    settle(site)
    clean(site, target)
    assert not (store_of(target) / "packs").exists()
    assert back(target, first).problems == []
    seen(target, was)


# -- layout packed


def test_packed(tmp_path: Path) -> None:
    target = target_in(tmp_path)
    nights = three_nights(tmp_path, target)
    packs = shape(store_of(target) / "packs")
    report = back(target, "tag:second")
    assert (report.snapshot, report.rollback_of, report.parent) == (4, 2, 3)
    assert shape(store_of(target) / "packs") == packs
    assert records(target)[3]["manifest"] == records(target)[1]["manifest"]
    waits(tmp_path / "site", target, making=Making())
    assert publish(tmp_path / "site", target, release=True, making=Making()).snapshot == 5
    all_restore(target, dict(enumerate([*nights, nights[1], nights[2]], 1)), tmp_path)
    assert verify(target).problems == []


# -- the hold


def test_the_night_waits_until_it_is_released(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    was, first = tree(site), clean(site, target).snapshot
    write(site / "index.html", b"<h1>bad</h1>\n", BEGINNING + 1)
    settle(site)
    clean(site, target)
    back(target, first)
    words = ("sync", site, target.store.url, "--cache-dir", target.cache, "--min-free", "0")
    stopped = cli(*words)
    assert stopped.code == 11
    assert f"rolled back to snapshot {first} (record 5)" in stopped.error
    hint = stopped.error.partition("go on with: ")[2]
    assert hint == f"mirror sync {site} {target.store.url} --cache-dir {target.cache} --min-free 0 --release"
    told = json.loads(cli(*words, "--json").out.splitlines()[-1])
    assert told["error"]["kind"] == "held"
    before = shape(Path(target.store.url))
    shown = cli(*words, "-n")
    assert (shown.code, shown.out) == (0, "* index.html\n")
    assert "a sync would stop here (exit 11): it is held since " in shown.err
    assert "held" not in cli(*words, "-n", "--release").err
    listed = cli("snapshots", target.store.url, "--cache-dir", target.cache)
    assert f"rolled back to {first}" in listed.out.splitlines()[-1]
    assert "a sync stops here (exit 11)" in listed.err
    assert shape(Path(target.store.url)) == before
    seen(target, was)
    assert shell(hint).code == 0
    seen(target, tree(site))
    assert "hold" not in records(target)[-1]
    assert clean(site, target).snapshot == 0
    assert "held" not in cli("snapshots", target.store.url, "--cache-dir", target.cache).err


@pytest.mark.parametrize(("variable", "code"), [("1", 0), ("0", 11), ("perhaps", 2)])
def test_release_as_a_variable(
    tmp_path: Path, target: TargetSpec, monkeypatch: pytest.MonkeyPatch, variable: str, code: int
) -> None:
    site = make_site(tmp_path / "site")
    back(target, clean(site, target).snapshot)
    monkeypatch.setenv("MIRROR_RELEASE", variable)
    assert cli("sync", site, target.store.url, "--cache-dir", target.cache).code == code


def test_release_in_mirror_toml(tmp_path: Path, target: TargetSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site(tmp_path / "site")
    first = clean(site, target).snapshot
    (tmp_path / "mirror.toml").write_text(f'[mirrors.docs]\nsource = "site"\ntarget = "live"\nat = "{first}"\n')
    monkeypatch.chdir(tmp_path)
    assert cli("rollback", "docs").code == 0
    assert cli("sync", "docs").code == 11
    assert cli("sync", "docs", "--release").code == 0
    with open(tmp_path / "mirror.toml", "a") as file:
        file.write("release = true\n")  # no hold would ever be one
    assert cli("sync", "docs").code == 2


def test_a_release_without_changes_is_a_record(tmp_path: Path, target: TargetSpec) -> None:
    """And the nights after it read little and write nothing."""
    site = make_site(tmp_path / "site")
    first = clean(site, target).snapshot
    write(site / "index.html", b"<h1>bad</h1>\n", BEGINNING + 1)
    settle(site)
    clean(site, target)
    back(target, first)
    write(site / "index.html", b"<h1>hello</h1>\n")
    os.chmod(site / "index.html", 0o640)
    settle(site)
    before = len(records(target))
    assert publish(site, target, release=True).snapshot == 0
    assert [(each["kind"], "hold" in each) for each in records(target)[before:]] == [("hold", False)]
    quiet = clean(site, target)
    assert (quiet.snapshot, quiet.requests.get("create", 0)) == (0, 0)
    assert quiet.requests["get"] <= 5
    assert publish(site, target, release=True).requests.get("create", 0) == 0, "there was nothing to release"


def test_nothing_differs_and_yet_it_holds(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    first = clean(site, target).snapshot
    report = back(target, first)
    assert (report.snapshot, records(target)[-1]["kind"], records(target)[-1]["hold"]["of"]) == (0, "hold", first)
    count = len(records(target))
    back(target, "latest")
    assert len(records(target)) == count, "it is held already"
    assert f"snapshot {first}" in waits(site, target).why


def test_what_was_emptied_is_filled_by_a_sync_first(tmp_path: Path, target: TargetSpec) -> None:
    """Else there would be a snapshot of what is not there, and the rollback would say that all is well."""
    site = tmp_path / "site"
    write(site / "index.html", b"good")
    write(site / "style.css", b"p{}")
    clean(site, target)
    write(site / "index.html", b"bad", BEGINNING + 1)
    clean(site, target)
    for name in ("index.html", "style.css"):
        (Path(target.store.url) / name).unlink()
    with pytest.raises(TargetMissingError, match=r"nothing stands there any more.*run the sync first"):
        rollback(target, RollbackOptions(at="2", workers=0))
    assert [line.number for line in snapshots(target)] == [2, 4]
    clean(site, target)
    rollback(target, RollbackOptions(at="2", workers=0))
    assert (Path(target.store.url) / "index.html").read_bytes() == b"good"


def test_a_hold_goes_on_through_what_others_append(tmp_path: Path) -> None:
    target = target_in(tmp_path)
    three_nights(tmp_path, target)
    back(target, 1)
    store = FolderStore(str(store_of(target)))
    head = log.read_head(store)
    assert head
    body = log.draft(log.FORGET, head.body["target"], head, [1, 2, 3])  # the rollback's own snapshot is forgotten
    record = log.append(store, body)
    assert isinstance(record, log.Record)
    hold = hold_of(record)
    assert hold
    assert (hold.of, hold.record) == (1, 4)
    waits(tmp_path / "site", target, making=Making())


def test_only_the_hold_that_was_seen_is_released(tmp_path: Path) -> None:
    """A second rollback, while a sync that releases the first one is on its way, holds."""
    target, _ = in_memory("seen-hold")
    site = make_site(tmp_path / "site")
    mirror(site, target)
    write(site / "index.html", b"second", BEGINNING + 1)
    mirror(site, target)
    back(target, 1)
    write(site / "index.html", b"third", BEGINNING + 2)
    rolled: list[int] = []

    def meanwhile(stamped: Stamped) -> None:
        if isinstance(stamped.event, PhaseBegan) and stamped.event.phase == "commit" and not rolled:
            rolled.append(back(target, 2).snapshot)

    with pytest.raises(InTheWayError, match="rolled back to snapshot 2"):
        sync(SiteSpec(str(site)), target, SyncOptions(workers=0, release=True), Job("sync", [meanwhile]))
    assert [line.number for line in snapshots(target)] == [1, 2, 3, *rolled]


@pytest.mark.parametrize("only_hold", [False, True])
def test_a_sync_that_lost_the_race_to_a_rollback_stops(tmp_path: Path, only_hold: bool) -> None:
    target, store = in_memory(f"lost-{only_hold}")
    site = make_site(tmp_path / "site")
    mirror(site, target)
    write(site / "index.html", b"second", BEGINNING + 1)
    mirror(site, target)
    write(site / "index.html", b"third", BEGINNING + 2)
    done: list[object] = []

    def meanwhile(stamped: Stamped) -> None:
        if isinstance(stamped.event, PhaseBegan) and stamped.event.phase == "commit" and not done:
            done.append(back(target, 2 if only_hold else 1))

    with pytest.raises(InTheWayError) as caught:
        sync(SiteSpec(str(site)), target, SyncOptions(workers=0), Job("sync", [meanwhile]))
    assert caught.value.kind == "held"
    head = log.read_head(store)
    assert head
    assert hold_of(head)


def test_a_rollback_that_lost_the_race_looks_again(tmp_path: Path) -> None:
    target, _ = in_memory("rollback-lost")
    site = make_site(tmp_path / "site")
    mirror(site, target)
    write(site / "index.html", b"second", BEGINNING + 1)
    mirror(site, target)
    write(site / "index.html", b"third", BEGINNING + 2)
    write(site / "new", b"third", BEGINNING + 2)
    done: list[object] = []

    def meanwhile(stamped: Stamped) -> None:
        if isinstance(stamped.event, PhaseBegan) and stamped.event.phase == "commit" and not done:
            done.append(mirror(site, target))

    report = back(target, 1, Job("rollback", [meanwhile]))
    assert (report.attempts, report.parent, report.deleted, report.snapshot) == (2, 3, 1, 4)


SINCE = "2026-11-20T02:00:07Z"
SPOILT: list[Any] = [
    1,
    {},
    {"of": 0, "record": 1, "since": SINCE},
    {"of": 1, "record": 7, "since": SINCE},
    {"of": "1", "record": 1, "since": SINCE},
    {"of": 1, "record": 1, "since": SINCE[:-1]},
    {"of": 1, "record": 1, "since": "yesterday"},
]


@pytest.mark.parametrize("hold", SPOILT)
def test_a_spoilt_hold_is_damage(tmp_path: Path, hold: Any) -> None:
    target, store = in_memory(f"spoilt-{hold}")
    mirror(make_site(tmp_path / "site"), target)
    head = log.read_head(store)
    assert head
    assert append(store, head.body["target"], head, hold) is not None
    with pytest.raises(DamageError, match="record"):
        sync(SiteSpec(str(tmp_path / "site")), target, SyncOptions(workers=0))


def test_a_hold_that_lost_its_number_says_so(tmp_path: Path) -> None:
    target, store = in_memory("lost-number")
    mirror(make_site(tmp_path / "site"), target)
    head = log.read_head(store)
    assert head
    assert append(store, head.body["target"], head, begin(1, head, head.time)) is not None
    assert append(store, head.body["target"], head, None) is None


@pytest.mark.parametrize("known", ["", "no cache", "forgotten"])
def test_the_release_reads_what_has_the_size_and_time_of_what_came_back(tmp_path: Path, target: TargetSpec, known: str) -> None:
    """The site holds what the rollback took away, in a file as long and as old as the one that came back: as npm makes them."""
    site = tmp_path / "site"
    for name in ("index.js", "other.js", "same.js"):
        write(site / name, b"good " + name.encode())
    settle(site)
    first = clean(site, target).snapshot
    was = tree(site)
    write(site / "index.js", b"evil index.js")
    settle(site)
    second = clean(site, target).snapshot
    back(target, first)
    back(target, second)
    back(target, first)
    if known == "no cache":
        shutil.rmtree(tmp_path / "cache")
    elif known == "forgotten":
        store = FolderStore(str(store_of(target)))
        head = log.read_head(store)
        assert head
        kept = [number for number in head.live if number != second]
        assert isinstance(log.append(store, log.draft(log.FORGET, head.body["target"], head, kept)), log.Record)
        shutil.rmtree(tmp_path / "cache")
    differs = cli("diff", site, target.store.url, "--cache-dir", target.cache)
    assert differs.out == "* index.js\n"
    assert cli("sync", site, target.store.url, "-n", "--cache-dir", target.cache).out == "* index.js\n"
    report = clean(site, target, release=True)
    assert report.changed == 1
    assert report.bytes_read < 100
    all_restore(target, {first: was, report.snapshot: tree(site)}, tmp_path)
    quiet = clean(site, target)
    assert (quiet.snapshot, quiet.files_read) == (0, 0)
    assert quiet.requests["get"] <= 5


# -- what is not ours, what is protected, what is damaged


def test_a_live_file_that_was_changed_behind_our_back_is_kept_aside(tmp_path: Path, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    first = clean(site, target).snapshot
    write(site / "index.html", b"<h1>bad</h1>\n", BEGINNING + 1)
    write(site / "new.html", b"new", BEGINNING + 1)
    settle(site)
    clean(site, target)
    root = Path(target.store.url)
    write(root / "index.html", b"somebody's repair at night", BEGINNING + 5)
    (root / "new.html").unlink()
    write(root / "foreign", b"foreign")
    report = back(target, first)
    assert kinds(report.problems) == [("new.html", "drift"), ("index.html", "drift")]
    assert report.exit_code == 24
    assert (root / "index.html").read_bytes() == b"<h1>hello</h1>\n"
    assert (root / "foreign").read_bytes() == b"foreign"
    (kept,) = [path for path in (root / ".mirror" / "aside").rglob("*") if path.is_file()]
    assert kept.read_bytes() == b"somebody's repair at night"


def test_what_the_rules_leave_out_stays(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    for name in ("index.html", "cache/a", "cache/b", "both/x.tmp", "both/y"):
        write(site / name, name.encode())
    settle(site)
    first = clean(site, target).snapshot
    was = tree(site)
    for name in ("index.html", "cache/a", "cache/new", "both/x.tmp", "fresh/z.tmp", "fresh/z"):
        write(site / name, b"changed " + name.encode(), BEGINNING + 1)
    (site / "cache" / "b").unlink()
    settle(site)
    second = clean(site, target).snapshot
    now = tree(site)
    rules = (("exclude", "cache/"), ("exclude", "*.tmp"))
    report = back(target, first, rules=rules)
    assert (report.problems, report.protected) == ([], 5)
    wanted = was | {path: now[path] for path in now if path.startswith((b"cache/", b"fresh/")) or path.endswith(b".tmp")}
    del wanted[b"cache/b"], wanted[b"fresh/z"]
    seen(target, wanted)
    assert restored(target, report.snapshot, tmp_path / "out") == wanted
    assert next(each["filters"] for each in records(target) if each["number"] == report.snapshot) == [list(rule) for rule in rules]
    back(target, second)  # these rules are in force now
    wanted = wanted | {path: now[path] for path in now if path in (b"index.html", b"fresh/z")}
    seen(target, wanted)
    report = back(target, first, delete_excluded=True)
    seen(target, was)
    all_restore(target, {first: was, second: now}, tmp_path)


def test_what_is_protected_and_what_comes_back_may_exclude_each_other(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "a", b"a file")
    write(site / "b" / "c", b"in a folder")
    write(site / "first", b"linked")
    os.link(site / "first", site / "second")
    os.link(site / "first", site / "third")
    for name in ("one", "two", "zwei"):
        write(site / name, b"old " + name.encode())
    settle(site)
    first = clean(site, target).snapshot
    (site / "a").unlink()
    write(site / "a" / "kept.tmp", b"kept")
    shutil.rmtree(site / "b")
    write(site / "b", b"a file")
    write(site / "first", b"no longer linked", BEGINNING + 1)
    for name in ("second", "third", "one", "two", "zwei"):
        (site / name).unlink()
    write(site / "one", b"new", BEGINNING + 1)
    os.link(site / "one", site / "two")
    os.link(site / "one", site / "zwei")
    settle(site)
    clean(site, target, max_delete=EVERYTHING)
    report = back(target, first, rules=(("exclude", "*.tmp"), ("exclude", "/b"), ("exclude", "/first"), ("exclude", "/[tz]w*")))
    assert sorted(kinds(report.problems)) == [("a", "unwritable")]
    assert report.exit_code == 23
    root = Path(target.store.url)
    assert (root / "a" / "kept.tmp").read_bytes() == b"kept"
    assert (root / "b").read_bytes() == b"a file"
    assert (root / "first").read_bytes() == b"no longer linked"
    assert (root / "second").samefile(root / "third")
    assert (root / "third").read_bytes() == b"linked"
    assert (root / "one").read_bytes() == b"old one"
    assert (root / "two").read_bytes() == b"new", "what an excluded path holds went with its first name"
    assert (root / "two").samefile(root / "zwei")
    assert live(target) == restored(target, report.snapshot, tmp_path / "out")


def test_damaged_content_fails_its_items_only(tmp_path: Path, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "lost.bin", noise(200_000, 1))
    write(site / "whole.html", b"whole")
    settle(site)
    first = clean(site, target).snapshot
    write(site / "lost.bin", noise(200_000, 2), BEGINNING + 1)
    settle(site)
    clean(site, target)
    write(site / "whole.html", b"changed", BEGINNING + 2)
    write(site / "new.html", b"new", BEGINNING + 2)
    settle(site)
    newest = clean(site, target).snapshot
    pack = max((store_of(target) / "packs").rglob("*.0"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    report = back(target, first)
    assert kinds(report.problems) == [("lost.bin", "damaged")]
    assert report.exit_code == 4
    root = Path(target.store.url)
    assert (root / "lost.bin").read_bytes() == noise(200_000, 2)
    assert (root / "whole.html").read_bytes() == b"whole"
    assert (root / "new.html").exists(), "something was deleted although an item had failed"
    record = next(each for each in records(target) if each["number"] == report.snapshot)
    assert (record["complete"], record["problem_count"]) == (False, 1)
    assert live(target) == restored(target, report.snapshot, tmp_path / "out")
    assert back(target, newest).problems == []
    assert live(target) == tree(site)


def test_without_room_nothing_is_begun(tmp_path: Path, target: TargetSpec) -> None:
    site, _, nights = prepared(tmp_path)
    before = sorted(shape(store_of(target) / "log"))
    with pytest.raises(MirrorError, match="not enough free space"):
        back(target, min(nights), min_free=1 << 60)
    assert sorted(shape(store_of(target) / "log")) == before
    assert live(target) == tree(site)


def test_a_draft_of_a_run_that_died_is_nobodys_content(tmp_path: Path, target: TargetSpec) -> None:
    """A rollback that dies has staged a file; a sync that only parts hard links must not take that draft for its own."""
    site = tmp_path / "site"
    write(site / "a", b"old")
    write(site / "b", b"old b")
    settle(site)
    first = clean(site, target).snapshot
    (site / "b").unlink()
    write(site / "a", b"new", BEGINNING + 1)
    os.link(site / "a", site / "b")
    settle(site)
    clean(site, target)

    def dies(stamped: Stamped) -> None:
        if isinstance(stamped.event, PhaseBegan) and stamped.event.phase == "commit":
            raise KeyboardInterrupt

    with pytest.raises(MirrorError):
        back(target, first, Job("rollback", [dies]))
    assert len([path for path in (store_of(target) / "staged").rglob("*") if path.is_file()]) == 2
    (site / "b").unlink()
    write(site / "b", b"new", BEGINNING + 1)
    settle(site)
    clean(site, target)


def test_wrong_rules_in_a_record_are_damage(tmp_path: Path) -> None:
    target, store = in_memory("wrong-rules")
    site = make_site(tmp_path / "site")
    mirror(site, target)
    write(site / "index.html", b"second", BEGINNING + 1)
    mirror(site, target)
    head = log.read_head(store)
    assert head
    names = ("source", "started", "finished", "manifest", "totals")
    body = {name: head.body[name] for name in names} | {"filters": [["exclude"]]}
    assert isinstance(log.append(store, log.draft(log.SNAPSHOT, head.body["target"], head, [1, 2, 3], **body)), log.Record)
    with pytest.raises(DamageError, match="rules"):
        back(target, 1)
    assert back(target, 1, rules=(("exclude", "*.tmp"),)).snapshot == 4


def test_a_snapshot_that_lies_leads_nowhere(tmp_path: Path, target: TargetSpec) -> None:
    """Its manifest names paths of the store itself, and one below a link that somebody made."""
    site = make_site(tmp_path / "site")
    write(site / "evil", b"evil")
    settle(site)
    clean(site, target)
    root, outside = Path(target.store.url), tmp_path / "outside"
    outside.mkdir()
    (root / "way out").symlink_to(outside)
    store = FolderStore(str(store_of(target)))
    head = log.read_head(store)
    assert head
    reader, writer = ManifestReader(store, None), ManifestWriter(store, 0, {})
    evil = File(b"", 4, xxh3_128_digest(b"evil"), 0, chunk_id(b"evil"), mtime=BEGINNING)
    paths = (b".mirror/latest.json", b".mirror/log/000000000009.json", b"way out/in")
    entries = sorted([*reader.entries(head.manifest), *(replace(evil, path=path) for path in paths)], key=lambda entry: entry.path)
    manifest = writer.tree((writer.put(SEGMENT, piece) for piece in cut_entries(entries)), root_is_node=True)
    members = {name: head.body[name] for name in ("source", "started", "tags", "filters", "totals", "parents")}
    for ref in (log.ref_json(manifest), log.ref_json(head.manifest)):
        live_now = [*head.live, head.number + 1]
        record = log.append(store, log.draft(log.SNAPSHOT, head.body["target"], head, live_now, **members, manifest=ref))
        assert isinstance(record, log.Record)
        head = record
    report = back(target, head.number - 1, delete_excluded=True)
    assert {path for path, kind in kinds(report.problems) if kind == "unwritable"} == {os.fsdecode(path) for path in paths}
    assert list(outside.iterdir()) == []
    assert len(records(target)) == json.loads((root / ".mirror" / "latest.json").read_text())["number"]
    assert report.exit_code == 23


def test_without_the_rights_of_root(shared_folder: Path) -> None:
    site, root = shared_folder / "site", shared_folder / "live"
    write(site / "read-only" / "a.html", b"one")
    write(site / "closed" / "b.html", b"one")
    settle(site)
    modes = ((site / "read-only" / "a.html", 0o444), (site / "closed", 0o555))
    for path, mode in modes:
        path.chmod(mode)
    give_to_nobody(shared_folder)
    shared_folder.chmod(0o777)
    words = (root, "--cache-dir", shared_folder / "cache", "--min-free", "0")
    assert as_nobody("sync", site, *words, "--layout", "tree").code == 0
    was = tree(site)
    for path, _ in modes:
        path.chmod(0o755)
    write(site / "read-only" / "a.html", b"two", BEGINNING + 1)
    (site / "closed" / "b.html").unlink()
    settle(site)
    give_to_nobody(site)
    assert as_nobody("sync", site, *words).code == 0
    done = as_nobody("rollback", *words, "--at", "2")
    assert done.code == 0, done.err
    there = TargetSpec(StoreSpec(str(root)), None)
    assert not (wrong := differing(live(there), was)), wrong
    assert as_nobody("sync", site, *words).code == 11
    assert as_nobody("sync", site, *words, "--release").code == 0
    assert not (wrong := differing(live(there), tree(site))), wrong


def test_at_must_be_said() -> None:
    target, _ = in_memory("at-what")
    with pytest.raises(UsageError, match="--at"):
        rollback(target, RollbackOptions())


def test_a_second_run_is_told(tmp_path: Path, target: TargetSpec) -> None:
    site, _, nights = prepared(tmp_path)
    told: list[BaseException] = []

    def meanwhile(stamped: Stamped) -> None:
        if isinstance(stamped.event, PhaseBegan) and stamped.event.phase == "write" and not told:
            for other in (lambda: back(target, min(nights)), lambda: publish(site, target)):
                with pytest.raises(InTheWayError) as caught:
                    other()
                told.append(caught.value)

    assert back(target, min(nights), Job("rollback", [meanwhile])).problems == []
    assert [str(error.kind) for error in told if isinstance(error, InTheWayError)] == ["in-the-way"] * 2


# -- kill -9


class Scene:
    """A tree of three nights, the last of which changed everything. Copied for each death."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site, target, self.nights = prepared(folder)
        change(self.site)
        self.nights[clean(self.site, target, max_delete=EVERYTHING).snapshot] = tree(self.site)
        self.good = sorted(self.nights)[1]
        self.changes = 0

    def copy(self, to: Path) -> TargetSpec:
        subprocess.run(["cp", "-a", self.folder / "live", self.folder / "cache", to], check=True)
        return TargetSpec(StoreSpec(str(to / "live")), to / "cache")

    def rolls_back(self, target: TargetSpec, last: int) -> int:
        words = ("rollback", target.store.url, "--at", self.good, "--workers", "0", "--min-free", "0", "-q", "--max-delete", "100%",
                 "--cache-dir", target.cache)  # fmt: skip
        return run_killed(last, Path(target.store.url).parent / "count", *words)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    scene = Scene(tmp_path_factory.mktemp("scene"))
    scene.changes = scene.rolls_back(scene.copy(tmp_path_factory.mktemp("trial")), 0)
    assert scene.changes > POINTS
    return scene


POINTS = 30


def began(target: TargetSpec) -> bool:
    return any("rollback_of" in each for each in records(target))


def comes_through(scene: Scene, target: TargetSpec, folder: Path) -> None:
    """After a death: old snapshots come back; a sync finishes what is begun, then waits; a rollback again ends it."""
    all_restore(target, scene.nights, folder)
    if began(target):
        waits(scene.site, target)
        seen(target, scene.nights[scene.good])
        snapshot = snapshots(target)[-1]
        assert (snapshot.rollback_of, snapshot.complete, snapshot.problems) == (scene.good, True, 0)
    else:
        assert clean(scene.site, target).snapshot == 0
        assert not (store_of(target) / "aside").exists()
    assert back(target, scene.good).problems == []
    seen(target, scene.nights[scene.good])
    assert not (store_of(target) / "aside").exists()
    nights = scene.nights | {line.number: scene.nights[scene.good] for line in snapshots(target) if line.rollback_of}
    assert clean(scene.site, target, release=True, max_delete=EVERYTHING).snapshot
    all_restore(target, nights, folder)


@pytest.mark.parametrize("part", some_of(range(POINTS), 3))
def test_a_rollback_that_dies(scene: Scene, tmp_path: Path, part: int) -> None:
    target = scene.copy(tmp_path)
    scene.rolls_back(target, 1 + part * (scene.changes - 1) // (POINTS - 1))
    comes_through(scene, target, tmp_path)


@pytest.mark.parametrize("part", some_of(range(6), 3))
def test_dies_twice_in_a_row(scene: Scene, tmp_path: Path, part: int) -> None:
    target = scene.copy(tmp_path)
    scene.rolls_back(target, scene.changes * (part + 6) // 13)
    scene.rolls_back(target, 3 + 9 * part)
    comes_through(scene, target, tmp_path)


@pytest.mark.parametrize("part", some_of(range(6), 3))
def test_the_sync_that_finishes_it_dies_too(scene: Scene, tmp_path: Path, part: int) -> None:
    target = scene.copy(tmp_path)
    scene.rolls_back(target, scene.changes * 10 // 13)
    assert began(target)
    words = ("sync", scene.site, target.store.url, "-q", "--cache-dir", target.cache)
    run_killed(2 + 7 * part, tmp_path / "count", *words, ends=(0, 11))
    comes_through(scene, target, tmp_path)


def test_another_host_finishes_it_without_the_drafts(scene: Scene, tmp_path: Path) -> None:
    """What was moved is in no pack: it is taken from where it still lies in the live tree."""
    target = scene.copy(tmp_path)
    scene.rolls_back(target, scene.changes * 9 // 13)
    assert began(target)
    shutil.rmtree(tmp_path / "cache")
    for path in (store_of(target) / "staged").rglob("*"):
        if not path.is_dir():
            path.unlink()
    heard: list[str] = []
    job = Job("sync", [lambda stamped: heard.append(stamped.event.kind) if isinstance(stamped.event, Notice) else None])
    with pytest.raises(InTheWayError):
        sync(SiteSpec(str(scene.site), Filter()), target, SyncOptions(workers=0), job)
    assert "finished" in heard
    seen(target, scene.nights[scene.good])


def test_reading_and_dry_runs_leave_it_alone(scene: Scene, tmp_path: Path) -> None:
    target = scene.copy(tmp_path)
    scene.rolls_back(target, scene.changes * 10 // 13)
    assert began(target)
    root = Path(target.store.url)
    before = shape(root)
    all_restore(target, scene.nights, tmp_path)
    assert publish(scene.site, target, dry_run=True).problems == []
    assert back(target, scene.good, dry_run=True).problems == []
    assert verify(target).problems == []
    assert shape(root) == before
