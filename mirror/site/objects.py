"""An S3 prefix as a site.

Owns how a listing becomes entries. Every object is a file; a key that ends in `/` and is empty is a folder, as the S3 console makes
them; there are no other folders. The listing is sorted, on disk when long: SeaweedFS lists `a/b` before `a-b` (measured), S3 itself
whole keys, where sorting costs one comparison each.

The listing is asked of boto3 and its XML read here. obstore names `a/` and `a` alike and gives up a whole listing for one key such
as `a//b` or one with a newline; boto3's own parser takes 177 µs a key, this way 25 (measured, 20,000 keys on SeaweedFS).
Content comes through obstore, but for keys that it cannot name.

An object's validator is a hash of its ETag. Times are cut to seconds: a listing may have milliseconds, the answer to a GET has not.
"""

from __future__ import annotations

import errno
import io
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, cast
from urllib.parse import unquote_to_bytes

from xxhash import xxh3_64_intdigest

from mirror.errors import MirrorError, NotFound, SourceError, TargetMissingError, TemporaryError
from mirror.keys import path_fault
from mirror.objectclient.access import control_client
from mirror.objectclient.answers import Verdict, client_verdict, error_for, verdict
from mirror.objectclient.build import client_builder, split_url
from mirror.site import FILE, FOLDER, Content, Found, Seen, SiteSpec, Unread
from mirror.site.ahead import AT_ONCE
from mirror.site.filters import IGNORE_FILE, IGNORE_FILE_MAX, Matcher
from mirror.site.gate import Gate
from mirror.spool import Sorter

if TYPE_CHECKING:
    from obstore.store import ObjectStore

READ_SECONDS: Final = 30
_CHUNK: Final = 4 << 20
_PACKED: Final = struct.Struct("<QqQ")  # size, seconds, hash of the ETag


class Listed(NamedTuple):
    """One object of a listing."""

    key: bytes
    size: int
    seconds: int
    tag: str


class ObjectSite:
    """A `Site` below a prefix of a bucket. Every method may be called from any thread."""

    def __init__(self, spec: SiteSpec) -> None:
        self._spec = spec
        scheme, self._bucket, prefix = split_url(spec.url)
        self._url = f"{scheme}://{self._bucket}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/".lstrip("/")

    @property
    def url(self) -> str:
        return self._url

    @property
    def identity(self) -> dict[str, str]:
        return {"url": self._url}

    def check(self) -> None:
        """See `Site.check`. One request."""
        with closing(self._pages(MaxKeys=1)) as pages:
            next(pages)

    def scan(self, matcher: Matcher | None = None) -> Iterator[Seen]:
        """See `Site.scan`. The whole listing is read before the first entry comes. A prefix without objects is an empty site."""
        matcher = matcher or Matcher(self._spec.filter)
        ignoring: set[bytes] = set()
        with Sorter() as sorter:
            for page in self._pages():
                sorter.extend(self._records(page, ignoring))
            if not (matcher.active or (ignoring and matcher.reads_ignore_files)):
                yield from entries(sorter)
                return
            gate = Gate(matcher, lambda folder: self._rules(folder) if folder in ignoring else None)
            yield from gate.run(None, entries(sorter))

    def open(self, path: bytes) -> Content:
        """See `Site.open`. MirrorError when it is not the object but the place that fails: credentials, network."""
        key = path.decode("utf-8", "surrogateescape")
        if not key.isprintable() and any(letter < " " or letter == "\x7f" for letter in key):
            return self._open_odd(path)
        import obstore
        from obstore.exceptions import BaseError

        try:
            answer = obstore.get(self._reader, key)
            meta = answer.meta
            stream: BinaryIO
            if meta["size"] <= AT_ONCE:
                stream = io.BytesIO(answer.bytes().to_bytes())
            else:
                stream = cast(BinaryIO, _Stream(iter(answer.stream(min_chunk_size=_CHUNK))))
        except (BaseError, OSError, ValueError) as error:
            raise self._failure(verdict(error), path) from error
        return _content(stream, meta["size"], meta["last_modified"], meta["e_tag"])

    def recheck(self, path: bytes, content: Content) -> str:
        """Always empty: what one GET gives is one version of the object."""
        return ""

    def names(self) -> list[str]:
        """Some names at the top, what is below a common folder as that folder's. One request."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, Delimiter="/", MaxKeys=10)
        except (BotoCoreError, ClientError) as error:
            raise self._refusal(client_verdict(error), self._url, "cannot list") from error
        found = [each["Key"] for each in answer.get("Contents", ())]
        found += [each["Prefix"] for each in answer.get("CommonPrefixes", ())]
        return sorted(key[len(self._prefix) :] for key in found if key != self._prefix)

    def first_key(self, behind: str = "") -> str | None:
        """The first key that sorts behind this one. One request, and no client that takes long to load."""
        import obstore
        from obstore.exceptions import BaseError, InvalidPathError

        try:
            page = next(iter(obstore.list(self._reader, offset=behind or None, chunk_size=1)), ())
        except InvalidPathError:  # one odd key among the first thousand, ours or a stranger's
            return self._first_listed(behind)
        except BaseError as error:
            raise self._refusal(verdict(error), self._url, "cannot list") from error
        return page[0]["path"] if page else None

    def _first_listed(self, behind: str) -> str | None:
        """`first_key` for a prefix with keys that obstore cannot name."""
        prefix = self._prefix.encode()
        after = {"StartAfter": self._prefix + behind} if behind else {}
        with closing(self._pages(MaxKeys=2, **after)) as pages:
            paths = (key[len(prefix) :] for page in pages for key, *_ in page)
            return next((path.decode("utf-8", "surrogateescape") for path in paths if path), None)

    @cached_property
    def _reader(self) -> ObjectStore:
        build = client_builder(self._spec, "s3", self._bucket, self._prefix.rstrip("/"))
        return build({"read_timeout": timedelta(seconds=READ_SECONDS), "timeout": timedelta(hours=24)})

    @cached_property
    def _client(self) -> Any:
        return control_client(self._spec)

    def _pages(self, **asked: Any) -> Generator[list[Listed]]:
        """The listing, page by page."""
        from botocore.exceptions import BotoCoreError, ClientError

        bodies: list[bytes] = []

        def take(response_dict: dict[str, Any], **_: Any) -> None:
            # boto3 signs, sends, and asks again; what it would take long to parse is taken away before.
            if response_dict["status_code"] == 200 and b"<ListBucketResult" in response_dict["body"][:400]:
                bodies.append(response_dict["body"])
                response_dict["body"] = b"<ListBucketResult/>"

        event = "before-parse.s3.ListObjectsV2"
        self._client.meta.events.register(event, take)
        try:
            token = None
            while token != "":
                bodies.clear()
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, **asked)
                found, token = listing(bodies[-1] if bodies else b"")
                yield found
                asked["ContinuationToken"] = token
        except (BotoCoreError, ClientError) as error:
            raise self._refusal(client_verdict(error), self._url, "cannot list the source") from error
        except (ElementTree.ParseError, KeyError, ValueError) as error:
            why = f"the server's answer is no listing ({error})"
            raise TemporaryError("cannot list the source", where=self._url, why=why, hint="check --endpoint-url") from error
        finally:
            self._client.meta.events.unregister(event, take)

    def _records(self, page: list[Listed], ignoring: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Path and packed rest of each object of a page; folders that have a `.mirrorignore` are noted."""
        prefix = self._prefix.encode()
        cut, pack = len(prefix), _PACKED.pack
        for key, size, seconds, tag in page:
            path = key[cut:]
            if not path or not key.startswith(prefix):
                continue  # the marker of the root itself
            if path.endswith(IGNORE_FILE) and path[: -len(IGNORE_FILE)][-1:] in (b"", b"/"):
                ignoring.add(path[: -len(IGNORE_FILE)])
            yield path, pack(size, seconds, _tag(tag))

    def _rules(self, folder: bytes) -> bytes:
        try:
            content = self.open(folder + IGNORE_FILE)
        except NotFound as error:
            raise OSError(errno.ENOENT, "it was gone when it was to be read") from error
        with content.stream:
            if content.size > IGNORE_FILE_MAX:
                raise OSError(errno.EFBIG, f"it is larger than {IGNORE_FILE_MAX} bytes")
            return content.stream.read(IGNORE_FILE_MAX)

    def _open_odd(self, path: bytes) -> Content:
        """A key with control characters, which obstore refuses."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path.decode("utf-8", "surrogateescape"))
        except (BotoCoreError, ClientError) as error:
            raise self._failure(client_verdict(error), path) from error
        stream = cast(BinaryIO, _Stream(answer["Body"].iter_chunks(_CHUNK)))
        return _content(stream, answer["ContentLength"], answer["LastModified"], answer["ETag"])

    def _failure(self, found: Verdict, path: bytes) -> Exception:
        """What `open` raises: about the object where it is the object."""
        if found.absent:
            return NotFound(path)
        if found.code in ("AccessDenied", "InvalidObjectState") or (found.status == 403 and not found.code):
            archived = found.code == "InvalidObjectState"
            return OSError(errno.EACCES, "it is in cold storage: restore it there first" if archived else "access denied")
        if found.status in (400, 416, 501):
            return OSError(errno.EIO, f"the server answers {found.status} ({found.code or found.message})")
        return self._refusal(found, f"{self._url}/{path.decode('utf-8', 'backslashreplace')}", "cannot read")

    def _refusal(self, found: Verdict, where: str, what: str) -> MirrorError:
        error = error_for(found, what, where, self._bucket)
        if isinstance(error, TargetMissingError):
            return SourceError(what, where=where, why=error.why, hint="check the name of the bucket, --endpoint-url and --profile")
        return error


def entries(sorter: Sorter) -> Iterator[Found | Unread]:
    """The entries behind sorted records, each key once."""
    last, make = None, tuple.__new__
    for path, record in sorter:
        if path == last:
            continue
        last = path
        size, seconds, tag = _PACKED.unpack(record)
        if fault := path_fault(path):
            yield Unread(path, "name", fault)
        elif path[-1:] != b"/":
            # tuple.__new__: the constructor with keywords costs 1 µs more an entry.
            yield make(
                Found,
                (path, FILE, size, seconds * 1_000_000_000, None, None, None, "", "", b"", b"", (tag, 0), None),
            )
        elif size:
            yield Unread(path, "name", "its key ends in / as a folder's does, but it has content")
        else:
            yield Found(path, FOLDER, mtime=seconds * 1_000_000_000)


def listing(body: bytes) -> tuple[list[Listed], str]:
    """The objects in one answer to ListObjectsV2, and what to ask for more with. ParseError, KeyError or ValueError for another."""
    root = ElementTree.fromstring(body)
    space = root.tag[: root.tag.find("}") + 1]
    if root.tag != space + "ListBucketResult":
        raise ValueError(f"a {root.tag} instead of a listing")
    encoded = root.findtext(space + "EncodingType") == "url"
    found, cut = [], len(space)
    for element in root.iterfind(space + "Contents"):
        values = {child.tag[cut:]: child.text or "" for child in element}
        key = values["Key"]
        name = unquote_to_bytes(key.replace("+", " ")) if encoded and ("%" in key or "+" in key) else key.encode()
        found.append(Listed(name, int(values["Size"]), _seconds(values["LastModified"]), values.get("ETag", "")))
    more = root.findtext(space + "IsTruncated") == "true"
    return found, (root.findtext(space + "NextContinuationToken") or "") if more else ""


@lru_cache(maxsize=64)  # neighbours were often written in the same second
def _seconds(text: str) -> int:
    return _whole_seconds(datetime.fromisoformat(text))


def _whole_seconds(time: datetime) -> int:
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400 + since.seconds


def _tag(tag: str | None) -> int:
    # 63 bits: what keeps validators holds signed integers.
    return xxh3_64_intdigest((tag or "").removeprefix("W/").strip('"').encode()) >> 1 if tag else 0


def _content(stream: BinaryIO, size: int, modified: datetime, tag: str | None) -> Content:
    return Content(stream, size, _whole_seconds(modified) * 1_000_000_000, (_tag(tag), 0))


class _Stream:
    """Chunks as a file: `read(n)` gives n bytes until the end. Errors are OSErrors."""

    def __init__(self, chunks: Iterator[Any]) -> None:
        self._chunks = chunks
        self._have = memoryview(b"")

    def read(self, size: int = -1) -> bytes:
        from botocore.exceptions import BotoCoreError
        from obstore.exceptions import BaseError

        parts, wanted = [], size if size >= 0 else 1 << 62
        while wanted:
            if not self._have:
                try:
                    self._have = memoryview(next(self._chunks, b""))
                except (BaseError, BotoCoreError, ValueError) as error:
                    raise OSError(errno.EIO, f"the connection broke off ({verdict(error).cause or 'no whole answer'})") from error
                if not self._have:
                    break
            parts.append(self._have[:wanted])
            wanted -= len(parts[-1])
            self._have = self._have[len(parts[-1]) :]
        return b"".join(parts)

    def close(self) -> None:
        self._have, self._chunks = memoryview(b""), iter(())

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
