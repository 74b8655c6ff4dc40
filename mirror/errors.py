"""Every error that mirror shows, grouped by what the caller would do about it.

    MirrorError                       exit  1   unforeseen: report it
    ├─ UsageError                           2   ask differently: options, configuration, a target of another site
    ├─ SourceError                          3   look at the source: missing, emptied, of another kind, unreadable
    ├─ TargetMissingError                   3   look at the target: not mounted, never made, taken away
    ├─ DamageError                          4   the target's bytes are not what was written: repair or restore elsewhere
    ├─ TemporaryError                       5   try again: dead endpoint, time-out, full disk
    ├─ AuthError                            7   fix the credentials or the rights
    ├─ TransferLimitError                   8   --max-transfer reached; progress is kept
    ├─ DurationLimitError                  10   --max-duration reached; progress is kept
    ├─ InTheWayError                       11   another run or a hold is in the way: wait, or release
    ├─ ItemError                           23   --on-error stop: look at the path that it names
    ├─ DeletionGuardError                  25   too much would go: look, then accept once
    └─ InterruptedRunError                130   stopped by a signal; progress is kept

An error is one sentence: what could not be done, where (a path or URL), why, and the next step (`hint`). `kind` is stable and
machine-readable; docs/events.md lists them all. Item problems (one path of a site) are values, `Problem` in events.py, not
exceptions.

    >>> str(SourceError("cannot read the source", where="/srv/www", why="it does not exist", hint="is it mounted?"))
    'cannot read the source /srv/www: it does not exist; is it mounted?'

Signals inside the library that callers handle as a matter of course (an object that is not there) are `NotFound`.
"""

from __future__ import annotations


class NotFound(Exception):
    """An object or path is not there. A question's answer, not a failure; never shown to a user as it is."""


class MirrorError(Exception):
    """Base of all errors with a meaning for the user. Fields: what, where, why, hint; class: kind, exit_code."""

    kind = "error"
    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", hint: str = "", kind: str = "") -> None:
        self.what, self.where, self.why, self.hint = what, where, why, hint
        if kind:
            self.kind = kind
        super().__init__(what, where, why, hint)

    def __str__(self) -> str:
        text = f"{self.what} {self.where}".rstrip()
        if self.why:
            text += f": {self.why}"
        if self.hint:
            text += f"; {self.hint}"
        return text

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process boundaries: keyword-only fields must survive pickling.
        return _rebuild, (type(self), self.what, self.where, self.why, self.hint, self.kind)


def _rebuild(cls: type[MirrorError], what: str, where: str, why: str, hint: str, kind: str) -> MirrorError:
    return cls(what, where=where, why=why, hint=hint, kind=kind)


class UsageError(MirrorError):
    kind = "usage"
    exit_code = 2


class NoListing(UsageError):
    """A place that cannot say what it holds, as web servers mostly cannot. Who can do without asks for names that are known."""

    kind = "no-listing"


class SourceError(MirrorError):
    kind = "source"
    exit_code = 3


class TargetMissingError(MirrorError):
    kind = "target-missing"
    exit_code = 3


class DamageError(MirrorError):
    kind = "damage"
    exit_code = 4


class TemporaryError(MirrorError):
    kind = "temporary"
    exit_code = 5


class AuthError(MirrorError):
    kind = "auth"
    exit_code = 7


class TransferLimitError(MirrorError):
    kind = "max-transfer"
    exit_code = 8


class DurationLimitError(MirrorError):
    kind = "max-duration"
    exit_code = 10


class InTheWayError(MirrorError):
    kind = "in-the-way"
    exit_code = 11


class ItemError(MirrorError):
    kind = "item"
    exit_code = 23


class DeletionGuardError(MirrorError):
    kind = "deletion-guard"
    exit_code = 25


class InterruptedRunError(MirrorError):
    kind = "interrupted"
    exit_code = 130


# Several causes in one run: the first of this list wins (design, section 8).
EXIT_ORDER = (130, 25, 3, 7, 4, 5, 23, 24)


def worst_exit(codes: set[int]) -> int:
    """The exit code of a run with several causes; 0 for none."""
    for code in EXIT_ORDER:
        if code in codes:
            return code
    return max(codes, default=0)
