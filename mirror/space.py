"""Whether there is room for what a run is about to write, asked before anything is written; and what history takes of it."""

from __future__ import annotations

from mirror.errors import TemporaryError
from mirror.state import State

_MIN_FREE_SHARE, _MIN_FREE_MOST = 0.05, 10 << 30


def floor_of(total: int, least: int | None, percent: float | None) -> int:
    """How many bytes are to stay free of `total`: what was asked for, else 5 % and at most 10 GiB.

    >>> floor_of(100 << 30, None, None) >> 30, floor_of(1000, 7, None), floor_of(1000, None, 10.0)
    (5, 7, 100)
    """
    if percent is not None:
        return int(total * percent / 100)
    return min(int(total * _MIN_FREE_SHARE), _MIN_FREE_MOST) if least is None else least


def check_free(where: str, left: int, floor: int, needed: int, *, surely: bool) -> str:
    """Nothing to say where `needed` bytes fit; a sentence where they may not. surely: they are needed as they are (drafts of a
    tree), not perhaps (content that may be in packs already). TemporaryError when it cannot do."""
    if left < floor:
        why = f"{left >> 20:,} MiB are free, --min-free asks for {floor >> 20:,}"
    elif left - needed >= floor:
        return ""
    elif not surely:
        return f"{needed >> 20:,} MiB are to be read and {left >> 20:,} MiB are free: it may not fit"
    else:
        why = f"{needed >> 20:,} MiB are to be written, {left >> 20:,} are free, --min-free asks for {floor >> 20:,}"
    raise TemporaryError("not enough free space at", where=where, why=why, hint="free some, or lower --min-free", kind="disk-full")


def history_total(state: State, number: int, known: int | None) -> int | None:
    """Bytes of all packs of a tree as of record `number`: what this run knows, else what this host remembers of that very record,
    else None. Remembered for the next run, which may have no reason to look."""
    if known is None:
        at, _, size = state.fact("history").partition(" ")
        return int(size) if at == str(number) else None
    state.remember("history", f"{number} {known}")
    return known
