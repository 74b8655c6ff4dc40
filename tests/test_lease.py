"""Leases: who publishes into a bucket, when nobody can lock anything and no two clocks agree."""

from __future__ import annotations

import json
import time

import pytest
from faults import Fault, FaultyStore

from mirror import lease
from mirror.errors import InTheWayError
from mirror.events import Job, Notice, Stamped
from mirror.keys import LEASE_KEY
from mirror.lease import SECONDS, Lease, Watch, read_lease
from mirror.store.memory import MemoryStore


def test_it_is_written_anew_as_long_as_its_owner_lives() -> None:
    store, turns = MemoryStore(), set()
    with Lease(store, "me", 1.0) as held:
        until = time.monotonic() + 30
        while len(turns) < 3 and time.monotonic() < until:
            found = read_lease(store)
            assert found is not None
            assert (found.owner, found.seconds) == ("me", 1.0)
            turns.add(found.turn)
            held.check()
            time.sleep(0.02)
    assert len(turns) == 3
    before = store.objects[LEASE_KEY]
    time.sleep(0.5)
    assert store.objects[LEASE_KEY] == before  # nobody writes for one who has ended


def test_who_could_not_renew_it_in_time_changes_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FaultyStore(MemoryStore())
    with Lease(store, "me", 30.0) as held:
        store.faults.append(Fault("put_hint", nth=0))
        held.check()
        now = lease.now()
        monkeypatch.setattr(lease, "now", lambda: now + 29)
        held.check()
        monkeypatch.setattr(lease, "now", lambda: now + 31)
        with pytest.raises(InTheWayError, match="could not be renewed for 30 s"):
            held.check()


def test_a_lease_that_ran_out_is_not_renewed_when_the_store_is_back() -> None:
    store = FaultyStore(MemoryStore())
    with Lease(store, "me", 0.4) as held:
        held.check()
        store.faults.append(Fault("put_hint", nth=0))
        time.sleep(0.6)
        store.faults.clear()
        last = read_lease(store)
        time.sleep(0.3)  # time for two renewals
        assert read_lease(store) == last
        with pytest.raises(InTheWayError, match="could not be renewed"):
            held.check()


def test_who_lost_it_to_a_take_over_stops_though_it_could_renew() -> None:
    store = MemoryStore()
    with Lease(store, "me", 0.8) as held:
        held.check()
        written(store, "theirs")
        time.sleep(0.4)  # a renewal later
        with pytest.raises(InTheWayError, match="run other has taken over"):
            held.check()
        found = read_lease(store)
        assert found is not None
        assert found.owner == "other"


def test_a_renewal_whose_answer_was_lost_is_its_own() -> None:
    store = FaultyStore(MemoryStore())
    with Lease(store, "me", 1.2) as held:
        store.faults.append(Fault("put_hint", nth=1, when="after"))
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            held.check()
            time.sleep(0.05)


class Clock:
    """A clock that only goes on when somebody sleeps; `then` is called with each new time."""

    def __init__(self, then: object = None) -> None:
        self.time, self.then = 1000.0, then

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        if callable(self.then):
            self.then(self.time - 1000)


def written(store: MemoryStore, turn: str, seconds: object = 10) -> None:
    store.objects[LEASE_KEY] = json.dumps({"owner": "other", "turn": turn, "seconds": seconds}).encode()


def test_one_that_nobody_renews_for_twice_its_time_is_dead() -> None:
    store, told = MemoryStore(), list[Stamped]()
    written(store, "a")
    clock = Clock()
    assert Watch(store, Job("sync", listeners=[told.append]), clock.now, clock.sleep).is_dead()
    assert clock.time - 1000 > 20
    assert [stamped.event.kind for stamped in told if isinstance(stamped.event, Notice)] == ["lease"]


def test_one_that_is_renewed_at_the_last_moment_lives() -> None:
    store = MemoryStore()
    written(store, "a")
    clock = Clock(lambda since: written(store, "b") if since > 18 else None)
    assert not Watch(store, Job("sync"), clock.now, clock.sleep).is_dead()


NOT_A_NUMBER = b'{"owner": "a", "turn": "b", "seconds": NaN}'


@pytest.mark.parametrize(
    "body", [None, b"", b"[]", b"{}", b'{"owner": 1}', b'{"owner": "a", "turn": "b", "seconds": "x"}', NOT_A_NUMBER, b"\xff"]
)
def test_no_lease_or_a_spoilt_one_is_waited_for_all_the_same(body: bytes | None) -> None:
    store = MemoryStore()
    if body is not None:
        store.objects[LEASE_KEY] = body
    assert read_lease(store) is None
    clock = Clock()
    assert Watch(store, Job("sync"), clock.now, clock.sleep).is_dead()
    assert clock.time - 1000 > 2 * SECONDS
    clock = Clock(lambda since: written(store, "a") if since > 50 else None)
    assert not Watch(store, Job("sync"), clock.now, clock.sleep).is_dead()


@pytest.mark.parametrize(("seconds", "held"), [(0, 1.0), (-5, 1.0), (1e9, 3600.0), (12.5, 12.5)])
def test_a_time_that_lies_keeps_nobody_waiting_for_ever(seconds: float, held: float) -> None:
    store = MemoryStore()
    written(store, "a", seconds)
    found = read_lease(store)
    assert found is not None
    assert found.seconds == held
