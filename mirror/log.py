"""The log: numbered, create-only records, dense from 1; the only order of everything that happened to a target.

Owns how the head is found, how a record is appended and what a record says. A record is JSON with two spaces of rules: its last
member is `blake3`, the BLAKE3 of all bytes before the `,"blake3"` that begins it; unknown members are kept. Losing a race is
a return value: `append` says `Lost` and names the record that won. After a lost answer it reads the number back; the record's
uuid tells whose it is.

Dooms (DESIGN section 4, Epochs): the names in all prune records. `Dooms` keeps them in the local state, record by record.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, overload

from blake3 import blake3

from mirror.envelope import check_format, sealed_json, unsealed_json, write_time
from mirror.errors import DamageError, MirrorError, NoListing, NotFound, TemporaryError
from mirror.keys import LATEST_KEY, LOG_PREFIX, ObjectName, record_key, record_number
from mirror.manifest import Ref
from mirror.snapshot import ManifestReader
from mirror.state import State
from mirror.store import ReadableStore, WritableStore

RECORD_MAX = 1 << 20
_CARRIED = ("hold", "waits")  # members that go from each record to the next, so that the head alone tells of them
NUMBER_MAX = 10**12 - 1  # what twelve digits hold
SNAPSHOT, PRUNE, FORGET, HOLD = "snapshot", "prune", "forget", "hold"
PUBLISHING, TAKEOVER, DONE = "publishing", "takeover", "done"  # of trees
IMPORT = "import"  # what a client has brought for a tree, and is not published yet


@dataclass(frozen=True, slots=True)
class Live(Sequence[int]):
    """The numbers of live snapshots, ascending, held as ranges: a record may claim a thousand million of them.

    >>> live = Live(((1, 3), (7, 7)))
    >>> list(live), len(live), live[-1], 5 in live, list(live.plus(8).spans)
    ([1, 2, 3, 7], 4, 7, False, [(1, 3), (7, 8)])
    """

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Live:
        """Ascending numbers as ranges."""
        out: list[tuple[int, int]] = []
        for number in numbers:
            if out and out[-1][1] == number - 1:
                out[-1] = (out[-1][0], number)
            else:
                out.append((number, number))
        return cls(tuple(out))

    def plus(self, number: int) -> Live:
        """With one more, higher than all."""
        if self.spans and self.spans[-1][1] == number - 1:
            return Live((*self.spans[:-1], (self.spans[-1][0], number)))
        return Live((*self.spans, (number, number)))

    def __iter__(self) -> Iterator[int]:
        for first, last in self.spans:
            yield from range(first, last + 1)

    def __reversed__(self) -> Iterator[int]:
        for first, last in reversed(self.spans):
            yield from range(last, first - 1, -1)

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and any(first <= number <= last for first, last in self.spans)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.spans)

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> Live: ...

    def __getitem__(self, at: int | slice) -> int | Live:
        if isinstance(at, slice):
            return Live.of(self[each] for each in range(*at.indices(len(self))))
        left = at + len(self) if at < 0 else at
        for first, last in self.spans:
            if 0 <= left <= last - first:
                return first + left
            left -= last - first + 1
        raise IndexError(at)


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it is in the log: its members, and the BLAKE3 of its bytes, by which the next one names it."""

    body: dict[str, Any]
    digest: bytes

    @property
    def number(self) -> int:
        return int(self.body["number"])

    @property
    def kind(self) -> str:
        return str(self.body["kind"])

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.body["time"])

    @property
    def epoch(self) -> int:
        """The number of the newest prune record up to and including this one."""
        return self.number if self.kind == PRUNE else int(self.body["prune"])

    @property
    def live(self) -> Live:
        """Numbers of the live snapshots, ascending."""
        return Live(tuple((first, last) for first, last in self.body["live"]))

    @property
    def manifest(self) -> Ref:
        """The manifest's root."""
        return ref_of(self.body["manifest"])

    @property
    def standing(self) -> Ref:
        """The root of the manifest of all that is to stand in the live tree: the snapshot's, and what lingers."""
        return ref_of(self.body["standing"]) if self.body.get("standing") else self.manifest

    @property
    def started(self) -> datetime:
        return datetime.fromisoformat(self.body["started"])


def ref_of(value: dict[str, Any]) -> Ref:
    """A manifest object named in a record. KeyError, TypeError or ValueError when it is none."""
    ref = Ref(b"", bytes.fromhex(value["blake3"]), int(value["epoch"]), int(value["count"]), int(value["bytes"]))
    if len(ref.digest) != 32 or min(ref.epoch, ref.entries, ref.plain) < 0:
        raise ValueError("a reference is none")
    return ref


def ref_json(ref: Ref) -> dict[str, Any]:
    """How a record names a manifest object."""
    return {"blake3": ref.digest.hex(), "epoch": ref.epoch, "count": ref.entries, "bytes": ref.plain}


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending numbers as ranges.

    >>> ranges([1, 2, 3, 7])
    [[1, 3], [7, 7]]
    """
    live = numbers if isinstance(numbers, Live) else Live.of(numbers)
    return [list(span) for span in live.spans]


def read_record(store: ReadableStore, number: int) -> Record:
    """Record `number`. NotFound; DamageError; UsageError for a newer format."""
    key = record_key(number)
    return parse_record(store.get(key, RECORD_MAX), number, f"{store.url}/{key}")


def parse_record(data: bytes, number: int, where: str) -> Record:
    """The record in these bytes. DamageError when it is none, or not of that number; UsageError for a newer format."""
    body = unsealed_json(data, where)
    check_format(body, where)
    try:
        record = Record(body, blake3(data).digest())
        fault = _fault(record, number)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise DamageError("cannot use the record", where=where, why=f"a member is missing or malformed ({error})") from error
    if fault:
        raise DamageError("cannot use the record", where=where, why=fault)
    return record


def _fault(record: Record, number: int) -> str:
    """What is wrong with a record's members, as far as this program relies on them. Raises what Python does for wrong types."""
    body = record.body
    if record.number != number:
        return f"it does not describe number {number}"
    if not isinstance(body["uuid"], str) or not record.kind or record.time.tzinfo is None:
        return "a member is malformed"
    prune, live, previous = body["prune"], body["live"], body.get("previous")
    if type(prune) is not int or not 0 <= prune < number:
        return f"it names record {prune!r} as the newest prune before it"
    if any(type(end) is not int for span in live for end in span) or any(len(span) != 2 for span in live):
        return "its live snapshots are no ranges of numbers"
    if not all(1 <= first <= last <= number for first, last in live) or any(a[1] >= b[0] for a, b in pairwise(live)):
        return "its live snapshots are out of order, or none yet"
    if (previous is None) != (number == 1) or (
        previous is not None and (previous["number"] != number - 1 or not previous["blake3"])
    ):
        return "it names no predecessor"
    if (hold := body.get("hold")) is not None and not (
        all(type(hold[name]) is int and 1 <= hold[name] <= number for name in ("of", "record"))
        and datetime.fromisoformat(hold["since"]).tzinfo is not None
    ):
        return "its hold is malformed"
    if (waits := body.get("waits")) is not None and not (type(waits) is int and 1 <= waits <= number):
        return "the import that waits is none"
    if (names := body.get("names")) is not None and not _are_names(names, number):
        return "its names are malformed"
    if record.kind in (SNAPSHOT, PUBLISHING, IMPORT):
        named = [ref_of(body[name]) for name in ("expected", "deletes", "standing") if body.get(name)]
        named += [ref_of(lingers) for lingers in body.get("lingers", ()) if lingers is not None]
        if record.manifest is None or None in named or record.started.tzinfo is None or not _is_told_well(body):
            return "a member is malformed"
    if record.kind == TAKEOVER and not (type(body["of"]) is int and 1 <= body["of"] < number):
        return "it takes over from no record before it"
    if record.kind == PRUNE:
        ref_of(body["dooms"])
    return ""


def _are_names(names: dict[str, Any], number: int) -> bool:
    """Whether the member `names` of a record is as `mirror.names` has it."""
    if names.get("more"):
        ref_of(names["more"])
    return type(names["before"]) is int and 0 <= names["before"] < number and all(isinstance(key, str) for key in names["keys"])


def _is_told_well(body: dict[str, Any]) -> bool:
    """Whether what a snapshot's record tells people is of the right types."""
    source, tags, totals = body.get("source", {}), body.get("tags", []), body.get("totals", {})
    order = body.get("order", [])
    return (
        isinstance(source, dict)
        and all(isinstance(value, str) for value in source.values())
        and isinstance(tags, list)
        and all(isinstance(tag, str) for tag in tags)
        and isinstance(order, list)
        and all(isinstance(glob, str) for glob in order)
        and isinstance(totals, dict)
        and all(type(total) is int for total in (*totals.values(), body.get("problem_count", 0), body.get("rollback_of", 0)))
    )


def read_head(store: ReadableStore, known: int = 0) -> Record | None:
    """The newest record, None for an empty log. known: a number that this host has seen (0: none).

    Without a listing: the hint (or `known`), then forward, doubling the stride and halving it again, since numbers are dense.
    When the hint points past the end (the storage below was set back) or is missing, the listing decides.
    """
    number = max(_hint(store), known)
    if number:
        try:
            record = read_record(store, number)
        except NotFound:
            number = 0
    if not number:
        number = max(numbers(store), default=0)
        if not number:
            return None
        record = read_record(store, number)
    stride = 1
    while store.size(record_key(record.number + stride)) is not None:
        record = read_record(store, record.number + stride)
        stride *= 2
    while stride > 1:
        stride //= 2
        if store.size(record_key(record.number + stride)) is not None:
            record = read_record(store, record.number + stride)
    return record


def numbers(store: ReadableStore) -> Sequence[int]:
    """The numbers of all records that are there, ascending. Where nothing can be listed, those up to the first gap that is found by
    doubling and halving: the log has none, unless it is damaged."""
    try:
        return sorted({number for stat in store.list(LOG_PREFIX) if (number := record_number(stat.key))})
    except NoListing:
        pass
    last, stride = 0, 1
    while store.size(record_key(last + stride)) is not None:
        last, stride = last + stride, stride * 2
    while stride > 1:
        stride //= 2
        if store.size(record_key(last + stride)) is not None:
            last += stride
    return range(1, last + 1)


def _hint(store: ReadableStore) -> int:
    try:
        number = json.loads(store.get(LATEST_KEY, 4096))["number"]
    except (NotFound, ValueError, LookupError, TypeError, RecursionError, DamageError):
        return 0  # a hint that is missing or spoilt is no hint
    return number if type(number) is int and 0 < number <= NUMBER_MAX else 0


def newest_snapshot(store: ReadableStore, head: Record | None) -> Record | None:
    """The newest live snapshot as of a head."""
    live = head.live if head else []
    if not live or head is None:
        return None
    newest = head if live[-1] == head.number else read_record(store, live[-1])
    if newest.kind != SNAPSHOT:
        where = f"{store.url}/{record_key(newest.number)}"
        raise DamageError("cannot use the record", where=where, why=f"record {head.number} calls it a snapshot, and it is none")
    return newest


def waiting(store: ReadableStore, head: Record | None) -> Record | None:
    """The import that waits to be published as of a head."""
    return read_record(store, head.body["waits"]) if head is not None and head.body.get("waits") else None


def newest_of_site(store: ReadableStore, head: Record, snapshot: Record) -> Record | None:
    """The snapshot that the site itself was last found to be, on the way back from `snapshot` through rollbacks; None when it was
    forgotten."""
    while snapshot.body.get("rollback_of"):
        before = next(iter(snapshot.body.get("parents") or ()), None)
        if type(before) is not int or not before < snapshot.number or before not in head.live:
            return None
        snapshot = read_record(store, before)
        if snapshot.kind != SNAPSHOT:
            return None
    return snapshot


def records_back(store: ReadableStore, head: Record, down_to: int) -> Iterator[Record]:
    """The records from `head` down to number `down_to`, newest first; DamageError where the hash chain breaks."""
    record = head
    yield record
    while record.number > down_to:
        before = read_record(store, record.number - 1)
        check_chain(store, before, record)
        record = before
        yield record


def check_chain(store: ReadableStore, before: Record, record: Record) -> None:
    """DamageError unless `record` names `before` as the one before it."""
    named = record.body.get("previous") or {}
    if named.get("blake3") != before.digest.hex():
        raise DamageError(
            "the log's chain is broken",
            where=f"{store.url}/{record_key(before.number)}",
            why=f"record {record.number} names another predecessor",
            hint="part of this target was overwritten or mixed with another copy",
        )


@dataclass(frozen=True, slots=True)
class Lost:
    """Somebody else appended that number."""

    winner: Record


def draft(kind: str, target_uuid: str, head: Record | None, live: Iterable[int], **members: Any) -> dict[str, Any]:
    """A record's body that follows `head`. A hold goes on, and an import goes on to wait, unless `members` has another one, or None
    to end it. What is published comes in the place of what waits; so does a hold that begins: what is live is to stay."""
    number = (head.number if head else 0) + 1
    held = {name: head.body[name] for name in _CARRIED if head.body.get(name)} if head else {}
    if kind == IMPORT:
        held["waits"] = number
    elif kind == PUBLISHING or begins_hold(members, number):
        held["waits"] = None
    body = {
        "format": 1,
        "number": number,
        "kind": kind,
        "uuid": os.urandom(16).hex(),
        "target": target_uuid,
        "previous": {"number": head.number, "blake3": head.digest.hex()} if head else None,
        "features": {"read": [], "write": [], "prune": []},
        "time": next_time(head),
        "prune": head.epoch if head else 0,
        **_names_after(kind, head),
        **(held | members),
        "live": ranges(live),
        "signatures": [],
    }
    for name in _CARRIED:
        if body.get(name, held) is None:
            del body[name]
    return body


def begins_hold(members: Mapping[str, Any], number: int) -> bool:
    """Whether a record of this number begins the hold that it names."""
    hold = members.get("hold")
    return isinstance(hold, dict) and hold.get("record") == number


def _names_after(kind: str, head: Record | None) -> dict[str, Any]:
    """The member `names` of a record whose writer made nothing that a reader must know of: it points back. Nothing where the head
    has none, which an older mirror wrote, nor for a prune, which has to say for itself what it leaves."""
    told = head.body.get("names") if head else {"keys": (), "before": 0}
    if kind == PRUNE or not told:
        return {}
    before = head.number if head and (told["keys"] or told.get("more")) else told["before"]
    return {"names": {"keys": [], "before": before}}


def next_time(head: Record | None) -> str:
    """The time of a record that follows `head`: the clock, but never before the record before (times only inform)."""
    now = datetime.now(UTC)
    if head is None:
        return write_time(now)
    try:
        return write_time(max(now, head.time + timedelta(milliseconds=1)))
    except OverflowError:  # a clock that stood at the end of time
        return write_time(head.time)


def append(store: WritableStore, body: dict[str, Any]) -> Record | Lost:
    """Create the record, or say who won. UsageError past 1 MiB. TemporaryError when even reading back fails.

    A create that fails or says "exists" settles nothing: the answer to ours may have been lost. The number is read back: same uuid,
    it was ours; another, a real race; absent, try again (icechunk#2099 took a lost answer for a conflict).
    """
    data = sealed_json(body)
    if len(data) > RECORD_MAX:
        raise MirrorError(
            "cannot append a record", where=store.url, why=f"it has {len(data)} bytes, at most {RECORD_MAX} are allowed"
        )
    if body["number"] > NUMBER_MAX:
        raise DamageError("cannot append a record", where=store.url, why=f"the log claims to have {body['number'] - 1} records")
    key = record_key(body["number"])
    failure: TemporaryError | None = None
    for _ in range(4):
        try:
            if store.create(key, data):
                return Record(body, blake3(data).digest())
        except TemporaryError as error:
            failure = error
        try:
            there = read_record(store, body["number"])
        except NotFound:
            continue
        if there.body["uuid"] == body["uuid"]:
            return there
        return Lost(there)
    raise failure or TemporaryError(
        "cannot append record", where=f"{store.url}/{key}", why="it neither exists nor can be created", hint="try again"
    )


def put_hint(store: WritableStore, record: Record) -> None:
    """Leave the hint where the log ends. A credential that may not overwrite cannot; nothing depends on it."""
    try:
        store.put_hint(LATEST_KEY, json.dumps({"number": record.number, "blake3": record.digest.hex()}).encode())
    except MirrorError:
        return


class Dooms:
    """Which object names prune records have named, up to a head. Kept in the local state; extended record by record."""

    def __init__(self, store: ReadableStore, state: State) -> None:
        self._store, self._state = store, state

    def learn(self, head: Record | None) -> None:
        """Take in every prune record up to `head` that is not known yet."""
        known_no, _, known_digest = self._state.fact("doomed-up-to").partition(" ")
        number = head.epoch if head else 0
        fresh: list[Record] = []
        while number > int(known_no or 0):
            record = read_record(self._store, number)
            if record.kind != PRUNE:
                where = f"{self._store.url}/{record_key(number)}"
                raise DamageError("cannot use the record", where=where, why="a later one calls it a prune, and it is none")
            fresh.append(record)
            number = int(record.body["prune"])
        foreign = number != int(known_no or 0) or (number and read_record(self._store, number).digest.hex() != known_digest)
        if foreign:  # the target was set back or is another copy: what was remembered is of another history
            with self._state.together():
                self._state.db.execute("DELETE FROM doom")
                self._state.remember("doomed-up-to", "")
                self._state.forget_index()  # it lacks what those records doomed
            if known_no:
                self.learn(head)
                return
        reader = ManifestReader(self._store, self._state)
        for record in reversed(fresh):
            with self._state.together():
                keys = reader.names(ref_of(record.body["dooms"]))
                self._state.db.executemany("INSERT OR REPLACE INTO doom VALUES (?, ?)", ((key, record.number) for key in keys))
                self._state.remember("doomed-up-to", f"{record.number} {record.digest.hex()}")

    def __call__(self, key: str) -> bool:
        """Whether an object of this name is doomed, there or not."""
        row = self._state.db.execute("SELECT prune FROM doom WHERE name = ?", (key,)).fetchone()
        if row is None:
            return False
        name = ObjectName.parse(key)
        return name is None or row[0] > name.epoch
