"""How values are spelt; that a flag, a variable and a file mean the same by them is tested beside those."""

from __future__ import annotations

import pytest

from mirror.spelling import Amount, duration, part, paths, percent, room, size, whole, yes_or_no

BAD_SIZES = ["", "M", "-1", "1 2", "10X", "1e3", "0x10", "½", "٣", "1.5.5M", "10MM"]
BAD_DURATIONS = ["", "h", "-1h", "26 hours", "1h30", "1y", "1:30", "٣h"]


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("512k", 524288),
        ("10M", 10485760),
        ("1GiB", 1 << 30),
        ("1.5g", 3 << 29),
        ("2 TB", 2 << 40),
    ],
)
def test_sizes(text: str, bytes_: int) -> None:
    assert size(text) == bytes_


@pytest.mark.parametrize("text", BAD_SIZES)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="it is no size"):
        size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("45m", 2700), ("26h", 93600), ("7d", 604800), ("1h30m", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", BAD_DURATIONS)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="it is no duration"):
        duration(text)


@pytest.mark.parametrize(("text", "value"), [("0%", 0), ("2.5 %", 2.5), ("100%", 100)])
def test_percentages(text: str, value: float) -> None:
    assert percent(text) == value
    assert paths(text) == room(text) == Amount(None, value)


@pytest.mark.parametrize("text", ["", "%", "101%", "-1%", "5"])
def test_what_is_no_percentage(text: str) -> None:
    with pytest.raises(ValueError, match="it is no percentage"):
        percent(text)


def test_amounts() -> None:
    assert (paths("17"), room("20G")) == (Amount(17), Amount(20 << 30))
    with pytest.raises(ValueError, match="it is neither a number of paths nor a percentage"):
        paths("17.5")
    with pytest.raises(ValueError, match="it is no size"):
        room("much")


def test_numbers_parts_and_switches() -> None:
    assert (whole(" 7 "), part("3/7"), yes_or_no("On"), yes_or_no("0")) == (7, (3, 7), True, False)
    for parse, text in ((whole, "-1"), (whole, "٣"), (part, "8/7"), (part, "0/7"), (yes_or_no, "")):
        with pytest.raises(ValueError, match="it is n"):
            parse(text)
