"""verify finds every kind of damage in every kind of object, names files and snapshots, and takes nothing else for damage.

What is affected is found out by reading: a file is damaged in a snapshot when `cat` cannot give it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import S3
from mirrors import appended, in_memory, make_site, mirror, noise, repacked, settle, target_in, three_nights, write
from servers import READER

from mirror import log
from mirror.chunking import chunk_id
from mirror.contents import cat, snapshots
from mirror.create import init
from mirror.envelope import CHANGES, CHUNKS, FRAGMENT, SEGMENT, digest_of, seal, sealed_json, unsealed_json
from mirror.errors import DamageError, InterruptedRunError, NotFound, TargetMissingError, UsageError
from mirror.events import Advanced, Event, Job, PhaseBegan, ProblemFound
from mirror.index import StoredPack, encode_fragments
from mirror.keys import INDEX, PACK, ObjectName, show
from mirror.making import Making
from mirror.manifest import File
from mirror.pack import PackBuilder
from mirror.pick import Reading
from mirror.site import Filter, SiteSpec
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.store.memory import MemoryStore
from mirror.sync import SyncOptions, sync
from mirror.target import TargetSpec
from mirror.verify import VerifyOptions, VerifyReport, verify


def damaged(report: VerifyReport) -> dict[str, str]:
    """Path → why, of problems that are damage."""
    assert {problem.kind for problem in report.problems} <= {"damaged"}
    assert len({problem.path for problem in report.problems}) == len(report.problems)
    return {problem.path: problem.why for problem in report.problems}


def check(target: TargetSpec, **options: object) -> VerifyReport:
    report = verify(target, VerifyOptions(**{"workers": 0, **options}))  # type: ignore[arg-type]
    assert report.exit_code == (4 if report.problems else 0)
    assert report.problem_count == len(report.problems)
    return report


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The objects of a target with three snapshots. One file has a list of its own; each snapshot has one pack and one fragment."""
    folder = tmp_path_factory.mktemp("original")
    target, store = in_memory("original")
    three_nights(folder, target)
    return dict(store.objects)


@pytest.fixture
def target(original: dict[str, bytes], tmp_path: Path) -> tuple[TargetSpec, MemoryStore]:
    """A copy of the original."""
    target, store = in_memory(str(tmp_path))
    store.objects.update(original)
    return target, store


def kind_of(objects: dict[str, bytes], key: str) -> str:
    place = key.partition("/")[0]
    return f"manifests {chr(objects[key][4])}" if place == "manifests" else place


KINDS = ["manifests S", "manifests N", "manifests L", "manifests D", "packs", "index", "log", "mirror.json"]
HARM: dict[str, Callable[[bytes], bytes | None]] = {
    "flip": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "flip at the start": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "flip at the end": lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
    "truncate": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "longer": lambda data: data + b"x",
    "delete": lambda data: None,
}


def unreadable(target: TargetSpec, snapshots: list[int]) -> dict[str, list[int]]:
    """Files that cannot be read → in which snapshots."""
    found: dict[str, list[int]] = {}
    with Reading(target) as reading:
        for number in snapshots:
            record = reading.pick(str(number))
            for entry in reading.entries(record):
                try:
                    for _ in reading.contents(record, reading.reader.chunk_ids(entry)) if isinstance(entry, File) else ():
                        pass
                except (DamageError, NotFound):
                    found.setdefault(show(entry.path), []).append(number)
    return found


@pytest.mark.parametrize("quick", [False, True])
def test_a_whole_target_is_clean(target: tuple[TargetSpec, MemoryStore], quick: bool) -> None:
    before = dict(target[1].objects)
    report = check(target[0], quick=quick)
    assert (report.exit_code, report.problems, report.finished) == (0, [], True)
    assert (report.records, report.snapshots, report.fragments, report.packs, report.packs_unlisted) == (3, 3, 3, 3, 0)
    assert report.objects == len([key for key in before if key.startswith("manifests/")])
    packs = [len(data) for key, data in before.items() if key.startswith("packs/")]
    assert (report.packs_checked, report.bytes_read) == ((0, 0) if quick else (3, sum(packs)))
    assert target[1].objects == before


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_is_found_and_named(
    original: dict[str, bytes], target: tuple[TargetSpec, MemoryStore], kind: str, harm: str
) -> None:
    spec, store = target
    victims = sorted(key for key in original if kind_of(original, key) == kind)
    assert victims
    for key in victims:
        harmed = HARM[harm](original[key])
        if harmed is None:
            del store.objects[key]
        else:
            store.objects[key] = harmed
        if key == "log/000000000003.json" and harm == "delete":  # nobody can tell this from a target set back one night
            assert check(spec).exit_code == 0
        elif harm == "longer" and kind.startswith(("manifests", "index")) and original[key][6] == 1:
            assert check(spec).exit_code == 0  # zstd frames end where they say; the payload is what its name says
        else:
            found = damaged(check(spec))
            assert key in found
            affected = {path: why for path, why in found.items() if path != key}
            assert all(why.startswith("damaged in snapshot") for why in affected.values())
            if kind in ("packs", "index", "manifests L"):
                by_reading = unreadable(spec, [1, 2, 3])
                assert affected.keys() == by_reading.keys()
                for path, numbers in by_reading.items():
                    word = f"snapshot {numbers[0]}:" if len(numbers) == 1 else f"snapshots {numbers[0]}-{numbers[-1]}:"
                    assert affected[path].startswith(f"damaged in {word}")
            else:
                assert affected == {}
        store.objects[key] = original[key]
    assert check(spec).exit_code == 0


def test_what_the_problems_say(original: dict[str, bytes], target: tuple[TargetSpec, MemoryStore]) -> None:
    spec, store = target
    pack = max((key for key in original if key.startswith("packs/")), key=lambda key: len(original[key]))
    data = bytearray(original[pack])
    data[1_000_000] ^= 1
    store.objects[pack] = bytes(data)
    found = check(spec)
    why = "its bytes are not what its name says; 1 of its 2 blocks are damaged"
    assert str(found.problems[0]) == f"{pack}: {why}; bring it back from another copy of this target"
    assert str(found.problems[-1]) == f"big.bin: damaged in snapshots 1-3: a chunk of it is in the damaged pack {pack}"
    assert found.files_damaged == len(found.problems) - 1
    store.objects[pack] = original[pack]
    segment = next(key for key in sorted(original) if kind_of(original, key) == "manifests S")
    del store.objects[segment]
    (problem,) = check(spec).problems
    assert problem.path == segment
    assert problem.why.startswith("it is not there; ")
    assert " entries from ./ on are affected in snapshot " in problem.why


def test_damage_in_many_places_at_once(original: dict[str, bytes], target: tuple[TargetSpec, MemoryStore]) -> None:
    spec, store = target
    kinds = ("packs", "index", "log", "mirror.json", "manifests L")  # a damaged node hides what is below it
    victims = [next(key for key in sorted(original) if kind_of(original, key) == kind) for kind in kinds]
    for key in victims:
        store.objects[key] = original[key][:-1] + bytes([original[key][-1] ^ 1])
    found = damaged(check(spec))
    assert set(victims) <= found.keys()


def test_quick_looks_at_names_and_sizes(original: dict[str, bytes], target: tuple[TargetSpec, MemoryStore]) -> None:
    spec, store = target
    packs = sorted((key for key in original if key.startswith("packs/")), key=lambda key: len(original[key]))
    for pack in packs:
        store.objects[pack] = HARM["flip"](original[pack]) or b""
    store.get_ranges = None  # type: ignore[assignment,method-assign]
    assert check(spec, quick=True).exit_code == 0
    del store.objects[packs[0]]
    store.objects[packs[1]] = original[packs[1]][:-1]
    store.objects[packs[2]] = original[packs[2]][:30]
    found = damaged(check(spec, quick=True))
    assert found[packs[0]] == "it is not there"
    assert found[packs[1]] == f"it has {len(original[packs[1]]) - 1:,} bytes, {len(original[packs[1]]):,} are right"
    assert "big.bin" in found
    assert all(why.endswith((packs[0], packs[2])) for path, why in found.items() if path not in packs)


def test_a_footer_alone_hurts_no_file(original: dict[str, bytes], target: tuple[TargetSpec, MemoryStore]) -> None:
    spec, store = target
    pack = max((key for key in original if key.startswith("packs/")), key=lambda key: len(original[key]))
    store.objects[pack] = original[pack][:-20]
    assert damaged(check(spec)).keys() == {pack}


# The log


def test_gaps_in_the_log(target: tuple[TargetSpec, MemoryStore]) -> None:
    spec, store = target
    del store.objects["log/000000000001.json"]
    assert damaged(check(spec)) == {"log/000000000001.json": "it is not there, and record 2 is"}
    del store.objects["log/000000000002.json"]
    del store.objects["latest.json"]
    report = check(spec)
    assert damaged(report) == {"log/000000000001.json to log/000000000002.json": "it is not there, and record 3 is"}
    assert (report.records, report.snapshots) == (1, 1)


@pytest.mark.parametrize(
    "hint", [None, b"", b"garbage", b'{"number": 1}', b'{"number": 99}', b'{"number": -5}', b'{"number": "x"}', b"[]"]
)
def test_the_hint_is_no_evidence(target: tuple[TargetSpec, MemoryStore], hint: bytes | None) -> None:
    spec, store = target
    if hint is None:
        del store.objects["latest.json"]
    else:
        store.objects["latest.json"] = hint
    assert check(spec).exit_code == 0


def edited(store: MemoryStore, number: int, **members: object) -> None:
    """Another record in the place of one, its checksum right."""
    key = f"log/{number:012d}.json"
    store.objects[key] = sealed_json(unsealed_json(store.objects[key], key) | members)


@pytest.mark.parametrize(
    ("number", "members", "why"),
    [
        (2, {"tags": ["forged"]}, "it names another record 2 than the one that is there"),
        (3, {"previous": {"number": 2, "blake3": "00" * 32}}, "it names another record 2 than the one that is there"),
        (3, {"previous": {"number": 1, "blake3": "00" * 32}}, "it names no predecessor"),
        (3, {"previous": None}, "it names no predecessor"),
        (1, {"previous": {"number": 0, "blake3": "00" * 32}}, "it names no predecessor"),
        (3, {"time": "2020-01-01T00:00:00.000Z"}, "its time is not after that of the record before it"),
        (3, {"target": "0" * 32}, "it belongs to another target"),
        (3, {"prune": 2}, "it says that record 2 was the newest prune, and 0 was"),
        (3, {"live": [[1, 3]], "kind": "hold"}, "record 3 calls it a live snapshot, and it is none"),
    ],
)
def test_a_record_that_does_not_fit_the_chain(
    target: tuple[TargetSpec, MemoryStore], number: int, members: dict[str, object], why: str
) -> None:
    edited(target[1], number, **members)
    found = damaged(check(target[0]))
    told = [text for path, text in found.items() if path.startswith("log/")]
    assert [text for text in told if why in text]
    if members != {"tags": ["forged"]}:
        assert f"log/{number:012d}.json" in found


@pytest.mark.parametrize(
    "members",
    [{name: value} for name in ("totals", "changes", "tags", "source", "problem_count") for value in (5, "x", [1], {"x": {}})]
    + [
        {"totals": {"entries": "x", "bytes": None}},
        {"changes": {"blake3": "zz", "epoch": 0, "count": 0, "bytes": 0}},
        {"filters": [1]},
    ],
    ids=str,
)
def test_a_record_with_strange_members_is_no_reason_to_fall_over(
    target: tuple[TargetSpec, MemoryStore], members: dict[str, object]
) -> None:
    edited(target[1], 3, **members)
    report = verify(target[0], VerifyOptions(workers=0))
    assert {problem.path for problem in report.problems} <= {"log/000000000003.json"}
    assert {1, 2} <= {line.number for line in snapshots(target[0])}
    with Reading(target[0]) as reading:
        assert reading.pick("2").number == 2


def test_a_newer_format_is_no_damage(target: tuple[TargetSpec, MemoryStore]) -> None:
    edited(target[1], 3, features={"read": ["holes"], "write": [], "prune": []})
    with pytest.raises(UsageError, match="use a newer mirror") as caught:
        check(target[0])
    assert caught.value.kind == "newer-format"


def test_counts_that_are_not_those_of_the_tree(target: tuple[TargetSpec, MemoryStore]) -> None:
    body = unsealed_json(target[1].objects["log/000000000003.json"], "x")
    edited(target[1], 3, totals=body["totals"] | {"entries": 1})
    assert damaged(check(target[0]))["log/000000000003.json"].startswith("it counts 1 entries with ")
    edited(target[1], 3, totals=body["totals"], manifest=body["manifest"] | {"count": 5}, changes=None)
    assert [why for why in damaged(check(target[0])).values() if "its counts do not add up" in why]


def test_a_target_without_a_snapshot_and_no_target(tmp_path: Path) -> None:
    spec = target_in(tmp_path)
    with pytest.raises(TargetMissingError):
        verify(spec)
    init(spec, Making("packed", "www"))
    report = check(spec)
    assert (report.exit_code, report.records, report.snapshots) == (0, 0, 0)


# The storage below


@pytest.mark.parametrize("keeps_hint", [False, True])
def test_a_target_set_back_one_night_is_clean(tmp_path: Path, keeps_hint: bool) -> None:
    target, folder = target_in(tmp_path), tmp_path / "target"
    site = make_site(tmp_path / "site")
    mirror(site, target)
    assert check(target).exit_code == 0
    shutil.copytree(folder, tmp_path / "backup")
    write(site / "more", noise(100_000, 3))
    mirror(site, target)
    assert check(target).snapshots == 2
    hint = (folder / "latest.json").read_bytes()
    shutil.rmtree(folder)
    (tmp_path / "backup").rename(folder)
    if keeps_hint:
        (folder / "latest.json").write_bytes(hint)
    report = check(target)
    assert (report.exit_code, report.snapshots) == (0, 1)
    settle(site)
    assert mirror(site, target).snapshot == 2
    assert check(target).snapshots == 2
    assert check(TargetSpec(target.store)).exit_code == 0


def test_a_target_copied_elsewhere_is_clean(tmp_path: Path) -> None:
    target = target_in(tmp_path)
    three_nights(tmp_path, target)
    shutil.copytree(tmp_path / "target", tmp_path / "copy")
    copy = target_in(tmp_path, "copy")
    assert check(copy).exit_code == 0
    assert check(copy, against=SiteSpec(str(tmp_path / "site"))).exit_code == 0


def test_leftovers_are_no_damage(target: tuple[TargetSpec, MemoryStore]) -> None:
    spec, store = target
    store.objects |= {"packs/ab/something": b"", "notes.txt": b"mine", "log/1.json": b"", f"packs/00/{'00' * 32}.0": b"left behind"}
    report = check(spec)
    assert (report.exit_code, report.packs_unlisted) == (0, 1)


# Places


def again(store: MemoryStore, chunks: list[bytes]) -> str:
    """One more pack with these chunks, and its fragment; the pack's key."""
    builder = PackBuilder(level=19)
    for chunk in chunks:
        builder.add(chunk_id(chunk), chunk)
    pack = builder.finish()
    name = ObjectName(PACK, pack.digest, 0)
    store.create(name.key(), pack.data)
    listed(store, StoredPack(name, len(pack.data), pack.blocks))
    return name.key()


def listed(store: MemoryStore, pack: StoredPack) -> str:
    (payload,) = encode_fragments([pack])
    key = ObjectName(INDEX, digest_of(FRAGMENT, payload), 0).key()
    store.create(key, seal(FRAGMENT, payload))
    return key


def test_a_chunk_that_is_elsewhere_as_well_is_not_lost(target: tuple[TargetSpec, MemoryStore]) -> None:
    spec, store = target
    page = b"<h1>second night</h1>\n"
    twin = again(store, [page])
    assert check(spec).packs == 4
    store.objects[twin] = HARM["flip"](store.objects[twin]) or b""
    assert damaged(check(spec)).keys() == {twin}
    del store.objects[twin]
    assert damaged(check(spec)).keys() == {twin}
    # The other way round: what only one pack has is lost with it, the page is not.
    twin = again(store, [page, b"something else"])
    holders = {key for key in store.objects if key.startswith("packs/")} - {twin}
    for key in holders:
        store.objects[key] = b""
    found = damaged(check(spec))
    assert holders < found.keys()
    assert "pages/new.html" in found
    assert "index.html" in found  # of the first night
    assert found["index.html"].startswith("damaged in snapshot 1:")


def test_a_fragment_that_lies(target: tuple[TargetSpec, MemoryStore]) -> None:
    spec, store = target
    builder = PackBuilder()
    builder.add(chunk_id(b"truth"), b"truth")
    pack = builder.finish()
    name = ObjectName(PACK, pack.digest, 0)
    store.create(name.key(), pack.data)
    block = pack.blocks[0]
    listed(store, StoredPack(name, len(pack.data), [block._replace(ids=[chunk_id(b"lies")])]))
    assert damaged(check(spec)) == {name.key(): "the index lists other chunks than it has"}


def test_packs_that_are_split_between_fragments(tmp_path: Path) -> None:
    """70,000 chunks in one pack are two fragments."""
    target, store = in_memory(str(tmp_path))
    write(tmp_path / "site" / "x", b"x")
    mirror(tmp_path / "site", target)
    builder = PackBuilder()
    for number in range(70_000):
        data = number.to_bytes(20, "big")
        builder.add(chunk_id(data), data)
    pack = builder.finish()
    name = ObjectName(PACK, pack.digest, 0)
    store.create(name.key(), pack.data)
    for payload in encode_fragments([StoredPack(name, len(pack.data), pack.blocks)]):
        store.create(ObjectName(INDEX, digest_of(FRAGMENT, payload), 0).key(), seal(FRAGMENT, payload))
    report = check(target)
    assert (report.exit_code, report.fragments, report.packs) == (0, 3, 2)


# Others at work


def meanwhile(phase: str, act: Callable[[], object]) -> Job:
    """A job in which something happens elsewhere when this phase begins."""
    done: list[bool] = []

    def hear(stamped: object) -> None:
        event = stamped.event  # type: ignore[attr-defined]
        if isinstance(event, PhaseBegan) and event.phase == phase and not done:
            done.append(True)
            act()

    return Job("verify", [hear])


def test_a_prune_that_repacks_meanwhile_is_no_damage(target: tuple[TargetSpec, MemoryStore]) -> None:
    spec, store = target
    uuid = unsealed_json(store.objects["mirror.json"], "x")["uuid"]
    for phase in ("check", "read"):
        for quick in (False, True):
            report = verify(spec, VerifyOptions(workers=0, quick=quick), meanwhile(phase, lambda: repacked(store, uuid)))
            assert report.problems == []
    assert check(spec).exit_code == 0


def test_a_snapshot_that_is_forgotten_and_pruned_meanwhile_is_no_damage(
    original: dict[str, bytes], target: tuple[TargetSpec, MemoryStore]
) -> None:
    spec, store = target

    def forget_and_prune() -> None:
        head = log.read_head(store)
        assert head
        uuid = head.body["target"]
        head = appended(store, log.draft(log.FORGET, uuid, head, [3]))
        needed = manifests(store, 3)
        doomed = [key for key in store.objects if key.startswith("manifests/") and key not in needed]
        names = ManifestWriter(store, head.epoch, {}).names(doomed)
        appended(store, log.draft(log.PRUNE, uuid, head, [3], dooms=log.ref_json(names)))
        store.delete(doomed)

    report = verify(spec, VerifyOptions(workers=0), meanwhile("check", forget_and_prune))
    assert report.problems == []
    store.objects.clear()
    store.objects.update(original)
    report = verify(spec, VerifyOptions(workers=0), meanwhile("read", forget_and_prune))
    assert report.problems == []
    report = check(spec)
    assert (report.exit_code, report.records, report.snapshots) == (0, 5, 1)


def manifests(store: MemoryStore, number: int) -> set[str]:
    """The manifest objects that a snapshot needs."""
    reader, record = ManifestReader(store, None), log.read_record(store, number)
    needed = {ref.name.key() for ref, _ in reader.nodes(record.manifest, SEGMENT)}
    needed |= {ref.name.key() for ref, _ in reader.nodes(log.ref_of(record.body["changes"]), CHANGES)}
    for entry in reader.entries(record.manifest):
        if isinstance(entry, File) and entry.more:
            needed |= {ref.name.key() for ref, _ in reader.nodes(entry.more, CHUNKS)}
    return needed


def test_what_was_doomed_is_checked_as_well(target: tuple[TargetSpec, MemoryStore]) -> None:
    spec, store = target
    uuid = unsealed_json(store.objects["mirror.json"], "x")["uuid"]
    repacked(store, uuid)
    record = log.read_record(store, 4)
    names = log.ref_of(record.body["dooms"]).name.key()
    kept = store.objects.pop(names)
    assert damaged(check(spec))[names].startswith("it is not there")
    store.objects[names] = kept
    assert check(spec).exit_code == 0


# Parts and interruptions


def test_parts_cover_all_once(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    write(tmp_path / "site" / "x", b"x")
    mirror(tmp_path / "site", target)
    packs = {again(store, [noise(100, number)]) for number in range(40)}
    seen = []
    for part in range(1, 8):
        report = check(target, part=(part, 7))
        assert (report.part, report.packs) == (f"{part}/7", 41)
        seen.append(report.packs_checked)
    assert sum(seen) == 41
    assert 0 < max(seen) < 20
    victim = min(packs)
    store.objects[victim] = HARM["flip"](store.objects[victim]) or b""
    found = [part for part in range(1, 8) if check(target, part=(part, 7)).problems]
    assert len(found) == 1
    assert [part for part in range(1, 8) if check(target, part=(part, 7)).problems] == found


@pytest.mark.parametrize("part", [(0, 7), (8, 7), (1, 0), (-1, 3)])
def test_impossible_parts(target: tuple[TargetSpec, MemoryStore], part: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="say K/N"):
        verify(target[0], VerifyOptions(part=part))


def interrupted_after(packs: int) -> Job:
    """A job that is interrupted once so many packs are checked."""
    seen = {"check": 0}

    def hear(stamped: object) -> None:
        if isinstance(stamped.event, Advanced) and stamped.phase == "check":  # type: ignore[attr-defined]
            seen["check"] += 1
            if seen["check"] > packs:
                raise KeyboardInterrupt

    return Job("verify", [hear])


def with_packs(folder: Path, count: int) -> tuple[TargetSpec, MemoryStore]:
    """A target in memory, with a cache on this host, of so many packs and one more."""
    target, store = in_memory(str(folder))
    target = TargetSpec(target.store, folder / "cache")
    write(folder / "site" / "x", b"x")
    mirror(folder / "site", target)
    for number in range(count):
        again(store, [noise(100, number)])
    return target, store


def test_an_interrupted_run_is_gone_on_with(tmp_path: Path) -> None:
    target, _ = with_packs(tmp_path, 20)
    with pytest.raises(InterruptedRunError) as caught:
        verify(target, VerifyOptions(workers=0), interrupted_after(7))
    assert caught.value.exit_code == 130
    report = check(target)
    assert (report.packs_resumed, report.packs_checked, report.finished) == (7, 14, True)
    report = check(target)
    assert (report.packs_resumed, report.packs_checked) == (0, 21)


def test_max_duration(tmp_path: Path) -> None:
    target, store = with_packs(tmp_path, 20)
    report = verify(target, VerifyOptions(workers=0, max_duration=0.0))
    assert (report.finished, report.exit_code, report.packs_checked) == (False, 10, 0)
    with pytest.raises(InterruptedRunError):
        verify(target, VerifyOptions(workers=0), interrupted_after(5))
    report = verify(target, VerifyOptions(workers=0, max_duration=0.0))
    assert (report.finished, report.packs_resumed) == (False, 5)
    assert check(target).packs_resumed == 5
    pack = max(key for key in store.objects if key.startswith("packs/"))
    del store.objects[pack]
    report = verify(target, VerifyOptions(workers=0, max_duration=0.0))
    assert (report.finished, report.exit_code) == (False, 4)


def test_what_is_damaged_is_read_again_and_what_has_another_size(tmp_path: Path) -> None:
    target, store = with_packs(tmp_path, 20)
    packs = [key for key in store.objects if key.startswith("packs/")]
    kept = dict(store.objects)
    for key in packs:
        store.objects[key] = HARM["flip"](store.objects[key]) or b""
    with pytest.raises(InterruptedRunError):
        verify(target, VerifyOptions(workers=0), interrupted_after(19))
    store.objects.update(kept)
    with pytest.raises(InterruptedRunError):
        verify(target, VerifyOptions(workers=0), interrupted_after(19))
    for key in packs:
        store.objects[key] = kept[key][:-1]
    report = check(target)
    assert (report.packs_resumed, report.packs_checked) == (0, 21)
    assert {problem.path for problem in report.problems} >= set(packs)


def test_a_finished_part_forgets_only_itself(tmp_path: Path) -> None:
    target, _ = with_packs(tmp_path, 20)
    with pytest.raises(InterruptedRunError):
        verify(target, VerifyOptions(workers=0), interrupted_after(19))
    one = check(target, part=(1, 2))
    assert one.packs_resumed > 0
    assert check(target, part=(1, 2)).packs_resumed == 0
    other = check(target, part=(2, 2))
    assert one.packs_resumed + other.packs_resumed == 19


def test_every_problem_is_said_as_it_is_reported(target: tuple[TargetSpec, MemoryStore]) -> None:
    spec, store = target
    for key in [key for key in store.objects if key.startswith("packs/")]:
        del store.objects[key]
    events: list[Event] = []
    report = verify(spec, VerifyOptions(workers=0), Job("verify", [lambda stamped: events.append(stamped.event)]))
    assert [event.problem for event in events if isinstance(event, ProblemFound)] == report.problems
    assert report.files_damaged > 50


# Large, in processes, on S3


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TargetSpec]:
    """A site of 60 MB in a few packs."""
    folder = tmp_path_factory.mktemp("large")
    for number in range(60):
        write(folder / "site" / f"{number:02}.bin", noise(1_000_000, number))
    target = target_in(folder)
    mirror(folder / "site", target, workers=2)
    return folder, target


def test_in_processes(large: tuple[Path, TargetSpec]) -> None:
    folder, target = large
    report = verify(target, VerifyOptions(workers=2))
    assert (report.exit_code, report.packs_checked) == (0, report.packs)
    assert report.packs >= 3
    assert report.requests["get"] > report.packs
    pack = sorted((folder / "target" / "packs").rglob("*.0"))[0]
    data = bytearray(pack.read_bytes())
    data[5_000_000] ^= 1
    kept = pack.read_bytes()
    os.chmod(pack, 0o600)
    pack.write_bytes(data)
    try:
        report = verify(target, VerifyOptions(workers=2))
    finally:
        pack.write_bytes(kept)
    found = damaged(report)
    assert found.pop(pack.relative_to(folder / "target").as_posix()).startswith("its bytes are not what its name says; 1 of its ")
    assert found
    assert found.keys() == report_by_reading(target, bytes(data), pack, kept)


def report_by_reading(target: TargetSpec, spoilt: bytes, pack: Path, kept: bytes) -> set[str]:
    pack.write_bytes(spoilt)
    try:
        return set(unreadable(target, [1]))
    finally:
        pack.write_bytes(kept)


def test_on_s3(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = TargetSpec(s3.spec(), tmp_path / "cache")
    three_nights(tmp_path, target)
    report = verify(target, VerifyOptions(against=SiteSpec(str(tmp_path / "site"))))
    assert (report.exit_code, report.problems, report.packs_checked) == (0, [], 3)
    before = s3.objects()
    with monkeypatch.context() as only_reading:
        only_reading.setenv("AWS_ACCESS_KEY_ID", READER.access_key)
        only_reading.setenv("AWS_SECRET_ACCESS_KEY", READER.secret_key)
        fresh = TargetSpec(s3.spec())
        assert verify(fresh).exit_code == 0
        assert b"".join(cat(fresh, "1", "one")) == b"linked " * 3000
        assert [line.number for line in snapshots(fresh)] == [1, 2, 3]
    victim = max((key for key in before if "/packs/" in key), key=lambda key: before[key])
    s3.client.put_object(Bucket=s3.bucket, Key=f"{s3.prefix}/{victim}", Body=bytes(before[victim]))
    assert check(target, quick=True).exit_code == 0
    found = damaged(check(target))
    assert victim.removeprefix("mirror/") in found
    assert found["big.bin"].startswith("damaged in snapshots 1-3: ")
    s3.client.delete_object(Bucket=s3.bucket, Key=f"{s3.prefix}/{victim}")
    assert damaged(check(target, quick=True))[victim.removeprefix("mirror/")] == "it is not there"


# Against a site


@pytest.fixture
def twins(tmp_path: Path) -> tuple[Path, TargetSpec]:
    """A site and its mirror, the same."""
    target = target_in(tmp_path)
    three_nights(tmp_path, target)
    return tmp_path / "site", target


def against(site: Path, target: TargetSpec, **options: object) -> tuple[dict[str, str], VerifyReport]:
    report = verify(target, VerifyOptions(against=SiteSpec(str(site)), quick=True, workers=0, **options))  # type: ignore[arg-type]
    assert report.exit_code == (4 if report.problems else 0)
    assert {problem.kind for problem in report.problems} <= {"differs"}
    return {problem.path: problem.why for problem in report.problems}, report


def test_the_same(twins: tuple[Path, TargetSpec]) -> None:
    found, report = against(*twins)
    assert found == {}
    assert (report.described, report.against) == (0, str(twins[0]))
    assert report.compared == 48


def test_what_differs(twins: tuple[Path, TargetSpec]) -> None:
    site, target = twins
    stat = (site / "index.html").stat()
    (site / "index.html").write_bytes(b"<h1>SECOND night</h1>\n")
    os.utime(site / "index.html", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    big = (site / "big.bin").read_bytes()
    write(site / "big.bin", big[:-1], (site / "big.bin").stat().st_mtime_ns)
    (site / "three").unlink()
    (site / "three").mkdir()
    (site / "link").unlink()
    (site / "link").symlink_to("elsewhere")
    (site / "broken").unlink()
    (site / "broken").write_text("a file now")
    (site / "extra").write_text("extra")
    (site / "pages" / "new.html").unlink()
    os.utime(site / "pages" / "page-02.html")
    os.chmod(site / "pages" / "page-03.html", 0o600)
    found, report = against(site, target)
    assert found == {
        "big.bin": "its content is not that of snapshot 3",
        "broken": "it is a file, in snapshot 3 it is a link",
        "extra": f"{site} has it, snapshot 3 does not",
        "index.html": "its content is not that of snapshot 3",
        "link": "it leads to elsewhere, in snapshot 3 to pages/page-01.html",
        "pages/new.html": f"snapshot 3 has it, {site} does not",
        "three": f"snapshot 3 has it, {site} does not",
        "three/": f"{site} has it, snapshot 3 does not",
    }
    assert report.described >= 4  # two pages, and the folders above


def test_times_and_modes_alone_are_told_and_no_difference(twins: tuple[Path, TargetSpec]) -> None:
    site, target = twins
    os.utime(site)
    os.chmod(site / "empty", 0)
    os.utime(site / "link", follow_symlinks=False)
    found, report = against(site, target)
    assert found == {}
    assert report.described == 3


def test_against_an_older_snapshot(twins: tuple[Path, TargetSpec]) -> None:
    found, _ = against(*twins, at="1")
    assert {"index.html", "odd/", "zeros", "a/moved zeros", "big.bin"} <= found.keys()
    with pytest.raises(UsageError, match="there is no snapshot 9"):
        against(*twins, at="9")


def test_what_the_snapshot_left_out_is_no_difference(tmp_path: Path) -> None:
    site, target = tmp_path / "site", target_in(tmp_path)
    for name in ("a.html", "a.tmp", "cache/x"):
        write(site / name, name.encode())
    rules = Filter((("exclude", "*.tmp"), ("exclude", "cache/")))
    sync(SiteSpec(str(site), rules), target, SyncOptions(making=Making("packed")))
    assert against(site, target)[0] == {}
    write(site / "b.tmp", b"b")
    write(site / "b.html", b"b")
    assert against(site, target)[0].keys() == {"b.html"}
    everything = VerifyOptions(against=SiteSpec(str(site), Filter((("include", "*"),))), workers=0)
    assert {problem.path for problem in verify(target, everything).problems} == {"a.tmp", "b.html", "b.tmp", "cache/", "cache/x"}


def test_against_needs_no_pack(twins: tuple[Path, TargetSpec]) -> None:
    """The source is compared with what the manifest says: a damaged pack is found by its own check."""
    site, target = twins
    packs = Path(target.store.url) / "packs"
    shutil.rmtree(packs)
    report = verify(target, VerifyOptions(against=SiteSpec(str(site)), quick=True))
    assert {problem.kind for problem in report.problems} == {"damaged"}
