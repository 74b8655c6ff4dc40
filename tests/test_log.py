"""The log: how a record is appended when answers are lost and races are real, how the head is found, what a record may claim."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from faults import Fault, FaultyStore
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror import log
from mirror.envelope import sealed_json, write_time
from mirror.errors import DamageError, MirrorError, TemporaryError, UsageError
from mirror.keys import LATEST_KEY, record_key
from mirror.snapshot import ManifestWriter
from mirror.state import State
from mirror.store.memory import MemoryStore

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other work may be going on here
TARGET = "0" * 32


def noted(head: log.Record | None, **members: Any) -> dict[str, Any]:
    """A record that says nothing: of a kind that this program does not know."""
    return log.draft("note", TARGET, head, head.live if head else [], **members)


def grown(store: Any, count: int, head: log.Record | None = None) -> log.Record:
    """A log with `count` more records; the hint is left alone."""
    for _ in range(count):
        result = log.append(store, noted(head))
        assert isinstance(result, log.Record)
        head = result
    assert head is not None
    return head


def spoilt(store: MemoryStore, at: int, **members: Any) -> None:
    """Record `at` written anew with other members and a right checksum."""
    body = json.loads(store.objects[record_key(at)])
    body.update(members)
    store.objects[record_key(at)] = sealed_json({k: v for k, v in body.items() if v is not ...})


# -- appending --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_append_whose_answer_is_lost_is_ours_and_made_once(when: str) -> None:
    store = FaultyStore(MemoryStore(), [Fault("create", when=when)])  # type: ignore[arg-type]
    body = noted(None)
    record = log.append(store, body)
    assert isinstance(record, log.Record)
    assert record.digest == log.read_record(store, 1).digest
    assert record.body["uuid"] == body["uuid"]
    assert Counter(kind for kind, _ in store.calls)["create"] == (1 if when == "after" else 2)


def test_an_append_that_reads_back_another_record_has_lost() -> None:
    store = MemoryStore()
    theirs = grown(store, 1)
    lost = log.append(store, noted(None))
    assert isinstance(lost, log.Lost)
    assert lost.winner.digest == theirs.digest


def test_a_lost_answer_to_a_lost_race_is_no_success() -> None:
    inner = MemoryStore()
    theirs = grown(inner, 1)
    lost = log.append(FaultyStore(inner, [Fault("create", when="after")]), noted(None))
    assert isinstance(lost, log.Lost)
    assert lost.winner.digest == theirs.digest


def test_a_conflict_without_an_object_is_tried_again() -> None:
    class Conflicts(MemoryStore):
        refusals = 2

        def create(self, key: str, data: Any) -> bool:
            self.refusals -= 1
            return self.refusals < 0 and super().create(key, data)

    store = Conflicts()
    record = log.append(store, noted(None))
    assert isinstance(record, log.Record)
    assert list(store.objects) == [record_key(1)]

    class Never(MemoryStore):
        def create(self, key: str, data: Any) -> bool:
            return False

    with pytest.raises(TemporaryError, match="neither exists nor can be created"):
        log.append(Never(), noted(None))


def test_an_append_that_cannot_even_read_back_is_a_temporary_failure() -> None:
    store = FaultyStore(MemoryStore(), [Fault("create", nth=0, when="after"), Fault("get", nth=0)])
    with pytest.raises(TemporaryError):
        log.append(store, noted(None))


def test_a_record_past_one_mebibyte_is_refused_and_not_written() -> None:
    store = MemoryStore()
    with pytest.raises(MirrorError, match="1048576 are allowed"):
        log.append(store, noted(None, problems=["x" * log.RECORD_MAX]))
    assert not store.objects


def test_a_log_that_is_full_is_not_written_past_its_end() -> None:
    store = MemoryStore()
    grown(store, 1)
    store.objects[record_key(log.NUMBER_MAX)] = store.objects.pop(record_key(1))
    spoilt(store, log.NUMBER_MAX, number=log.NUMBER_MAX, previous={"number": log.NUMBER_MAX - 1, "blake3": "0" * 64})
    head = log.read_head(store)
    assert head is not None
    with pytest.raises(DamageError, match="claims to have 999999999999 records"):
        log.append(store, noted(head))
    assert len(store.objects) == 1


def test_the_time_of_a_record_never_goes_back() -> None:
    store = MemoryStore()
    head = grown(store, 1)
    future = write_time(datetime.now(UTC) + timedelta(days=400))
    spoilt(store, 1, time=future)
    head = log.read_record(store, 1)
    after = grown(store, 2, head)
    assert write_time(after.time) == write_time(head.time + timedelta(milliseconds=2))


def test_the_end_of_time_is_no_reason_to_stop() -> None:
    store = MemoryStore()
    grown(store, 1)
    spoilt(store, 1, time="9999-12-31T23:59:59.999Z")
    assert grown(store, 1, log.read_record(store, 1)).time.year == 9999


# -- the head ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_log() -> MemoryStore:
    store = MemoryStore()
    grown(store, 130)
    return store


@pytest.mark.parametrize("behind", [0, 1, 2, 3, 29, 100, 129])
@pytest.mark.parametrize("by", ["hint", "known"])
def test_the_head_is_found_from_a_stale_number_without_a_listing(long_log: MemoryStore, behind: int, by: str) -> None:
    store = FaultyStore(_copy(long_log))
    if by == "hint":
        log.put_hint(store, log.read_record(long_log, 130 - behind))
    store.calls.clear()
    head = log.read_head(store, 130 - behind if by == "known" else 0)
    assert head == log.read_record(long_log, 130)
    kinds = Counter(kind for kind, _ in store.calls)
    assert not kinds["list"]
    assert kinds["get"] + kinds["size"] <= 3 + 4 * behind.bit_length()


@calm
@given(st.integers(1, 130))
def test_galloping_finds_the_head_from_everywhere(long_log: MemoryStore, known: int) -> None:
    head = log.read_head(long_log, known)
    assert head is not None
    assert head.number == 130


HUGE = b'{"number": ' + b"9" * 4000 + b"}"


@pytest.mark.parametrize(
    "hint",
    [
        b"", b"garbage", b"\xff\xfe", b"[]", b"3", b"null", b'{"number": null}', b'{"number": "x"}', b'{"number": -4}',
        b'{"number": 0}',
        b'{"number": 1e999}', b'{"number": [1]}', b'{"number": 131}', b'{"number": 1000000000000000}', HUGE, b"[" * 4096,
        b"x" * 5000,
    ],
)  # fmt: skip
def test_a_hint_that_is_spoilt_or_points_past_the_end_does_no_harm(long_log: MemoryStore, hint: bytes) -> None:
    store = FaultyStore(_copy(long_log))
    store.inner.objects[LATEST_KEY] = hint  # type: ignore[attr-defined]
    head = log.read_head(store)
    assert head is not None
    assert head.number == 130
    assert ("list", "log/") in store.calls


def test_an_empty_log_has_no_head() -> None:
    store = MemoryStore()
    assert log.read_head(store) is None
    assert log.read_head(store, 7) is None
    store.objects["log/README"] = b""
    assert log.read_head(store) is None


def test_a_target_that_was_set_back_is_read_to_its_own_end(long_log: MemoryStore) -> None:
    store = _copy(long_log)
    log.put_hint(store, log.read_record(store, 130))
    for number in range(100, 131):
        del store.objects[record_key(number)]
    head = log.read_head(store, 130)
    assert head is not None
    assert head.number == 99


def _copy(store: MemoryStore) -> MemoryStore:
    copy = MemoryStore()
    copy.objects = dict(store.objects)
    return copy


# -- the chain, and what records may say ------------------------------------------------------------------------------


def test_a_broken_chain_is_damage() -> None:
    store = MemoryStore()
    head = grown(store, 5)
    assert [record.number for record in log.records_back(store, head, 2)] == [5, 4, 3, 2]
    spoilt(store, 3, remark="somebody was here")
    with pytest.raises(DamageError, match="record 4 names another predecessor"):
        list(log.records_back(store, head, 1))


def test_unknown_members_are_kept() -> None:
    store = MemoryStore()
    grown(store, 1)
    spoilt(store, 1, later={"a": [1, None]})
    record = log.read_record(store, 1)
    assert record.body["later"] == {"a": [1, None]}
    assert json.loads(sealed_json(record.body)) == json.loads(store.objects[record_key(1)])


@pytest.mark.parametrize(
    "members", [{"features": {"read": ["shards"], "write": [], "prune": []}}, {"format": 2}, {"format": "1"}, {"format": ...}]
)
def test_a_record_of_a_newer_format_is_refused(members: dict[str, Any]) -> None:
    store = MemoryStore()
    grown(store, 1)
    spoilt(store, 1, **members)
    with pytest.raises(UsageError) as caught:
        log.read_record(store, 1)
    assert caught.value.kind == "newer-format"


REFERENCE = {"blake3": "0" * 64, "epoch": 0, "count": 1, "bytes": 1}


@pytest.mark.parametrize(
    "members",
    [
        {"number": 1}, {"number": 3}, {"number": "x"}, {"number": 1e999}, {"number": ...},
        {"uuid": ...}, {"uuid": None}, {"kind": ""},
        {"time": ...}, {"time": "yesterday"}, {"time": "2026-11-20T03:00:00"}, {"time": 5},
        {"prune": 2}, {"prune": -1}, {"prune": 7}, {"prune": "0"}, {"prune": ...}, {"prune": True},
        {"live": ...}, {"live": None}, {"live": [[1]]}, {"live": [1]}, {"live": [[2, 1]]}, {"live": [[0, 1]]}, {"live": [[1, 3]]},
        {"live": [[1, 10**12]]}, {"live": [[1, 1.5]]}, {"live": [[1, 1], [1, 2]]}, {"live": [[2, 2], [1, 1]]},
        {"live": [["1", "1"]]}, {"live": [[1, 1, 1]]}, {"live": "11"},
        {"previous": ...}, {"previous": None}, {"previous": {}}, {"previous": []}, {"previous": {"number": 2, "blake3": "0" * 64}},
        {"previous": {"number": 1}},
        {"features": []}, {"features": {"read": 5}}, {"features": {"read": [{}]}}, {"features": {"read": [5]}},
        {"kind": "snapshot"}, {"kind": "snapshot", "manifest": REFERENCE},
        {"kind": "snapshot", "manifest": REFERENCE, "started": "2026-11-20T03:00:00"},
        {"kind": "snapshot", "manifest": REFERENCE | {"blake3": "00"}, "started": "2026-11-20T03:00:00Z"},
        {"kind": "snapshot", "manifest": REFERENCE | {"blake3": "zz" * 32}, "started": "2026-11-20T03:00:00Z"},
        {"kind": "snapshot", "manifest": REFERENCE | {"epoch": -1}, "started": "2026-11-20T03:00:00Z"},
        {"kind": "snapshot", "manifest": REFERENCE | {"bytes": 1e999}, "started": "2026-11-20T03:00:00Z"},
        *({"kind": "snapshot", "manifest": REFERENCE, "started": "2026-11-20T03:00:00Z"} | wrong
          for wrong in ({"standing": 5}, {"lingers": 5}, {"lingers": [5]}, {"lingers": [{}]}, {"order": "*.css"}, {"order": [5]})),
        {"kind": "prune"}, {"kind": "prune", "dooms": []}, {"kind": "prune", "dooms": {"blake3": "00"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_record_is_damage_and_nothing_else(members: dict[str, Any]) -> None:
    store = MemoryStore()
    grown(store, 2)
    spoilt(store, 2, **members)
    with pytest.raises(MirrorError) as caught:
        log.read_record(store, 2)
    assert caught.value.exit_code in (2, 4)
    if "features" not in members:
        assert isinstance(caught.value, DamageError)


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 500_000, b"x" * (log.RECORD_MAX + 1), b'{"number":1}'])
def test_bytes_that_are_no_record_are_damage(data: bytes) -> None:
    store = MemoryStore()
    store.objects[record_key(1)] = data
    with pytest.raises(DamageError):
        log.read_record(store, 1)


def test_deep_nesting_is_damage() -> None:
    store = MemoryStore()
    inner = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    store.objects[record_key(1)] = inner[:-1] + sealed_json({"x": 1})[6:].replace(b"\n", b"")
    with pytest.raises(DamageError):
        log.read_record(store, 1)
    from blake3 import blake3

    text = inner[:-1]
    store.objects[record_key(1)] = text + b',"blake3":"' + blake3(text).hexdigest().encode() + b'"}\n'
    with pytest.raises(DamageError):
        log.read_record(store, 1)


def test_a_record_may_claim_ever_so_many_live_snapshots() -> None:
    store = MemoryStore()
    grown(store, 1)
    many = log.NUMBER_MAX - 1
    store.objects[record_key(many)] = store.objects.pop(record_key(1))
    spoilt(store, many, number=many, previous={"number": many - 1, "blake3": "0" * 64}, live=[[1, 5], [7, many]])
    head = log.read_head(store)
    assert head is not None
    assert (len(head.live), head.live[0], head.live[-1], head.live[5]) == (many - 1, 1, many, 7)
    assert 6 not in head.live
    assert many in head.live
    assert next(reversed(head.live)) == many
    assert bool(head.live)
    assert log.draft("note", TARGET, head, head.live)["live"] == [[1, 5], [7, many]]
    assert log.draft("note", TARGET, head, head.live.plus(many + 1))["live"] == [[1, 5], [7, many + 1]]


@calm
@given(st.sets(st.integers(1, 60)), st.integers(-70, 70), st.slices(60))
def test_live_is_a_list_of_numbers(numbers: set[int], at: int, part: slice) -> None:
    plain = sorted(numbers)
    live = log.Live.of(plain)
    assert (list(live), list(reversed(live)), len(live), bool(live)) == (plain, plain[::-1], len(plain), bool(plain))
    assert list(live[part]) == plain[part]
    assert (at in live) == (at in numbers)
    if -len(plain) <= at < len(plain):
        assert live[at] == plain[at]
    else:
        with pytest.raises(IndexError):
            live[at]
    assert list(live.plus(100)) == [*plain, 100]
    assert log.ranges(plain) == log.ranges(live) == [list(span) for span in live.spans]


def test_the_newest_snapshot_of_a_head_must_be_one() -> None:
    store = MemoryStore()
    grown(store, 2)
    spoilt(store, 2, live=[[1, 1]])
    with pytest.raises(DamageError, match="record 2 calls it a snapshot, and it is none"):
        log.newest_snapshot(store, log.read_record(store, 2))
    assert log.newest_snapshot(store, None) is None
    assert log.newest_snapshot(store, log.read_record(store, 1)) is None


# -- dooms ------------------------------------------------------------------------------------------------------------


def pruned(store: MemoryStore, head: log.Record | None, keys: list[str]) -> log.Record:
    """A prune record that dooms these keys, at the end of the log."""
    dooms = ManifestWriter(store, head.epoch if head else 0, {}).names(keys)
    body = log.draft(log.PRUNE, TARGET, head, head.live if head else [], dooms=log.ref_json(dooms))
    record = log.append(store, body)
    assert isinstance(record, log.Record)
    return record


def pack(number: int, epoch: int) -> str:
    return f"packs/{number:02x}/{number:02x}{'0' * 62}.{epoch}"


@pytest.fixture
def state(tmp_path: Path) -> Any:
    state = State(tmp_path / "state")
    yield state
    state.close()


def test_a_name_is_doomed_by_a_later_prune_alone(state: State) -> None:
    store = FaultyStore(MemoryStore())
    head = grown(store, 1)
    first = pruned(store, head, [pack(1, 0), pack(2, 2), pack(3, 5)])  # type: ignore[arg-type]
    assert first.number == 2
    dooms = log.Dooms(store, state)
    dooms.learn(first)
    assert [dooms(pack(n, e)) for n, e in ((1, 0), (1, 2), (2, 2), (3, 5), (4, 0))] == [True, False, False, False, False]
    head = grown(store, 2, first)
    third = pruned(store, head, [pack(2, 2), pack(3, 5), pack(1, 2)])  # type: ignore[arg-type]
    store.calls.clear()
    dooms.learn(third)
    assert [dooms(pack(n, e)) for n, e in ((1, 0), (1, 2), (2, 2), (3, 5), (3, 4))] == [True, True, True, False, False]
    assert ("get", record_key(4)) not in store.calls, "records that are no prunes are passed by"
    fifth = pruned(store, third, [pack(3, 5)])  # type: ignore[arg-type]
    dooms.learn(fifth)
    assert dooms(pack(3, 5))


def test_dooms_are_learned_record_by_record_and_anew_without_a_cache(state: State) -> None:
    store = FaultyStore(MemoryStore())
    head: log.Record | None = None
    for number in range(1, 6):
        head = pruned(store, head, [pack(number, 0)])  # type: ignore[arg-type]
        dooms = log.Dooms(store, state)
        store.calls.clear()
        dooms.learn(head)
        assert len([key for kind, key in store.calls if kind == "get" and key.startswith("log/")]) <= 2
        assert [dooms(pack(n, 0)) for n in range(1, 7)] == [n <= number for n in range(1, 7)]
        dooms.learn(head)
    with_nothing = State(None)
    fresh = log.Dooms(store, with_nothing)
    fresh.learn(head)
    assert [fresh(pack(n, 0)) for n in range(1, 7)] == [True] * 5 + [False]
    with_nothing.close()


def test_dooms_of_another_history_are_forgotten(state: State) -> None:
    store = MemoryStore()
    first = pruned(store, None, [pack(1, 0)])
    before = _copy(store)
    second = pruned(store, first, [pack(2, 0)])
    dooms = log.Dooms(store, state)
    dooms.learn(second)
    assert dooms(pack(2, 0))
    store.objects = before.objects  # the storage below was set back by a night
    dooms.learn(log.read_head(store))
    assert (dooms(pack(1, 0)), dooms(pack(2, 0))) == (True, False)
    dooms.learn(second := pruned(store, first, [pack(3, 0)]))
    assert (dooms(pack(1, 0)), dooms(pack(2, 0)), dooms(pack(3, 0))) == (True, False, True)
    store.objects = {}
    dooms.learn(None)
    assert not dooms(pack(1, 0))
    assert second.number == 2


def test_a_chain_of_prunes_that_leads_nowhere_is_damage(state: State) -> None:
    store = MemoryStore()
    head = grown(store, 2)
    spoilt(store, 2, prune=1)
    with pytest.raises(DamageError, match="calls it a prune, and it is none"):
        log.Dooms(store, state).learn(log.read_record(store, head.number))
