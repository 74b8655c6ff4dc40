"""Which snapshot is meant: numbers, latest, tags, times; and a target opened for reading while others change it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirrors import appended, in_memory, mirror, repacked, target_in, three_nights

from mirror import log
from mirror.envelope import write_time
from mirror.errors import DamageError, InTheWayError, NotFound, TargetMissingError, UsageError
from mirror.events import Job, Notice
from mirror.manifest import File
from mirror.pick import Reading, end_of, live_snapshots, pick
from mirror.store.memory import MemoryStore

ROOT = {"blake3": "00" * 32, "epoch": 0, "count": 0, "bytes": 0}


class Watched(MemoryStore):
    """A store that remembers what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, key: str, limit: int) -> bytes:
        self.read.append(key)
        return super().get(key, limit)


def logged(*started: str, tags: dict[int, tuple[str, ...]] | None = None, forget: tuple[int, ...] = ()) -> Watched:
    """A log of snapshots whose scans started then, and a record that forgets some."""
    store = Watched()
    head: log.Record | None = None
    for number, begin in enumerate(started, 1):
        live = list(range(1, number + 1))
        body = log.draft(log.SNAPSHOT, "t", head, live, started=begin, manifest=ROOT, tags=list((tags or {}).get(number, ())))
        head = appended(store, body)
    if forget:
        left = [number for number in range(1, len(started) + 1) if number not in forget]
        appended(store, log.draft(log.FORGET, "t", head, left))
    store.read.clear()
    return store


def number_of(store: MemoryStore, at: str) -> int:
    return pick(store, log.read_head(store), at).number


NIGHTS = ("2026-11-18T02:00:00.500Z", "2026-11-19T02:00:01.000Z", "2026-11-20T02:00:00.000Z", "2026-11-20T14:30:15.250Z")


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo-9" if not Path("/usr/share/zoneinfo/Asia/Tokyo").exists() else "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# Words


@pytest.mark.parametrize(
    ("at", "number"),
    [
        ("1", 1),
        ("04", 4),
        ("latest", 4),
        ("tag:a", 3),
        ("tag:b c", 1),
        ("2026-11-18", 1),
        ("2026-11-19", 2),
        ("2026-11-20", 4),
        ("2030-01-01", 4),
        ("2026-11-20T02:00", 3),
        ("2026-11-20 02:00", 3),
        ("2026-11-20T01:59", 2),
        ("2026-11-19T02:00", 2),
        ("2026-11-19T02:00:00", 1),
        ("2026-11-19T02:00:01", 2),
        ("2026-11-18T02:00:00", 1),
        ("2026-11-20T14:30:15", 4),
        ("2026-11-20T14:30:15.2", 4),
        ("2026-11-20T14:30:15.24", 3),
        ("2026-11-20T14:30:15.25", 4),
        ("2026-11-20T14:29", 3),
        ("2026-11-20T15:29+01:00", 3),
        ("2026-11-20T15:30+0100", 4),
        ("2026-11-20T14:29Z", 3),
        ("9999-12-30", 4),
    ],
)
@pytest.mark.usefixtures("utc")
def test_what_is_meant(at: str, number: int) -> None:
    store = logged(*NIGHTS, tags={1: ("b c",), 2: ("a",), 3: ("a", "x")})
    assert number_of(store, at) == number


@pytest.mark.usefixtures("tokyo")
def test_times_are_local_unless_they_say_otherwise() -> None:
    store = logged(*NIGHTS)
    assert number_of(store, "2026-11-20T10:59") == 2
    assert number_of(store, "2026-11-20T11:00") == 3
    assert number_of(store, "2026-11-20T02:00Z") == 3
    assert number_of(store, "2026-11-20") == 4
    assert end_of("2026-11-20").astimezone(end_of("2026-11-20T00:00Z").tzinfo).isoformat() == "2026-11-20T15:00:00+00:00"


@pytest.mark.parametrize(
    "at",
    [
        "",
        "yesterday",
        "Latest",
        "-1",
        "1.0",
        "2026-13-01",
        "2026-11-31",
        "2026-11-20T25:00",
        "2026-11-20T",
        "2026-11",
        "9999-12-31",
        "²",
    ],
)
def test_what_is_no_word_for_a_snapshot(at: str) -> None:
    with pytest.raises(UsageError, match="say a number, latest, tag:NAME") as caught:
        number_of(logged(*NIGHTS), at)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("at", "why"),
    [
        ("5", "record 5 is no snapshot but of kind forget"),
        ("6", "there is no snapshot 6"),
        ("0", "there is no snapshot 0"),
        ("2", "snapshot 2 was forgotten"),
        ("tag:a", "no live snapshot has the tag 'a'"),
        ("2026-11-17", "no live snapshot had been started by 2026-11-17"),
    ],
)
@pytest.mark.usefixtures("utc")
def test_what_is_not_there(at: str, why: str) -> None:
    store = logged(*NIGHTS, tags={2: ("a",)}, forget=(2,))
    with pytest.raises(UsageError) as caught:
        number_of(store, at)
    assert caught.value.why == why
    assert caught.value.hint == "live are 1, 3-4"


def test_a_forgotten_snapshot_is_not_found_by_time() -> None:
    assert number_of(logged(*NIGHTS, forget=(2,)), "2026-11-19T12:00Z") == 1


def test_long_lists_of_numbers_are_shortened() -> None:
    store = logged(*[NIGHTS[0]] * 20, forget=tuple(range(2, 20, 2)))
    with pytest.raises(UsageError) as caught:
        number_of(store, "99")
    assert caught.value.hint == "live are 1, 3, 5, … 15, 17, 19-20"


def test_a_target_without_snapshots() -> None:
    with pytest.raises(TargetMissingError, match="nothing was mirrored into it yet") as caught:
        pick(MemoryStore("empty"), None, "latest")
    assert caught.value.exit_code == 3
    with pytest.raises(TargetMissingError, match="all were forgotten"):
        number_of(logged(*NIGHTS, forget=(1, 2, 3, 4)), "1")


def test_snapshots_are_read_newest_first_and_only_as_far_as_needed() -> None:
    store = logged(*[write_time(end_of(f"2026-11-{day:02}T02:00Z")) for day in range(1, 20)])
    head = log.read_head(store, 19)
    store.read.clear()
    assert pick(store, head, "2026-11-17T12:00Z").number == 17
    assert store.read == ["log/000000000018.json", "log/000000000017.json"]
    snapshots = live_snapshots(store, head)
    assert [next(snapshots).number, next(snapshots).number] == [19, 18]


def test_a_record_that_is_gone_is_damage() -> None:
    store = logged(*NIGHTS)
    store.delete(["log/000000000002.json"])
    with pytest.raises(DamageError, match=r"log/000000000002.json: it is not there, and later ones are"):
        number_of(store, "2")


# Reading


def content(reading: Reading, record: log.Record, path: bytes) -> bytes:
    entry = next(reading.entries(record, [path]))
    assert isinstance(entry, File)
    return b"".join(reading.contents(record, reading.reader.chunk_ids(entry)))


def test_a_reader_goes_on_when_packs_were_moved_by_a_prune(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    three_nights(tmp_path, target)
    with Reading(target) as reading:
        record = reading.pick("1")
        before = content(reading, record, b"zeros")
        for _ in range(3):
            repacked(store, reading.target.uuid)
            assert content(reading, record, b"zeros") == before
    with Reading(target) as reading:
        assert content(reading, reading.pick("1"), b"zeros") == before


def test_a_prune_in_the_middle_of_a_file(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    three_nights(tmp_path, target)
    with Reading(target) as reading:
        record = reading.pick("3")
        entry = next(reading.entries(record, ["big.bin"]))
        assert isinstance(entry, File)
        chunks = reading.contents(record, [id_ for _ in range(60) for id_ in reading.reader.chunk_ids(entry)])
        data = next(chunks)
        repacked(store, reading.target.uuid)
        data += b"".join(chunks)
    assert data == (tmp_path / "site" / "big.bin").read_bytes() * 60


def test_a_snapshot_that_is_forgotten_meanwhile(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    three_nights(tmp_path, target)
    with Reading(target) as reading:
        record = reading.pick("1")
        appended(store, log.draft(log.FORGET, reading.target.uuid, reading.head, [2, 3]))
        store.delete([record.manifest.name.key()])
        with pytest.raises(InTheWayError, match="snapshot 1 was forgotten meanwhile"):
            list(reading.entries(record))
    with Reading(target) as reading:
        record = reading.pick("2")
        list(reading.index.places([]))
        appended(store, log.draft(log.FORGET, reading.target.uuid, reading.head, [3]))
        store.delete([key for key in store.objects if key.startswith("packs/")])
        with pytest.raises(InTheWayError, match="snapshot 2 was forgotten meanwhile"):
            content(reading, record, b"one")


def test_what_is_gone_while_the_head_stands_still_is_damage(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    three_nights(tmp_path, target)
    with Reading(target) as reading:
        record = reading.pick("1")
        packs = [key for key in store.objects if key.startswith("packs/")]
        store.delete(packs)
        with pytest.raises(
            DamageError, match=r"cannot read content from memory://.*/packs/.*: it is not there; run `mirror verify`"
        ):
            content(reading, record, b"one")
        store.delete([record.manifest.name.key()])
        with pytest.raises(DamageError, match=r"manifests/.*: it is not there, and a live snapshot needs it"):
            list(reading.entries(record))


def test_a_doomed_place_is_no_place(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    three_nights(tmp_path, target)
    with Reading(target) as reading:
        kept = dict(store.objects)
        repacked(store, reading.target.uuid)
        spoilt = {key: b"spoilt" for key in kept if key.startswith(("packs/", "index/"))}
        store.objects.update(spoilt)  # doomed, and still there
    with Reading(target) as reading:
        assert content(reading, reading.pick("1"), b"one") == b"linked " * 3000


def test_older_snapshots_can_be_read_when_the_newest_record_is_damaged(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    three_nights(tmp_path, target)
    store.objects["log/000000000003.json"] = b""
    notices: list[Notice] = []
    job = Job("ls", [lambda stamped: notices.append(stamped.event) if isinstance(stamped.event, Notice) else None])
    with Reading(target, job) as reading:
        assert reading.head
        assert reading.head.number == 2
        assert content(reading, reading.pick("2"), b"one") == b"linked " * 3000
        for at in ("latest", "2030-01-01", "tag:second"):
            with pytest.raises(
                DamageError, match=r"log/000000000003.json: .*; name a snapshot by its number \(--at N\): older ones are 1-2"
            ):
                reading.pick(at)
    assert [notice.kind for notice in notices] == ["damage"]


def test_a_damaged_fragment_hides_only_what_it_lists(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    nights = three_nights(tmp_path, target)
    assert nights
    big = max((key for key in store.objects if key.startswith("index/")), key=lambda key: len(store.objects[key]))
    store.objects[big] = store.objects[big][:-1]
    with Reading(target) as reading:
        record = reading.pick("3")
        assert content(reading, record, b"index.html") == b"<h1>second night</h1>\n"
        with pytest.raises(DamageError, match="the index lists no place for a chunk"):
            content(reading, record, b"one")


def test_reading_leaves_no_trace_in_the_target_and_little_on_the_host(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    three_nights(tmp_path, target)
    before = dict(store.objects)
    with Reading(target) as reading:
        content(reading, reading.pick("1"), b"one")
    assert store.objects == before


def test_two_readers_and_a_sync_of_one_host_do_not_meet(tmp_path: Path) -> None:
    target = target_in(tmp_path)
    three_nights(tmp_path, target)
    with Reading(target) as one, Reading(target) as two:
        assert one.state.lasting
        assert not two.state.lasting
        assert content(one, one.pick("1"), b"one") == content(two, two.pick("1"), b"one")
        (tmp_path / "site" / "more").write_text("more")
        mirror(tmp_path / "site", target)
        assert content(one, one.pick("3"), b"one") == content(two, two.pick("3"), b"one")
        with pytest.raises(UsageError):
            one.pick("4")  # it came later
    with Reading(target) as again:
        assert again.state.lasting
        assert content(again, again.pick("4"), b"more") == b"more"


def test_paths(tmp_path: Path) -> None:
    target, _ = in_memory(str(tmp_path))
    three_nights(tmp_path, target)
    with Reading(target) as reading:
        record = reading.pick("1")

        def listed(*paths: bytes | str) -> list[bytes]:
            return [entry.path for entry in reading.entries(record, paths)]

        everything = listed()
        assert everything == sorted(everything)
        assert listed("") == listed(".") == listed("./") == listed("/") == everything
        below = [path for path in everything if path.startswith(b"a/")]
        assert listed("a") == listed("a/") == listed("./a") == listed("/a") == listed("a", "a/b", "a/b/c/d/deep") == below
        assert listed("one", "a/b/c/d/deep", "broken") == [b"a/b/c/d/deep", b"broken", b"one"]
        assert listed(b"odd/latin-\xe9.html", "odd/latin-\udce9.html") == [b"odd/latin-\xe9.html"]
        for missing in ("nothing", "one/", "one/two", "a/b/c/d/deep/", "page"):
            with pytest.raises(UsageError, match="it is not in snapshot 1 of"):
                listed("one", missing)
        for impossible in ("a//b", "../a", "a/..", "a\0b"):
            with pytest.raises(UsageError, match=r"it (has|contains)"):
                listed(impossible)


def test_no_target_at_all(tmp_path: Path) -> None:
    with pytest.raises(TargetMissingError):
        Reading(target_in(tmp_path))
    with pytest.raises(NotFound):
        MemoryStore().get("mirror.json", 1)
