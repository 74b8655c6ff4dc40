"""From a site into a tree's staging place: what one worker does with one batch of files.

Read, cut, identify, and write each file as a draft on the filesystem of the live tree, with its metadata, so that a rename is all
that is left to do. Nothing is packed and nothing is visible yet. What a batch wrote is not durable before the caller's syncfs.

Where the live tree has an older version of a large file, its chunks are found by cutting that once more, and unchanged ranges are
copied within the kernel: on filesystems that share blocks (btrfs, XFS) they take no room and no time. The draft is read back then
and must have the fingerprint of what the site gave; if not, it is written again without copying.

Errors of the staging place end the batch; those of one file of the site are its result.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import msgspec

from mirror.chunking import ChunkId, identify
from mirror.errors import NotFound
from mirror.site import Content, Site, SiteSpec
from mirror.site.files import FolderSite
from mirror.site.live import Staging
from mirror.site.open import open_site
from mirror.site.writing import Description, FolderWriter, fingerprint_of, write_at
from mirror.store.errnos import error_for
from mirror.store.wrap import Counts
from mirror.transfer import up
from mirror.workers import Ask, Tell

_HELD = 1 << 20  # bytes put together before they are written
_HOLE = bytes(64 << 10)  # zeros of at least this length become holes
_REUSE_FROM = 1 << 20  # smaller files are not worth a second look at the old version
_REUSE_CHUNKS = 200_000  # of an old version; beyond that it is not looked at: memory is bounded


class Wanted(NamedTuple):
    """A file of a batch. what: its metadata, but for the time, which is that of what was read. stage: False for another name of a
    file (a hard link): it is read, and no draft is made. before: bytes of the version that is live, 0 for none; fingerprint: of
    that version, where the site's may well be the same: then it is read before a draft is made. beside: bytes of a file that no
    snapshot has and that may stand there with the same content (a tree that is adopted), 0: it is not looked for."""

    path: bytes
    class_: int
    what: Description
    stage: bool = True
    before: int = 0
    fingerprint: bytes = b""
    beside: int = 0


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(list[Wanted])


class Job(NamedTuple):
    """What every batch of a run shares; picklable. root: of the live tree."""

    site: SiteSpec
    root: str
    epoch: int


@lru_cache(maxsize=2)
def _site(spec: SiteSpec) -> Site:
    return open_site(spec)


def release() -> None:
    """Give back what batches in this process have opened."""
    _site.cache_clear()


def packed(files: list[Wanted]) -> bytes:
    """Files as `run_batch` takes them. Pickled one by one they took 13 µs each on their way to a worker, so 2."""
    return _encoder.encode(files)


def run_batch(ask: Ask, tell: Tell, job: Job, files: bytes) -> up.Outcome:
    """Make a draft of each of these files. Idempotent. MirrorError when the staging place cannot be written."""
    site, old = _site(job.site), FolderSite(job.root)
    results, staged = [], 0
    writer = FolderWriter(job.root)
    staging = Staging(job.root)
    try:
        for wanted in _decoder.decode(files):
            result, is_staged = _stage(site, old, staging, writer, wanted)
            results.append(result)
            staged += result.size if is_staged else 0
    except OSError as error:
        raise error_for(error, "cannot write", staging.path) from error
    finally:
        staging.close()
        writer.close()
    return up.Outcome(up.encoded(results), sum(result.read for result in results), 0, staged, Counts(), staged)


def _stage(site: Site, old: Site, staging: Staging, writer: FolderWriter, wanted: Wanted) -> tuple[up.Fetched, bool]:
    """What became of a file, and whether there is a draft of it."""
    if not wanted.stage:
        return up.fetch(site, wanted.path, wanted.class_, lambda content: _dropped), False
    if wanted.fingerprint:
        result = up.fetch(site, wanted.path, wanted.class_, lambda content: _dropped)
        if not result.has_content or (result.size, result.fingerprint) == (wanted.before, wanted.fingerprint):
            return result, False
    if wanted.beside and (there := _standing(old, wanted)) is not None:
        result = up.fetch(site, wanted.path, wanted.class_, lambda content: _dropped)
        if not result.has_content or (result.size, result.fingerprint, result.chunks) == there:
            return result, False
    ranges = _Ranges.of(old, wanted) if wanted.before >= _REUSE_FROM else None
    draft = _Draft(staging, wanted.path, ranges)
    try:
        result = up.fetch(site, wanted.path, wanted.class_, draft.begin)
        if result.has_content:
            draft.finish(result.size)
            if draft.copied and draft.fingerprint() != result.fingerprint:
                draft.ranges = None
                result = up.fetch(site, wanted.path, wanted.class_, draft.begin)
                draft.finish(result.size)
    finally:
        if ranges is not None:
            ranges.close()
    if not result.has_content:
        draft.close()
        staging.drop(wanted.path)
        return result, False
    assert draft.fd is not None
    what = wanted.what
    # Who owns it already need not be set: a call that writes the inode once more, for each of many small files.
    uid = None if what.uid == draft.owner[0] else what.uid
    gid = None if what.gid == draft.owner[1] else what.gid
    writer.describe(draft.fd, Description(result.mtime, what.mode, uid, gid, what.xattrs))
    draft.close()
    return result, True


def _standing(old: Site, wanted: Wanted) -> tuple[int, bytes, bytes] | None:
    """(size, fingerprint, joined ids) of the live file at a path where no snapshot has one; None when it cannot be the site's. Only
    proposes: whoever publishes reads it once more before it is believed."""
    try:
        content = old.open(wanted.path)
        with content.stream:
            return identify(content.stream.read, content.size, wanted.class_, _dropped) if content.size == wanted.beside else None
    except (NotFound, OSError):
        return None


def _dropped(id_: ChunkId, data: bytes | memoryview) -> None:
    """Only the ids count here."""


@dataclass
class _Ranges:
    """Where the chunks of the live version of a file are in it. Close it."""

    content: Content
    at: dict[ChunkId, int] = field(default_factory=dict)
    end: int = 0

    @classmethod
    def of(cls, old: Site, wanted: Wanted) -> _Ranges | None:
        try:
            content = old.open(wanted.path)
        except (NotFound, OSError):
            return None
        ranges = cls(content)
        try:
            identify(content.stream.read, content.size, wanted.class_, ranges._add)
        except OSError:
            ranges.at.clear()
        return ranges

    def _add(self, id_: ChunkId, data: bytes | memoryview) -> None:
        if len(self.at) < _REUSE_CHUNKS:
            self.at.setdefault(id_, self.end)
        self.end += len(data)

    def close(self) -> None:
        self.content.stream.close()


class _Draft:
    """One draft on its way: bytes are held and written together, ranges of the old version copied together. copied: whether any
    were. OSErrors come out of `finish`, or as MirrorError while the site is read."""

    def __init__(self, staging: Staging, path: bytes, ranges: _Ranges | None) -> None:
        self._staging, self._path = staging, path
        self.ranges = ranges
        self.fd: int | None = None
        self.copied = False
        self.owner = (-1, -1)  # once it is finished
        self._parts: list[bytes | memoryview] = []
        self._held = self._at = 0
        self._run = (0, 0)  # offset in the old version, bytes: to be copied to just before _at + _held

    def begin(self, content: Content) -> up.Take:
        """Start anew."""
        try:
            if self.fd is None:
                self.fd = self._staging.begin(self._path)
            else:
                os.truncate(self.fd, 0)
        except OSError as error:
            raise error_for(error, "cannot write", self._staging.path) from error
        self._parts, self._held, self._at, self._run, self.copied = [], 0, 0, (0, 0), False
        return self._take

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def _take(self, id_: ChunkId, data: bytes | memoryview) -> None:
        try:
            old = self.ranges.at.get(id_) if self.ranges else None
            if old is not None:
                self._write()
                start, length = self._run
                if length and old != start + length:
                    self._copy()
                    start, length = 0, 0
                self._run = (start if length else old, length + len(data))
                return
            self._copy()
            if data[: len(_HOLE)] == _HOLE and not any(data):
                self._write()
                self._at += len(data)
                return
            self._parts.append(data)
            self._held += len(data)
            if self._held >= _HELD:
                self._write()
        except OSError as error:
            raise error_for(error, "cannot write", self._staging.path) from error

    def _write(self) -> None:
        if self._parts:
            assert self.fd is not None
            write_at(self.fd, self._parts[0] if len(self._parts) == 1 else b"".join(self._parts), self._at)
            self._at += self._held
            self._parts, self._held = [], 0

    def _copy(self) -> None:
        """Copy the range that is due, in the kernel if it can."""
        start, length = self._run
        self._run = (0, 0)
        if not length:
            return
        assert self.ranges is not None
        assert self.fd is not None
        source = self.ranges.content.stream.fileno()
        self.copied = True
        while length:
            done = _copy_range(source, self.fd, length, start, self._at)
            if not done:  # the old version was cut short meanwhile: what is missing shows in the fingerprint
                self._at += length
                return
            start, length, self._at = start + done, length - done, self._at + done

    def finish(self, size: int) -> None:
        """Write what is held; the draft has `size` bytes then."""
        if self.fd is None:
            return
        self._copy()
        self._write()
        seen = os.fstat(self.fd)
        self.owner = (seen.st_uid, seen.st_gid)
        if seen.st_size != size:
            os.truncate(self.fd, size)

    def fingerprint(self) -> bytes:
        """Of the draft as it is."""
        assert self.fd is not None
        return fingerprint_of(self.fd)


def _copy_range(source: int, goal: int, length: int, at: int, to: int) -> int:
    try:
        return os.copy_file_range(source, goal, length, at, to)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
    data = os.pread(source, min(length, _HELD), at)
    write_at(goal, data, to)
    return len(data)


def is_draft(staging: Staging, found: up.Fetched) -> bool:
    """Whether the draft of a file is what a run that was interrupted read: all of it is read again."""
    fd = staging.open(found.path)
    if fd is None:
        return False
    try:
        seen = os.fstat(fd)
        return stat.S_ISREG(seen.st_mode) and seen.st_size == found.size and fingerprint_of(fd) == found.fingerprint
    finally:
        os.close(fd)
