"""A source looked over against a snapshot: the plan on a spool, the counts, and the guards over it. Writes nothing anywhere.

Used by whatever needs to know what differs: sync (then does it), `sync -n` and `diff SRC TARGET` (show it), `verify --against`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from blake3 import blake3

from mirror import log
from mirror.chunking import identify
from mirror.compare import same_content
from mirror.envelope import SEGMENT
from mirror.errors import DeletionGuardError, NotFound, SourceError, UsageError
from mirror.events import Problem
from mirror.keys import MIRROR_KEY, STORE, STORE_KEY
from mirror.manifest import File, Page, Ref
from mirror.moves import Moves, Row, row, row_spool
from mirror.plan import CHANGED, DELETED, NEW, Counts, DeletionLimit, Drop, Fetch, Item, Put, decode, encode
from mirror.scan import UNPROVEN, Comparison, Known, Remembered, memory_of
from mirror.site import Filter, Site, SiteSpec
from mirror.site.filters import Matcher
from mirror.site.routes import Routes
from mirror.snapshot import ManifestReader, content_key
from mirror.spool import Pairs, Spool
from mirror.state import State
from mirror.store import ReadableStore
from mirror.store.open import folder_of, is_folder_url
from mirror.target import TargetSpec, holds_tree, places


def source_key(identity: dict[str, str]) -> str:
    """What the local state files a source under."""
    return blake3(repr(sorted(identity.items())).encode()).hexdigest(16)


def source_key_of(record: log.Record) -> str:
    """The same for the source of which a record is."""
    return source_key({name: value for name, value in record.body.get("source", {}).items() if name != "site"})


def check_ends(source: str, target: str, what: str = "cannot mirror") -> None:
    """UsageError when source (or OUT, `what` says which) and target are local folders or both on S3, and one is the other or inside
    it."""
    if is_folder_url(source) and is_folder_url(target):
        a, b = os.path.realpath(folder_of(source)), os.path.realpath(folder_of(target))
    elif source.startswith("s3://") and target.startswith("s3://"):
        a, b = source.rstrip("/"), target.rstrip("/")
    else:
        return
    inside, hint = "", "name another folder: what is kept and where it is kept must lie apart"
    if a == b:
        inside = "it is the target itself"
    elif b.startswith(a.rstrip("/") + "/"):
        inside = f"the target {b} is inside it"
    elif a.startswith(b.rstrip("/") + "/"):
        inside = f"it is inside the target {b}"
    if inside:
        raise UsageError(what, where=a, why=inside, hint=hint)


def check_all_ends(source: str, target: TargetSpec, what: str = "cannot mirror") -> None:
    """The same with all places that a target is in. UsageError, DamageError when it cannot be told which those are."""
    for place in places(target):
        check_ends(source, place, what)


def beside_store(source: SiteSpec, always: bool = False) -> SiteSpec:
    """The source without the store of a tree: with a rule that leaves out `/.mirror` where the source is a tree, or `always`."""
    if not (always or _is_tree(source)):
        return source
    # Any kind of thing of that name: a file or link would take the store's place.
    rule = (("exclude", f"/{STORE}"),)
    return replace(source, filter=replace(source.filter, rules=rule + source.filter.rules))


def _is_tree(source: SiteSpec) -> bool:
    """Whether the source is itself a tree of ours. One request for a bucket."""
    if is_folder_url(source.url):
        inside = folder_of(source.url) / STORE
        return any(os.path.lexists(inside / name) for name in (MIRROR_KEY, STORE_KEY))
    return source.url.startswith("s3://") and holds_tree(source)


@dataclass
class Survey:
    """What a scan found against a parent. plan: items in order; validators: one for each parent entry without an item.

    Close it: the spools are on disk. rules: paths left out by each filter rule. never_delete: as the user wants it.
    """

    plan: Spool[Item]
    validators: Pairs
    counts: Counts
    incomplete: bool
    validators_moved: bool
    found_any: bool
    rules: dict[str, int] = field(default_factory=dict)
    never_delete: bool = False

    @property
    def keeps_gone(self) -> bool:
        """Whether what is gone stays as it was, unless it stands in the way of something new."""
        return self.incomplete or self.never_delete

    @property
    def has_work(self) -> bool:
        """Whether anything is planned beside deletions that will not be. (Nothing new: nothing stands in its way.)"""
        return len(self.plan) > (self.counts.deleted if self.never_delete else 0)

    def close(self) -> None:
        """Give the disk back."""
        self.plan.close()
        self.validators.close()

    def __enter__(self) -> Survey:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class LookOptions:
    """How contents are judged: checksum: read everything; ignore_inode: ctime alone; delete_excluded: filters unprotect. routes:
    what files are published with; None: how is not compared."""

    checksum: bool = False
    ignore_inode: bool = False
    delete_excluded: bool = False
    routes: Routes | None = Routes()


def known_entries(
    reader: ManifestReader, root: Ref | None, state: State | None, source: str, routes: Routes | None = None
) -> Iterator[Known | Remembered]:
    """A manifest's entries with what the last scan of `source` on this host knew of them. routes: as `look` is to have them."""
    if root is None:
        return
    for ref in reader.leaves(root, SEGMENT):
        memory = state.scanned(source, ref.digest) if state else None
        remembered = Remembered.read(memory, ref.entries, partial(reader.segment, ref), routes) if memory else None
        if remembered is not None:
            yield remembered
        else:
            yield from ((entry, None) for entry in reader.segment(ref))


def known_of(
    store: ReadableStore,
    reader: ManifestReader,
    head: log.Record | None,
    snapshot: log.Record | None,
    state: State,
    source: str,
    routes: Routes | None = None,
) -> Iterator[Known | Remembered]:
    """The same of a snapshot, which may be a rollback: then the site was found to be another one last. A file of the old size and
    time may hold what the rollback took away, so what differs between the two is unproven, and read."""
    if snapshot is None or head is None or not snapshot.body.get("rollback_of"):
        yield from known_entries(reader, snapshot.manifest if snapshot else None, state, source, routes)
        return
    last: Iterator[Known] | None = None
    ahead: Known | None = None
    for ref in reader.leaves(snapshot.manifest, SEGMENT):
        memory = state.scanned(source, ref.digest)
        remembered = Remembered.read(memory, ref.entries, partial(reader.segment, ref), routes) if memory else None
        if remembered is not None:
            yield remembered
            continue
        if last is None:
            found = log.newest_of_site(store, head, snapshot)
            last = _each(known_entries(reader, found.manifest if found else None, state, source))
            ahead = next(last, None)
        for entry in reader.segment(ref):
            while ahead is not None and ahead[0].path < entry.path:
                ahead = next(last, None)
            there = ahead if ahead is not None and ahead[0].path == entry.path else None
            if isinstance(entry, File) and not (there and same_content(entry, there[0], reader)):
                yield entry, UNPROVEN
            else:
                yield entry, there[1] if there else None


def _each(known: Iterable[Known | Remembered]) -> Iterator[Known]:
    for item in known:
        if isinstance(item, Remembered):
            yield from item.load()
        else:
            yield item


def look(
    site: Site,
    filter: Filter,
    known: Iterable[Known | Remembered],
    options: LookOptions,
    on_problem: Callable[[Problem], None],
    scanned: Callable[[int, Counts], None] = lambda count, counts: None,
) -> Survey:
    """Scan the site and compare. SourceError when its root cannot be read. scanned: called every 1,000 paths with that number
    and the counts so far."""
    matcher, has_rules = Matcher(filter), bool(filter.rules)
    plan: Spool[Item] = Spool(encode, decode)
    validators = Pairs()
    comparison = Comparison(
        protects=matcher.protects if has_rules else None,
        checksum=options.checksum,
        ignore_inode=options.ignore_inode,
        delete_excluded=options.delete_excluded,
        routes=options.routes,
        on_problem=on_problem,
        on_validators=validators.extend,
        on_scanned=lambda count: scanned(count, comparison.counts),
    )
    try:
        for item in comparison.run(site.scan(matcher), known):
            plan.append(item)
    except BaseException:
        plan.close()
        validators.close()
        raise
    return Survey(
        plan,
        validators,
        comparison.counts,
        comparison.incomplete,
        comparison.validators_moved,
        comparison.found_any,
        dict(matcher.counts),
    )


def rows(plan: Spool[Item], site: Site, reader: ManifestReader) -> Iterator[Row]:
    """The plan's rows. New files whose size is that of a deleted one are read, so that moves can be told."""
    sizes: set[int] = set()
    for item in plan:
        if type(item) is Drop and isinstance(item.entry, File | Page) and item.entry.size and len(sizes) < 1_000_000:
            sizes.add(item.entry.size)
    for item in plan:
        if type(item) is Drop:
            yield row(DELETED, item.entry, reader.content_key)
        elif type(item) is Put:
            yield row(item.symbol, item.entry, reader.content_key)
        elif type(item) is Fetch:
            symbol = CHANGED if item.before is not None else NEW
            content = b""
            if symbol == NEW and item.entry.size in sizes:
                content = _content(site, item.entry)
            yield Row(symbol, item.entry.path, item.entry.size, content)


def _content(site: Site, entry: File) -> bytes:
    try:
        content = site.open(entry.path)
    except (NotFound, OSError):
        return b""
    with content.stream:
        try:
            _, _, joined = identify(content.stream.read, content.size, entry.class_, lambda id_, data: None)
        except OSError:
            return b""
    return content_key(joined)


def moves_of(survey: Survey, site: Site, reader: ManifestReader, state: State) -> tuple[Spool[Row], Moves, int]:
    """(rows, moves, number of moves) of a plan, for a dry run and for the guard; new files of a deleted file's size are read."""
    spool = row_spool()
    spool.extend(rows(survey.plan, site, reader))
    moves = Moves(state)
    return spool, moves, moves.pair(spool)


def guard(
    survey: Survey, site: Site, reader: ManifestReader, state: State, limit: DeletionLimit, allow_empty: bool, command: str
) -> None:
    """Law 3: a source that emptied stops the run; so do too many deletions. Moves do not count. Nothing has been written."""
    counts = survey.counts
    if not survey.found_any and counts.parent > 1 and not allow_empty:
        left_out = bool(survey.rules)
        raise SourceError(
            "nothing is let in of the source" if left_out else "the source is empty",
            where=site.url,
            why=f"{'the rules leave out all of it, and ' if left_out else ''}the last snapshot has {counts.parent:,} entries",
            hint=f"{'look at the rules;' if left_out else 'is it mounted?'} to mirror the emptiness say --allow-empty-source",
            kind="source-empty",
        )
    deleted = counts.deleted
    if survey.keeps_gone or limit.allows(deleted, counts.parent) or (allow_empty and not survey.found_any):
        return
    spool, moves, moved = moves_of(survey, site, reader, state)
    spool.close()
    moves.close()
    deleted -= moved
    if limit.allows(deleted, counts.parent):
        return
    share = 100 * deleted / max(counts.parent, 1)
    raise DeletionGuardError(
        "stopped before anything was written",
        where=site.url,
        why=f"{deleted:,} of {counts.parent:,} entries ({share:.0f} %) would be deleted, the limit is {limit}",
        hint=f"if that is right, accept it once: {command} --max-delete {deleted}",
    )


def keep_validators(
    reader: ManifestReader, state: State, root: Ref, source: str, survey: Survey, routes: Routes | None = None
) -> None:
    """After a run that changed nothing: remember how each entry was found, where that is news."""
    if not survey.validators_moved:
        return
    pairs = iter(survey.validators)
    with state.together():
        for ref in reader.leaves(root, SEGMENT):
            state.keep_scanned(source, ref.digest, memory_of(reader.segment(ref), islice(pairs, ref.entries), routes))
