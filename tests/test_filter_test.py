"""`mirror filter-test`: which rule decides on a path. The truth is what a sync of the same tree with the same rules takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import S3
from drive import cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mirrors import write

from mirror.events import Job
from mirror.explain import Verdict, explain
from mirror.site import Excluded, Filter, Found, SiteSpec
from mirror.site.files import FolderSite
from mirror.site.filters import IGNORE_FILE, Placed


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(*arguments: object) -> list[str]:
    done = cli("filter-test", *arguments)
    assert (done.code, done.err) == (0, ""), done
    return done.out.splitlines()


def test_each_path_has_its_rule(here: Path) -> None:
    (here / "rules").write_text("# styles\n+ *.css\n- css/\n")
    told = lines("--exclude", "*.tmp", "--filter-from", "rules", "--exclude=.git/", "a.tmp", "css/a.css", "css/b.js",
                 "x/.git/config", "index.html", ".git", "./", "/a.tmp", "./a.tmp")  # fmt: skip
    assert told == [
        "out  a.tmp: - *.tmp (rule option 1 (--exclude))",
        "in   css/a.css: + *.css (rules line 2)",
        "out  css/b.js: - css/ (rules line 3)",
        "out  x/.git/config: - .git/ (rule option 3 (--exclude))",
        "in   index.html: no rule",
        "in   .git: no rule",
        "in   ./: no rule",
        "out  a.tmp: - *.tmp (rule option 1 (--exclude))",
        "out  a.tmp: - *.tmp (rule option 1 (--exclude))",
    ]


def test_a_folder_that_is_left_out_takes_all_with_it() -> None:
    assert lines("--exclude", "build/", "--include", "*.html", "build", "build/", "build/a.html", "build/b/c.html") == [
        "in   build: no rule",
        "out  build/: - build/ (rule option 1 (--exclude))",
        "out  build/a.html: build/ is left out by - build/ (rule option 1 (--exclude))",
        "out  build/b/c.html: build/ is left out by - build/ (rule option 1 (--exclude))",
    ]


def test_a_folder_that_is_looked_into_all_the_same() -> None:
    assert lines("--include", "*.html", "--exclude", "*", "a/", "a/b.html", "a/b.css") == [
        "out  a/: - * (rule option 2 (--exclude)), but it is looked into and comes with what is let in below it",
        "in   a/b.html: + *.html (rule option 1 (--include))",
        "out  a/b.css: - * (rule option 2 (--exclude))",
    ]


def test_ignore_files_count_with_their_site(here: Path) -> None:
    write(here / "site/.mirrorignore", b"# rubbish\n*.log\n/build/\n")
    write(here / "site/a/.mirrorignore", b"!keep.log\nb/\n")
    paths = ("x.log", "a/x.log", "a/keep.log", "a/b/keep.log", "build/", "build/a", "a/build/")
    assert lines(*paths) == [f"in   {path}: no rule" for path in paths]
    assert lines("--source", "site", "--include", "/x.log", *paths) == [
        "in   x.log: + /x.log (rule option 1 (--include))",
        "out  a/x.log: *.log (.mirrorignore line 2)",
        "in   a/keep.log: !keep.log (a/.mirrorignore line 1)",
        "out  a/b/keep.log: a/b/ is left out by b/ (a/.mirrorignore line 2)",
        "out  build/: /build/ (.mirrorignore line 3)",
        "out  build/a: build/ is left out by /build/ (.mirrorignore line 3)",
        "in   a/build/: no rule",
    ]


def test_ignore_files_count_below_their_folder_only(here: Path) -> None:
    write(here / "site/a/.mirrorignore", b"*.log\n- b/\n")
    assert lines("a/x.log", "b/x.log", "x.log", "--source", "site") == [
        "out  a/x.log: *.log (a/.mirrorignore line 1)",
        "in   b/x.log: no rule",
        "in   x.log: no rule",
    ]
    told = lines("a/- b/c", "--source", "site", "--include", "*.html", "--exclude", "b/")
    assert told == ["out  a/- b/c: a/- b/ is left out by - b/ (a/.mirrorignore line 2)"], "a pattern that reads like a rule is none"


def test_rules_of_variables_and_of_a_named_mirror(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(here / "site/.mirrorignore", b"*.log\n")
    (here / "mirror.toml").write_text("[mirrors.docs]\nsource = 'site'\nexclude = [\n'*.tmp', '*.bak']\n")
    assert lines("a.bak", "a.log", "a.html", "--source", "docs") == [
        "out  a.bak: - *.bak (mirror.toml line 3)",
        "out  a.log: *.log (.mirrorignore line 1)",
        "in   a.html: no rule",
    ]
    assert lines("a.bak", "--source", "./site") == ["in   a.bak: no rule"]
    monkeypatch.setenv("MIRROR_EXCLUDE", "\n*.html\n\n*.bak")
    assert lines("a.bak", "--source", "docs") == ["out  a.bak: - *.bak (MIRROR_EXCLUDE line 4)"]
    assert lines("a.bak", "--source", "docs", "--include", "a.*") == ["in   a.bak: + a.* (rule option 1 (--include))"]
    monkeypatch.setenv("MIRROR_SOURCE", "docs")
    assert lines("a.log") == ["out  a.log: *.log (.mirrorignore line 1)"]


def test_as_json() -> None:
    done = cli("filter-test", "b/", "b/new\nline", b"caf\xe9".decode("utf-8", "surrogateescape"), "--exclude", "b/", "--json")
    started, *found, summary = (json.loads(line) for line in done.out.splitlines())
    rule = {
        "event": "filter",
        "version": 1,
        "included": False,
        "rule": "- b/",
        "place": "rule option 1 (--exclude)",
        "porous": False,
    }
    assert started["event"] == "started"
    assert found == [
        {**rule, "path": "b/", "folder": ""},
        {**rule, "path": "b/new\\nline", "folder": "b/"},
        {**rule, "path": "caf\\xe9", "folder": "", "included": True, "rule": "", "place": ""},
    ]
    assert (summary["paths"], summary["included"], summary["exit_code"]) == (3, 1, 0)


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        ([], 2, "PATH... is missing; try `mirror filter-test --help`"),
        (["a//b"], 2, "cannot ask for a//b: it has an empty component; give paths as `mirror ls` prints them"),
        (["../a"], 2, "cannot ask for ../a: it has the component '..'; give paths as `mirror ls` prints them"),
        (["a", "--exclude", "!x"], 2, "cannot use the filter rule '!x' of rule option 1 (--exclude): it can match nothing; "
                                      "let paths in with an include rule before it"),
        (["a", "--source", "missing"], 3, "cannot read the source {here}/missing: it does not exist; is it mounted?"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(arguments: list[str], code: int, error: str, here: Path) -> None:
    done = cli("filter-test", *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.error == error.format(here=here)


@pytest.mark.parametrize("size", [(1 << 20) + 1, 0])
def test_an_ignore_file_that_a_sync_could_not_use(size: int, here: Path) -> None:
    write(here / "site/a/b.html", b"b")
    if size:
        write(here / "site/a/.mirrorignore", b"#" * size)
    else:
        (here / "site/a/.mirrorignore").symlink_to("/etc/hostname")
    done = cli("filter-test", "a/b.html", "--source", "site")
    assert (done.code, done.out) == (3, "")
    assert done.error.startswith("cannot read a/.mirrorignore: ")
    assert lines("a/", "c", "--source", "site") == ["in   a/: no rule", "in   c: no rule"], "it is not needed for these"


def test_ignore_files_on_s3(s3: S3) -> None:
    for key, body in ((".mirrorignore", b"*.tmp\n"), ("a/.mirrorignore", b"!b.tmp\n"), ("a/b.tmp", b"x")):
        s3.client.put_object(Bucket=s3.bucket, Key=f"{s3.prefix}/www/{key}", Body=body)
    given = ("--source", s3.url("www"), "--endpoint-url", s3.endpoint_url, "--region", s3.region)
    assert lines("a/b.tmp", "a/c.tmp", "d/e", *given) == [
        "in   a/b.tmp: !b.tmp (a/.mirrorignore line 1)",
        "out  a/c.tmp: *.tmp (.mirrorignore line 1)",
        "in   d/e: no rule",
    ]


# -- against a scan

NAMES = st.sampled_from(["a", "b", "c.tmp", "d.html"])
PATTERNS = st.sampled_from(["a", "b/", "/a", "a/b", "*.tmp", "*.html", "*", "*/", "a/**", "**/b", "/a/*", "!a", "c.*"])
RULES = st.lists(st.tuples(st.sampled_from(["include", "exclude"]), PATTERNS.filter(lambda text: text[0] != "!")), max_size=4)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, bytes]:
    """Files by path: some with a `.mirrorignore` beside them."""
    files: dict[str, bytes] = {}
    for parts in draw(st.lists(st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=8)):
        if not any("/".join(parts[:n]) in files for n in range(1, len(parts) + 1)) and not any(
            path.startswith("/".join(parts) + "/") for path in files
        ):
            files["/".join(parts)] = b""
    for folder in draw(st.lists(st.sampled_from(["", *sorted({path[: path.rfind("/") + 1] for path in files})]), max_size=3)):
        files[folder + IGNORE_FILE.decode()] = "\n".join(draw(st.lists(PATTERNS, max_size=3))).encode()
    return files


@given(files=trees(), rules=RULES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_it_says_what_a_scan_does(
    files: dict[str, bytes], rules: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of each path of a tree: what a scan lets in is in, or a folder that came with something; what it leaves out is out by that
    rule; and what it did not look at is below a folder that the same rule leaves out."""
    root = tmp_path_factory.mktemp("tree")
    for path, content in files.items():
        write(root / path, content)
    folders = {path[: end + 1] for path in files for end, letter in enumerate(path) if letter == "/"}
    paths = sorted(path.encode() for path in {*files, *folders})
    filter = Filter(tuple(rules))
    seen = list(FolderSite(str(root), filter=filter).scan())
    found = {here.path for here in seen if isinstance(here, Found)}
    left = {here.path: here.rule for here in seen if isinstance(here, Excluded)}
    placed = [Placed(kind, pattern, f"rule {number}") for number, (kind, pattern) in enumerate(rules)]
    verdicts = dict(zip(paths, explain(paths, placed, SiteSpec(str(root)), Job("filter-test")), strict=True))
    for path, verdict in verdicts.items():
        if path in found:
            assert verdict.included or verdict.porous, (path, verdict)
            assert not verdict.porous or any(other != path and other.startswith(path) for other in found), (path, verdict)
        elif path in left:
            assert not verdict.included
            assert not verdict.folder
            assert as_scanned(verdict) == left[path]
        else:
            assert not verdict.included
            assert verdict.folder or verdict.porous, (path, verdict)
            assert not verdict.folder or as_scanned(verdict) == left[verdict.folder.encode()]


def as_scanned(verdict: Verdict) -> str:
    """A verdict's rule as a scan calls it: one of a `.mirrorignore` with the file's path before it."""
    file, of_file, _ = verdict.place.rpartition(" line ")
    return f"{file}: {verdict.rule}" if of_file else verdict.rule
