"""The command line driven from tests, as the operator does it, and what is really in a folder, asked of the system itself.

    done = cli("sync", site, target, "--layout", "packed")
    assert done.code == 0

Whatever is driven: a traceback, or an error that nobody foresaw, fails the test.
"""

from __future__ import annotations

import atexit
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
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mirror.cli import main

NOBODY = 65534
ROOT = Path(__file__).parent.parent
# Imports everything once, then makes a child for each command: with limits on memory, time and the size of files, or without the
# rights of root. What is imported late would not be found without them: the checkout may be where nobody else may look.
_KEEPER = """
import importlib, json, os, pkgutil, resource, sys
sys.path[:] = json.loads(sys.argv[1])
import mirror
for module in pkgutil.walk_packages(mirror.__path__, "mirror."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
import pathspec.patterns.gitignore.spec, platformdirs.unix, sqlite3, tempfile, difflib, grp, pwd
import encodings.idna, encodings.unicode_escape
os.chdir("/")
for line in sys.stdin:
    words, how, environment, out, err = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.clear()
        os.environ.update(environment)
        for number, name in ((1, out), (2, err)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        if how == "nobody" and os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        elif how == "limited":
            resource.setrlimit(resource.RLIMIT_AS, (1500 << 20, 1500 << 20))
            resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
            resource.setrlimit(resource.RLIMIT_FSIZE, (200 << 20, 200 << 20))
        code = mirror.cli.main(words)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    _, status, usage = os.wait4(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss]), flush=True)
"""


class Done(NamedTuple):
    """How a command ended: exit code, what it wrote to stdout and to stderr; rss: its peak memory in KiB, if measured."""

    code: int
    out: str
    err: str
    rss: int = 0

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


def gone(group: int) -> None:
    """Wait until all processes of a group have ended: one that was killed within an fsync ends after that, and until then what it
    writes is not abandoned."""
    until = time.monotonic() + 30
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < until:
            os.killpg(group, 0)
            time.sleep(0.02)


def words_of(arguments: Iterable[object]) -> list[str]:
    """Arguments as text, paths as the system takes them."""
    return [os.fspath(each) if isinstance(each, Path) else str(each) for each in arguments]


class _Keeper:
    """The process that runs commands `limited` or `as_nobody`; ends with this one."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="mirror-test-"))
        command = [sys.executable, "-c", _KEEPER, json.dumps([str(ROOT), *sys.path])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        atexit.register(self._end)

    def run(self, how: str, words: list[str]) -> Done:
        assert self._process.stdin
        assert self._process.stdout
        out, err = self._folder / "out", self._folder / "err"
        self._process.stdin.write(json.dumps([words, how, dict(os.environ), str(out), str(err)]) + "\n")
        self._process.stdin.flush()
        code, rss = json.loads(self._process.stdout.readline())
        return Done(code, *(name.read_bytes().decode(errors="backslashreplace") for name in (out, err)), rss)

    def _end(self) -> None:
        assert self._process.stdout
        self._process.communicate(timeout=30)
        shutil.rmtree(self._folder)


@cache
def _keeper() -> _Keeper:
    return _Keeper()


def as_nobody(*arguments: object) -> Done:
    """`mirror ARGUMENTS` as a user without rights (as this one, when that is not root)."""
    return _judged(_keeper().run("nobody", words_of(arguments)))


def limited(*arguments: object) -> Done:
    """`mirror ARGUMENTS` with limits on memory, time and the size of files, none of which it may come near."""
    done = _judged(_keeper().run("limited", words_of(arguments)))
    assert done.code in (0, 2, 3, 4, 5, 23), done
    assert done.rss < 400_000, done
    return done


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
