"""The log as a chain: every record read, held against the one before it, and against mirror.json. Changes nothing.

    chain = Chain(store, uuid, on_problem)
    chain.read()
    chain.head, chain.snapshots

The listing says which records there are, so a gap is seen that a reader in a hurry would take for the log's end. The newest
record that can be read is the head; a hint (`latest.json`) that is missing, old or spoilt is no damage.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from mirror import log
from mirror.errors import DamageError, NotFound
from mirror.keys import record_key
from mirror.manifest import Ref
from mirror.store import ReadableStore


class Snapshot(NamedTuple):
    """What a snapshot names: the roots of its manifest and of its change list, if it has one. standing, lingers: of a tree."""

    manifest: Ref
    changes: Ref | None
    standing: Ref
    lingers: tuple[Ref, ...] = ()


@dataclass
class Chain:
    """What reading the whole log gave. on_problem: gets (key, why) for each record that is not right. uuid: empty if not known."""

    store: ReadableStore
    uuid: str
    on_problem: Callable[[str, str], None]
    records: int = 0
    head: log.Record | None = None
    snapshots: dict[int, Snapshot] = field(default_factory=dict)  # that are live as of the head
    _damaged: set[int] = field(default_factory=set)

    def read(self) -> None:
        """Read it all, oldest first. Only what is live is kept in memory. UsageError where a newer mirror is needed."""
        numbers = log.numbers(self.store)
        for before, after in pairwise([0, *numbers]):
            if after > before + 1:
                missing = record_key(before + 1) + (f" to {record_key(after - 1)}" if after > before + 2 else "")
                self.on_problem(missing, f"it is not there, and record {after} is")
        previous: log.Record | None = None
        prunes = 0
        for number in numbers:
            record = self._read(number)
            if record is not None:
                self.records += 1
                try:
                    fault = self._fault(record, previous, prunes if self.records == number else None)
                    if record.kind == log.SNAPSHOT:
                        self.snapshots[number] = _snapshot(record)
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    fault = f"a member is missing or malformed ({error})"
                    self._damaged.add(number)
                if fault:
                    self.on_problem(record_key(number), fault)
                prunes = number if record.kind == log.PRUNE else prunes
                self.head = record
                if len(self.snapshots) > 1000 and not number % 1000:
                    self._forget(record.live)
            previous = record
        if self.head is not None:
            live = self.head.live
            self._forget(live)
            for number in numbers:
                if number in live and number not in self.snapshots and number not in self._damaged:
                    self.on_problem(record_key(number), f"record {self.head.number} calls it a live snapshot, and it is none")

    def _read(self, number: int) -> log.Record | None:
        try:
            return log.read_record(self.store, number)
        except DamageError as error:
            self.on_problem(record_key(number), error.why)
        except NotFound:
            self.on_problem(record_key(number), "it is listed, and not there")
        self._damaged.add(number)
        return None

    def _fault(self, record: log.Record, previous: log.Record | None, prunes: int | None) -> str:
        """What is wrong with a record, by itself and behind the one before (None: not known). prunes: the newest prune before."""
        totals = record.body.get("totals")
        if (
            record.kind == log.SNAPSHOT
            and totals
            and (totals["entries"], totals["bytes"]) != (record.manifest.entries, record.manifest.plain)
        ):
            return f"it counts {totals['entries']:,} entries with {totals['bytes']:,} bytes, and its manifest others"
        if self.uuid and record.body.get("target") != self.uuid:
            return "it belongs to another target"
        if previous is None or previous.number != record.number - 1:
            return ""
        if record.body["previous"]["blake3"] != previous.digest.hex():
            return f"it names another record {previous.number} than the one that is there: mixed with another copy of this target?"
        if record.time <= previous.time:
            return "its time is not after that of the record before it"
        if prunes is not None and int(record.body["prune"]) != prunes:
            return f"it says that record {record.body['prune']} was the newest prune, and {prunes} was"
        return ""

    def _forget(self, live: Container[int]) -> None:
        self.snapshots = {number: record for number, record in self.snapshots.items() if number in live}


def _snapshot(record: log.Record) -> Snapshot:
    changes, lingers = record.body.get("changes"), record.body.get("lingers", ())
    refs = tuple(log.ref_of(each) for each in lingers if each)
    return Snapshot(record.manifest, log.ref_of(changes) if changes else None, record.standing, refs)
