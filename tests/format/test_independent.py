"""The format as docs/format.md has it: a reader that knows nothing of this program restores what this program wrote."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from mirrors import mirror, target_in, three_nights, tree

READER = Path(__file__).with_name("independent_reader.py")


def restore(target: Path, number: int | str, out: Path) -> subprocess.CompletedProcess[str]:
    """Run the reader, isolated from this environment's variables and path."""
    command = [sys.executable, "-I", "-W", "error", str(READER), str(target), str(number), str(out)]
    return subprocess.run(command, capture_output=True, text=True, errors="backslashreplace", timeout=120, check=False)


def test_it_is_short_and_independent() -> None:
    text = READER.read_text("utf-8")
    assert len(text.splitlines()) <= 200
    modules = {node.module or "" for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names}
    assert {name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names} == {
        "blake3",
        "msgspec",
        "xxhash",
        "zstandard",
    }
    assert not {name for name in ("importlib", "runpy", "__import__", "exec(", "eval(") if name in text}


def test_every_snapshot_comes_back(tmp_path: Path) -> None:
    target = target_in(tmp_path)
    nights = three_nights(tmp_path, target)
    assert nights[0] != nights[1] != nights[2]
    for number, night in enumerate(nights, 1):
        done = restore(tmp_path / "target", number, tmp_path / f"out-{number}")
        assert (done.returncode, done.stderr) == (0, "")
        assert tree(tmp_path / f"out-{number}") == night


def test_it_refuses_what_is_damaged(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "page").write_text("hello")
    mirror(site, target_in(tmp_path))
    objects = [path for path in (tmp_path / "target").rglob("*") if path.is_file() and path.name != "latest.json"]
    assert len(objects) == 6  # mirror.json, a record, a pack, a fragment, a segment and the node above it
    for number, path in enumerate(objects):
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        assert restore(tmp_path / "target", 1, tmp_path / f"out-{number}").returncode != 0, path
        path.write_bytes(data)
    assert restore(tmp_path / "target", 1, tmp_path / "out").returncode == 0


def test_the_log_tells_what_a_listing_finds(tmp_path: Path) -> None:
    three_nights(tmp_path, target_in(tmp_path))
    told, number = set(), 3
    while number:
        names = json.loads((tmp_path / "target" / "log" / f"{number:012d}.json").read_text())["names"]
        assert names.keys() == {"keys", "before"}
        assert names["before"] < number
        told |= {*names["keys"]}
        number = names["before"]
    assert told == {f"index/{path.name}" for path in (tmp_path / "target" / "index").iterdir()}
    assert len(told) == 3


@pytest.mark.parametrize("number", [0, 4])
def test_it_refuses_a_snapshot_that_is_not_live(tmp_path: Path, number: int) -> None:
    (tmp_path / "site").mkdir()
    mirror(tmp_path / "site", target_in(tmp_path))
    assert restore(tmp_path / "target", number, tmp_path / "out").returncode != 0
