"""The command line as a person or a script meets it: words, flags, streams, exit codes, errors. In processes of their own.

What a verb does is tested beside the verb. Here: who is told what and where, and that nothing ever ends in a traceback.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from certificates import certified
from visits import stop_when_it_listens

import mirror
from mirror.access import KeyFile
from mirror.cli import _sentence as sentence_of
from mirror.cli import commands, listing, named, parsing, serving, words
from mirror.cli.session import Session
from mirror.cli.streams import Out
from mirror.errors import MirrorError, TemporaryError, UsageError
from mirror.manifest import File

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-W", "error", "-m", "mirror"]
OLD = 1_700_000_000 * 10**9


class Done:
    """A finished command: exit code, and what it wrote as text."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code, self.raw = code, out
        self.out, self.err = out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "surrogateescape")
        assert "Traceback" not in self.err, self.err
        assert "Exception ignored" not in self.err, self.err

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    def told(self, name: str) -> list[dict[str, Any]]:
        """The events of that name."""
        return [line for line in self.events if line["event"] == name]

    @property
    def summary(self) -> dict[str, Any]:
        assert self.events[-1]["event"] == "summary"
        assert self.events[-1]["exit_code"] == self.code
        return self.events[-1]

    @property
    def error(self) -> str:
        """The one sentence of a run that failed."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("mirror: ")]
        return line.removeprefix("mirror: ")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def run(*given: str | bytes | Path, **more: str) -> Done:
    """`mirror` with these words; keywords are variables of its environment."""
    done = subprocess.run(
        [*COMMAND, *given], env=environment(**more), stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def good(*given: str | bytes | Path, **more: str) -> Done:
    done = run(*given, **more)
    assert done.code == 0, (done.out, done.err)
    return done


def shell(script: str, **more: str) -> Done:
    """A shell's command line in which `mirror` is ours."""
    function = f'set -u; mirror() {{ {" ".join(COMMAND)} "$@"; }}\n'
    done = subprocess.run(["bash", "-c", function + script], env=environment(**more), capture_output=True, timeout=120, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def write(path: Path, data: bytes | str, when: int = OLD) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    os.utime(path, ns=(when, when))


def fingerprint(folder: Path, times: bool = True) -> str:
    """All that is in a folder: names, contents, times. times=False: for a cache, where sqlite makes and removes a file to read."""
    digest = hashlib.sha256()
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        when = status.st_mtime_ns if times or path.is_file() else 0
        digest.update(repr((os.fsencode(path), status.st_mode, when, content)).encode())
    return digest.hexdigest()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def site(here: Path) -> Path:
    """A few files, one of them with a name that is no UTF-8."""
    for name in ("index.html", "about.html", "css/a.css", "css/b.css", "img/one.png", "img/two.png", "notes.tmp"):
        write(here / "site" / name, f"this is {name}\n" * 20)
    write(here / "site" / os.fsdecode(b"caf\xe9\n.txt"), "odd\n")
    return here / "site"


@pytest.fixture
def target(site: Path) -> Path:
    """A target with two snapshots of the site; a page was changed, one moved, one deleted, one added."""
    mirror.sync("site", "target", layout="packed")
    write(site / "index.html", "another\n", OLD + 10**9)
    (site / "img/two.png").rename(site / "img/three.png")
    (site / "about.html").unlink()
    write(site / "new.html", "new\n")
    mirror.sync("site", "target", tag=["second"])
    return site.parent / "target"


# -- words and help


def test_alone_it_says_what_it_can() -> None:
    alone = good()
    assert alone.err == ""
    assert alone.out == good("--help").out == good("-h").out == good("help").out
    assert all(f"  {verb} " in alone.out for verb in words.VERBS)


@pytest.mark.parametrize("verb", words.VERBS)
def test_every_command_has_help(verb: str) -> None:
    shown = good(verb, "--help")
    assert shown.err == ""
    assert shown.out == good("help", verb).out == good(verb, "a", "-h").out
    assert shown.out.startswith(f"Usage: mirror {verb} ")
    assert all(f"--{flag.name}" in shown.out for flag in words.VERBS[verb].flags)
    assert max(map(len, shown.out.splitlines())) <= 100


def test_its_version() -> None:
    assert good("--version").out == f"mirror {mirror.__version__}\n"


@pytest.mark.parametrize("given", [["--help"], ["--version"], ["sync", "--help"]])
def test_help_loads_nothing_heavy(given: list[str]) -> None:
    heavy = (
        "typer",
        "tqdm",
        "obstore",
        "boto3",
        "fsspec",
        "zstandard",
        "sqlite3",
        "blake3",
        "subprocess",
        "mirror.sync",
    )
    code = f"import sys; from mirror.cli import main; main({given!r}); print([n for n in {heavy!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("snyc a b", "there is no command 'snyc' (did you mean sync?); try `mirror --help`"),
        ("help me", "there is no command 'me'; try `mirror --help`"),
        ("-q sync a b", "-q stands before the command; try `mirror --help`"),
        ("sync", "SRC and TARGET are missing; try `mirror sync --help`"),
        ("sync a", "TARGET is missing; try `mirror sync --help`"),
        ("sync a b c", "'c' is too much, SRC and TARGET will do; try `mirror sync --help`"),
        ("restore a", "OUT is missing; try `mirror restore --help`"),
        ("diff a b c d", "SRC TARGET or TARGET SNAPSHOT SNAPSHOT is wanted, not 4 words; try `mirror diff --help`"),
        ("sync a b --max-delte 3", "there is no option --max-delte (did you mean --max-delete?); try `mirror sync --help`"),
        ("sync a b --max-del=3", "there is no option --max-del (did you mean --max-delete?); try `mirror sync --help`"),
        ("sync a b -x", "there is no option -x; try `mirror sync --help`"),
        ("sync a b --max-delete", "--max-delete needs a value; try `mirror sync --help`"),
        ("ls a -q", "there is no option -q; try `mirror ls --help`"),
        ("sync a b --max-delete few", "--max-delete 'few': it is neither a number of paths nor a percentage such as 10%"),
        ("sync a b --max-duration soon", "--max-duration 'soon': it is no duration such as 90s, 45m, 26h or 7d"),
        ("sync a b --on-error panic", "--on-error 'panic': it is none of continue, stop"),
        ("sync '' b", "SRC '': it is empty; give a folder or a URL"),
        ("sync a ''", "TARGET '': it is empty; give a folder or a URL"),
        ("sums a --hash md5", "--hash 'md5': it is none of xxh128, blake3, sha256"),
        ("sync a b --filter-from none", "cannot read the filter file none: No such file or directory"),
        ("sync a b --log-file n/o", "cannot write the log file n/o: No such file or directory; name another with --log-file"),
        (
            "sync a gopher://b",
            "gopher://: stores of this kind are not known; known are a folder, file://, s3://, gs://, az://, https://, "
            "dav+https://, memory://",
        ),
    ],
)
def test_misuse_is_one_sentence_and_exit_2(given: str, error: str, here: Path) -> None:
    done = run(*shlex.split(given))
    assert (done.code, done.out) == (2, "")
    assert done.err in (f"mirror: {error}\n", f"mirror: cannot use {error}\n")
    assert list(here.iterdir()) == []


def test_options_stand_anywhere(target: Path) -> None:
    expected = good("ls", "target", "css", "img", "--at", "1").out
    assert expected == good("ls", "--at", "1", "target", "css", "img").out
    assert expected == good("ls", "target", "--at=1", "css", "--", "img").out
    assert expected.splitlines() == ["css/", "css/a.css", "css/b.css", "img/", "img/one.png", "img/two.png"]


def test_words_after_two_dashes_are_words(here: Path) -> None:
    write(here / "-n/--help", "x")
    good("sync", "--layout", "packed", "--", "-n", "--tag")
    assert good("ls", "--", "--tag", "--help").out == "--help\n"
    assert good("cat", "--", "--tag", "--help").out == "x"


def test_short_switches_go_together(target: Path) -> None:
    assert good("sync", "-nqc", "site", "target").out == ""


# -- no flag is for nothing

VALUES = {
    "at": "latest", "log-file": "log", "cache-dir": "cache", "endpoint-url": "http://127.0.0.1:1", "region": "x", "profile": "x",
    "bwlimit": "100M", "transfers": "4", "workers": "0", "max-duration": "1h", "max-delete": "100%", "layout": "packed",
    "delete": "after", "delete-grace": "1", "order": "*.css",
    "site": "site", "include": "*.html", "exclude": "*.tmp", "filter-from": "rules", "max-transfer": "1G", "min-free": "0%",
    "tag": "t",
    "on-error": "stop", "overwrite": "if-newer", "chown": f"{os.getuid()}:{os.getgid()}", "chmod": "D755,F644", "part": "1/1",
    "against": "site", "max-age": "1h", "hash": "blake3", "config": "mirror.toml", "source": "site", "changes-file": "list",
    "store": "target", "public-url": "http://127.0.0.1:1",
    "keys": "keys.json", "rights": "read,append", "key-file": "a.key", "certfile": "cert.pem",
    "keyfile": "key.pem", "max-body": "1M", "imports": "2", "client-timeout": "5s",
    "lease": "30s", "header": "*.css: Cache-Control: no-cache", "symlinks": "skip", "case-conflict": "skip",
    "listen": "127.0.0.1:0", "memory": "16M",
}  # fmt: skip
REACHING = ("endpoint_url", "region", "profile", "bwlimit", "transfers")  # of clients, not of a server
OF_TREES = {"layout": "tree", "store": "served/.mirror"}  # for verbs of which some flags, or all, are of trees
PLACES = {
    "init": ["target"], "sync": ["site", "served"], "restore": ["target", "out"], "verify": ["target"], "snapshots": ["target"],
    "rollback": ["target"], "publish": ["served"],
    "diff": ["site", "target"], "ls": ["target"], "cat": ["target", "index.html"], "sums": ["target"],
    "filter-test": ["index.html"], "key": ["new", "nightly"], "serve": ["target"],
}  # fmt: skip


@pytest.mark.parametrize("way", [*words.VERBS, "serve --keys"])
def test_every_flag_is_heeded_from_the_line_and_from_the_environment(way: str, target: Path, here: Path, capfd: Any) -> None:
    """Each flag of each command is asked for by what runs, by its own name."""
    verb = way.partition(" ")[0]
    left_out = {"serve": serving._OF_TARGETS, "serve --keys": (*serving._OF_SITE, "site", *REACHING)}.get(way, ())
    write(here / "rules", "- *.nothing\n")
    write(here / "mirror.toml", "")
    if verb == "publish":
        good("init", "served", "--layout", "tree")
    arguments: list[str] = []
    for flag in words.VERBS[verb].flags:
        if flag.name not in ("quick", "part") and flag.dest not in left_out:  # these two do not go together
            value = (OF_TREES if verb in ("sync", "publish") else {}).get(flag.name, VALUES.get(flag.name))
            arguments += [f"--{flag.name}", *([str(value)] if flag.value else [])]
    given, said = parsing.parse(words.VERBS[verb], [*(["."] if way == "serve --keys" else PLACES[verb]), *arguments])
    session = Session(verb, "mirror", Out())
    given, asked = named.resolve(words.VERBS[verb], given, said, {}, session.notice)
    session.begin(asked)
    if verb == "serve":
        session.job.listeners = [*session.job.listeners, stop_when_it_listens]
        KeyFile("keys.json").add("nightly", ("read",))
        certified(here)
    assert commands.COMMANDS[verb](session, given) in ((130,) if verb == "serve" else (0, 4))
    assert session.asked.unknown() == []
    variables = {f"MIRROR_{flag.dest.upper()}" for flag in words.VERBS[verb].flags}
    assert variables == {f"MIRROR_{flag.name.upper().replace('-', '_')}" for flag in words.VERBS[verb].flags}


def test_a_name_means_the_same_everywhere() -> None:
    """One variable for a flag, whichever the command: so a flag is the same flag, with or without a value."""
    seen: dict[str, bool] = {}
    for verb in words.VERBS.values():
        for flag in verb.flags:
            if flag.name not in ("delete", "site"):  # spelling.deletion and spelling.as_site tell which is meant
                assert seen.setdefault(flag.name, bool(flag.value)) is bool(flag.value), flag.name
        shorts = [flag.short for flag in verb.flags if flag.short]
        assert len(set(shorts)) == len(shorts)


def test_flag_over_variable_over_default(site: Path) -> None:
    good("sync", "site", "target", MIRROR_LAYOUT="packed", MIRROR_SITE="www", MIRROR_QUIET="yes", MIRROR_TAG="one\ntwo")
    assert good("sync", "site", "target", "--json", MIRROR_QUIET="1").summary["site"] == "www"
    assert run("sync", "site", "target", MIRROR_SITE="other").code == 2
    assert good("sync", "site", "target", "--site", "www", MIRROR_SITE="other").code == 0
    assert good("sync", "site", "target", "--no-json", MIRROR_JSON="1").out == ""
    assert (
        run("sync", "site", "target", MIRROR_JSON="perhaps").error == "cannot use MIRROR_JSON 'perhaps': it is neither yes nor no"
    )
    (line,) = good("snapshots", "target", MIRROR_JSON="1").told("listed")
    assert line["tags"] == ["one", "two"]


def test_variables_of_other_commands_do_not_matter(target: Path) -> None:
    assert good("cat", "target", "new.html", MIRROR_JSON="1", MIRROR_MAX_DELETE="nonsense").out == "new\n"


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ("--include *.css --exclude css/* --exclude *.tmp", ["css/a.css", "css/b.css"]),
        ("--exclude css/* --include *.css --exclude *.tmp", []),
        ("--exclude b.css --include=*.css --exclude css/*", ["css/a.css"]),
        ("--include b.css --filter-from rules --include *.css", ["css/b.css"]),
        ("--filter-from rules --include b.css", []),
        ("--exclude a.css --filter-from rules2", ["css/b.css"]),
    ],
)
def test_rules_of_all_kinds_are_one_list(rules: str, left: list[str], site: Path, here: Path) -> None:
    write(here / "rules", "# no styles\n- *.css\n")
    write(here / "rules2", "+ *.css\n- css/\n")
    good("sync", "site", "target", "--layout", "packed", *rules.split())
    styles = [line for line in good("ls", "target").out.splitlines() if line.endswith(".css")]
    assert styles == left


# -- who is told what


def test_reports_go_to_stderr(site: Path) -> None:
    done = good("sync", "site/", "target/", "--layout", "packed")
    assert done.out == ""
    lines = done.err.splitlines()
    assert lines[0] == f"sync {site} -> {site.parent / 'target'}"
    assert re.fullmatch(r"snapshot 1: 11 entries, [\d.]+ KiB: 11 new", lines[1])
    assert lines[2].startswith("read ")
    again = good("sync", "site", "target").err.splitlines()
    assert again[1].startswith("nothing changed since snapshot 1: 11 entries")


def test_quiet_is_silent_when_all_is_well(site: Path) -> None:
    for given in (
        ["sync", "site", "target", "--layout", "packed"],
        ["sync", "site", "target"],
        ["sync", "site", "target", "-n"],
        ["restore", "target", "out"],
        ["snapshots", "target", "--max-age", "1h"],
        ["verify", "target"],
        ["diff", "site", "target"],
        ["init", "target"],
    ):
        done = good(*given, "-q")
        assert (done.out, done.err) == ("", ""), given


def test_quiet_speaks_when_something_is_wrong(target: Path) -> None:
    record = target / "log/000000000001.json"
    record.chmod(0o600)
    record.write_bytes(b"{}")
    done = run("snapshots", "target", "-q")
    assert (done.code, done.out) == (4, "")
    assert "! log/000000000001.json: " in done.err
    done = run("sync", "missing", "target", "-q")
    assert done.code == 3
    assert done.error.startswith(f"cannot read the source {target.parent / 'missing'}: ")


def test_verbose_names_paths_and_requests(site: Path) -> None:
    good("sync", "site", "target", "--layout", "packed", "-q")
    write(site / "index.html", "another\n", OLD + 10**9)
    (site / "css/b.css").unlink()
    (site / "img/two.png").rename(site / "img/three.png")
    done = good("sync", "site", "target", "-v")
    assert done.out == ""
    lines = done.err.splitlines()
    assert {"* index.html", "- css/b.css", "> img/three.png (was img/two.png)"} <= set(lines)
    assert lines[-1].startswith("requests: ")


def test_json_is_all_there_is_on_stdout(site: Path) -> None:
    done = good("sync", "site", "target", "--layout", "packed", "--json")
    events = done.events
    assert [line["event"] for line in (events[0], events[-2])] == ["started", "snapshot"]
    assert [line["number"] for line in events[:-1]] == sorted({line["number"] for line in events[:-1]})
    assert {line["job"] for line in events} == {events[0]["job"]}
    assert done.summary | {"verb": "sync", "snapshot": 1, "added": 11, "problems": []} == done.summary
    assert {"caf\\xe9\\n.txt"} < {line["path"] for line in events if line["event"] == "change"}
    assert "snapshot 1" in done.err
    assert good("sync", "site", "target", "--json", "-q").err == ""


@pytest.mark.parametrize(
    "given", [["sync", "missing", "target"], ["sync", "--what"], ["restore", "nowhere", "out"], ["ls", "nowhere"]]
)
def test_json_has_the_error_too(given: list[str]) -> None:
    done = run(*given, "--json")
    error = done.summary["error"]
    assert set(error) == {"kind", "what", "where", "why", "hint"}
    text = f"{error['what']} {error['where']}".rstrip() + (f": {error['why']}" if error["why"] else "")
    assert done.error == text + (f"; {error['hint']}" if error["hint"] else "")
    assert done.code in (2, 3)


def test_the_log_file_tells_the_story(site: Path, here: Path) -> None:
    good("sync", "site", "target", "--layout", "packed", "-q", "--log-file", "log")
    run("sync", "missing", "target", "-q", "--log-file", "log")
    text = (here / "log").read_text("utf-8")
    for part in (
        f"sync {site} -> ",
        " phase scan",
        " + index.html",
        " snapshot 1: 11 entries",
        " exit 0",
        " mirror: cannot read",
        " exit 3",
    ):
        assert part in text
    for line in text.splitlines():
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d ", line)


def test_a_log_file_that_fails_does_not_stop_the_run(site: Path) -> None:
    done = good("sync", "site", "target", "--layout", "packed", "--log-file", "/dev/full")
    assert "mirror: the log file is not complete: No space left on device" in done.err
    assert good("ls", "target").out


def on_terminal(*given: str | Path) -> tuple[int, str, str]:
    """(exit code, stdout, what a terminal showed of stderr)."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
    with subprocess.Popen(
        [*COMMAND, *given], env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.stdout
        out = process.stdout.read()
    os.close(ours)
    return process.returncode, out.decode("utf-8", "surrogateescape"), shown.decode("utf-8", "surrogateescape")


def test_a_bar_on_a_terminal_only(site: Path) -> None:
    code, out, shown = on_terminal("sync", site, "target", "--layout", "packed")
    assert (code, out) == (0, "")
    assert "scan 0 files" in shown
    assert "transfer   0% |" in shown
    assert "snapshot 1: " in shown
    assert "\r" not in good("sync", "site", "target", "-c").err


def test_no_bar_when_quiet(site: Path) -> None:
    assert on_terminal("sync", site, "target", "--layout", "packed", "-q") == (0, "", "")


def test_the_plan_and_the_bar_share_a_terminal(target: Path, site: Path) -> None:
    write(site / "later.html", "later\n")
    code, out, shown = on_terminal("sync", site, target, "-n")
    assert (code, out) == (0, ". ./\n+ later.html\n")
    assert "scan" in shown


# -- a dry run writes nothing


def test_a_dry_run_prints_the_plan_and_writes_nothing(target: Path, site: Path, isolated: Path) -> None:
    write(site / "later.html", "later\n")
    (site / "css/a.css").unlink()
    before = fingerprint(target), fingerprint(isolated, times=False), fingerprint(site)
    done = good("sync", "site", "target", "-n")
    assert done.out == ". ./\n. css/\n- css/a.css\n+ later.html\n"
    assert "(dry run: nothing is written)" in done.err
    assert "would be: 1 new, 2 described anew, 1 deleted" in done.err
    assert run("sync", "site", "target", "-n", "--exit-code").code == 4
    assert run("sync", "site", "target", "-n", "--exit-code", "-q").err != ""
    assert (fingerprint(target), fingerprint(isolated, times=False), fingerprint(site)) == before
    assert done.out == good("diff", "site", "target").out
    assert (fingerprint(target), fingerprint(site)) == (before[0], before[2])


def test_a_dry_run_makes_no_target(site: Path, here: Path, isolated: Path) -> None:
    good("sync", "site", "target", "--layout", "packed", "-n")
    assert [path.name for path in here.iterdir()] == ["site"]
    assert list(isolated.iterdir()) == []


def test_a_dry_restore_makes_nothing(target: Path, here: Path) -> None:
    done = good("restore", "target", "out", "--at", "1", "-n", "css")
    assert done.out.splitlines() == ["+ css/", "+ css/a.css", "+ css/b.css"]
    assert run("restore", "target", "out", "-n", "--exit-code").code == 4
    assert not (here / "out").exists()


# -- data


def test_diff_of_snapshots(target: Path) -> None:
    expected = ["- about.html", "> img/three.png (was img/two.png)", "* index.html", "+ new.html"]
    done = good("diff", "target", "1", "tag:second")
    assert [line for line in done.out.splitlines() if not line.startswith(".")] == expected
    assert run("diff", "target", "1", "2", "--exit-code").code == 4
    assert good("diff", "target", "2", "2", "--exit-code").out == ""
    summary = good("diff", "target", "1", "2", "--json").summary
    assert [summary[name] for name in ("added", "changed", "moved", "deleted")] == [1, 1, 1, 1]


def test_diff_with_a_site(target: Path, site: Path) -> None:
    write(site / "later.html", "later\n")
    done = good("diff", "site", "target")
    assert done.out == ". ./\n+ later.html\n"
    assert done.err.splitlines()[0].startswith(f"diff {site} -> ")
    assert "- about.html" not in done.out
    assert "+ new.html" in good("diff", "site", "target", "--at", "1").out


def test_ls(target: Path) -> None:
    done = good("ls", "target")
    assert done.err == ""
    assert done.out.splitlines()[:3] == ["./", "caf\\xe9\\n.txt", "css/"]
    long = good("ls", "target", "-l", "new.html").out
    assert re.fullmatch(r"-rw-r--r-- +4 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d new.html\n", long)
    told = good("ls", "target", "--json")
    assert told.summary["entries"] == len(told.told("entry")) == len(done.out.splitlines())
    (one,) = (line for line in told.told("entry") if line["path"] == "new.html")
    assert one | {"event": "entry", "kind": "file", "size": 4, "mtime": OLD, "mode": 0o644} == one


def test_a_time_that_no_calendar_has() -> None:
    line = listing.long_line(File(b"a", 1, bytes(16), 0, b"", mtime=10**24, mode=0o1770000644))
    assert line.split() == ["-rw-r--r--", "1", "1000000000000000000000000", "ns", "a"]


def test_cat_gives_bytes(target: Path, site: Path) -> None:
    assert good("cat", "target", "index.html").raw == b"another\n"
    assert good("cat", "target", "index.html", "--at", "1").raw == b"this is index.html\n" * 20
    assert good("cat", "target", b"caf\xe9\n.txt").raw == b"odd\n"
    done = run("cat", "target", "css")
    assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize(
    ("name", "tool"),
    [("sha256", ["sha256sum", "-c", "--quiet"]), ("blake3", ["b3sum", "-c", "--quiet"]), ("xxh128", ["xxhsum", "-c", "--quiet"])],
)
def test_sums_are_what_the_usual_tools_read(name: str, tool: list[str], target: Path, site: Path, here: Path) -> None:
    """A name that is no UTF-8 is too much for b3sum, one with a newline for old versions of xxhsum: those are left out for them."""
    done = good("sums", "target", "--hash", name)
    assert done.err == ""
    lines = done.raw.splitlines(keepends=True)
    assert len(lines) == 8
    if name != "sha256":
        lines = [line for line in lines if b"caf" not in line]
    (here / "SUMS").write_bytes(b"".join(lines))
    if subprocess.run(["which", tool[0]], capture_output=True, check=False).returncode == 0:
        checked = subprocess.run([*tool, here / "SUMS"], cwd=site, capture_output=True, check=False)
        assert checked.returncode == 0, (checked.stdout, checked.stderr)
    if name == "sha256":
        assert b"\\" + hashlib.sha256(b"odd\n").hexdigest().encode() + b"  caf\xe9\\n.txt\n" in lines
        rclone = subprocess.run(
            ["rclone", "checksum", "sha256", here / "SUMS", site, "--include", "*.css", "--config", ""],
            capture_output=True,
            check=False,
        )
        assert rclone.returncode == 0, rclone.stderr


def test_snapshots(target: Path) -> None:
    head, first, second = good("snapshots", "target").out.splitlines()
    assert head.split() == ["number", "time", "entries", "size", "changes"]
    assert re.fullmatch(r" +1  20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d +11 +[\d.]+ KiB  \+11", first)
    assert re.search(r"\+1 \*1 >1 -1 tag:second$", second)
    found = good("snapshots", "target", "--json")
    assert [line["number"] for line in found.told("listed")] == [1, 2]
    assert found.summary["snapshots"] == 2
    time_of_second = second.split()[1]
    assert good("ls", "target", "--at", time_of_second).out == good("ls", "target", "--at", "2").out


def test_the_age_of_the_newest_snapshot(target: Path) -> None:
    assert good("snapshots", "target", "--max-age", "26h").out.count("\n") == 3
    time.sleep(0.02)
    done = run("snapshots", "target", "--max-age", "0.01s")
    assert done.code == 4
    assert "there is no snapshot young enough in" in done.error
    assert "does the nightly sync still run?" in done.error
    good("init", "other", "--layout", "packed")
    assert good("snapshots", "other").out == ""
    assert run("snapshots", "other", "--max-age", "26h").error.startswith("there is no snapshot young enough in")


def test_init_can_be_said_again(here: Path) -> None:
    made = good("init", "target", "--layout", "packed", "--site", "www", "--json").summary
    assert made | {"made": True, "site": "www", "layout": "packed"} == made
    again = good("init", "target", "--json").summary
    assert again == made | {"made": False, "job": again["job"]}
    assert run("init", "target", "--site", "other").code == 2
    assert run("init", "target", "--layout", "tree").code == 2
    assert good("init", "elsewhere", "--json").summary["layout"] == "tree"
    assert (here / "elsewhere/.mirror/mirror.json").is_file()


# -- streams that fail


@pytest.mark.parametrize(
    "locale",
    [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "latin-1:strict"}],
)
def test_odd_names_in_any_locale(locale: dict[str, str], site: Path, here: Path) -> None:
    odd = os.fsencode(here) + b"/\xe9\xff"
    os.rename(os.fsencode(site), odd)
    write(Path(os.fsdecode(odd)) / "灯台.html", "x")
    assert good("sync", odd, b"\xfft", "--layout", "packed", "-n", **locale).out.count("\n") == 12
    done = good("sync", odd, b"\xfft", "--layout", "packed", "-v", **locale)
    assert "\\xe9\\xff" in done.err
    listed = good("ls", b"\xfft", **locale).out
    assert "caf\\xe9\\n.txt\n" in listed
    assert "灯台.html\n" in listed or "\\u706f\\u53f0.html\n" in listed
    assert "灯台.html" in [line.get("path") for line in good("ls", b"\xfft", "--json", **locale).events]
    assert b"  caf\xe9\\n.txt\n" in good("sums", b"\xfft", **locale).raw
    assert run("ls", b"\xfftt", **locale).code == 3
    assert good("verify", b"\xfft", **locale)


@pytest.fixture
def many(here: Path) -> Path:
    """A target with more paths than a pipe holds."""
    (here / "many").mkdir()
    for number in range(3000):
        (here / "many" / f"a page with a rather long name, number {number:05}.html").touch()
    good("sync", "many", "target", "--layout", "packed", "-q")
    return here / "target"


@pytest.mark.parametrize(
    "command", ["ls target", "ls target --json", "sums target", "sync many other --layout packed -n", "diff many target --at 1 -c"]
)
def test_a_reader_that_goes_away_is_no_error(command: str, many: Path) -> None:
    (many.parent / "many/new.html").touch()
    done = shell(f"mirror {command} | head -n 1; echo ${{PIPESTATUS[0]}}")
    assert done.out.splitlines()[-1] == "0"
    assert "mirror:" not in done.err


def test_a_sync_goes_on_without_its_reader(many: Path) -> None:
    done = shell("mirror sync many other --layout packed --json | head -n 1; echo ${PIPESTATUS[0]}")
    assert done.out.splitlines()[-1] == "0"
    assert good("ls", "other").out.count("\n") == 3001


@pytest.mark.parametrize(
    "command", ["ls target", "ls target --json", "sums target", "cat target index.html", "--help", "snapshots target"]
)
def test_a_full_disk_behind_stdout_is_an_error(command: str, target: Path) -> None:
    done = shell(f"mirror {command} > /dev/full")
    assert (done.code, done.err) == (1, "mirror: cannot write to standard output: No space left on device\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_hurt_nobody(closed: str, site: Path) -> None:
    """Were descriptor 2 free, the next file opened would get it, and whatever is printed would go into that file."""
    assert shell(f"mirror sync site target --layout packed -v {closed}").code == 0
    assert shell(f"mirror verify target {closed}").code == 0
    assert good("verify", "target")
    assert shell(f"mirror sync missing target {closed}").code == 3


# -- signals


@pytest.mark.parametrize(
    "signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGHUP], [signal.SIGINT, signal.SIGINT, signal.SIGTERM]]
)
def test_a_signal_ends_a_run_with_its_progress_kept(signals: list[signal.Signals], here: Path) -> None:
    for number in range(4):
        write(here / f"slow/{number}", os.urandom(12 << 20))
    command = [*COMMAND, "sync", "slow", "target", "--layout", "packed", "--json", "-q", "--bwlimit", "4M"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        while json.loads(process.stdout.readline())["event"] != "batch-sent":
            pass
        time.sleep(1)
        for each in signals:
            process.send_signal(each)
            time.sleep(0.05)
        last = json.loads(process.stdout.readlines()[-1])
        err = process.stderr.read()
        code = process.wait(60)
        assert code == 130, (last, err)
    assert (last["event"], last["exit_code"], last["error"]["kind"]) == ("summary", 130, "interrupted")
    assert err.splitlines()[-1].startswith("mirror: interrupted; ")
    assert "Traceback" not in err
    assert good("snapshots", "target").out == ""
    assert good("sync", "slow", "target", "--json", "-q").summary["snapshot"] == 1
    assert good("verify", "target")


DEAF = """
import os, signal, time
from mirror.cli.streams import Interrupts
from mirror.events import Job, PhaseBegan

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

with Interrupts() as interrupts:
    job = Job("sync", listeners=[interrupts.insist])
    job.say(PhaseBegan("scan"))
    Deaf()
    print("lost")
    try:
        job.say(PhaseBegan("commit"))
    except KeyboardInterrupt:
        print("heard")
"""


def test_a_signal_that_comes_where_python_swallows_it_is_heard_at_the_next_event() -> None:
    done = subprocess.run([sys.executable, "-c", DEAF], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "lost\nheard\n", done.stderr
    assert "KeyboardInterrupt" in done.stderr, "as Python says of what it swallows"


# -- bad input: one sentence, the exit code, nothing written


BAD = [
    # (name, what to do first, command, exit code, parts of the sentence)
    ("missing source", "", "sync missing target", 3, ["cannot read the source", "missing", "does not exist", "is it mounted?"]),
    ("source is a file", "touch file", "sync file target", 3, ["file"]),
    ("source is a broken link", "ln -s nowhere link", "sync link target", 3, ["link"]),
    ("emptied source", "mkdir empty", "sync empty target", 3, ["the source is empty", "--allow-empty-source"]),
    ("another layout", "", "sync site target --layout tree", 2, ["its layout is 'packed', not 'tree'", "leave out --layout"]),
    ("layout that is none", "", "sync site new --layout heap", 2, ["'heap' does not exist", "--layout tree", "--layout packed"]),
    ("tree that is no folder", "", "sync site memory://new --layout tree", 2, ["'tree' needs a local folder or"]),
    ("no site name", "", "sync site new --layout packed --site 'My Site'", 2, ["'My Site' is no site name"]),
    ("another site", "", "sync site target --site other", 2, ["holds the site 'site', not 'other'"]),
    ("target is a file", "touch file", "sync site file --layout packed", 2, ["file", "it is not a folder"]),
    ("target holds other things", "mkdir d; touch d/x", "sync site d --layout packed", 2, ["other things (x)", "--adopt"]),
    ("target inside the source", "", "sync site site/target --layout packed", 2, ["is inside it"]),
    ("source inside the target", "mkdir target/in", "sync target/in target", 2, ["it is inside the target"]),
    ("source is the target", "", "sync site site --layout packed", 2, ["it is the target itself"]),
    ("target went away", "mv target t2", "sync site target --layout packed", 3, ["is it mounted?", "--new-target"]),
    ("no mirror", "mkdir nothing", "ls nothing", 3, ["cannot find a mirror at", "there is no mirror.json"]),
    ("no mirror at all", "", "restore nothing out", 3, ["cannot find a mirror at"]),
    ("spoilt mirror.json", "chmod u+w target/mirror.json; echo x > target/mirror.json", "sync site target", 4, ["mirror.json"]),
    ("empty mirror.json", "chmod u+w target/mirror.json; : > target/mirror.json", "ls target", 4, ["mirror.json"]),
    ("too many deletions", "rm -r site/css site/img", "sync site target --max-delete 2", 25, ["the limit is 2", "--max-delete 6"]),
    ("too many deletions in percent", "rm -r site/css", "sync site target --max-delete 10%", 25,
     ["the limit is 10 %", "accept it once"]),
    ("max-delete 0", "rm site/new.html", "sync site target --max-delete 0", 25, ["1 of 11 entries", "--max-delete 1"]),
    ("no room", "", "sync site target --min-free 100000T --tag t", 5, ["not enough free space", "--min-free"]),
    ("a target that is gone, to a reader", "rm -r target", "restore target out", 3, ["mirror.json is gone", "mounted"]),
    ("no such snapshot", "", "restore target out --at 9", 2, ["9"]),
    ("no such tag", "", "ls target --at tag:none", 2, ["'none'"]),
    ("no time", "", "ls target --at yesterday", 2, ["'yesterday'", "latest"]),
    ("no such path", "", "ls target none", 2, ["none", "`mirror ls` shows"]),
    ("no such path in cat", "", "cat target none", 2, ["none"]),
    ("restore over something", "", "restore target site --at 1", 2, ["it is not empty", "--in-place"]),
    ("restore into a file", "touch file", "restore target file", 2, ["it is no folder"]),
    ("restore into the target", "", "restore target target/out", 2, ["target"]),
    ("restore to a bucket", "", "restore target s3://bucket/x", 7, ["no credentials are to be found", "s3://bucket/x"]),
    ("restore to nowhere", "", "restore target nosuch://x", 2, ["cannot open nosuch://x", "protocol"]),
    ("restore to what can only be read", "(cd site; zip -qr ../z.zip .)", "restore target zip://::file://$PWD/z.zip", 2,
     ["it can only be read"]),
    ("unknown user", "", "restore target out --chown nobody-of-that-name", 2, ["nobody-of-that-name"]),
    ("bad mode", "", "restore target out --chmod 999", 2, ["999"]),
    ("restore deletes too much", "mkdir -p o; touch o/{1..9}", "restore target o --in-place --delete --max-delete 3", 25,
     ["9", "--max-delete 9"]),
    ("rollback to what?", "", "rollback target", 2, ["no snapshot is named", "--at", "`mirror snapshots TARGET`"]),
    ("rollback to no snapshot", "", "rollback target --at 9", 2, ["no snapshot 9", "live are 1-2"]),
    ("rollback of no mirror", "", "rollback nothing --at 1", 3, ["cannot find a mirror at"]),
    ("rollback deletes too much", "", "rollback target --at 1 --max-delete 0", 25, ["would be deleted", "--max-delete 1"]),
    ("rollback with a wrong limit", "", "rollback target --at 1 --max-delete few", 2, ["--max-delete 'few'"]),
    ("rollback with a wrong rule", "", "rollback target --at 1 --exclude '!x'", 2, ["filter rule"]),
    ("rollback without room", "", "rollback target --at 1 --min-free lots", 2, ["--min-free 'lots'"]),
    ("release of what?", "", "sync site target --release=1", 2, ["--release"]),
    ("no such profile", "", "ls s3://bucket/p --profile nobody", 2, ["'nobody'"]),
    ("no credentials", "", "ls s3://bucket/p", 7, ["no credentials"]),
    ("dead endpoint", "export AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b", "ls s3://bucket/p --endpoint-url http://127.0.0.1:1", 5,
     ["connection refused"]),
    ("credentials in the URL", "", "ls s3://key:secret@bucket/p", 2, ["credentials in the URL"]),
    ("unwritable cache", "touch file", "sync site target --cache-dir file", 2, ["cannot use the cache folder"]),
]  # fmt: skip


@pytest.mark.parametrize(("before", "command", "code", "parts"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input(before: str, command: str, code: int, parts: list[str], target: Path) -> None:
    done = shell(f"set -e; {before or ':'}; set +e; find target site > /dev/null 2>&1; cp -a . ../before; mirror {command}")
    assert (done.code, done.out) == (code, ""), done.err
    for part in parts:
        assert part in done.error
    assert "secret" not in done.err
    compared = subprocess.run(["diff", "-r", "--no-dereference", ".", "../before"], capture_output=True, text=True, check=False)
    assert compared.stdout == ""


def test_the_hint_of_the_guard_can_be_pasted(target: Path, site: Path, here: Path) -> None:
    site.rename(here / "my site")
    subprocess.run(["rm", "-r", "my site/css", "my site/img"], check=True)
    error = run("sync", "my site", "target", "--max-delete", "2").error
    hint = error.partition("accept it once: ")[2]
    assert hint == "mirror sync 'my site' target --max-delete 2 --max-delete 6"
    done = shell(hint)
    assert done.code == 0, done.err
    assert "6 deleted" in done.err


def test_a_second_run_waits_or_is_told(target: Path) -> None:
    with Held(target):
        done = run("sync", "site", "target")
        assert done.code == 11
        assert "--wait" in done.error
        with subprocess.Popen([*COMMAND, "sync", "site", "target", "--wait", "-q"], env=environment()) as waiting:
            time.sleep(1)
            assert waiting.poll() is None
            waiting.terminate()
            assert waiting.wait(20) == 130
    assert good("sync", "site", "target")


class Held:
    """Holds the lock of a folder as another run would."""

    def __init__(self, folder: Path) -> None:
        self.descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> None:
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


# -- what nobody foresaw


def test_what_was_not_foreseen_is_one_sentence() -> None:
    error = sentence_of(ValueError("a\nb"))
    assert (error.exit_code, error.kind) == (1, "error")
    assert str(error) == "this should not have happened: ValueError: a b; set MIRROR_DEBUG=1 to see where, and please report it"


def test_errors_of_the_system_are_told_by_their_meaning() -> None:
    full = sentence_of(OSError(28, "No space left on device"))
    assert isinstance(full, TemporaryError)
    assert full.kind == "disk-full"
    other = sentence_of(PermissionError(13, "Permission denied", "/x"))
    assert (str(other), other.exit_code) == ("cannot use /x: Permission denied", 1)
    ours = UsageError("x")
    assert sentence_of(ours) is ours
    assert isinstance(sentence_of(OSError("odd")), MirrorError)


def test_a_traceback_is_there_for_the_asking() -> None:
    done = subprocess.run(
        [*COMMAND, "ls", "nowhere"], env=environment(MIRROR_DEBUG="1"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("mirror: cannot find a mirror at ")


def test_without_a_home_it_works_and_says_so(site: Path) -> None:
    script = (
        "unset HOME XDG_CACHE_HOME; mirror sync site target --layout packed; mirror sync site target; mirror sync site target -q"
    )
    done = shell(script)
    assert done.code == 0
    assert done.err.count("note: nothing is kept on this host for the next run (HOME is not set)") == 2
    assert done.err.splitlines()[0].startswith("sync ")
