"""--changes-file: the paths that a run changed, one on a line, for the next tool (a cache to be purged, an index to be refreshed).

    +<tab>news/storm.html
    *<tab>index.html

Symbols and paths are those of the report, so a name with a newline is one line, too. A file that moved gives two: `-` where it was,
`>` where it is. The lines go to a file beside the one that was asked for, which is replaced when the run is over: nobody reads half
a list. A run that an error ends leaves the list of the run before.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Final

from mirror.errors import UsageError
from mirror.events import Change, PhaseBegan, Stamped
from mirror.plan import DELETED, MOVED, SAME

_BUFFER: Final = 1 << 18


class ChangesFile:
    """A listener that writes the list. failed: why it cannot, empty while all is well. UsageError when it cannot be begun."""

    def __init__(self, name: str) -> None:
        self.failed = ""
        self._path = os.path.realpath(name)  # what a link leads to is replaced, not the link
        self._draft = ""
        try:
            if os.path.lexists(self._path) and not stat.S_ISREG(os.lstat(self._path).st_mode):
                raise OSError(0, "it is no regular file")
            draft = os.path.join(os.path.dirname(self._path), f".changes-{os.urandom(8).hex()}.tmp")
            self._stream = open(draft, "xb", _BUFFER)  # noqa: SIM115 - open as long as the run
            self._draft = draft
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                "cannot write the list of changes", where=name, why=why, hint="name another with --changes-file"
            ) from None

    def check_apart(self, *ends: str) -> None:
        """UsageError when the list would lie in one of the ends: it would be mirrored, or people would see it."""
        from mirror.store.open import folder_of, is_folder_url

        for end in (os.path.realpath(folder_of(url)) for url in ends if is_folder_url(url)):
            if self._path.startswith(end.rstrip("/") + "/"):
                raise UsageError(
                    "cannot write the list of changes",
                    where=self._path,
                    why=f"it would be a file of {end} itself",
                    hint="name one outside with --changes-file",
                )

    def __call__(self, stamped: Stamped) -> None:
        event = stamped.event
        if self.failed:
            return
        try:
            if isinstance(event, PhaseBegan) and event.phase == "scan":
                self._stream.seek(0)  # another attempt, after a lost race: what the first would have changed did not happen
                self._stream.truncate()
            elif isinstance(event, Change) and event.symbol != SAME:
                if event.symbol == MOVED:
                    self._stream.write(_line(DELETED, event.moved_from))
                self._stream.write(_line(event.symbol, event.path))
        except OSError as error:
            self.failed = error.strerror or str(error)

    def finish(self) -> str:
        """The run is over: put the list in its place. Why that did not go, or an empty text."""
        try:
            if not self.failed:
                self._stream.flush()
                os.fsync(self._stream.fileno())
                os.replace(self._draft, self._path)
                self._draft = ""
        except OSError as error:
            self.failed = error.strerror or str(error)
        self.drop()
        return self.failed

    def drop(self) -> None:
        """No list, after all; the second time, and after `finish`, it does nothing."""
        with contextlib.suppress(OSError):  # closing writes what is buffered
            self._stream.close()
        if self._draft:
            with contextlib.suppress(OSError):
                os.unlink(self._draft)
            self._draft = ""


def _line(symbol: str, path: str) -> bytes:
    return f"{symbol}\t{path}\n".encode("utf-8", "backslashreplace")
