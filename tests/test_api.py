"""`import mirror`: the verbs as functions that take plain folders and options by name, and are loaded when they are called."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mirror
from mirror.config import Settings
from mirror.errors import InTheWayError, SourceError, TargetMissingError, UsageError
from mirror.events import RunStarted, Stamped

ROOT = Path(__file__).resolve().parents[1]
VERBS = ("init", "sync", "restore", "publish", "rollback", "verify", "snapshots", "diff", "ls", "cat", "sums", "serve")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("index.html", "notes.tmp", "css/a.css"):
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_text(f"this is {name}")
    return tmp_path / "site"


@pytest.fixture
def target(site: Path) -> Path:
    """A target with two snapshots."""
    mirror.sync(site, "target", layout="packed")
    (site / "new.html").write_text("new")
    mirror.sync(site, "target", tag=["second"])
    return site.parent / "target"


def test_all_verbs_are_there() -> None:
    assert sorted(mirror.__all__) == sorted(VERBS)
    for verb in VERBS:
        assert callable(getattr(mirror, verb))
        assert inspect.getdoc(getattr(mirror, verb))


def test_a_site_there_and_back(site: Path) -> None:
    report = mirror.sync("site", "target", layout="packed")
    assert (report.exit_code, report.snapshot, report.site) == (0, 1, "site")
    restored = mirror.restore("target", Path("out"))
    assert (restored.exit_code, restored.added) == (0, report.added)
    assert (site.parent / "out/css/a.css").read_text() == "this is css/a.css"
    assert mirror.verify("target", quick=True, against="out").exit_code == 0


def test_options_are_those_of_the_command_line(site: Path) -> None:
    report = mirror.sync(site, "target", layout="packed", exclude=["*.tmp"], max_transfer="10M", max_duration=60, workers=0)
    assert report.rules == {"- *.tmp": 1}
    report = mirror.sync(site, "target", rules=[("include", "*.tmp"), ("exclude", "*.tmp")], max_delete="10%", dry_run=True)
    assert (report.added, report.snapshot) == (1, 0)


def test_reading(target: Path) -> None:
    assert [(line.number, line.tags) for line in mirror.snapshots(target)] == [(1, ()), (2, ("second",))]
    assert [entry.path for entry in mirror.ls(target, ["css"], at=1)] == [b"css/", b"css/a.css"]
    assert b"".join(mirror.cat(target, "new.html", at="tag:second")) == b"new"
    assert {path: len(digest) for digest, path in mirror.sums(target, hash="sha256")}[b"new.html"] == 64
    assert "+ new.html" in [f"{line.symbol} {os.fsdecode(line.path)}" for line, _ in mirror.diff(target, 1, 2)]
    assert list(mirror.diff("site", target)) == []
    assert [line.path for line, _ in mirror.diff("site", target, at="1") if line.symbol == "+"] == [b"new.html"]


def test_parts_of_a_snapshot(target: Path) -> None:
    mirror.restore(target, "part", [b"css", "new.html"], at=2)
    assert sorted(path.name for path in (target.parent / "part").iterdir()) == ["css", "new.html"]


def test_there_and_back_again(site: Path, target: Path) -> None:
    report = mirror.rollback("target", 1)
    assert (report.exit_code, report.snapshot, report.rollback_of, report.deleted) == (0, 3, 1, 1)
    assert mirror.rollback("target", at="tag:second", dry_run=True, max_delete=0).added == 1
    with pytest.raises(InTheWayError, match="mirror sync --release"):
        mirror.sync(site, target)
    assert mirror.sync(site, target, release=True).added == 1
    with pytest.raises(UsageError, match="no snapshot is named"):
        mirror.rollback("target")


def test_init() -> None:
    assert mirror.init("memory://api", layout="packed", site="www").made
    again = mirror.init("memory://api")
    assert (again.made, again.site) == (False, "www")


def test_listeners_hear_everything(site: Path) -> None:
    heard: list[Stamped] = []
    mirror.sync(site, "target", layout="packed", listeners=[heard.append])
    assert isinstance(heard[0].event, RunStarted)
    assert [each.number for each in heard] == list(range(1, len(heard) + 1))


@pytest.mark.parametrize("verb", VERBS)
def test_an_option_that_is_none_is_a_type_error(verb: str, target: Path) -> None:
    places = {"sync": ["site", "target"], "restore": ["target", "out"], "diff": ["site", "target"], "cat": ["target", "a"]}
    with pytest.raises(TypeError, match=rf"mirror.{verb}\(\) has no option 'max_delte'"):
        getattr(mirror, verb)(*places.get(verb, ["target"]), max_delte=3)
    assert not (target.parent / "out").exists()


def test_diff_takes_two_or_three() -> None:
    for places in ((), (1,), ("a", "b", "c")):
        with pytest.raises(TypeError, match=r"mirror.diff\(\) takes"):
            mirror.diff("a", *places)


def test_errors_are_raised(site: Path) -> None:
    with pytest.raises(SourceError):
        mirror.sync("missing", "target", layout="packed")
    with pytest.raises(TargetMissingError):
        list(mirror.ls("nowhere"))
    with pytest.raises(UsageError, match="--max-delete 'few'"):
        mirror.sync("site", "target", max_delete="few")
    assert not (site.parent / "target").exists()


def test_variables_are_for_the_command_line(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRROR_EXCLUDE", "*")
    monkeypatch.setenv("MIRROR_DRY_RUN", "1")
    assert mirror.sync(site, "target", layout="packed").snapshot == 1


def test_none_means_not_given() -> None:
    assert Settings({"at": None}).text("at", "latest") == "latest"


def test_unknown_attributes_are_unknown() -> None:
    with pytest.raises(AttributeError, match="no attribute 'rewind'"):
        _ = mirror.rewind


@pytest.mark.parametrize("verb", ["sync", "restore", "rollback", "verify"])
def test_a_module_of_that_name_is_the_function_too(verb: str) -> None:
    """Whoever imports mirror.sync, at any time, must not take mirror.sync() away."""
    module = importlib.import_module(f"mirror.{verb}")
    assert getattr(mirror, verb) is module
    assert callable(module)
    assert callable(getattr(module, verb))


ORDERS = [
    "import mirror; f = mirror.sync; from mirror.sync import SyncOptions; assert mirror.sync is f; mirror.sync()",
    "from mirror.sync import SyncOptions, sync; import mirror; assert sync is not mirror.sync; mirror.sync()",
    "import mirror.sync; mirror.sync()",
    "import mirror.sync as m; m.SyncOptions(); m()",
    "from mirror import sync; sync.SyncOptions(); sync()",
    "import mirror.cli.commands, mirror; mirror.sync()",
]


@pytest.mark.parametrize("code", ORDERS)
def test_in_any_order_of_imports(code: str, tmp_path: Path) -> None:
    wrapped = f"try:\n    {code}\nexcept TypeError as error:\n    print(error)\n"
    done = subprocess.run([sys.executable, "-W", "error", "-c", wrapped], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "_sync() missing 2 required positional arguments" in done.stdout


def test_importing_loads_next_to_nothing() -> None:
    code = "import sys; before = set(sys.modules); import mirror; print(sorted(n for n in set(sys.modules) - before if '.' in n))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "mirror." not in done.stdout
