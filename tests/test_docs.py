"""The README and docs/ are true: links lead somewhere, files and flags that are mentioned exist, commands do what is shown.

In the documents:

    ```console
    $ mirror sync site full --layout packed     a command; it must exit 0
    $ mirror sync empty full  # exits 3         or as it says
    first line of the output                    what is shown must be there: `...` alone stands for any lines,
    sent ... files                              within a line for any text
    ```

    <!-- $ rm -r site -->                       a command that readers need not see

A `python` block is a command as well. A document's commands run in order, in one folder of their own that holds the sample site
as `site`. What is only to be read or takes long stands in a `sh` or `text` block. The bucket `my-backups` is a fresh one on a
real S3 server, and `https://backup.example.org/` is a web server that gives the files of that folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from webservers import python_server

from mirror import errors, events

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
VERBS = ("init", "sync", "restore", "rollback", "verify", "snapshots", "diff", "ls", "cat", "sums", "filter-test")


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Command:
    """One command of a document: its line, what it exits with, and the output that is shown (empty: none is)."""

    line: int
    text: str
    exits: int
    shown: tuple[str, ...]


def commands(text: str) -> list[Command]:
    """The commands of a document, in order."""
    found: list[Command] = []
    inside = False
    script: list[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if script is not None:
            script.append(line)
            if line == "```":
                found.append(Command(number - len(script), "\n".join(["python - <<'```'", *script]), 0, ()))
                script = None
            continue
        if line == "```python":
            script = []
        hidden = re.fullmatch(r"<!-- \$ (.+) -->", line)
        if line.startswith("```"):
            inside = line == "```console"
        elif hidden or (inside and line.startswith("$ ")):
            command, _, exits = (hidden[1] if hidden else line[2:]).partition("  # exits ")
            found.append(Command(number, command, int(exits or 0), ()))
        elif inside:
            last = found.pop()
            found.append(Command(last.line, last.text, last.exits, (*last.shown, line)))
    return found


def matches(shown: tuple[str, ...], output: str) -> bool:
    """Whether the output is what is shown."""
    pattern = "".join("(?:.*\n)*" if line == "..." else ".*".join(map(re.escape, line.split("..."))) + "\n" for line in shown)
    return re.fullmatch(pattern, output) is not None


def prose(text: str) -> str:
    """A document without its blocks and comments."""
    return re.sub(r"<!--.*?-->", "", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), flags=re.S)


def anchors(path: Path) -> set[str]:
    """What `#...` may name: the headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text("utf-8")), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_commands_are_found() -> None:
    text = "```console\n$ ls x  # exits 2\nls: ...\n$ a\n```\n```sh\n$ not me\n```\n<!-- $ rm y -->\n```python\nprint(1)\n```\n"
    python = Command(10, "python - <<'```'\nprint(1)\n```", 0, ())
    assert commands(text) == [Command(2, "ls x", 2, ("ls: ...",)), Command(4, "a", 0, ()), Command(9, "rm y", 0, ()), python]


@pytest.mark.parametrize(
    ("shown", "output", "same"),
    [
        (("a", "..."), "a\n", True),
        (("a", "..."), "a\nb\nc\n", True),
        (("a",), "a\nb\n", False),
        (("a ... c",), "a bb c\n", True),
        (("a ... c",), "a b\nc\n", False),
        (("(1+1)",), "(1+1)\n", True),
    ],
)
def test_output_is_compared(shown: tuple[str, ...], output: str, same: bool) -> None:
    assert matches(shown, output) is same


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        to = path.parent / name if name else path
        if not to.exists() or (anchor and anchor not in anchors(to)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_files_that_are_mentioned_exist(path: Path) -> None:
    mentioned = re.findall(r"`(?:\./)?((?:mirror|tests|docs|examples|\.ci)/[\w./-]*)`", path.read_text("utf-8"))
    assert [name for name in mentioned if not (ROOT / name).exists()] == []


def test_every_layer_is_explained() -> None:
    """The table in the design has the layers that are checked, from top to bottom."""
    text = (ROOT / "docs/design.md").read_text("utf-8")
    rows = re.findall(r"^\| [\w ]+ \| (`[^|]+) \|", text[text.index("## Shape of the code") :], flags=re.M)
    told = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["name"] == "layers")
    checked = [sorted(re.findall(r"\w+", layer)) for layer in layers]
    assert sorted(told) == sorted(name for layer in checked for name in layer if name != "__main__")
    rank = {name: i for i, layer in enumerate(checked) for name in layer}
    assert [rank[name] for name in told] == sorted(rank[name] for name in told)


def test_exit_codes_are_the_codes() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, flags=re.M)}
    raised = {each.exit_code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.MirrorError)}
    assert listed == {0} | raised | set(events.PROBLEM_KINDS.values())
    assert ", ".join(map(str, errors.EXIT_ORDER)) in re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def tools() -> str:
    """A PATH that finds this environment's `mirror` first."""
    beside = Path(sys.executable).parent
    assert (beside / "mirror").exists(), "the project is not installed in this environment; use tests/run.sh"
    return f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}"


def test_flags_that_are_mentioned_exist(tools: str) -> None:
    known = set()
    for verb in VERBS:
        done = subprocess.run(
            ["mirror", verb, "--help"],
            env={"PATH": tools, "COLUMNS": "300", "TERM": "dumb"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        known |= set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", done.stdout))
    unknown = []
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        uses = [line for line in text.splitlines() if re.search(r"(?<![/\w])mirror [a-z-]+ ", line) and "`" not in line]
        uses += re.findall(r"`(-[^`]+)`", text)
        unknown += [
            f"{ids(path)}: {flag}" for use in uses for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", use) if flag not in known
        ]
    assert unknown == []


@pytest.fixture
def running() -> Iterator[ExitStack]:
    """For servers that end with the test."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if commands(path.read_text("utf-8"))], ids=ids)
def test_commands_do_what_is_shown(path: Path, tools: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text("utf-8")
    environment = {"PATH": tools, "LANG": "C.UTF-8", "MIRROR_CACHE_DIR": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    bucket = "my-backups"
    if f"s3://{bucket}/" in text:
        server = request.getfixturevalue("seaweed")
        bucket = server.new_bucket()
        environment |= {
            "AWS_ENDPOINT_URL": server.endpoint_url,
            "AWS_ACCESS_KEY_ID": server.admin.access_key,
            "AWS_SECRET_ACCESS_KEY": server.admin.secret_key,
            "AWS_REGION": server.region,
        }
    here = tmp_path / "here"
    here.mkdir()
    subprocess.run([sys.executable, ROOT / "examples/make_site.py", "site"], cwd=here, check=True, capture_output=True)
    bash = shutil.which("bash")
    assert bash
    web = "https://backup.example.org"
    if f"{web}/" in text:
        web = request.getfixturevalue("running").enter_context(python_server(here))
    for command in commands(text):
        line = command.text.replace("s3://my-backups/", f"s3://{bucket}/").replace("https://backup.example.org", web)
        done = subprocess.run(
            [bash, "-c", line],
            cwd=here,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="backslashreplace",
            timeout=120,
            check=False,
        )
        where = f"{ids(path)}:{command.line}: {line}"
        assert done.returncode == command.exits, f"{where}\nexited {done.returncode}, not {command.exits}:\n{done.stdout}"
        assert not command.shown or matches(command.shown, done.stdout), f"{where}\nprinted something else:\n{done.stdout}"
