"""The command line driven from tests, as the operator does it, and what is really in a folder, asked of the system itself.

    done = cli("sync", site, target, "--layout", "packed")
    assert done.code == 0

Whatever is driven: a traceback, or an error that nobody foresaw, fails the test.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mirror.cli import main

NOBODY = 65534
ROOT = Path(__file__).parent.parent
# Everything is imported before the rights are given away: the checkout may be where nobody else may look.
_AS_NOBODY = """
import importlib, json, os, pkgutil, sys
sys.path[:] = json.loads(sys.argv[1])
import mirror
for module in pkgutil.walk_packages(mirror.__path__, "mirror."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import pathspec.patterns.gitignore.spec, platformdirs.unix, sqlite3, tempfile, difflib, grp, pwd
import encodings.idna, encodings.unicode_escape
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
sys.exit(mirror.cli.main(sys.argv[2:]))
"""


class Done(NamedTuple):
    """How a command ended: exit code, what it wrote to stdout and to stderr."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one sentence of its error."""
        said = [line for line in self.err.splitlines() if line.startswith("mirror: ")]
        assert len(said) == 1, self
        return said[0].removeprefix("mirror: ")


def cli(*arguments: object) -> Done:
    """`mirror ARGUMENTS` in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words_of(arguments))
    return _judged(Done(code, _text(out), _text(err)))


def shell(command: str) -> Done:
    """A command line that mirror itself printed, run by a real shell."""
    script = command.replace("mirror ", f"'{sys.executable}' -m mirror ", 1)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60, env=environment)
    return _judged(Done(ran.returncode, ran.stdout, ran.stderr))


def process(*arguments: object, **settings: Any) -> subprocess.Popen[str]:
    """`mirror ARGUMENTS` in a process of its own, running."""
    command = [sys.executable, "-m", "mirror", *words_of(arguments)]
    settings = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT), **settings.pop("env", {})}, **settings)


def words_of(arguments: Iterable[object]) -> list[str]:
    """Arguments as text, paths as the system takes them."""
    return [os.fspath(each) if isinstance(each, Path) else str(each) for each in arguments]


def as_nobody(*arguments: object) -> Done:
    """`mirror ARGUMENTS` as a user without rights (as this one, when that is not root)."""
    command = [sys.executable, "-c", _AS_NOBODY, json.dumps([str(ROOT), *sys.path]), *words_of(arguments)]
    ran = subprocess.run(command, capture_output=True, timeout=60, cwd="/")
    return _judged(Done(ran.returncode, *(each.decode(errors="backslashreplace") for each in (ran.stdout, ran.stderr))))


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode("utf-8", "backslashreplace")  # type: ignore[attr-defined]


def _judged(done: Done) -> Done:
    assert "Traceback" not in done.err, done.err
    assert "should not have happened" not in done.err, done.err
    return done


def give_to_nobody(root: Path) -> None:
    """Make all of it nobody's, when this is root."""
    if os.geteuid() == 0:
        for folder, folders, files in os.walk(root):
            for name in [folder, *(os.path.join(folder, n) for n in [*folders, *files])]:
                os.chown(name, NOBODY, NOBODY, follow_symlinks=False)


class There(NamedTuple):
    """One path as the system has it. group: the first path of its hard links."""

    kind: str
    mode: int
    mtime: int
    uid: int
    gid: int
    content: str
    group: str = ""


def truth(root: Path | str | bytes) -> dict[bytes, There]:
    """Everything in a folder by path; folders end in `/`, the root is empty."""
    base = os.fsencode(root)
    found: dict[bytes, There] = {}
    groups: dict[tuple[int, int], list[bytes]] = {}
    stack = [b""]
    while stack:
        folder = stack.pop()
        found[folder] = _there(os.path.join(base, folder))
        with os.scandir(os.path.join(base, folder)) as entries:
            for entry in entries:
                path = folder + entry.name
                if entry.is_dir(follow_symlinks=False):
                    stack.append(path + b"/")
                    continue
                seen = entry.stat(follow_symlinks=False)
                found[path] = _there(os.path.join(base, path))
                if seen.st_nlink > 1:
                    groups.setdefault((seen.st_dev, seen.st_ino), []).append(path)
    for paths in groups.values():
        for path in paths:
            if len(paths) > 1:
                found[path] = found[path]._replace(group=min(paths).decode("latin-1"))
    return found


def _there(path: bytes) -> There:
    seen = os.lstat(path)
    mode, mtime, uid, gid = stat.S_IMODE(seen.st_mode), seen.st_mtime_ns, seen.st_uid, seen.st_gid
    if stat.S_ISLNK(seen.st_mode):
        return There("link", 0, mtime, uid, gid, os.readlink(path).decode("latin-1"))
    if stat.S_ISDIR(seen.st_mode):
        return There("folder", mode, mtime, uid, gid, "")
    if not stat.S_ISREG(seen.st_mode):
        return There("special", mode, mtime, uid, gid, "")
    with open(path, "rb") as stream:
        return There("file", mode, mtime, uid, gid, hashlib.file_digest(stream, "blake2b").hexdigest()[:32])


def same(a: Path | str | bytes, b: Path | str | bytes) -> None:
    """Both folders hold the same, metadata included."""
    left, right = truth(a), truth(b)
    assert left.keys() == right.keys()
    assert {p: (left[p], right[p]) for p in left if left[p] != right[p]} == {}


def shape(root: Path) -> dict[bytes, tuple[int, int, int, str]]:
    """A folder down to inodes and times: whoever wrote anything there changed it."""
    out = {}
    for path, there in truth(root).items():
        seen = os.lstat(os.path.join(bytes(root), path))
        out[path] = seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, there.content
    return out


def drafts(root: Path) -> list[bytes]:
    """Temporary files of ours that were left behind."""
    return [path for path in truth(root) if re.search(rb"\.mirror-tmp-", path)]


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user reaches, whatever the rights of pytest's own folders; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mirror-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    for below, folders, _ in os.walk(folder):
        for name in folders:
            path = os.path.join(below, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(folder)
