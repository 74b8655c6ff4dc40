"""The listeners: JSON Lines, the log file, the bar. They show what is said and never stop a run."""

from __future__ import annotations

import io
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mirror import progress
from mirror.events import (
    Advanced,
    BatchPlanned,
    Change,
    Event,
    Job,
    Notice,
    PhaseBegan,
    Problem,
    ProblemFound,
    RunStarted,
    SnapshotCommitted,
)
from mirror.progress import Bar, JsonLines, LogFile

EVENTS: list[Event] = [
    RunStarted("sync", "/srv/www", "/backup"),
    PhaseBegan("scan"),
    Advanced(1000),
    PhaseBegan("transfer", 2, 20),
    BatchPlanned(0, 2, 20),
    Change("+", "a", 10),
    Change(">", "b", 10, "c"),
    ProblemFound(Problem("d", "vanished", "it was gone", "look")),
    Notice("space", "it may not fit"),
    SnapshotCommitted(7),
]


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Broken(io.BytesIO):
    """A stream that takes so many lines and then fails."""

    def __init__(self, lines: int, error: OSError) -> None:
        super().__init__()
        self.lines, self.error = lines, error

    def write(self, data: Any, /) -> int:
        self.lines -= 1
        if self.lines < 0:
            raise self.error
        return super().write(data)


def lines(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().decode().splitlines()]


# -- JSON Lines


def test_every_event_is_a_line() -> None:
    stream = io.BytesIO()
    job = Job("sync", [JsonLines(stream)], site="www")
    for event in EVENTS:
        job.say(event)
    found = lines(stream)
    assert [line["number"] for line in found] == list(range(1, len(EVENTS) + 1))
    assert {line["job"] for line in found} == {job.id}
    assert {(line["site"], line["version"]) for line in found} == {("www", 1)}
    assert [line["phase"] for line in found] == ["", "scan", "scan", *["transfer"] * 7]
    assert found[6] | {"symbol": ">", "path": "b", "size": 10, "moved_from": "c"} == found[6]
    assert found[7] | {"event": "problem", "path": "d", "kind": "vanished", "why": "it was gone", "hint": "look"} == found[7]
    assert found[9] | {"event": "snapshot", "snapshot": 7} == found[9]


def test_advances_are_added_up() -> None:
    stream, clock = io.BytesIO(), Clock()
    listener = JsonLines(stream, clock)
    job = Job("sync", [listener])
    job.say(PhaseBegan("transfer"))
    for _ in range(1000):
        job.say(Advanced(1, 10))
        clock.now += 0.001
    assert 9 <= len(lines(stream)) - 1 <= 11  # one second's worth
    job.say(PhaseBegan("commit"))
    advanced = [line for line in lines(stream) if line["event"] == "advanced"]
    assert (sum(line["files"] for line in advanced), sum(line["bytes"] for line in advanced)) == (1000, 10_000)
    assert {line["phase"] for line in advanced} == {"transfer"}
    assert lines(stream)[-1]["event"] == "phase"
    assert [line["number"] for line in lines(stream)] == sorted(line["number"] for line in lines(stream))


def test_the_summary_comes_after_what_was_held_back() -> None:
    stream = io.BytesIO()
    listener = JsonLines(stream, Clock())
    job = Job("sync", [listener])
    job.say(Advanced(1))
    job.say(Advanced(2))
    listener.data("summary", {"exit_code": 0})
    assert [line["event"] for line in lines(stream)] == ["advanced", "advanced", "summary"]


def test_odd_names_are_shown() -> None:
    stream = io.BytesIO()
    listener = JsonLines(stream)
    Job("sync", [listener]).say(RunStarted("sync", os.fsdecode(b"/srv/caf\xe9"), "/灯台"))
    listener.data("entry", {"path": b"caf\xe9\n", "none": b"", "many": (1, None, 2.5, True), "by": {1: Path("x")}})
    assert lines(stream)[0] | {"source": "/srv/caf\\xe9", "target": "/灯台"} == lines(stream)[0]
    assert (
        lines(stream)[1] | {"path": "caf\\xe9\\n", "none": "", "many": [1, None, 2.5, True], "by": {"1": "x"}} == lines(stream)[1]
    )
    assert "灯台".encode() in stream.getvalue()


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left on device")])
def test_a_stream_that_fails_silences_the_listener(error: OSError) -> None:
    stream = Broken(2, error)
    listener = JsonLines(stream)
    job = Job("sync", [listener])
    for event in EVENTS:
        job.say(event)
    listener.data("summary", {})
    assert len(lines(stream)) == 2
    assert listener.failed is error


# -- the log file


def test_the_log_file_has_times(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("what was there\n")
    log = LogFile(tmp_path / "log")
    job = Job("sync", [log])
    for event in EVENTS:
        job.say(event)
    log.line(os.fsdecode(b"exit \xe9"))
    log.close()
    first, *rest = (tmp_path / "log").read_text("utf-8").splitlines()
    assert first == "what was there"
    for line in rest:
        assert datetime.fromisoformat(" ".join(line.split()[:2])).tzinfo
    assert [line.split(" ", 2)[2] for line in rest] == [
        "sync /srv/www -> /backup",
        "phase scan",
        "phase transfer",
        "+ a",
        "> b (was c)",
        "! d: it was gone; look",
        "note: it may not fit",
        "exit \\xe9",
    ]
    assert log.failed == ""


def test_a_full_disk_silences_the_log_file() -> None:
    log = LogFile(Path("/dev/full"))
    job = Job("sync", [log])
    for event in EVENTS:
        job.say(event)
    log.close()
    assert log.failed == "No space left on device"


# -- the bar


def test_the_bar_shows_bytes_files_and_phase() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    job = Job("sync", [bar])
    job.say(Advanced(1))  # before any phase: nothing to show it on
    job.say(PhaseBegan("transfer", 4, 400 << 20))
    for _ in range(3):
        job.say(Advanced(1, 100 << 20))
    with bar.away():
        stream.write("\n-- a line --\n")
    shown = stream.getvalue()
    assert "transfer  75%" in shown
    assert "300M/400M" in shown
    assert "3/4 files" in shown
    assert "left" in shown
    bar.close()
    bar.close()


def test_the_bar_counts_files_where_bytes_are_unknown() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    job = Job("sync", [bar])
    job.say(PhaseBegan("scan"))
    job.say(Advanced(12_000))
    with bar.away():
        pass
    assert "scan 12000 files" in stream.getvalue()
    job.say(PhaseBegan("commit"))
    assert "commit 0 files" in stream.getvalue()
    bar.close()


def test_no_bar_without_a_phase() -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    with bar.away():
        stream.write("x")
    bar.close()
    assert stream.getvalue() == "x"


def test_sizes_for_people() -> None:
    found = [progress.size_text(count) for count in (0, 1, 1023, 1024, 1536, 1 << 20, 1 << 30, 5 << 40, 1 << 60)]
    assert found == ["0 B", "1 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 GiB", "5.0 TiB", "1024.0 PiB"]
