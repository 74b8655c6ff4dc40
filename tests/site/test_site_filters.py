"""What the rules let in: tables, and gitignore against git itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from mirror.errors import UsageError
from mirror.site import Excluded, Filter, Found, filters
from mirror.site.files import FolderSite
from mirror.site.filters import Matcher, parse_rules

PAGES = (("include", "*.html"), ("exclude", "*"))


@pytest.mark.parametrize(
    ("rules", "path", "rule"),
    [
        ((("exclude", "*.log"),), b"a.log", "- *.log"),
        ((("exclude", "*.log"),), b"deep/down/a.log", "- *.log"),
        ((("exclude", "/*.log"),), b"deep/a.log", ""),
        ((("exclude", "*.log"),), b"a.logs", ""),
        ((("exclude", "build/"),), b"build/", "- build/"),
        ((("exclude", "build/"),), b"build", ""),
        ((("exclude", "a/b"),), b"x/a/b", ""),
        ((("exclude", "**/a/b"),), b"x/a/b", "- **/a/b"),
        ((("exclude", "a/**"),), b"a/", ""),
        ((("exclude", "a/**"),), b"a/x/y", "- a/**"),
        ((("exclude", "?"),), "é".encode(), "- ?"),
        ((("exclude", "?"),), b"\xff", "- ?"),
        ((("exclude", "[a-c].x"),), b"b.x", "- [a-c].x"),
        ((("exclude", "foo"),), b"foo\n", ""),
        ((("exclude", "foo"),), b"a\nb/foo", "- foo"),
        ((("exclude", "FOO"),), b"foo", ""),
        ((("exclude", r"\#x"),), b"#x", r"- \#x"),
        ((("include", "keep.log"), ("exclude", "*.log")), b"keep.log", ""),
        ((("include", "keep.log"), ("exclude", "*.log")), b"drop.log", "- *.log"),
        ((("exclude", "*.log"), ("include", "keep.log")), b"keep.log", "- *.log"),
        (PAGES, b"a/b.html", ""),
        (PAGES, b"a/", "- *"),
        ((("include", "docs/"), ("exclude", "*")), b"docs/x/y", ""),
        ((("include", "*/"), ("include", "*.html"), ("exclude", "*")), b"a/b.css", "- *"),
        ((("include", "*/"), ("include", "*.html"), ("exclude", "*")), b"a/", ""),
    ],
)
def test_rules(rules: tuple[tuple[str, str], ...], path: bytes, rule: str) -> None:
    assert Matcher(Filter(rules)).decide(path) == rule


@pytest.mark.parametrize(
    ("rules", "path", "protected"),
    [
        ((("exclude", "old/"),), b"old/a/b", True),
        ((("exclude", "old/"),), b"old/", True),
        ((("exclude", "old/"),), b"new/a", False),
        (PAGES, b"a/b.css", True),
        (PAGES, b"a/b.html", False),
        (PAGES, b"a/", False),
        ((("include", "old/keep"), ("exclude", "old/")), b"old/keep", False),
        ((), b"a", False),
    ],
)
def test_what_an_older_manifest_keeps(rules: tuple[tuple[str, str], ...], path: bytes, protected: bool) -> None:
    assert Matcher(Filter(rules)).protects(path) is protected


def test_counts_are_kept_per_rule_and_a_folder_that_is_looked_into_is_not_one() -> None:
    matcher = Matcher(Filter(PAGES))
    for path in (b"a/", b"a/b.css", b"a/c.css", b"a/d.html"):
        matcher.decide(path)
    assert matcher.counts == {"- *": 2}
    assert matcher.protects(b"a/b.css")
    assert matcher.counts == {"- *": 2}


def test_without_rules_nothing_is_asked() -> None:
    matcher = Matcher(Filter())
    assert not matcher.active
    matcher.enter(b"a/", b"*.log\n")
    assert matcher.active
    matcher.leave()
    assert not matcher.active


@pytest.mark.parametrize("pattern", ["", "# comment", "!x", "/", "[z-a]", "[a"])
def test_a_pattern_that_can_match_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        Matcher(Filter((("exclude", pattern),)))


def test_a_verb_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="keep"):
        Matcher(Filter((("keep", "x"),)))


def test_a_filter_file_is_read_line_by_line() -> None:
    text = "# what we keep\n\n+ *.html\n+  img/ \n- *\n"
    assert parse_rules(text, "f") == (
        ("include", "*.html", "f line 3"),
        ("include", "img/", "f line 4"),
        ("exclude", "*", "f line 5"),
    )


@pytest.mark.parametrize("line", ["*.html", "+*.html", "-", "! x", "+ ", "include x", "- !x"])
def test_a_bad_line_is_named_with_its_number(line: str) -> None:
    with pytest.raises(UsageError, match=r"site\.filter line 3"):
        parse_rules(f"# one\n- two\n{line}\n", "site.filter")


def plant(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def scanned(root: Path, *rules: tuple[str, str]) -> tuple[list[bytes], dict[bytes, str]]:
    """(paths let in without the root, excluded path → rule); asserts the order."""
    seen = list(FolderSite(str(root), filter=Filter(rules)).scan())
    assert [here.path for here in seen] == sorted({here.path for here in seen})
    found = [here.path for here in seen if isinstance(here, Found)]
    return found[1:], {here.path: here.rule for here in seen if isinstance(here, Excluded)}


def test_an_excluded_folder_stands_for_everything_below(tmp_path: Path) -> None:
    plant(tmp_path, {"build/a/b": "", "build/c": "", "x": ""})
    assert scanned(tmp_path, ("exclude", "build/")) == ([b"x"], {b"build/": "- build/"})


def test_folders_come_with_the_pages_they_hold_and_only_then(tmp_path: Path) -> None:
    plant(tmp_path, {"a/0.css": "", "a/b/c.html": "", "a/z.css": "", "e/f/g.css": "", "e/h.css": "", "i.html": "", "j.css": ""})
    (tmp_path / "empty").mkdir()
    found, excluded = scanned(tmp_path, *PAGES)
    assert found == [b"a/", b"a/b/", b"a/b/c.html", b"i.html"]
    assert set(excluded) == {b"a/0.css", b"a/z.css", b"e/f/g.css", b"e/h.css", b"j.css"}


def test_ignore_files_nest_and_the_deeper_one_decides(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            ".mirrorignore": "# logs\n*.log\n/only-root\nbuild/\n!important.log\n",
            "a.log": "",
            "important.log": "",
            "only-root": "",
            "build/x": "",
            "sub/.mirrorignore": "!a.log\n*.tmp\n!build/\n",
            "sub/a.log": "",
            "sub/b.log": "",
            "sub/b.tmp": "",
            "sub/only-root": "",
            "sub/build/y": "",
            "z.tmp": "",
        },
    )
    found, excluded = scanned(tmp_path)
    assert found == [b".mirrorignore", b"important.log", b"sub/", b"sub/.mirrorignore", b"sub/a.log", b"sub/build/", b"sub/build/y",
                     b"sub/only-root", b"z.tmp"]  # fmt: skip
    assert excluded == {
        b"a.log": ".mirrorignore: *.log",
        b"build/": ".mirrorignore: build/",
        b"only-root": ".mirrorignore: /only-root",
        b"sub/b.log": ".mirrorignore: *.log",
        b"sub/b.tmp": "sub/.mirrorignore: *.tmp",
    }


def test_rules_of_the_run_come_before_ignore_files(tmp_path: Path) -> None:
    plant(tmp_path, {".mirrorignore": "*.log\n", "a.log": "", "b.log": ""})
    found, excluded = scanned(tmp_path, ("include", "a.log"))
    assert found == [b".mirrorignore", b"a.log"]
    assert excluded == {b"b.log": ".mirrorignore: *.log"}


def test_ignore_files_can_be_left_alone(tmp_path: Path) -> None:
    plant(tmp_path, {".mirrorignore": "*\n", "a": ""})
    seen = FolderSite(str(tmp_path), filter=Filter(ignore_files=False)).scan()
    assert [here.path for here in seen] == [b"", b".mirrorignore", b"a"]


@pytest.mark.parametrize("how", ["link", "fifo", "large"])
def test_a_folder_whose_ignore_file_cannot_be_read_is_not_taken(tmp_path: Path, how: str) -> None:
    plant(tmp_path, {"sub/a": "", "z": ""})
    place = tmp_path / "sub" / ".mirrorignore"
    if how == "link":
        place.symlink_to("/etc/passwd")
    elif how == "fifo":
        os.mkfifo(place)
    else:
        place.write_bytes(b"#" * (1 << 20) + b"\n")
    seen = list(FolderSite(str(tmp_path)).scan())
    assert [(here.path, getattr(here, "kind", "")) for here in seen] == [
        (b"", "folder"), (b"sub/", "folder"), (b"sub/", "incomplete"), (b"z", "file")]  # fmt: skip


NAMES = st.sampled_from(["a", "b", "a.x", "b.x", "ab"])
LINES = st.sampled_from(
    [
        "a",
        "b/",
        "*.x",
        "!a",
        "!b/",
        "/a",
        "a/b",
        "**/b",
        "a/**",
        "*",
        "!*/",
        "!*.x",
        "?",
        "[ab]",
        "a*",
        "!a/b",
        "/*",
        "!/a",
        "# a",
        "",
    ]
)


@settings(deadline=None)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=8), st.lists(LINES, max_size=5), st.lists(LINES, max_size=3))
def test_gitignore_means_what_git_says(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[str]], outer: list[str], inner: list[str]
) -> None:
    check_against_git(tmp_path_factory.mktemp("git"), ["/".join(parts) for parts in files], outer, inner)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        (["*", "!*/", "!*.x"], []),
        (["*.x", "!b.x"], ["!a.x"]),
        (["a/**", "!a/b"], []),
        (["/*", "!/a"], []),
        (["b/"], ["!b/"]),
        (["a/b", "**/ab", "?"], ["/b"]),
    ],
)
def test_gitignore_examples(tmp_path: Path, outer: list[str], inner: list[str]) -> None:
    check_against_git(tmp_path, ["a/b/a.x", "a/a.x", "a/b.x", "a/ab", "b/a.x", "b/b", "ab", "b.x", "a/c/b/z"], outer, inner)


def check_against_git(root: Path, files: list[str], outer: list[str], inner: list[str]) -> None:
    made = set()
    for name in files:
        place = root / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("")
            made.add(name)
        except OSError:  # the name is a folder already, or a folder's a file
            continue
    for folder, lines in ((root, outer), (root / "a", inner)):
        if folder.is_dir():
            for name in (".mirrorignore", ".gitignore"):
                (folder / name).write_text("".join(f"{line}\n" for line in lines))
    ours = {here.path.decode() for here in FolderSite(str(root)).scan() if isinstance(here, Found)} & made
    git = ["git", "-c", "core.excludesFile=", "-c", "safe.directory=*"]
    subprocess.run([*git, "init", "-q", "."], cwd=root, check=True)
    listed = subprocess.run([*git, "ls-files", "-zo", "--exclude-standard"], cwd=root, check=True, capture_output=True).stdout
    assert ours == set(listed.decode().split("\0")) & made


@pytest.mark.parametrize("rule", ["/.mirror", "/a", "/a-b_c.d", "/x.", "/..", "/a*", "/a/", "/a/b", "a", "/", "/a b"])
def test_the_short_way_to_a_pattern_gives_what_pathspec_gives(rule: str) -> None:
    regex, _ = GitIgnoreSpecPattern.pattern_to_regex(rule)
    compiled = filters._compile(rule, rule)
    ours = compiled and compiled.regex.pattern.removesuffix(r"|\Z)")
    assert ours == (regex and str(regex).removesuffix("|$)"))


TOP = [
    ((("exclude", "/a"),), False),
    ((("exclude", "/a"), ("exclude", "/.mirror")), False),
    ((("include", "/a"), ("exclude", "/b")), True),
    ((("exclude", "/a/b"),), True),
    ((("exclude", "a"),), True),
    ((("exclude", "/a*"),), True),
]


@pytest.mark.parametrize(("rules", "below"), TOP)
def test_rules_for_names_of_the_root_are_not_asked_below_it(rules: tuple[tuple[str, str], ...], below: bool) -> None:
    matcher = Matcher(Filter(rules))
    assert matcher.is_active_in(b"")
    assert matcher.is_active_in(b"folder/") is below
    matcher.enter(b"folder/", b"*.tmp\n")
    assert matcher.is_active_in(b"folder/sub/")
    matcher.leave()
    assert matcher.is_active_in(b"folder/sub/") is below
    assert not Matcher(Filter()).is_active_in(b"")


def test_a_rule_for_a_name_of_the_root_leaves_that_one_out_alone(tmp_path: Path) -> None:
    for name in ("a/x", "b/a/x", "b/.mirror/x", ".mirror/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = FolderSite(str(tmp_path), filter=Filter((("exclude", "/.mirror"), ("exclude", "/a")))).scan()
    assert [seen.path for seen in found if isinstance(seen, Found)] == [
        b"",
        b"b/",
        b"b/.mirror/",
        b"b/.mirror/x",
        b"b/a/",
        b"b/a/x",
    ]
