"""Keys of clients: who may do what at a `mirror serve`. A key has a name, a secret of 32 random bytes, and rights.

The file of the server holds every key with its secret: HMAC is symmetric, so whoever checks a signature could make one. It has mode
0600 and is replaced as a whole. The client has a file with the one line that `new` gave. A secret is shown once, when it is made;
from then on only its fingerprint is: eight hexadecimal digits by which two people see whether they hold the same one.

    >>> key = ClientKey("nightly", bytes(32))
    >>> parse_line(line_of(key)) == key, key.fingerprint
    (True, '015c1ec1')
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from blake3 import blake3

from mirror.errors import AuthError, MirrorError, UsageError
from mirror.spelling import RIGHTS
from mirror.spelling import rights as rights_of

READ, APPEND, PUBLISH, PRUNE = RIGHTS
SECRET_BYTES: Final = 32
FILE_MAX: Final = 1 << 20
_PREFIX: Final = "mirror-key-1"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MAKE_ONE: Final = "make one where the server is: mirror key new NAME --rights read,append --keys FILE"


@dataclass(frozen=True, slots=True)
class ClientKey:
    """What a client signs with. The secret is in no repr."""

    name: str
    secret: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Eight hexadecimal digits of the secret's hash. They tell two secrets apart and nothing about either."""
        return blake3(self.secret, derive_key_context="mirror 2026 fingerprint of a client's key").hexdigest(4)


@dataclass(frozen=True, slots=True)
class GrantedKey:
    """A key as the server knows it. rights: of RIGHTS, in that order; created: RFC 3339."""

    key: ClientKey
    rights: tuple[str, ...]
    created: str

    @property
    def name(self) -> str:
        return self.key.name


def is_key_name(name: str) -> bool:
    """Whether a key may have this name: lower-case letters, digits, `.`, `_` and `-`, at most 63."""
    return bool(_NAME.fullmatch(name))


def line_of(key: ClientKey) -> str:
    """The line that a client keeps in its file."""
    return f"{_PREFIX}:{key.name}:{base64.urlsafe_b64encode(key.secret).decode().rstrip('=')}"


def parse_line(line: str) -> ClientKey:
    """The key behind that line. ValueError, which repeats nothing of it."""
    prefix, _, rest = line.strip().partition(":")
    name, _, text = rest.partition(":")
    if prefix != _PREFIX or not is_key_name(name):
        raise ValueError(f"it is no line as `mirror key new` prints it, {_PREFIX}:NAME:SECRET")
    try:
        secret = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret of {name!r} is not whole: it has {len(text)} characters of 43")
    return ClientKey(name, secret)


def read_client_key(path: str) -> ClientKey:
    """The key in a client's file. UsageError when there is none in it, AuthError when others may read it."""
    data = _read(path, "cannot read the key file", others=stat.S_IROTH | stat.S_IWOTH)
    try:
        lines = [line for line in data.decode("ascii").splitlines() if line.strip() and not line.startswith("#")]
        if len(lines) != 1:
            raise ValueError(f"it has {len(lines)} keys, one is wanted" if lines else "it is empty")
        return parse_line(lines[0])
    except UnicodeDecodeError:
        why = "it is no text"
    except ValueError as error:
        why = str(error)
    raise UsageError("cannot use the key file", where=path, why=why, hint=_MAKE_ONE)


class KeyFile:
    """The server's file of keys. Reading it again and again is cheap: it is parsed only when it has changed."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._seen: tuple[int, ...] = ()
        self._keys: dict[str, GrantedKey] = {}

    def keys(self) -> dict[str, GrantedKey]:
        """The keys by name as the file has them now. UsageError, AuthError."""
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise _cannot("cannot read the keys", self.path, error, _MAKE_ONE) from None
        seen = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
        if seen != self._seen:
            data = _read(self.path, "cannot read the keys", others=stat.S_IRWXG | stat.S_IRWXO)
            self._keys = {key.name: key for key in _parse_keys(data, self.path)}
            self._seen = seen
        return self._keys

    def add(self, name: str, rights: tuple[str, ...]) -> ClientKey:
        """Make a key and keep it; what it gives is shown once. UsageError when there is one of that name; makes the file."""
        if not is_key_name(name):
            hint = "lower-case letters, digits, '.', '_' and '-', at most 63"
            raise UsageError("cannot make a key named", where=repr(name), why="that is no name of a key", hint=hint)
        with self._changing() as keys:
            if name in keys:
                hint = f"choose another name, or revoke that one first: mirror key revoke {name} --keys {self.path}"
                raise UsageError("cannot make the key", where=name, why=f"{self.path} has one of that name", hint=hint)
            key = ClientKey(name, os.urandom(SECRET_BYTES))
            keys[name] = GrantedKey(key, rights, datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"))
        return key

    def revoke(self, name: str) -> None:
        """Take a key out; a running server heeds that with the next request. UsageError when there is none."""
        with self._changing() as keys:
            if name not in keys:
                hint = f"it has {', '.join(sorted(keys)) or 'none'}"
                raise UsageError("cannot revoke the key", where=repr(name), why=f"{self.path} has none of that name", hint=hint)
            del keys[name]

    @contextmanager
    def _changing(self) -> Iterator[dict[str, GrantedKey]]:
        """The keys, to be changed; written back at the end. Two that change the file at once go one after the other."""
        folder = os.path.dirname(self.path)
        try:
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _cannot("cannot write the keys", self.path, error, f"is there a folder {folder}?") from None
        try:
            with suppress(OSError):  # a filesystem without locks
                fcntl.flock(held, fcntl.LOCK_EX)
            keys = dict(self.keys()) if os.path.lexists(self.path) else {}
            yield keys
            self._replace(keys)
            with suppress(OSError):
                os.fsync(held)
        finally:
            os.close(held)

    def _replace(self, keys: dict[str, GrantedKey]) -> None:
        document = {"format": 1, "keys": [_members(key) for key in keys.values()]}
        draft = f"{self.path}.{os.getpid()}.{os.urandom(4).hex()}"
        try:
            file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                with open(file, "wb") as stream:
                    stream.write(json.dumps(document, indent=1).encode() + b"\n")
                    stream.flush()
                    os.fsync(file)
                os.replace(draft, self.path)
            except OSError:
                with suppress(OSError):
                    os.unlink(draft)
                raise
        except OSError as error:
            raise _cannot("cannot write the keys", self.path, error) from None


def _members(granted: GrantedKey) -> dict[str, Any]:
    secret = base64.urlsafe_b64encode(granted.key.secret).decode().rstrip("=")
    return {"name": granted.name, "secret": secret, "rights": list(granted.rights), "created": granted.created}


def _parse_keys(data: bytes, path: str) -> Iterator[GrantedKey]:
    try:
        document = json.loads(data)
        if document["format"] != 1:
            raise ValueError(f"it has format {document['format']!r}, this program knows 1")
        for each in document["keys"]:
            key = parse_line(f"{_PREFIX}:{each['name']}:{each['secret']}")
            yield GrantedKey(key, rights_of(",".join(each["rights"])), str(each["created"]))
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        why = str(error) if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError) else "it is spoilt"
        raise UsageError("cannot use the keys", where=path, why=why, hint="make new ones in another file") from None


def _read(path: str, what: str, others: int) -> bytes:
    """A small file with a secret in it. others: bits of its mode that must not be set."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(FILE_MAX + 1)
    except (OSError, ValueError) as error:
        raise _cannot(what, path, error, _MAKE_ONE) from None
    if mode & others:
        why = f"others may use it (mode {stat.S_IMODE(mode):04o}), and it holds a secret"
        raise AuthError(what, where=path, why=why, hint=f"chmod 600 {path}")
    if len(data) > FILE_MAX:
        raise UsageError(what, where=path, why=f"it has more than {FILE_MAX:,} bytes")
    return data


def _cannot(what: str, path: str, error: Exception, hint: str = "") -> MirrorError:
    why = getattr(error, "strerror", None) or str(error)
    kind = AuthError if isinstance(error, PermissionError) else UsageError
    return kind(what, where=path, why=why.lower(), hint="" if kind is AuthError else hint)
