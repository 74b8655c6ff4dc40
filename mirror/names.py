"""What a target holds that could be found only by listing, told by its log: fragments of the index, and files kept whole.

A store behind a plain web server cannot be listed. So records say it, in the member `names` (docs/format.md): the keys that their
writers added, and the number of the record before that has more. Small lists are taken along into the next record and short chains
result: a key is written again a few times in its life, and 100,000 keys are a chain of a hundred objects.

    for key in told(store, head): ...
    log.draft(log.SNAPSHOT, uuid, base, live, **following(store, base, keys, doomed))

A record of an older mirror has no such member. Then nothing is told of it, until a writer that can list says it all anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from mirror import log
from mirror.errors import DamageError, NoListing, NotFound
from mirror.keys import INDEX, WHOLE, ObjectName, record_key, whole_content
from mirror.lookup import ChunkIndex
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.store import ReadableStore, WritableStore

MOST: Final = 1000  # keys in a record itself: 80 KB; more are an object of their own
_TIMES: Final = 8  # a list so many times as long as what is new is left where it is


class _Link(NamedTuple):
    """What one record tells: its keys, and the number of the next record, 0 for none. own: they are in the record itself."""

    keys: tuple[str, ...]
    before: int
    own: bool


def told(store: ReadableStore, head: log.Record | None) -> set[str]:
    """The keys of all fragments and whole files as of a head, doomed ones perhaps among them. NoListing when the head does not
    tell; DamageError; NotFound when an object of the lists is gone: then this head is old."""
    if head is None:
        return set()
    if head.body.get("names") is None:
        raise _untold(store)
    return {key for link in _links(store, head) for key in link.keys}


def fragments(store: ReadableStore, head: log.Record | None) -> Iterable[str]:
    """The keys of the fragments that there are: listed, or else as the head tells. NoListing when neither is possible."""
    try:
        return [stat.key for stat in store.list(f"{INDEX}/")]
    except NoListing:
        return [key for key in told(store, head) if key.startswith(f"{INDEX}/")]


def wholes(store: ReadableStore, head: log.Record | None) -> Iterable[str]:
    """The keys of the files that a bucket keeps whole, in the same way."""
    try:
        return [stat.key for stat in store.list(f"{WHOLE}/")]
    except NoListing:
        return [key for key in told(store, head) if key.startswith(f"{WHOLE}/")]


def of_run(index: ChunkIndex | None) -> set[str]:
    """The fragments that a run knows: those that were listed when it looked, and its own."""
    return index.listed | index.written if index is not None else set()


def following(
    store: WritableStore,
    base: log.Record | None,
    keys: Iterable[str],
    doomed: Callable[[str], bool],
    records: dict[int, log.Record] | None = None,
) -> dict[str, Any]:
    """Members for a record that follows `base`, so that it tells of `keys` as well as of all that `base` tells. Nothing where
    that says it already. To be made anew for each base: a prune may have come between. records: that this run has read for it,
    by number, and need not be read again; gets those that are read now."""
    links: list[_Link] = []
    untold = base is not None and base.body.get("names") is None
    if untold:
        keys = {*keys, *(stat.key for place in (INDEX, WHOLE) for stat in store.list(f"{place}/"))}
    elif base is not None:
        links = list(_links(store, base, records))
    known = {key for link in links for key in link.keys}
    fresh = {key for key in keys if key not in known and _is_name(key) and not doomed(key)}
    if not fresh and not untold:
        return {}
    before = 0 if base is None or untold else _start(base)
    for link in links:
        if not link.own or len(link.keys) > _TIMES * len(fresh) or len(fresh) + len(link.keys) > MOST:
            break
        if link.keys:
            fresh.update(key for key in link.keys if not doomed(key))
        before = link.before
    return _members(store, base, fresh, before)


def all_of(store: WritableStore, base: log.Record, gone: Callable[[str], bool]) -> dict[str, Any]:
    """Members for a prune record that follows `base`: it tells for itself of all that it leaves. gone: whether a key goes."""
    try:
        keys = told(store, base)
    except NoListing:
        keys = {stat.key for place in (INDEX, WHOLE) for stat in store.list(f"{place}/")}
    return _members(store, base, {key for key in keys if not gone(key)}, 0)


def _members(store: WritableStore, base: log.Record | None, keys: set[str], before: int) -> dict[str, Any]:
    if len(keys) <= MOST:
        return {"names": {"keys": sorted(keys), "before": before}}
    more = ManifestWriter(store, base.epoch if base else 0, {}).names(sorted(keys))
    return {"names": {"keys": [], "before": before, "more": log.ref_json(more)}}


def _start(base: log.Record) -> int:
    return base.number if base.body["names"]["keys"] or base.body["names"].get("more") else int(base.body["names"]["before"])


def _links(store: ReadableStore, head: log.Record, records: dict[int, log.Record] | None = None) -> Iterator[_Link]:
    """What `head` tells, and the records behind it, newest first. Their numbers descend, so there is an end."""
    record, reader = head, ManifestReader(store, None)
    held = {} if records is None else records
    while True:
        held[record.number] = record
        names = record.body.get("names")
        if names is None:
            where = f"{store.url}/{record_key(record.number)}"
            raise DamageError("cannot use the record", where=where, why="a later one says that it tells of names, and it does not")
        keys = tuple(names["keys"])
        if more := names.get("more"):
            yield _Link((*keys, *reader.names(log.ref_of(more))), names["before"], False)
        elif keys:
            yield _Link(keys, names["before"], True)
        if not names["before"]:
            return
        try:
            record = held.get(names["before"]) or log.read_record(store, names["before"])
        except NotFound:
            where = f"{store.url}/{record_key(names['before'])}"
            raise DamageError("cannot read the record", where=where, why="it is not there, and later ones are") from None


def _is_name(key: str) -> bool:
    name = ObjectName.parse(key)
    return (name is not None and name.place == INDEX) or whole_content(key) is not None


def _untold(store: ReadableStore) -> NoListing:
    return NoListing(
        "cannot read",
        where=store.url,
        why="it cannot be listed, and its newest record was written by an older mirror, which does not say what there is",
        hint="run `mirror sync --heartbeat` into that target once, or read it from where it can be listed",
    )
