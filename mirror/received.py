"""What clients brought for a tree: packs and index fragments that serve until their content is live, and then go.

Nothing of the tree's history relies on them (`ChunkIndex.passing`): what a publish displaces is packed although such a pack has it.
So they can go as soon as no import waits that is made of them: they are doomed by a `prune` record and then deleted, as all that
goes. The receiver notes each with an empty object below `received/`, before it gets its name; whatever a note is lost for stays.
"""

from __future__ import annotations

from mirror import log
from mirror.keys import INDEX, PACK, ObjectName
from mirror.names import all_of
from mirror.snapshot import ManifestWriter
from mirror.state import State
from mirror.store import MaintainedStore, ReadableStore, WritableStore

_NOTES = "received/"


def note(store: WritableStore, key: str) -> None:
    """Note that a client brings the object of this key; nothing happens where it is no pack and no fragment."""
    name = ObjectName.parse(key)
    if name is not None and name.place in (PACK, INDEX):
        store.create(_note_of(key), b"")


def is_from_client(store: ReadableStore, record: log.Record) -> bool:
    """Whether a client has described what a record names: an import, what was published of one, a rollback to that."""
    while number := record.body.get("rollback_of"):
        record = log.read_record(store, int(number))
    return record.kind == log.IMPORT or "import" in record.body


def noted(store: MaintainedStore) -> frozenset[str]:
    """The keys of what clients brought, there or not."""
    keys = (stat.key.removeprefix(_NOTES).replace("-", "/") for stat in store.list(_NOTES))
    return frozenset(key for key in keys if ObjectName.parse(key) is not None)


def drop(store: MaintainedStore, state: State, uuid: str) -> int:
    """Doom and delete what clients brought, unless an import waits; how many objects went. To be called where nobody publishes
    into the tree."""
    keys = noted(store)
    dooms = log.Dooms(store, state)
    while keys:
        head = log.read_head(store)
        if head is None or head.body.get("waits"):
            return 0
        dooms.learn(head)
        fresh = sorted(key for key in keys if not dooms(key))
        if not fresh:
            break
        ref = ManifestWriter(store, head.epoch, {}).names(fresh)
        names = all_of(store, head, lambda key: key in keys or dooms(key))
        appended = log.append(store, log.draft(log.PRUNE, uuid, head, head.live, dooms=log.ref_json(ref), **names))
        if isinstance(appended, log.Record):
            log.put_hint(store, appended)
            break
    store.delete(sorted(keys))
    store.delete([_note_of(key) for key in keys])
    return len(keys)


def _note_of(key: str) -> str:
    return _NOTES + key.replace("/", "-")
