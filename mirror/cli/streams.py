"""Standard output, standard error and signals: what can go wrong with them goes wrong here, once, and quietly.

Data goes to stdout as bytes; whoever reads it may go away (`| head`), and then a command that only gives data has no more to do.
What is said to people goes to stderr, and no failure of stderr is worth an abort.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from mirror.errors import MirrorError
from mirror.progress import line_of

PATIENCE: Final = 5.0  # seconds in which a second Ctrl-C is not heard, so that the first can write down the progress


class Gone(Exception):
    """Nobody reads standard output any more. A signal to the command line, never shown."""


class Out:
    """Standard output. A stream of bytes for `JsonLines`; `line` and `data` for those who have nothing else to do."""

    def write(self, data: bytes) -> None:
        """Raises OSError."""
        if sys.stdout is not None:
            sys.stdout.buffer.write(data)

    def flush(self) -> None:
        """Raises OSError."""
        if sys.stdout is not None:
            sys.stdout.buffer.flush()

    def data(self, data: bytes) -> None:
        """Gone when the reader is; MirrorError when it cannot be written for another reason."""
        with translated():
            self.write(data)

    def line(self, text: str) -> None:
        """Text in the encoding of the stream; what that does not have is escaped."""
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        self.data(line_of(text).encode(encoding, "backslashreplace") + b"\n")

    def text(self, text: str) -> None:
        """Lines that end as they should."""
        for line in text.splitlines():
            self.line(line)

    def close(self) -> None:
        """Write what is buffered; as `data`."""
        with translated():
            self.flush()

    def settle(self) -> bool:
        """A last try to write what is buffered; whether that went."""
        try:
            self.flush()
        except OSError:
            return False
        return True


@contextmanager
def translated() -> Iterator[None]:
    """An OSError of standard output as Gone or as a MirrorError."""
    try:
        yield
    except BrokenPipeError:
        raise Gone from None
    except OSError as error:
        raise MirrorError("cannot write to standard output", why=error.strerror or str(error), kind="output") from None


def complain(text: str) -> None:
    """A line on stderr, as well as that goes."""
    if sys.stderr is None:
        return
    encoding = sys.stderr.encoding or "utf-8"
    try:
        sys.stderr.write(line_of(text).encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stderr.flush()
    except OSError:
        return


def open_closed_streams() -> None:
    """Open /dev/null where a descriptor below 3 is closed, lest the next file that is opened, perhaps a pack, gets that number and
    with it all that somebody prints."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def drop_output() -> None:
    """Point stdout to nowhere, so that Python's flush at exit does not complain about a reader that is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


class Interrupts:
    """A context in which Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt, and the next ones are not heard for five seconds:
    impatience must not cost the progress that is just being written down."""

    def __init__(self) -> None:
        self._last = float("-inf")
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                self._before[number] = signal.signal(number, self._heard)
        return self

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if time.monotonic() - self._last >= PATIENCE:
            self._last = time.monotonic()
            raise KeyboardInterrupt

    def insist(self, event: object) -> None:
        """A listener to the events of a run, which has none to say once it was interrupted: then the interrupt came where Python
        lets no exception out (a destructor, a callback), and is raised again."""
        if self._last > float("-inf"):
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        # Whoever was impatient may be so again while the interpreter ends: the exit code is 130 all the same.
        heard = self._last > float("-inf")
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if heard else handler)
