"""A bucket, or whatever takes whole files, made to be what a snapshot says: the writing half of a restore into such a place.

    out = SiteOut(open_writable(SiteSpec("s3://bucket/www")), intent)
    survey, filled = out.compare((out.adapted(entry)[0] for entry in entries), filter, on_problem)
    out.write(Errand(reading, record, survey, ...))

The same difference as for a folder (see `mirror.intent`), but such places keep less of a file, and a listing tells less. So what
cannot be kept is taken out of the snapshot's entries before they are compared, and counted; and files of the right size are looked
at a second time: by their stored time where the place keeps times, else (or with --checksum) by reading them.

Order: files, then deletions, and none of those if anything failed. What goes wrong with one path is that path's problem.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, cast

import msgspec
import xxhash

from mirror.errors import DurationLimitError, MirrorError, NotFound, SourceError, UsageError
from mirror.events import Change, Job, PhaseBegan, Problem
from mirror.intent import Done, Errand, Intent, wanted_of
from mirror.keys import show
from mirror.manifest import Entry, File, Folder, Symlink
from mirror.plan import CHANGED, DELETED, DESCRIBED, NEW, Drop, Fetch, Item, Put, decode, encode
from mirror.site import (
    ANYTHING,
    CONDITIONS,
    COPIES,
    FILE,
    FOLDERS,
    OWNERS,
    TIMES,
    Content,
    CopyingSite,
    Filter,
    Found,
    Seen,
    Site,
    TreeSite,
    WritableSite,
)  # fmt: skip
from mirror.site.filters import Matcher
from mirror.site.writing import TEMPORARY, Description
from mirror.spool import Spool
from mirror.survey import LookOptions, Survey, check_ends, look
from mirror.transfer.deliver import Delivery, Order

_READ: Final = 1 << 20
_AHEAD: Final = 4  # questions waiting for each thread


@dataclass
class NotKept:
    """What the snapshot has and the place does not keep: counted, and said once."""

    described: int = 0
    hard_links: int = 0
    folders: int = 0

    @property
    def total(self) -> int:
        """All together."""
        return self.described + self.hard_links + self.folders

    def sentence(self, site: WritableSite) -> str:
        """It in one sentence."""
        what = "modes and owners" if TIMES in site.keeps else "modes, owners and times"
        parts = [f"{what} of {self.described:,} files"] if self.described else []
        parts += [f"{self.hard_links:,} hard links (each is a file of its own)"] if self.hard_links else []
        parts += [f"{self.folders:,} empty folders"] if self.folders else []
        return f"{site.url} does not keep all that the snapshot does: {', '.join(parts)}"


class SiteOut:
    """A place to restore into that takes whole files. threads: requests in flight."""

    not_there = "restore into a folder"

    def __init__(self, site: WritableSite, intent: Intent, threads: int = 8) -> None:
        self.site = site
        self.intent = intent if FOLDERS in site.keeps else replace(intent, folders=False)
        self._threads = threads
        self._not_kept = NotKept()
        self._hollow = b""  # the folder that came last, if nothing below it has come yet
        self._kept = self._deleted = 0
        self._failed = False

    @property
    def url(self) -> str:
        """See `mirror.restore.Out`."""
        return self.site.url

    # -- what is wanted --------------------------------------------------------------------------------------------

    def adapted(self, entry: Folder | File | Symlink) -> tuple[Entry | None, Problem | None]:
        """See `mirror.restore.Out`."""
        if self._hollow and not entry.path.startswith(self._hollow):
            self._not_kept.folders += 1
        self._hollow = b""
        if isinstance(entry, Symlink):
            return None, Problem(show(entry.path), "special", "a link cannot be there: it is left out")
        if isinstance(entry, Folder):
            if FOLDERS in self.site.keeps:
                return Folder(entry.path), None
            self._hollow = entry.path
            return None, None
        if fault := self.site.fault(entry.path):
            return None, Problem(show(entry.path), "name", fault, "rename it in the source, or leave it out with --exclude")
        if OWNERS not in self.site.keeps:
            self._not_kept.described += entry.mode is not None or entry.uid is not None or bool(entry.xattrs)
        self._not_kept.hard_links += bool(entry.link)
        return msgspec.structs.replace(entry, mode=None, uid=None, gid=None, user="", group="", link=b"", xattrs=()), None

    # -- what is there ---------------------------------------------------------------------------------------------

    def compare(self, wanted: Iterable[Entry], filter: Filter, on_problem: Callable[[Problem], None]) -> tuple[Survey, bool]:
        """See `mirror.restore.Out`. Each doubt is settled."""
        known = ((entry, None) for entry in wanted)
        try:
            survey = look(_Bare(self.site), filter, known, LookOptions(routes=None), on_problem)
            try:
                self._settle(survey)
            except BaseException:
                survey.close()
                raise
        except SourceError as error:  # that place is no source here
            raise UsageError("cannot restore into", where=error.where, why=error.why, hint=error.hint) from error
        except MirrorError as error:
            error.what = error.what.replace("the source", "what is in")
            raise
        self._not_kept.folders += bool(self._hollow)
        return survey, survey.found_any

    def check_space(self, wanted: int) -> None:
        """See `mirror.restore.Out`. Nobody knows how much fits into such a place."""

    def lost(self) -> tuple[int, str]:
        """See `mirror.restore.Out`."""
        return self._not_kept.total, self._not_kept.sentence(self.site)

    def close(self) -> None:
        """See `mirror.restore.Out`."""
        self.site.close()

    def _settle(self, survey: Survey) -> None:
        """Look a second time at what is there and may be what is wanted."""
        old, counts = survey.plan, survey.counts
        survey.plan = Spool(encode, decode)
        with old:
            for before, after in self._judged(old):
                if after is None:
                    counts.changed -= 1
                    counts.same += 1
                    continue
                if after is not before and isinstance(after, Put):
                    counts.changed -= 1
                    counts.described += 1
                survey.plan.append(after)

    def _judged(self, plan: Iterable[Item]) -> Iterator[tuple[Item, Item | None]]:
        """Each item and what became of it, in order; questions are asked ahead."""
        waiting: deque[tuple[Item, Future[tuple[Item | None, bool]] | None]] = deque()
        with ThreadPoolExecutor(self._threads) as pool:
            try:
                for item in plan:
                    doubt = isinstance(item, Fetch) and isinstance(item.before, File)
                    waiting.append((item, pool.submit(self._judge, cast(Fetch, item)) if doubt else None))
                    if len(waiting) > self._threads * _AHEAD:
                        yield self._verdict(*waiting.popleft())
                while waiting:
                    yield self._verdict(*waiting.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _verdict(self, item: Item, future: Future[tuple[Item | None, bool]] | None) -> tuple[Item, Item | None]:
        if future is None:
            return item, item
        after, kept = future.result()
        self._kept += kept
        return item, after

    def _judge(self, item: Fetch) -> tuple[Item | None, bool]:
        """(the item as it is now known, None when the file is what is wanted; whether that was found by reading it)."""
        wanted, path, times = cast(File, item.before), item.entry.path, TIMES in self.site.keeps
        same_size = item.entry.size == wanted.size
        mtime = None
        if (same_size and times) or self.intent.overwrite == "if-newer":
            there = self._there(path)
            if there is None or there[0] != item.entry.size:
                return item, False  # it is changing under our feet: whoever writes it now is the last
            mtime = there[1]
        found = msgspec.structs.replace(item, entry=msgspec.structs.replace(item.entry, mtime=mtime))
        if not same_size:
            return found, False
        if not self.intent.checksum and times and wanted.mtime is not None:
            return (None if mtime == wanted.mtime else found), False
        if not self._reads_as(path, wanted):
            return found, False
        if times and wanted.mtime is not None and mtime != wanted.mtime and COPIES in self.site.keeps:
            return Put(DESCRIBED, found.entry, found.validator, wanted), True
        return None, True

    def _there(self, path: bytes) -> tuple[int, int | None] | None:
        try:
            there = self.site.look(path)
        except OSError:
            return None
        return (there.size, there.mtime) if there else None

    def _reads_as(self, path: bytes, wanted: File) -> bool:
        """Whether the file has the content that is wanted. One that cannot be read has not: it is written anew."""
        whole, size = xxhash.xxh3_128(), 0
        try:
            content: Content = self.site.open(path)
            with content.stream:
                while data := content.stream.read(_READ):
                    whole.update(data)
                    size += len(data)
        except (NotFound, OSError):
            return False
        return size == wanted.size and whole.digest() == wanted.fingerprint

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, errand: Errand) -> Done:
        """See `mirror.restore.Out`."""
        survey, reading, counts = errand.survey, errand.reading, errand.survey.counts

        def problem(found: Problem) -> None:
            self._failed = True
            errand.on_problem(found)

        self.site.sweep()
        self._prepare(survey, problem)
        errand.job.say(PhaseBegan("transfer", counts.deleted + counts.changed, errand.plain))
        delivery = Delivery(
            reading.store,
            self.site,
            lambda: reading.index,
            reading.reader.chunk_ids,
            lambda: reading.look_again(errand.record),
            errand.job,
            problem,
            errand.on_unset,
            self._threads,
            live=reading.live_content if reading.target.tree else None,
        )
        delivery.run(self._orders(survey, errand.job, problem))
        if self.intent.delete:
            if self._failed or survey.incomplete:
                errand.on_notice("nothing was deleted, since not everything could be read or written")
            else:
                self._delete(survey, errand.job, problem)
        return Done(delivery.files_written, self._kept, delivery.bytes_written, self._deleted)

    def _prepare(self, survey: Survey, problem: Callable[[Problem], None]) -> None:
        """What a dead run left goes; folders are made, where there are folders (one that holds nothing comes in no other way)."""
        for item in survey.plan:
            path = item.entry.path
            if TEMPORARY.search(path) and not isinstance(item, Drop) and FOLDERS in self.site.keeps:  # a bucket gets none from us
                self._attempt(path, lambda path=path: self.site.remove(path), problem)  # type: ignore[misc]
            elif isinstance(wanted_of(item), Folder) and path:
                self._attempt(path, lambda path=path: cast(TreeSite, self.site).make_folder(path), problem)  # type: ignore[misc]

    def _orders(self, survey: Survey, job: Job, problem: Callable[[Problem], None]) -> Iterator[Order]:
        # A file that comes up meanwhile is not there to be overwritten, unless all are.
        guarded = self.intent.overwrite != "always" and CONDITIONS in self.site.keeps
        for item in survey.plan:
            if self.intent.deadline is not None and time.monotonic() >= self.intent.deadline:
                raise DurationLimitError("stopped: --max-duration is reached", hint="run it again with --in-place to go on")
            wanted = wanted_of(item)
            if not isinstance(wanted, File) or not self.intent.may_replace(item):
                continue
            what = Description(wanted.mtime, media_type=wanted.media_type, headers=wanted.headers)
            new = isinstance(item, Drop)
            if isinstance(item, Put) and item.symbol == DESCRIBED:
                _say(job, DESCRIBED, wanted)
                path = wanted.path
                self._attempt(path, lambda: cast(CopyingSite, self.site).copy(path, path, what), problem)  # noqa: B023 - at once
                continue
            _say(job, NEW if new else CHANGED, wanted)
            yield Order(wanted, what, None if new and guarded else ANYTHING)

    def _delete(self, survey: Survey, job: Job, problem: Callable[[Problem], None]) -> None:
        """Extra paths, what is below a folder before it."""
        for item in reversed(survey.plan):
            if not self.intent.is_extra(item):
                continue
            path = item.entry.path
            _say(job, DELETED, item.entry)
            try:
                self.site.remove(path)
            except OSError as error:
                if not path.endswith(b"/"):  # what is left in a folder is not ours to delete: left out by a rule
                    problem(Problem(show(path), "unwritable", error.strerror or str(error)))
                continue
            self._deleted += 1

    def _attempt(self, path: bytes, call: Callable[[], object], problem: Callable[[Problem], None]) -> None:
        try:
            call()
        except OSError as error:
            problem(Problem(show(path), "unwritable", error.strerror or str(error)))


class _Bare:
    """The site as far as a listing can be compared with a snapshot: times in a listing are when somebody put a file there."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.url, self.identity = site.url, site.identity

    def check(self) -> None:
        self._site.check()

    def scan(self, matcher: Matcher | None = None) -> Iterator[Seen]:
        for here in self._site.scan(matcher):
            if type(here) is not Found:
                yield here
            elif here.kind == FILE:
                yield Found(here.path, FILE, here.size, validator=here.validator)
            else:
                yield Found(here.path, here.kind, target=here.target)

    def open(self, path: bytes) -> Content:
        return self._site.open(path)

    def recheck(self, path: bytes, content: Content) -> str:
        return self._site.recheck(path, content)


def check_apart(out: Site, store: str) -> None:
    """UsageError when OUT and the target are in one place, one in the other: with --delete a restore would take its own source."""
    if path := out.identity.get("path"):
        check_ends(path, store, "cannot restore into")
    if not (out.url.startswith("s3://") and store.startswith("s3://")):
        return
    a, b = out.url.rstrip("/") + "/", store.rstrip("/") + "/"
    inside = "it is the target itself" if a == b else f"it is inside the target {store}" if a.startswith(b) else ""
    if b.startswith(a) and not inside:
        inside = f"the target {store} is inside it"
    if inside:
        hint = "name another prefix: what is kept and where it goes must lie apart"
        raise UsageError("cannot restore into", where=out.url, why=inside, hint=hint)


def _say(job: Job, symbol: str, entry: Entry) -> None:
    job.say(Change(symbol, show(entry.path), entry.size if isinstance(entry, File) else 0))
