"""What data looks like on stdout: snapshots, entries, checksums. Values in, text or values for JSON out."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from mirror.contents import SnapshotLine
from mirror.explain import Verdict
from mirror.keys import show
from mirror.manifest import Entry, File, Folder, Page, Symlink
from mirror.plan import CHANGED, DELETED, DESCRIBED, MOVED, NEW
from mirror.progress import size_text

_CHANGES: Final = {"added": NEW, "changed": CHANGED, "moved": MOVED, "deleted": DELETED}
_KINDS: Final = {
    File: ("file", stat.S_IFREG),
    Folder: ("folder", stat.S_IFDIR),
    Symlink: ("symlink", stat.S_IFLNK),
    Page: ("page", stat.S_IFREG),
}
_UNTOLD: Final = ("class_", "chunks", "more")  # how a content is cut is the format's business
_DIGESTS: Final = ("fingerprint", "blanked")
_NAMES: Final = {"added": NEW, "changed": CHANGED, "moved": MOVED, "described": DESCRIBED, "deleted": DELETED}


def time_text(moment: datetime) -> str:
    """A time in the local zone, as `--at` takes it."""
    return moment.astimezone().strftime("%Y-%m-%dT%H:%M:%S")


def age_text(seconds: float) -> str:
    """A length of time for people.

    >>> age_text(90), age_text(93_600), age_text(864_000)
    ('1.5 minutes', '26 hours', '10 days')
    """
    for length, name in ((172_800.0, "day"), (7_200.0, "hour"), (60.0, "minute")):
        if seconds >= length:
            unit = {"day": 86_400, "hour": 3_600, "minute": 60}[name]
            return f"{seconds / unit:.3g} {name}s"
    return f"{seconds:.3g} seconds"


def snapshot_table(lines: Sequence[SnapshotLine]) -> Iterator[str]:
    """The snapshots as a table, with its head; nothing where there are none."""
    if not lines:
        return
    rows = [("number", "time", "entries", "size", "changes")]
    rows += [(str(line.number), time_text(line.time), f"{line.entries:,}", size_text(line.bytes), _remarks(line)) for line in lines]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for number, time, entries, size, changes in rows:
        cells = number.rjust(widths[0]), time.ljust(widths[1]), entries.rjust(widths[2]), size.rjust(widths[3])
        yield "  ".join((*cells, changes)).rstrip()


def _remarks(line: SnapshotLine) -> str:
    words = [f"{symbol}{getattr(line, name):,}" for name, symbol in _CHANGES.items() if getattr(line, name)] or ["="]
    words += [f"tag:{tag}" for tag in line.tags]
    if line.rollback_of:
        words.append(f"rolled back to {line.rollback_of}")
    if line.problems:
        words.append(f"!{line.problems:,}")
    if not line.complete:
        words.append("incomplete")
    return " ".join(words)


def snapshot_values(line: SnapshotLine) -> dict[str, Any]:
    """A snapshot for JSON; times are ISO 8601."""
    values = {name: getattr(line, name) for name in line.__slots__}
    return values | {"time": line.time.isoformat(), "started": line.started.isoformat()}


def change_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Changes by their names, from counts by symbol."""
    return {name: counts.get(symbol, 0) for name, symbol in _NAMES.items()}


def long_line(entry: Entry) -> str:
    """Mode, size, time (local), path, and where a link leads."""
    _, bits = _KINDS.get(type(entry), ("redirect", 0))
    mode = getattr(entry, "mode", None)
    if isinstance(entry, Symlink):
        mode = 0o777  # as ls shows it: a link has no rights of its own
    shown = stat.filemode(bits | mode & 0o7777) if mode is not None else stat.filemode(bits)[0] + "?" * 9
    mtime = getattr(entry, "mtime", None)
    try:
        when = time_text(datetime.fromtimestamp(mtime / 1e9).astimezone()) if mtime is not None else "-"
    except (OverflowError, ValueError, OSError):  # no calendar has that year; a manifest may
        when = f"{mtime} ns"
    target = getattr(entry, "target", b"")
    leads = f" -> {show(target)}" if target else ""
    return f"{shown} {getattr(entry, 'size', 0):>14,} {when:<19} {show(entry.path)}{leads}"


def entry_values(entry: Entry) -> dict[str, Any]:
    """An entry for JSON: its kind and its description, without its chunks."""
    kind, _ = _KINDS.get(type(entry), ("redirect", 0))
    values = {name: getattr(entry, name) for name in entry.__struct_fields__ if name not in _UNTOLD}
    values |= {name: values[name].hex() for name in _DIGESTS if values.get(name)}
    if "xattrs" in values:
        values["xattrs"] = {show(name): value.hex() for name, value in values["xattrs"]}
    if "headers" in values:
        values["headers"] = dict(values["headers"])
    return {"path": show(values.pop("path")), "kind": kind, **values}


def verdict_line(verdict: Verdict) -> str:
    """What the rules make of a path, and why.

    >>> verdict_line(Verdict("a.tmp", False, "- *.tmp", "rules line 3")), verdict_line(Verdict("a.html", True))
    ('out  a.tmp: - *.tmp (rules line 3)', 'in   a.html: no rule')
    """
    why = f"{verdict.rule} ({verdict.place})" if verdict.rule else "no rule"
    if verdict.folder:
        why = f"{verdict.folder} is left out by {why}"
    if verdict.porous:
        why += ", but it is looked into and comes with what is let in below it"
    return f"{'in' if verdict.included else 'out':<5}{verdict.path}: {why}"


def sum_line(algorithm: str, digest: str, path: bytes) -> bytes:
    """A line of a SUM file: names as they are; one with a newline or a backslash is escaped and its line begins with a backslash,
    as sha256sum and b3sum write it. Only sha256sum does so with a carriage return, and only it would lose one at the end.

    >>> sum_line("blake3", "00", b"a b"), sum_line("blake3", "00", b"a\\nb")
    (b'00  a b\\n', b'\\\\00  a\\\\nb\\n')
    """
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    if algorithm == "sha256":
        escaped = escaped.replace(b"\r", b"\\r")
    mark = b"\\" if escaped != path else b""
    return mark + digest.encode() + b"  " + escaped + b"\n"
