"""The lease of a publisher: what has run out stays so."""

from __future__ import annotations

import time

import pytest

from mirror.errors import InTheWayError, TemporaryError
from mirror.lease import Lease, read_lease
from mirror.store import Data
from mirror.store.memory import MemoryStore
from mirror.store.wrap import WrappedStore


class Away(WrappedStore):
    """A store that cannot be reached for a while."""

    away = False

    def put_hint(self, key: str, data: Data) -> None:
        if self.away:
            raise TemporaryError("cannot write", where=key, why="no connection")
        super().put_hint(key, data)


def test_a_lease_that_ran_out_is_not_renewed_when_the_store_is_back() -> None:
    store = Away(MemoryStore("lease"))
    with Lease(store, "me", 0.4) as lease:
        lease.check()
        store.away = True
        time.sleep(0.6)
        store.away = False
        last = read_lease(store)
        time.sleep(0.3)  # time for two renewals
        assert read_lease(store) == last
        with pytest.raises(InTheWayError, match="could not be renewed"):
            lease.check()
