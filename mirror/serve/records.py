"""Records on arrival: a record is accepted only if it follows on the head and all that it names is there.

What a snapshot names is looked at as far as it is new: objects that the newest live snapshot has were looked at when that was
accepted. So the work is that of the change, but for the nodes of the manifest before. Every chunk of a new segment must have a
place in the index, in a fragment that was held against its pack when it came; most segments are looked at when they come, while the
client makes the next ones, and not when the record does (`Clerk.foresee`). A path that has just the content which it had in the
snapshot before may do without: nothing is worse for it than it was.

One thread at a time, always the same one: the index of what is there is an sqlite file of this host.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

from mirror import log
from mirror.access import PRUNE as MAY_PRUNE
from mirror.envelope import CHANGES, CHUNKS, NAMES, NODE, SEGMENT, Kind, check_format
from mirror.errors import MirrorError, NotFound
from mirror.index import Fragment
from mirror.keys import INDEX, ObjectName, record_key, show
from mirror.lacking import Lacking
from mirror.lookup import ChunkIndex
from mirror.manifest import File, Page, Ref, WithContent, decode_changes, decode_names, decode_node, decode_segment
from mirror.publishing import PublishOptions
from mirror.serve.examine import Rejected
from mirror.snapshot import ManifestReader
from mirror.state import State, open_state
from mirror.steps import changes
from mirror.store import ReadableStore
from mirror.unfinished import unfinished

_KINDS = (log.SNAPSHOT, log.HOLD, log.FORGET, log.PRUNE)
_KINDS_OF_TREES = (log.IMPORT, log.HOLD)  # the others are made where the tree is
_ASK = 4096  # chunks that are looked up together
_FORESEEN = 20_000  # segments that are known to be fit; 5 MB


class Clerk:
    """Judges records for one store. tree: whether it is that of a tree; cache: where the index may be kept from one run of the
    server to the next."""

    def __init__(self, store: ReadableStore, uuid: str, cache: Path | None, tree: bool = False) -> None:
        self._store, self._uuid, self._tree = store, uuid, tree
        self._held = ExitStack()
        self._state: State = open_state(_own(self._held, cache))
        self._index = ChunkIndex(self._state, store)
        self._dooms = log.Dooms(store, self._state)
        self._reader = ManifestReader(store, None)
        self._known = 0
        self._fit: dict[ObjectName, tuple[int, bytes]] = {}  # segments whose every chunk has a place: entries, first path
        self._forgot = 0  # of the index, when `_fit` began

    def close(self, discard: bool = False) -> None:
        """Give the index back, or throw it away: it turned out to be spoilt. In the thread that made this."""
        if discard:
            self._state.discard()
        self._state.close()
        self._held.close()

    def head(self) -> log.Record | None:
        """The newest record."""
        head = log.read_head(self._store, self._known)
        self._known = head.number if head else 0
        return head

    # -- before the record comes -----------------------------------------------------------------------------------------------

    def learn(self, name: ObjectName, fragment: Fragment) -> None:
        """Take in a fragment that was found true and is about to be there. Should it not be there after all, or be doomed, the
        next record finds that out."""
        self._index.add(name.key(), fragment)

    def foresee(self, name: ObjectName, entries: int, first: bytes, ids: set[bytes]) -> None:
        """Note of a segment that was found true whether it will do. ids: all chunks of its files, of which none has a list of its
        own."""
        self._forget_what_may_not_be()
        if not self._index.missing(ids) and len(self._fit) < _FORESEEN:
            self._fit[name] = entries, first

    def _forget_what_may_not_be(self) -> None:
        if self._forgot != self._index.forgot:
            self._fit.clear()
            self._forgot = self._index.forgot

    def judge(self, number: int, data: bytes, rights: Container[str]) -> log.Record | None:
        """The record to be created as `number`; None when there is one of that number. Rejected, with kind `behind` when the log
        has not come so far, and `rights` when the key may not do that."""
        head = self.head()
        after = (head.number if head else 0) + 1
        if number < after:
            return None
        if number > after:
            raise Rejected(f"there is no record {number - 1} yet, the newest is {after - 1}", "behind")
        where = record_key(number)
        try:
            record = log.parse_record(data, number, where)
            for use in ("write", "prune") if record.kind == log.PRUNE else ("write",):
                check_format(record.body, where, use)
            self._check_members(record, head, rights)
            self._dooms.learn(head)
            self._check_objects(record, head)
            self._check_names(record, head)
        except MirrorError as error:
            raise Rejected(f"{error.why} ({error.where})" if error.where and error.where != where else error.why) from None
        except NotFound as error:
            raise Rejected(f"{error} is not here") from None
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise Rejected(f"a member is missing or malformed ({error})") from None
        self._fit.clear()  # the next record finds them in the manifest before it
        return record

    def doomed(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that a prune record has named."""
        self._dooms.learn(self.head())
        return {key for key in keys if self._dooms(key)}

    # -- by itself, and behind the head ------------------------------------------------------------------------------------

    def _check_members(self, record: log.Record, head: log.Record | None, rights: Container[str]) -> None:
        body, live = record.body, head.live if head else log.Live()
        if record.kind not in (_KINDS_OF_TREES if self._tree else _KINDS):
            layout = "tree" if self._tree else "packed target"
            raise Rejected(f"a record of kind {record.kind[:40]!r} is none that a client makes for a {layout}")
        waits = head.body.get("waits") if head and not log.begins_hold(body, record.number) else None
        if body.get("waits") != (record.number if record.kind == log.IMPORT else waits):
            raise Rejected("it does not say which import waits")
        if body.get("target") != self._uuid:
            raise Rejected("it belongs to another target")
        if head is not None:
            if body["previous"]["blake3"] != head.digest.hex():
                raise Rejected(f"it names another record {head.number} than the one that is here", "behind")
            if record.time <= head.time:
                raise Rejected("its time is not after that of the record before it")
        if body["prune"] != (head.epoch if head else 0):
            raise Rejected("it does not name the newest prune record before it")
        if record.kind in (log.FORGET, log.PRUNE):
            if MAY_PRUNE not in rights:
                raise Rejected(f"a record of kind {record.kind} needs the right prune, which this key has not", "rights")
            if not all(any(a <= first and last <= b for a, b in live.spans) for first, last in record.live.spans):
                raise Rejected("it calls a snapshot live that was not")
            return
        if record.kind == log.IMPORT and body["publish"].get("history") is False and MAY_PRUNE not in rights:
            # Whoever publishes it would take the older snapshots out of the live ones, and what they need away.
            why = "it is to be published with --no-history: that forgets older snapshots, and needs the right prune"
            raise Rejected(why, "rights")
        expected = live.plus(record.number) if record.kind == log.SNAPSHOT else live
        if record.live != expected:
            raise Rejected("its live snapshots are not those of the record before it: no right but prune may forget one")

    # -- what it names -------------------------------------------------------------------------------------------------------

    def _check_objects(self, record: log.Record, head: log.Record | None) -> None:
        body = record.body
        if record.kind == log.PRUNE:
            for _ in self._fresh(log.ref_of(body["dooms"]), NAMES, set()):
                pass
        if record.kind not in (log.SNAPSHOT, log.IMPORT):
            return
        if any(body.get(name) for name in ("deletes", "expected", "standing", "lingers", "owner")):
            raise Rejected("it has members that only a tree's record has")
        for name in body["parents"]:
            if type(name) is not int or not 1 <= name < record.number:
                raise Rejected("it names a parent that is no record before it")
        parent = log.newest_snapshot(self._store, head)
        if record.kind == log.IMPORT:
            self._check_import(record, head, parent)
        known = self._nodes_known(head, parent)
        if body.get("changes"):
            for _ in self._fresh(log.ref_of(body["changes"]), CHANGES, set()):
                pass
        self._index.refresh(self._dooms, on_damage=lambda name, error: None)
        self._forget_what_may_not_be()
        lists: set[ObjectName] = set()
        lacking = Lacking(self._reader, self._index, self._state.db) if self._tree else None
        for ref, payload in self._fresh(record.manifest, SEGMENT, known, self._fit):
            if ref.name in self._fit:
                if self._fit[ref.name] != (ref.entries, ref.first):
                    raise Rejected(f"{ref.name.key()} is not what the node above it says")
                continue
            entries = decode_segment(payload, ref.name.key())
            if len(entries) != ref.entries or (entries and entries[0].path != ref.first):
                raise Rejected(f"{ref.name.key()} is not what the node above it says")
            files = [entry for entry in entries if isinstance(entry, File | Page)]
            if lacking is None:
                self._check_content(files, parent, lists)
                continue
            for entry in files:
                for _ in self._ids_of(entry, lists):  # its lists are right
                    pass
            lacking.note(files)
        if lacking is not None:
            if parent is not None:
                lacking.look(before for before, _ in changes(self._reader, parent.standing, record.manifest))
                lacking.look(self._reader.entries(parent.standing))
            if path := lacking.first_unfound():
                raise Rejected(f"content of {path} is not here, neither in a pack that is listed nor in the live tree")
            lacking.close()

    def _check_import(self, record: log.Record, head: log.Record | None, parent: log.Record | None) -> None:
        """Rejected unless it can be published now."""
        if unfinished(self._store, head) is not None:
            raise Rejected("a publish is open: wait for its end", "behind")
        if record.body["parents"] != ([parent.number] if parent else []):
            raise Rejected(f"its parent is not the newest snapshot, {parent.number if parent else 'as there is none'}", "behind")
        PublishOptions.wished(record.body["publish"])

    def _nodes_known(self, head: log.Record | None, parent: log.Record | None) -> set[ObjectName]:
        """Manifest objects that were looked at when the snapshot before came, or the import that waits on top of it."""
        roots = [parent.manifest, parent.standing] if parent else []
        if brought := log.waiting(self._store, head):
            roots.append(brought.manifest)
        return {ref.name for root in dict.fromkeys(roots) for ref, _ in self._reader.nodes(root, SEGMENT)}

    def _check_names(self, record: log.Record, head: log.Record | None) -> None:
        """Rejected unless what a record tells of the index is there, and is all that there was before it."""
        names = record.body.get("names")
        if names is None:
            return  # then readers that cannot list are told so
        more = log.ref_of(names["more"]) if names.get("more") else None
        own = {*names["keys"], *self._listed(more)}
        for key in own:
            name = ObjectName.parse(key)
            if name is None or name.place != INDEX or self._store.size(key) is None:
                raise Rejected(f"it tells of {key[:100]}, which is not here")
        if head is not None and head.body.get("names") is None:
            known = {stat.key for stat in self._store.list(f"{INDEX}/") if not self._dooms(stat.key)}
            end = 0
        else:
            known, end = self._told(head, names["before"])
        if names["before"] != end or (record.kind != log.PRUNE and any(key not in own and not self._dooms(key) for key in known)):
            raise Rejected("it does not tell of all index fragments that the record before it told of")

    def _told(self, head: log.Record | None, before: int) -> tuple[set[str], int]:
        """(what `head` and the records behind it tell of the index, as far as they come after record `before`; where that ends)."""
        known: set[str] = set()
        number = head.number if head else 0
        while number > before:
            names = log.read_record(self._store, number).body["names"]
            known.update(names["keys"])
            if names.get("more"):
                known.update(self._listed(log.ref_of(names["more"])))
            number = names["before"]
        return known, number

    def _listed(self, root: Ref | None) -> Iterator[str]:
        """The keys of a list of names."""
        for ref, payload in self._fresh(root, NAMES, set()) if root else ():
            yield from decode_names(payload, ref.name.key())

    def _check_content(self, entries: list[WithContent], parent: log.Record | None, lists: set[ObjectName]) -> None:
        """Rejected unless each chunk of these files is somewhere. lists: chunk lists that were looked at."""
        without: list[WithContent] = []
        wanted: dict[bytes, WithContent] = {}
        for entry in entries:
            for ids in self._ids_of(entry, lists):
                for id_ in ids:
                    wanted.setdefault(id_, entry)
                if len(wanted) >= _ASK:
                    without += self._homeless(wanted)
                    wanted = {}
        without += self._homeless(wanted)
        if not without:
            return
        paths = sorted({entry.path for entry in without})
        before = {entry.path: entry for entry in self._reader.at(parent.manifest, paths)} if parent else {}
        for entry in without:
            old = before.get(entry.path)
            same = isinstance(old, File | Page) and (old.size, old.chunks, old.more) == (entry.size, entry.chunks, entry.more)
            if not same:
                raise Rejected(
                    f"content of {show(entry.path)} is not here: a pack, or the index fragment that lists it, did not come"
                )

    def _homeless(self, wanted: dict[bytes, WithContent]) -> list[WithContent]:
        return [wanted[id_] for id_ in self._index.missing(wanted)]

    def _ids_of(self, entry: WithContent, lists: set[ObjectName]) -> Iterator[list[bytes]]:
        """The ids of a file's chunks, a list at a time; those of lists that were looked at are left out."""
        if entry.more is None:
            yield _split(entry.chunks)
            return
        if entry.chunks or entry.more.entries > entry.size:
            raise Rejected(f"the list of chunks of {show(entry.path)} does not fit the file")
        for _, payload in self._fresh(entry.more, CHUNKS, lists):
            yield _split(payload)

    def _fresh(self, root: Ref, leaf: Kind, seen: set[ObjectName], fit: Container[ObjectName] = ()) -> Iterator[tuple[Ref, bytes]]:
        """The leaves below a root that are not in `seen`, with their payloads, in order; each object once, however often it is
        named. Rejected where one is missing, doomed, or not what is said of it. seen: names; those of this tree are added. fit:
        leaves that are only looked for, their payload is given as empty."""
        waiting = [(root, 0)]
        while waiting:
            ref, above = waiting.pop()
            if ref.name in seen:
                continue
            seen.add(ref.name)
            if ref.name in fit and above <= 1:
                self._look_for(ref.name)
                yield ref, b""
                continue
            kind, payload = self._object(ref.name, (NODE, leaf) if ref is root else (NODE,) if above > 1 else (leaf,))
            if kind == leaf:
                _check_leaf(ref, leaf, payload)
                yield ref, payload
                continue
            level, refs = decode_node(payload, ref.name.key())
            if (above and level != above - 1) or sum(each.entries for each in refs) != ref.entries:
                raise Rejected(f"what {ref.name.key()} lists does not fit what is said of it")
            if leaf == SEGMENT and any(one.first >= two.first for one, two in pairwise(refs)):
                raise Rejected(f"the paths of {ref.name.key()} are out of order")
            waiting += [(each, level) for each in reversed(refs)]

    def _look_for(self, name: ObjectName) -> None:
        """Rejected unless there is an object of this name, and not doomed."""
        if self._dooms(name.key()):
            raise Rejected(f"it names {name.key()}, which a prune has doomed")
        if self._store.size(name.key()) is None:
            raise Rejected(f"it names {name.key()}, which is not here")

    def _object(self, name: ObjectName, kinds: tuple[Kind, ...]) -> tuple[Kind, bytes]:
        if self._dooms(name.key()):
            raise Rejected(f"it names {name.key()}, which a prune has doomed")
        try:
            return self._reader.object(name, kinds)
        except NotFound:
            raise Rejected(f"it names {name.key()}, which is not here") from None


def _check_leaf(ref: Ref, leaf: Kind, payload: bytes) -> None:
    """Rejected unless a leaf has as many lines as is said of it."""
    where = ref.name.key()
    if leaf == CHUNKS:
        count = len(payload) // 32
    elif leaf == CHANGES:
        count = len(decode_changes(payload, where))
    elif leaf == NAMES:
        count = len(decode_names(payload, where))
    else:
        return  # whoever takes a segment decodes it
    if count != ref.entries:
        raise Rejected(f"{where} is not what is said of it")


def _split(joined: bytes) -> list[bytes]:
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


def _own(stack: ExitStack, cache: Path | None) -> Path | None:
    """The folder, if this process may have it for itself; None where another server holds it, or it cannot be made."""
    if cache is None:
        return None
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(cache / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    stack.callback(os.close, lock)
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return cache
    return None
