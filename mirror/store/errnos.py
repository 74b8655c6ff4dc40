"""What the operating system's errors mean for a store in a folder: the one place where they become ours. Pure.

>>> str(error_for(OSError(28, ""), "cannot write", "/srv/mirror/a"))
'cannot write /srv/mirror/a: the disk is full; make room there, then run again'
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from mirror.errors import AuthError, DamageError, MirrorError, TargetMissingError, TemporaryError


class _Cause(NamedTuple):
    type: type[MirrorError]
    why: str
    hint: str
    kind: str = ""


_LOOK = "look who put it there"
_GONE = _Cause(TargetMissingError, "the device is gone", "is it still mounted?")
_CAUSES = {
    errno.ENOSPC: _Cause(TemporaryError, "the disk is full", "make room there, then run again", "disk-full"),
    errno.EDQUOT: _Cause(
        TemporaryError, "the disk quota is used up", "make room there or raise the quota, then run again", "disk-full"
    ),
    errno.EACCES: _Cause(AuthError, "permission denied", "run as a user who may, or change the rights"),
    errno.EPERM: _Cause(AuthError, "operation not permitted", "run as a user who may, or look for an immutable flag"),
    errno.EROFS: _Cause(AuthError, "it is mounted read-only", "mount it for writing"),
    errno.ENOTDIR: _Cause(DamageError, "a part of its path is not a folder of the store", _LOOK),
    errno.ELOOP: _Cause(DamageError, "it is a symbolic link, and links in a store are not followed", _LOOK),
    errno.EISDIR: _Cause(DamageError, "it is a folder", _LOOK),
    errno.EIO: _Cause(DamageError, "the device reports an input/output error", "check the disk"),
    errno.ENOENT: _Cause(TargetMissingError, "it went away", "is it still mounted?"),
    errno.ENODEV: _GONE,
    errno.ENXIO: _GONE,
    errno.EFBIG: _Cause(MirrorError, "files of that size are not allowed there", "look at `ulimit -f` and the filesystem's limit"),
}
# Network filesystems that are away, and this machine's own shortages.
_TRY_AGAIN = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EMFILE,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENFILE,
    errno.ENOLCK,
    errno.ENOMEM,
    errno.ENOTCONN,
    errno.ESTALE,
    errno.ETIMEDOUT,
}


def error_for(error: OSError, what: str, where: str) -> MirrorError:
    """The error that a user sees. `what` is what could not be done, `where` the path."""
    number = error.errno or 0
    if cause := _CAUSES.get(number):
        return cause.type(what, where=where, why=cause.why, hint=cause.hint, kind=cause.kind)
    why = os.strerror(number).lower() if number else str(error)
    if number in _TRY_AGAIN:
        return TemporaryError(what, where=where, why=why, hint="try again")
    return MirrorError(what, where=where, why=why)
