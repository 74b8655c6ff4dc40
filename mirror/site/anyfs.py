"""Any other place as a site, through fsspec: sftp, zip, http, git, memory, and chains of them.

Owns what fsspec's listings mean for us. One folder is listed at a time (fsspec gives a listing whole) and kept sorted, on disk when
long. What such places know of an entry differs: size is certain, the time of change likely, links and owners are not carried.

A file's validator is a hash of its ETag or checksum if the listing has one, else of its size and time; with neither it is (0, 0)
and the content is read each time.
"""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, cast

import msgspec
from xxhash import xxh3_64_intdigest

from mirror.errors import MirrorError, NotFound, SourceError, UsageError
from mirror.keys import path_fault
from mirror.site import FILE, FOLDER, SYMLINK, Content, Found, Seen, SiteSpec, Unread
from mirror.site.filters import IGNORE_FILE, IGNORE_FILE_MAX, Matcher
from mirror.site.follow import judged
from mirror.site.gate import Gate
from mirror.spool import Sorter

_MTIME_KEYS: Final = ("mtime", "modified", "LastModified", "last_modified", "updated", "Last-Modified")
_TAG_KEYS: Final = ("ETag", "etag", "e_tag", "md5Hash", "sha256", "CRC", "sha", "hex")


class _Info(msgspec.Struct, array_like=True):
    """What we keep of an fsspec entry."""

    kind: str
    size: int
    mtime: int | None
    tag: int
    target: bytes = b""


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_Info).decode


class AnySite:
    """A `Site` behind an fsspec URL."""

    def __init__(self, spec: SiteSpec) -> None:
        from fsspec.core import url_to_fs

        self._spec = spec
        self._url = _without_credentials(spec.url)
        try:
            # A file system of our own: a shared one remembers what an archive held the last time.
            self._fs, root = url_to_fs(spec.url, skip_instance_cache=True)
        except ImportError as error:
            raise UsageError("cannot open the source", where=self._url, why=str(error), hint=_hint(str(error))) from error
        except ValueError as error:
            hint = "see the list of protocols in fsspec's documentation"
            raise UsageError("cannot open the source", where=self._url, why=sentence(error), hint=hint) from error
        except Exception as error:  # each backend connects here, with errors of its own library
            raise _source_error(self._url, error) from error
        self._root = str(root).rstrip("/")
        # Only those that are asynchronous within promise to be safe in threads. A tar file gives one thread what another asked for.
        self._turn: AbstractContextManager[object] = nullcontext() if getattr(self._fs, "async_impl", False) else threading.RLock()

    @property
    def url(self) -> str:
        return self._url

    @property
    def identity(self) -> dict[str, str]:
        return {"url": self._url}

    @property
    def symlinks(self) -> str:
        """What becomes of links: keep, follow (they cannot be), or skip."""
        return self._spec.symlinks

    def check(self) -> None:
        """See `Site.check`. One listing."""
        try:
            self.list(b"").close()
        except OSError as error:
            raise _source_error(self._url, error) from error

    def scan(self, matcher: Matcher | None = None) -> Iterator[Seen]:
        """See `Site.scan`."""
        walk = _Walk(self, matcher or Matcher(self._spec.filter))
        try:
            yield from walk.run()
        finally:
            walk.close()

    def open(self, path: bytes) -> Content:
        with self._turn:
            return self._opened(path)

    def _opened(self, path: bytes) -> Content:
        try:
            place = self.place(path)
            stream = cast(BinaryIO, self._fs.open(place, "rb"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(path) from error
        except Exception as error:
            raise os_error(error) from error
        try:
            entry = dict(getattr(stream, "details", None) or self._look(place))
            size = getattr(stream, "size", None)
            if not isinstance(size, int):
                size = entry.get("size")
            if size is None:
                # Only reading tells how long it is (an HTTP server that streams): keep it, for it must be known first.
                stream = _kept(stream)
                size = stream.seek(0, 2)
                stream.seek(0)
        except BaseException:
            stream.close()
            raise
        info = read_info({**entry, "size": size})
        return Content(cast(BinaryIO, _Translated(stream, self._fs, self._turn)), info.size, info.mtime, (info.tag, 0))

    def recheck(self, path: bytes, content: Content) -> str:
        if content.validator == (0, 0):
            return ""
        try:
            now = read_info(self._look(self.place(path)))
        except OSError as error:
            return f"it could not be looked at again: {sentence(error)}"
        if now.size != content.size:
            return f"its size changed from {content.size} to {now.size} while it was read"
        return "" if (now.tag, 0) == content.validator else "it was changed while it was read"

    def place(self, path: bytes) -> str:
        """A path of the site as fsspec's path. Backends take text; what is no UTF-8 came to us as surrogates."""
        below = path.decode("utf-8", "surrogateescape").rstrip("/")
        return f"{self._root}/{below}" if below and (self._root or self._fs.root_marker) else below or self._root or "/"

    def list(self, folder: bytes) -> Sorter:
        """A folder's entries by name, sorted. FileNotFoundError and other OSErrors; SourceError when the root is no folder."""
        place = self.place(folder) if folder else self._root
        try:
            entries = self._fs.ls(place, detail=True)
        except OSError:
            raise
        except Exception as error:
            raise os_error(error) from error
        finally:
            # A listing that fsspec keeps is memory that grows with the site.
            self._fs.invalidate_cache(place)
        sorter = Sorter()
        prefix = f"{place}/" if place.strip("/") else place
        for entry in entries:
            full = str(entry["name"]).rstrip("/")
            if full.strip("/") == place.strip("/"):
                if entry.get("type") == "file" and len(entries) == 1:
                    raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder")
                continue  # some list the folder itself
            if not full.lstrip("/").startswith(prefix.lstrip("/")):
                continue  # a link of a web page that leads elsewhere
            info = read_info(entry)
            name = full.rsplit("/", 1)[-1].encode("utf-8", "surrogateescape")
            sorter.add(name + b"/" if info.kind == "directory" else name, _encode(info))
        return sorter

    def _look(self, place: str) -> dict[str, Any]:
        try:
            return dict(self._fs.info(place))
        except OSError:
            raise
        except Exception as error:
            raise os_error(error) from error


class _Walk:
    """One scan, depth first. A folder is listed when the gate lets it in, so excluded folders are never asked for."""

    def __init__(self, site: AnySite, matcher: Matcher) -> None:
        self._site = site
        self._gate = Gate(matcher, self._rules_of)
        self._listed: tuple[bytes, Sorter] | None = None
        self._sorters: list[Sorter] = []

    def run(self) -> Iterator[Seen]:
        try:
            self._list(b"")
        except OSError as error:
            raise _source_error(self._site.url, error) from error
        return self._gate.run(Found(b"", FOLDER), self._entries())

    def close(self) -> None:
        for sorter in self._sorters:
            sorter.close()

    def _list(self, folder: bytes) -> Sorter:
        if self._listed and self._listed[0] == folder:
            return self._listed[1]
        sorter = self._site.list(folder)
        self._sorters.append(sorter)
        self._listed = folder, sorter
        return sorter

    def _rules_of(self, folder: bytes) -> bytes | None:
        try:
            listing: Iterable[tuple[bytes, bytes]] = self._list(folder)
        except OSError:
            return None  # said when it is walked
        if next((name for name, _ in listing if name >= IGNORE_FILE), b"") != IGNORE_FILE:
            return None
        try:
            with self._site.open(folder + IGNORE_FILE).stream as file:
                rules = file.read(IGNORE_FILE_MAX + 1)
        except NotFound as error:
            raise OSError(errno.ENOENT, "it was gone when it was to be read") from error
        if len(rules) > IGNORE_FILE_MAX:
            raise OSError(errno.EFBIG, f"it is larger than {IGNORE_FILE_MAX} bytes")
        return rules

    def _entries(self) -> Iterator[Found | Unread]:
        levels = [(b"", iter(self._list(b"")))]
        while levels:
            folder, names = levels[-1]
            last = None
            for name, packed in names:
                path = folder + name
                if name == last:
                    continue  # some backends name an entry twice
                last = name
                if fault := path_fault(path):
                    yield Unread(path, "name", fault)
                    continue
                info = _decode(packed)
                if name[-1:] != b"/":
                    yield judged(_seen(path, info), self._site.symlinks)
                    continue
                yield Found(path, FOLDER, mtime=info.mtime)
                if self._gate.skipped == path:
                    continue
                try:
                    levels.append((path, iter(self._list(path))))
                except FileNotFoundError:
                    yield Unread(path, "vanished", "it is no longer there")
                except OSError as error:
                    yield Unread(path, "incomplete", sentence(error))
                else:
                    break
            else:
                levels.pop()
                self._sorters.pop().close()


def read_info(entry: dict[str, Any]) -> _Info:
    """What one fsspec entry says: kind as fsspec names it, size, mtime in ns if any, hash of a checksum if any."""
    kind = "link" if entry.get("islink") else str(entry.get("type") or "file")
    mtime = next((time for key in _MTIME_KEYS if (time := _nanoseconds(entry.get(key))) is not None), None)
    size = int(entry.get("size") or 0)
    tag = next((str(entry[key]) for key in _TAG_KEYS if entry.get(key)), "")
    if not tag and mtime is not None:
        tag = f"{size} {mtime}"
    target = entry.get("destination") or b""
    return _Info(
        kind,
        size,
        mtime,
        # 63 bits: what keeps validators holds signed integers.
        xxh3_64_intdigest(f"{tag} {size}".encode("utf-8", "surrogateescape")) >> 1 if tag else 0,
        target if isinstance(target, bytes) else str(target).encode("utf-8", "surrogateescape"),
    )


def _nanoseconds(value: object) -> int | None:
    """A time as backends give it: seconds, a datetime (UTC unless it says otherwise), or ISO text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            value = value.replace(tzinfo=UTC)
        # Whole numbers: a float of seconds has no nanoseconds to give.
        since = value - datetime(1970, 1, 1, tzinfo=UTC)
        return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
    if isinstance(value, int | float) and not isinstance(value, bool):
        return int(value * 1_000_000) * 1000 if isinstance(value, float) else value * 1_000_000_000
    return None


def _seen(path: bytes, info: _Info) -> Found | Unread:
    if info.kind == "file":
        return Found(path, FILE, info.size, info.mtime, validator=(info.tag, 0))
    if info.kind == "link" and info.target:
        return Found(path, SYMLINK, mtime=info.mtime, target=info.target)
    why = "it is a link, and this source does not say where to" if info.kind == "link" else "it is neither file nor folder"
    return Unread(path, "special", why)


class _Translated:
    """A stream that fills what it is asked for, and whose errors are OSErrors, whatever library it comes from."""

    def __init__(self, stream: BinaryIO, owner: object, turn: AbstractContextManager[object]) -> None:
        self._stream, self._turn = stream, turn
        self._owner = owner  # the file system: an archive closes its file when it is forgotten

    def read(self, size: int = -1) -> bytes:
        try:
            with self._turn:
                data = self._stream.read(size)
                while size > 0 and 0 < len(data) < size and (more := self._stream.read(size - len(data))):
                    data += more
            return data
        except OSError:
            raise
        except Exception as error:
            raise os_error(error) from error

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> _Translated:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _kept(stream: BinaryIO) -> BinaryIO:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - its reader closes it
    with stream:
        shutil.copyfileobj(stream, file, 1 << 20)
    return cast(BinaryIO, file)


def os_error(error: Exception) -> Exception:
    """What a backend raised, as an OSError about one path; ours pass as they are."""
    if isinstance(error, OSError | MirrorError):
        return error
    return OSError(errno.EIO, sentence(error) or type(error).__name__)


def _source_error(url: str, error: Exception) -> SourceError:
    if isinstance(error, FileNotFoundError):
        return SourceError("cannot read the source", where=url, why="it does not exist", hint="is the address right?")
    if isinstance(error, NotADirectoryError):
        return SourceError("cannot read the source", where=url, why="it is a file, not a folder", hint="give the folder it is in")
    return SourceError("cannot read the source", where=url, why=sentence(error) or type(error).__name__)


def sentence(error: Exception) -> str:
    """An exception's words, to go on a sentence with."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    text = " ".join(text.split()).rstrip(".")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _hint(message: str) -> str:
    packages = re.findall(r'"([\w.-]+)"', message) or re.findall(r"[Ii]nstall (?:the )?([\w.-]+)", message)
    return f"pip install {' '.join(packages)}" if packages else "install what it names"


def _without_credentials(url: str) -> str:
    return re.sub(r"(://)[^/@:]*(:[^/@]*)?@", r"\1", url)
