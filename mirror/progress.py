"""Listeners for events: a bar on a terminal, JSON Lines, a log file. They show; they decide nothing and never stop a run.

    job = Job("sync", listeners=[JsonLines(sys.stdout.buffer)])

A listener whose stream fails (a reader that went away, a full disk) falls silent and says why in `failed`: the mirror matters more
than its log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

import msgspec

from mirror.events import NAMES, VERSION, Advanced, Answered, Change, Event, Notice, PhaseBegan, ProblemFound, RunStarted, Stamped
from mirror.keys import show

if TYPE_CHECKING:
    from pathlib import Path

ADVANCED_SECONDS: Final = 0.1  # JSON Lines has at most one `advanced` event in this time; the others are added up
_encode: Final = msgspec.json.Encoder().encode
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_BAR: Final = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} {rate_fmt}{postfix}, {remaining} left"
_BAR_WITHOUT_END: Final = "{desc} {n_fmt}{unit}{postfix} {elapsed}"


def size_text(count: float) -> str:
    """A number of bytes for people.

    >>> size_text(0), size_text(1023), size_text(33_800), size_text(24 << 20)
    ('0 B', '1023 B', '33.0 KiB', '24.0 MiB')
    """
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} B" if not unit else f"{count:.1f} {_UNITS[unit]}"


def text_of(text: str) -> str:
    """Text that any stream can take: bytes of a name that were no UTF-8 become `\\xNN`, as `keys.show` writes them."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def line_of(text: str) -> str:
    """Text as one line for a terminal: what would steer it, or begin another line, is escaped (a tag or a host name of a target may
    say anything)."""
    text = text_of(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain(value: Any) -> Any:
    """A value as JSON has it: reports and their parts as objects, bytes as shown paths, text without stray bytes."""
    if isinstance(value, str):
        return text_of(value)
    if isinstance(value, bytes):
        return show(value) if value else ""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    names = field_names(type(value))
    return {name: plain(getattr(value, name)) for name in names} if names else text_of(str(value))


def json_line(values: dict[str, Any]) -> bytes:
    """One line of JSON Lines."""
    return json.dumps(plain(values), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


class Stream(Protocol):
    """Where lines go; both methods may raise OSError."""

    def write(self, data: bytes, /) -> Any:
        """Take all of it."""
        ...

    def flush(self) -> Any:
        """Let the reader have it."""
        ...


class JsonLines:
    """Every event as a line to `stream`; an OSError of it silences this listener and is kept in `failed`."""

    def __init__(self, stream: Stream, clock: Callable[[], float] = time.monotonic) -> None:
        self.failed: OSError | None = None
        self._stream, self._clock = stream, clock
        self._held: Stamped | None = None  # advanced events that are added up
        self._shown = float("-inf")

    def __call__(self, stamped: Stamped) -> None:
        if type(stamped.event) is not Advanced:
            self.flush()
            self._line(stamped)
            return
        held, event = self._held, stamped.event
        if held is not None and type(held.event) is Advanced:
            event = Advanced(held.event.files + event.files, held.event.bytes + event.bytes)
        self._held = Stamped(stamped.job, stamped.site, stamped.number, stamped.time, stamped.phase, event)
        if self._clock() - self._shown >= ADVANCED_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is held back."""
        if self._held is not None:
            self._line(self._held)
            self._held, self._shown = None, self._clock()

    def data(self, name: str, values: dict[str, Any]) -> None:
        """A line that is no event of a job: data that a verb gives, and the summary."""
        self.flush()
        self._put(json_line({"event": name, "version": VERSION, **values}), at_once=name == "summary")

    def _line(self, stamped: Stamped) -> None:
        event = stamped.event
        values = {"event": NAMES[type(event)], "version": VERSION, "job": stamped.job, "site": stamped.site,
                  "number": stamped.number, "time": round(stamped.time, 3), "phase": stamped.phase, **members(event)}  # fmt: skip
        try:
            line = _encode(values) + b"\n"  # a third of json_line's time: a million files have a million changes
        except UnicodeEncodeError:
            line = json_line(values)
        self._put(line, at_once=type(event) is not Change)

    def _put(self, line: bytes, at_once: bool) -> None:
        if self.failed:
            return
        try:
            self._stream.write(line)
            if at_once:
                self._stream.flush()
        except OSError as error:
            self.failed = error


def members(value: Any) -> dict[str, Any]:
    """The fields of an event or a report by name; those of a problem stand in the event itself."""
    inner: Any = value.problem if isinstance(value, ProblemFound) else value
    return {name: getattr(inner, name) for name in field_names(type(inner))}


def field_names(kind: type) -> tuple[str, ...]:
    """The names of the fields of a struct or dataclass, in order; none for other types."""
    found: tuple[str, ...] | None = getattr(kind, "__struct_fields__", None)
    return found if found is not None else tuple(each.name for each in fields(kind)) if is_dataclass(kind) else ()


def sentence(event: Event) -> str:
    """An event as a line for people; empty for those that are only for counting."""
    match event:
        case RunStarted():
            arrow = " -> " if event.source and event.target else ""
            return f"{event.verb} {event.source}{arrow}{event.target}" + (" (dry run: nothing is written)" if event.dry_run else "")
        case Change():
            return f"{event.symbol} {event.path}" + (f" (was {event.moved_from})" if event.moved_from else "")
        case Answered():
            cut_off = "" if event.whole else ", cut off"
            return f"{event.method} {event.url} {event.status}, {event.bytes:,} bytes, {event.seconds:.3f} s{cut_off}"
        case ProblemFound():
            return f"! {event.problem}"
        case Notice():
            return f"note: {event.text}"
    return ""


class LogFile:
    """Appends lines with times: the ends, phases, changes, problems, notices. OSError when the file cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.failed = ""
        self._stream = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def __call__(self, stamped: Stamped) -> None:
        event = stamped.event
        line = f"phase {event.phase}" if isinstance(event, PhaseBegan) else sentence(event)
        if line:
            self.line(line, stamped.time)

    def line(self, text: str, when: float | None = None) -> None:
        """One more line."""
        if self.failed:
            return
        moment = datetime.fromtimestamp(time.time() if when is None else when).astimezone()
        try:
            self._stream.write(f"{moment.isoformat(' ', 'seconds')} {line_of(text)}\n")
        except OSError as error:
            self.failed = error.strerror or str(error)

    def close(self) -> None:
        """The file is no longer needed."""
        try:
            self._stream.close()
        except OSError as error:
            self.failed = self.failed or error.strerror or str(error)


class Bar:
    """A bar for the phase that runs, on a terminal. tqdm takes 84 ms to load, so it is loaded by the first phase."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._bar: Any = None
        self._files = self._all_files = 0
        self._by_bytes = False

    def __call__(self, stamped: Stamped) -> None:
        event = stamped.event
        if isinstance(event, PhaseBegan):
            self._begin(event)
        elif isinstance(event, Advanced) and self._bar is not None:
            self._files += event.files
            if self._by_bytes:
                total = f"/{self._all_files:,}" if self._all_files else ""
                self._bar.set_postfix_str(f"{self._files:,}{total} files", refresh=False)
            self._bar.update(event.bytes if self._by_bytes else event.files)

    def _begin(self, event: PhaseBegan) -> None:
        from tqdm import tqdm

        self.close()
        tqdm.monitor_interval = 0  # no thread of its own
        self._files, self._all_files, self._by_bytes = 0, event.files, bool(event.bytes)
        units = {"unit": "B", "unit_scale": True, "unit_divisor": 1024} if self._by_bytes else {"unit": " files"}
        self._bar = tqdm(
            total=event.bytes or event.files or None,
            desc=event.phase,
            file=self._stream,
            leave=False,
            dynamic_ncols=True,
            mininterval=0.2,
            bar_format=_BAR if event.bytes or event.files else _BAR_WITHOUT_END,
            **units,
        )

    @contextmanager
    def away(self) -> Iterator[None]:
        """A context in which something else may be written where the bar is; the bar comes back below."""
        if self._bar is not None:
            self._bar.clear()
        yield
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
