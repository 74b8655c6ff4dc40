"""Records that no verb makes yet, made by hand as DESIGN section 4 says: forget, and prune with all that it may do.

    forget(store, [1])
    gone = prune(store)                 # dooms everything that no live snapshot needs, and deletes it
    prune(store, keep_objects=True)     # the same, but the objects stay: a slow deleter

What a live snapshot needs is found by going through manifests and fragments, past the local state and past `mirror.lookup`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from xxhash import xxh3_128_digest

from mirror import log
from mirror.chunking import ChunkId, chunk_id
from mirror.envelope import CHANGES, CHUNKS, FRAGMENT, NAMES, OBJECT_MAX, SEGMENT, digest_of, seal, unseal
from mirror.index import StoredPack, decode_fragment, encode_fragments
from mirror.keys import INDEX, PACK, STORE, ObjectName
from mirror.making import read_info
from mirror.manifest import File, Page, Ref
from mirror.names import told
from mirror.pack import PackBuilder, read_block
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.store import MaintainedStore


def head_of(store: MaintainedStore) -> log.Record:
    """The newest record."""
    head = log.read_head(store)
    assert head is not None
    return head


def appended(store: MaintainedStore, kind: str, live: Iterable[int], **members: Any) -> log.Record:
    """A record at the end of the log, and the hint."""
    info = read_info(store)
    assert info
    record = log.append(store, log.draft(kind, str(info["uuid"]), head_of(store), live, **members))
    assert isinstance(record, log.Record)
    log.put_hint(store, record)
    return record


def forget(store: MaintainedStore, numbers: Iterable[int]) -> log.Record:
    """A record that takes these snapshots out of the live ones."""
    gone = set(numbers)
    return appended(store, log.FORGET, [n for n in head_of(store).live if n not in gone])


def dooms_of(store: MaintainedStore) -> Callable[[str], bool]:
    """Which keys are doomed as of the head, found without the local state."""
    named: dict[str, int] = {}
    for record in log.records_back(store, head_of(store), 1):
        if record.kind == log.PRUNE:
            for key in ManifestReader(store, None).names(log.ref_of(record.body["dooms"])):
                named[key] = max(named.get(key, 0), record.number)

    def doomed(key: str) -> bool:
        name = ObjectName.parse(key)
        return name is not None and named.get(key, 0) > name.epoch

    return doomed


@dataclass
class Needs:
    """What live snapshots and prune records need: manifest objects by key; chunks, each with its places (fragment, pack)."""

    objects: set[str] = field(default_factory=set)
    chunks: dict[ChunkId, list[tuple[str, str]]] = field(default_factory=dict)


def needs(store: MaintainedStore) -> Needs:
    """Of the store as it is; chunks without a place have none."""
    found, reader, head = Needs(), ManifestReader(store, None), head_of(store)
    for record in log.records_back(store, head, 1):
        roots: list[tuple[Ref, Any]] = []
        if record.kind == log.PRUNE:
            roots.append((log.ref_of(record.body["dooms"]), NAMES))
        if record.kind == log.SNAPSHOT and record.number in head.live:
            roots.append((record.manifest, SEGMENT))
            if record.body["changes"]:
                roots.append((log.ref_of(record.body["changes"]), CHANGES))
            for entry in reader.entries(record.manifest):
                if isinstance(entry, File | Page):
                    found.chunks.update((id_, []) for id_ in reader.chunk_ids(entry))
                    if entry.more:
                        roots.append((entry.more, CHUNKS))
        if more := (record.body.get("names") or {}).get("more"):
            roots.append((log.ref_of(more), NAMES))
        for root, leaf in roots:
            found.objects.update(ref.name.key() for ref, _ in reader.nodes(root, leaf))
    doomed = dooms_of(store)
    packs = {stat.key for stat in store.list("packs/")}
    for stat in store.list("index/"):
        name = ObjectName.parse(stat.key)
        if name is None or doomed(stat.key):
            continue
        fragment = decode_fragment(unseal(store.get(stat.key, OBJECT_MAX), (FRAGMENT,), name.digest, stat.key)[1], stat.key)
        for id_, place in fragment:
            pack = fragment.packs[place.pack].name.key()
            if id_ in found.chunks and pack in packs and not doomed(pack):
                found.chunks[id_].append((stat.key, pack))
    return found


def prune(
    store: MaintainedStore,
    *,
    keep_objects: bool = False,
    repack: bool = False,
    share: float = 1.0,
    kinds: tuple[str, ...] = ("packs/", "index/", "manifests/"),
    random: Random | None = None,
) -> list[str]:
    """A prune record that dooms what no live snapshot needs (`share` of it, of these kinds); the keys. keep_objects: they
    are not deleted. repack: every chunk that is needed is written into a new pack, so all old packs and fragments are doomed."""
    random = random or Random(0)
    need = needs(store)
    assert all(need.chunks.values()), "a chunk of a live snapshot has no place"
    if repack:
        keep = _repacked(store, need)
    else:
        keep = {key for places in need.chunks.values() for key in random.choice(places)}
    doomed = dooms_of(store)
    keys = [stat.key for place in kinds for stat in store.list(place)]
    gone = [key for key in sorted(keys) if key not in keep and key not in need.objects and not doomed(key)]
    gone = [key for key in gone if random.random() < share]
    doom(store, gone)
    if not keep_objects:
        store.delete(gone)
    return gone


def doom(store: MaintainedStore, keys: list[str]) -> log.Record:
    """A prune record that dooms just these keys, whoever needs them."""
    head = head_of(store)
    names = ManifestWriter(store, head.epoch, {}).names(keys)
    left = sorted({stat.key for stat in store.list("index/")} - {*keys})
    return appended(store, log.PRUNE, head.live, dooms=log.ref_json(names), names={"keys": left, "before": 0})


def assert_told(store: MaintainedStore, live: Path | None = None) -> None:
    """What the head tells of fragments would do for a reader that cannot list: it finds what one finds that lists, or the content
    in the live folder. A head that tells nothing, as older mirrors wrote them, is no fault."""
    head, doomed, reader = head_of(store), dooms_of(store), ManifestReader(store, None)
    if head.body.get("names") is None:
        return
    known, need = {key for key in told(store, head) if not doomed(key)}, needs(store)
    hidden = {id_ for id_, places in need.chunks.items() if places and not any(fragment in known for fragment, _ in places)}
    if not hidden:
        return
    standing = {
        xxh3_128_digest(path.read_bytes())
        for path in (live.rglob("*") if live else ())
        if path.is_file() and not path.is_symlink() and path.relative_to(live).parts[0] != STORE
    }
    for number in head.live:
        for entry in reader.entries(log.read_record(store, number).manifest):
            if isinstance(entry, File | Page) and entry.fingerprint not in standing:
                assert hidden.isdisjoint(reader.chunk_ids(entry)), (number, entry.path)


def _repacked(store: MaintainedStore, need: Needs) -> set[str]:
    builder = PackBuilder(level=1)
    for id_ in sorted(need.chunks):
        builder.add(id_, content(store, id_, need))
    salt = str(head_of(store).number).encode()  # a name that was never used before
    builder.add(chunk_id(salt), salt)
    pack = builder.finish()
    epoch = head_of(store).epoch
    name = ObjectName(PACK, pack.digest, epoch)
    store.create(name.key(), pack.data)
    keep = {name.key()}
    for payload in encode_fragments([StoredPack(name, len(pack.data), pack.blocks)]):
        fragment = ObjectName(INDEX, digest_of(FRAGMENT, payload), epoch).key()
        store.create(fragment, seal(FRAGMENT, payload))
        keep.add(fragment)
    return keep


def content(store: MaintainedStore, id_: ChunkId, need: Needs) -> bytes:
    """A chunk's bytes from its first place."""
    fragment_key, _ = need.chunks[id_][0]
    _, payload = unseal(store.get(fragment_key, OBJECT_MAX), (FRAGMENT,), None, fragment_key)
    fragment = decode_fragment(payload, fragment_key)
    place = next(place for found, place in fragment if found == id_)
    line = fragment.packs[place.pack]
    slot = line.blocks[place.block]
    (data,) = store.get_ranges(line.name.key(), [(slot.offset, slot.offset + slot.stored)])
    chunk = read_block(data, fragment_key).plain[place.offset : place.offset + place.length]
    assert chunk_id(chunk) == id_
    return chunk
