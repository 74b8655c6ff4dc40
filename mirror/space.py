"""Whether there is room for what a run is about to write, asked before anything is written; and what history takes of it."""

from __future__ import annotations

from typing import NamedTuple

from mirror.errors import TemporaryError
from mirror.state import State
from mirror.target import Target

_MIN_FREE_SHARE, _MIN_FREE_MOST = 0.05, 10 << 30


def floor_of(total: int, least: int | None, percent: float | None) -> int:
    """How many bytes are to stay free of `total`: what was asked for, else 5 % and at most 10 GiB.

    >>> floor_of(100 << 30, None, None) >> 30, floor_of(1000, 7, None), floor_of(1000, None, 10.0)
    (5, 7, 100)
    """
    if percent is not None:
        return int(total * percent / 100)
    return min(int(total * _MIN_FREE_SHARE), _MIN_FREE_MOST) if least is None else least


def _size(count: int) -> str:
    """Bytes for people, in MiB; in KiB where that would round to next to nothing.

    >>> _size(5 << 30), _size(444 << 10)
    ('5,120 MiB', '444 KiB')
    """
    return f"{count >> 20:,} MiB" if count >= 10 << 20 else f"{count >> 10:,} KiB"


def check_free(where: str, left: int, floor: int, needed: int, *, surely: bool) -> str:
    """Nothing to say where `needed` bytes fit; a sentence where they may not. surely: they are needed as they are (drafts of a
    tree), not perhaps (content that may be in packs already). TemporaryError when it cannot do."""
    if left < floor:
        why = f"{_size(left)} are free, --min-free asks for {_size(floor)}"
    elif left - needed >= floor:
        return ""
    elif not surely:
        return f"{_size(needed)} are to be read and {_size(left)} are free: it may not fit"
    else:
        why = f"{_size(needed)} are to be written, {_size(left)} are free, --min-free asks for {_size(floor)}"
    raise TemporaryError("not enough free space at", where=where, why=why, hint="free some, or lower --min-free", kind="disk-full")


def history_total(state: State, number: int, known: int | None) -> int | None:
    """Bytes of all packs of a tree as of record `number`: what this run knows, else what this host remembers of that very record,
    else None. Remembered for the next run, which may have no reason to look."""
    if known is None:
        at, _, size = state.fact("history").partition(" ")
        return int(size) if at == str(number) else None
    state.remember("history", f"{number} {known}")
    return known


class Least(NamedTuple):
    """What is to stay free: bytes, or percent of the whole place; both None: 5 % and at most 10 GiB."""

    size: int | None = None
    percent: float | None = None


def check_room(target: Target, staged: int, needed: int, least: Least, *, surely: bool) -> str:
    """`check_free` for a target, and for its store where that is elsewhere. staged: bytes of drafts that are room for this run."""
    free = target.free_bytes()
    if free is None:
        return ""
    if target.is_apart and (room := target.store.free_bytes()):  # for the log and what is displaced
        check_free(target.store.url, room[0], floor_of(room[1], *least), 0, surely=True)
    left, total = free
    return check_free(target.url, left + staged, floor_of(total, *least), needed, surely=surely)
