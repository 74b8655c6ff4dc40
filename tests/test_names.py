"""What the log tells of fragments, for readers that cannot list: always enough, in a few small records, whoever wrote meanwhile."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from byhand import appended as append_record
from byhand import assert_told, doom, forget, head_of, prune
from mirrors import appended, in_memory, make_site, mirror, noise, settle, three_nights, tree, write

from mirror import log
from mirror.envelope import sealed_json
from mirror.errors import DamageError, NoListing
from mirror.hold import append as append_hold
from mirror.keys import INDEX, LATEST_KEY, ObjectName, record_key, whole_key
from mirror.names import MOST, following, fragments, told
from mirror.restore import RestoreOptions, restore
from mirror.store import Stat, StoreSpec
from mirror.store.memory import MemoryStore
from mirror.target import TargetSpec
from mirror.verify import VerifyOptions, verify


class Unlisted(MemoryStore):
    """A store in memory that cannot be listed, as behind a web server. asked: keys that were read."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.asked: list[str] = []

    def list(self, prefix: str) -> Iterator[Stat]:
        raise NoListing("cannot list", where=self.url)

    def get(self, key: str, limit: int) -> bytes:
        self.asked.append(key)
        return super().get(key, limit)


def unlisted(store: MemoryStore) -> tuple[TargetSpec, Unlisted]:
    """The same objects, in a store that cannot be listed."""
    found = Unlisted.named(f"{store.url}-unlisted")
    assert isinstance(found, Unlisted)
    found.objects = store.objects
    return TargetSpec(StoreSpec(found.url)), found


def listed(store: MemoryStore) -> set[str]:
    return {key for key in store.objects if key.startswith(f"{INDEX}/")}


def rewrite(store: MemoryStore, number: int, change: Callable[[dict[str, Any]], object]) -> None:
    """A record as somebody else would have written it, and those behind it on top of it."""
    head = head_of(store).number
    for each in range(number, head + 1):
        body = json.loads(store.objects[record_key(each)])
        if each == number:
            change(body)
        else:
            body["previous"]["blake3"] = log.read_record(store, each - 1).digest.hex()
        store.objects[record_key(each)] = sealed_json(body)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MemoryStore]:
    store = MemoryStore.named(str(tmp_path))
    yield store
    store.objects.clear()


@pytest.fixture
def target(store: MemoryStore) -> TargetSpec:
    return TargetSpec(StoreSpec(store.url))


def names(number: int) -> list[str]:
    return [ObjectName(INDEX, number.to_bytes(32, "big"), 0).key()]


def grow(store: MemoryStore, keys: list[str]) -> log.Record:
    head = log.read_head(store)
    more = following(store, head, keys, lambda key: False)
    return appended(store, log.draft(log.SNAPSHOT, "0" * 32, head, [], **SNAPSHOT, **more))


SNAPSHOT: dict[str, Any] = {
    "manifest": log.ref_json(log.ref_of({"blake3": "0" * 64, "epoch": 0, "count": 0, "bytes": 0})),
    "started": "2026-11-20T02:00:07.000Z",
}


# -- what is told ------------------------------------------------------------------------------------------------------


def test_each_snapshot_tells_of_all_fragments_so_far(tmp_path: Path, store: MemoryStore, target: TargetSpec) -> None:
    nights = three_nights(tmp_path, target)
    head = head_of(store)
    assert len(listed(store)) == 3
    assert told(store, head) == listed(store)
    assert told(store, log.read_record(store, 1)) < told(store, log.read_record(store, 2)) < told(store, head)
    spec, _ = unlisted(store)
    for number, night in enumerate(nights, 1):
        assert restore(spec, str(tmp_path / f"{number}"), RestoreOptions(at=str(number), workers=0)).exit_code == 0
        assert tree(tmp_path / f"{number}") == night
    report = verify(spec, VerifyOptions(workers=0))
    assert (report.exit_code, report.records, report.packs_checked) == (0, 3, 3)


@pytest.mark.parametrize("hint", ["right", "gone", "old", "ahead", "spoilt"])
def test_the_head_is_found_without_a_listing(store: MemoryStore, hint: str) -> None:
    for number in range(21):
        log.put_hint(store, grow(store, names(number)))
    spoilt = {"old": b'{"number": 2}', "ahead": b'{"number": 99}', "spoilt": b"<html>"}
    if hint in spoilt:
        store.objects[LATEST_KEY] = spoilt[hint]
    elif hint == "gone":
        del store.objects[LATEST_KEY]
    _, there = unlisted(store)
    head = log.read_head(there)
    assert head is not None
    assert head.number == 21
    assert list(log.numbers(there)) == list(range(1, 22))
    assert told(there, head) == {name for number in range(21) for name in names(number)}


def test_an_empty_log_is_empty() -> None:
    _, there = unlisted(in_memory("nothing at all")[1])
    assert log.read_head(there) is None
    assert list(log.numbers(there)) == []
    assert told(there, None) == set()


def test_records_without_news_point_back(tmp_path: Path, store: MemoryStore, target: TargetSpec) -> None:
    three_nights(tmp_path, target)
    before = told(store, head_of(store))
    append_hold(store, "0" * 32, head_of(store), None)
    forget(store, [1])
    assert head_of(store).body["names"] == {"keys": [], "before": 3}
    assert told(store, head_of(store)) == before


def test_an_unchanged_night_writes_nothing_and_a_tag_no_names(tmp_path: Path, store: MemoryStore, target: TargetSpec) -> None:
    three_nights(tmp_path, target)
    there = set(store.objects)
    mirror(tmp_path / "site", target)
    assert set(store.objects) == there
    mirror(tmp_path / "site", target, tags=("again",))
    assert head_of(store).body["names"] == {"keys": [], "before": 3}


def test_what_a_dead_run_left_and_another_used_is_told(tmp_path: Path, store: MemoryStore, target: TargetSpec) -> None:
    site = make_site(tmp_path / "site")
    mirror(site, target)
    write(site / "more.bin", noise(300_000, 9))
    settle(site)
    mirror(site, target)
    for key in (record_key(2), LATEST_KEY):  # as if it had died before its record
        del store.objects[key]
    mirror(site, target)
    assert told(store, head_of(store)) == listed(store)
    assert_told(store)


# -- older mirrors, and prunes -----------------------------------------------------------------------------------------


def forget_names(body: dict[str, Any]) -> None:
    del body["names"]


def test_behind_an_older_mirror_readers_are_told_and_the_next_snapshot_begins_anew(
    tmp_path: Path, store: MemoryStore, target: TargetSpec
) -> None:
    three_nights(tmp_path, target)
    rewrite(store, 3, forget_names)
    spec, there = unlisted(store)
    with pytest.raises(NoListing, match=r"written by an older mirror, .*mirror sync --heartbeat"):
        restore(spec, str(tmp_path / "out"), RestoreOptions(workers=0))
    assert set(fragments(store, head_of(store))) == listed(store)
    append_record(store, log.FORGET, head_of(store).live)
    assert "names" not in head_of(store).body
    mirror(tmp_path / "site", target, heartbeat=True)
    assert told(there, head_of(store)) == listed(store)
    assert restore(spec, str(tmp_path / "out"), RestoreOptions(workers=0)).exit_code == 0


def test_a_prune_that_tells_nothing_ends_it_and_one_that_does_goes_on(
    tmp_path: Path, store: MemoryStore, target: TargetSpec
) -> None:
    three_nights(tmp_path, target)
    spec, there = unlisted(store)
    forget(store, [1])
    prune(store, repack=True)
    assert told(there, head_of(store)) == listed(store)
    assert restore(spec, str(tmp_path / "out"), RestoreOptions(workers=0)).exit_code == 0
    head = head_of(store)
    assert "names" not in log.draft(log.PRUNE, "0" * 32, head, head.live)


def test_doomed_names_are_passed_over(tmp_path: Path, store: MemoryStore, target: TargetSpec) -> None:
    three_nights(tmp_path, target)
    orphan = ObjectName(INDEX, bytes(32), 0).key()
    head = head_of(store)
    body = log.draft(log.SNAPSHOT, "0" * 32, head, head.live, **SNAPSHOT, **following(store, head, [orphan], lambda key: False))
    assert orphan in body["names"]["keys"]
    assert "names" not in following(store, head, [orphan], lambda key: key == orphan)
    doom(store, sorted(listed(store))[:1])
    write(tmp_path / "site" / "one more", noise(1000, 77))
    mirror(tmp_path / "site", target)
    assert_told(store)


# -- price ---------------------------------------------------------------------------------------------------------------


def test_a_thousand_nights() -> None:
    """With a new fragment each, now and then one without."""
    store = Unlisted("nights")
    written = 0
    for number in range(1000):
        record = grow(store, names(number))
        written += len(record.body["names"]["keys"])
        if number % 7 == 0:
            grow(store, [])
    head = head_of(store)
    store.asked.clear()
    assert told(store, head) == {name for number in range(1000) for name in names(number)}
    assert len(store.asked) < 25
    assert written < 30 * 1000
    assert max(len(data) for data in store.objects.values()) < 100_000


def test_many_names_at_once_are_an_object_of_their_own() -> None:
    store = Unlisted("many")
    many = [name for number in range(5 * MOST) for name in names(number)]
    grow(store, many)
    assert len(store.objects[record_key(1)]) < 2000
    grow(store, names(10**9))
    head = head_of(store)
    assert head.body["names"]["keys"] == names(10**9)
    assert told(store, head) == {*many, *names(10**9)}


def test_whole_files_are_told_too() -> None:
    store = Unlisted("whole")
    key = whole_key(bytes(16), 0)
    grow(store, [key, "packs/aa/" + "a" * 64 + ".0", "../../etc/passwd", *names(1)])
    assert told(store, head_of(store)) == {key, *names(1)}
    assert list(fragments(store, head_of(store))) == names(1)


# -- damage and lies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [{"keys": [1], "before": 0}, {"keys": "index", "before": 9}, {"keys": [], "before": 3}, {"keys": [], "before": -1},
     {"keys": []}, {"before": 0}, {"keys": [], "before": True}, {"keys": [], "before": 0, "more": {"blake3": "x"}}, [], "names", 7],
    ids=str,
)  # fmt: skip
def test_names_that_are_none_are_damage(store: MemoryStore, lie: Any) -> None:
    for number in range(3):
        grow(store, names(number))
    rewrite(store, 3, lambda body: body.update(names=lie))
    with pytest.raises(DamageError):
        log.read_record(store, 3)


@pytest.mark.parametrize("harm", ["gone", "silent"])
def test_a_chain_that_breaks_is_damage(store: MemoryStore, harm: str) -> None:
    for number in range(3):
        grow(store, names(number))
    rewrite(store, 3, lambda body: body.update(names={"keys": [], "before": 2}))
    if harm == "gone":
        del store.objects[record_key(2)]
    else:
        rewrite(store, 2, forget_names)
    _, there = unlisted(store)
    with pytest.raises(DamageError, match=record_key(2)):
        told(there, head_of(store))


def test_a_name_that_leads_elsewhere_is_no_fragment(tmp_path: Path, store: MemoryStore, target: TargetSpec) -> None:
    nights = three_nights(tmp_path, target)
    hostile = ["../../../etc/passwd", "index/../mirror.json", "packs/aa/" + "a" * 64 + ".0", "index/" + "A" * 64 + ".0", ""]
    rewrite(store, 3, lambda body: body["names"]["keys"].extend(hostile))
    spec, there = unlisted(store)
    assert restore(spec, str(tmp_path / "out"), RestoreOptions(workers=0)).exit_code == 0
    assert tree(tmp_path / "out") == nights[2]
    assert not {*hostile} & {*there.asked}


def test_a_fragment_that_is_gone_is_named(tmp_path: Path, store: MemoryStore, target: TargetSpec) -> None:
    three_nights(tmp_path, target)
    (victim, *_) = sorted(listed(store))
    del store.objects[victim]
    spec, _ = unlisted(store)
    for each in (target, spec):
        report = verify(each, VerifyOptions(workers=0))
        assert report.exit_code == 4
        assert {problem.why for problem in report.problems if problem.path == victim} == {"it is not there, and the log names it"}
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert restore(spec, str(tmp_path / "out"), RestoreOptions(at="3", workers=0)).exit_code in (0, 4, 23)
