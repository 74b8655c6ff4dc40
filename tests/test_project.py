"""The house rules, the sample site, and the scripts: what holds for the project as a whole rather than for one module."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote_to_bytes, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "mirror").rglob("*.py"))
SCRIPTS = ("examples/quickstart.sh", "tests/run.sh", ".ci/run")

MAX_MODULE, MAX_FUNCTION = 600, 100
FORBIDDEN = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "constants",
    "types",
    "base",
    "manager",
    "repository",
    "registry",
    "engine",
}
HEAVY = ("boto3", "botocore", "fsspec", "obstore", "numpy", "tqdm")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def load(script: str) -> ModuleType:
    """One of the examples, as a module."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / "examples" / script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(*command: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """A command with its output; `settings` go to subprocess.run."""
    given: dict[str, object] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "backslashreplace"}
    return subprocess.run([str(word) for word in command], **(given | settings), timeout=240, check=False)  # type: ignore[call-overload,no-any-return]


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    assert len(MODULES) > 5
    return {path: ast.parse(path.read_text("utf-8")) for path in MODULES}


# House rules


def test_modules_and_functions_stay_small(trees: dict[Path, ast.Module]) -> None:
    long = [f"{name_of(path)}: {count} lines" for path in MODULES if (count := path.read_text("utf-8").count("\n")) > MAX_MODULE]
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (count := node.end_lineno - node.lineno + 1) > MAX_FUNCTION:  # type: ignore[operator]
                long.append(f"{name_of(path)}:{node.lineno} {node.name}: {count} lines")
    assert long == []


def test_no_module_is_a_drawer() -> None:
    assert [name_of(path) for path in MODULES if FORBIDDEN & {*path.relative_to(ROOT).parent.parts, path.stem}] == []


def uses(tree: ast.Module, module: str, names: set[str]) -> Iterator[int]:
    """The lines where `module.name` or `from module import name` stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == module and node.attr in names:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == module and names & {alias.name for alias in node.names}:
            yield node.lineno


def test_only_config_reads_the_environment(trees: dict[Path, ast.Module]) -> None:
    names = {"environ", "environb", "getenv", "getenvb", "putenv"}
    found = [f"{name_of(path)}:{line}" for path, tree in trees.items() for line in uses(tree, "os", names)]
    assert [where for where in found if not where.startswith("mirror/config.py:")] == []


def test_only_the_command_line_prints_or_exits(trees: dict[Path, ast.Module]) -> None:
    found = []
    for path, tree in trees.items():
        if name_of(path).startswith("mirror/cli") or path.name == "__main__.py":
            continue
        lines = [*uses(tree, "sys", {"exit"}), *uses(tree, "typer", {"echo", "secho", "Exit"})]
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in {"print", "exit", "quit", "SystemExit"}
            ):
                lines.append(node.lineno)
        found += [f"{name_of(path)}:{line}" for line in lines]
    assert found == []


def test_what_is_public_says_what_it_is(trees: dict[Path, ast.Module]) -> None:
    silent = []
    for path, tree in trees.items():
        opening = ast.get_docstring(tree) or ""
        if not opening and tree.body:
            silent.append(name_of(path))
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            # The tree at the top of errors.py describes every error in one place.
            if not ast.get_docstring(node) and not (path.name == "errors.py" and f"─ {node.name} " in opening):
                silent.append(f"{name_of(path)}:{node.lineno} {node.name}")
            if isinstance(node, ast.ClassDef) and any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases):
                methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
                silent += [
                    f"{name_of(path)}:{each.lineno} {node.name}.{each.name}" for each in methods if not ast.get_docstring(each)
                ]
    assert silent == []


def committed() -> list[Path]:
    """The files of the project: what git knows, or (in an unpacked archive) what is there."""
    if (ROOT / ".git").exists():
        listed = run("git", "-c", f"safe.directory={ROOT}", "-C", ROOT, "ls-files", "-z")
        assert listed.returncode == 0, listed.stderr
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not any(part.startswith(".venv") for part in path.parts)]


def test_nothing_names_a_developers_machine() -> None:
    places = re.compile(rb"(?<![\w.])/(?:work|tmp/w|home/(?!runner\b)[a-z]+)/")
    found = [f"{name_of(path)}: {match[0].decode()}" for path in committed() if (match := places.search(path.read_bytes()))]
    assert found == []


@pytest.mark.parametrize(
    "code",
    ["import mirror", "from mirror.cli import main\ntry: main()\nexcept SystemExit as done: assert not done.code"],
    ids=["import", "version"],
)
def test_start_up_loads_no_cloud_library(code: str) -> None:
    done = run(
        sys.executable, "-W", "error", "-c", f"import sys\n{code}\nprint([n for n in {HEAVY!r} if n in sys.modules])", cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_command_says_its_version() -> None:
    import mirror

    done = run(Path(sys.executable).with_name("mirror"), "--version")
    assert (done.returncode, done.stdout.split()[-1]) == (0, mirror.__version__)


# The sample site


@pytest.fixture(scope="module")
def wrote(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the generator says of the site that it wrote."""
    done = run(sys.executable, ROOT / "examples/make_site.py", tmp_path_factory.mktemp("sample") / "site")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(wrote: str) -> Path:
    return Path(wrote.split(" in ")[-1].strip())


class Hrefs(HTMLParser):
    """The targets of a page's links, styles, scripts and images."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("href", "src") and value]


def internal_links(site: Path) -> Iterator[tuple[bytes, str, bytes]]:
    """(page, link, the path it leads to) of every link that stays within the site."""
    for path in site.rglob("*.html"):
        if not path.is_symlink():
            page = Hrefs()
            page.feed(path.read_text("utf-8"))
            for link in page.found:
                parts = urlsplit(link)
                if not parts.scheme:
                    yield os.fsencode(path), link, os.path.join(os.fsencode(path.parent), unquote_to_bytes(parts.path))
    for name in ("sitemap.xml", "feed.xml"):
        for element in ET.parse(site / name).iter():
            link = (
                element.get("href", "")
                if element.tag.endswith("}link")
                else (element.text or "" if element.tag.endswith("}loc") else "")
            )
            if link.startswith("https://harbour.example/"):
                yield os.fsencode(site / name), link, os.fsencode(site) + unquote_to_bytes(urlsplit(link).path)


def test_every_link_of_the_sample_site_leads_somewhere(site: Path) -> None:
    every = list(internal_links(site))
    assert len(every) > 4000
    assert [(page, link) for page, link, path in every if not os.path.exists(path)] == []


def test_the_sample_site_is_the_same_on_every_run(site: Path, tmp_path: Path) -> None:
    environment = {"PATH": os.defpath, "TZ": "Pacific/Auckland", "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    again = tmp_path / "again"
    done = run(sys.executable, "-I", ROOT / "examples/make_site.py", again, env=environment, cwd="/", umask=0o077)
    assert done.returncode == 0, done.stderr
    compared = run(sys.executable, "-I", ROOT / "examples/compare.py", site, again)
    assert (compared.returncode, compared.stdout.split(":")[0]) == (0, "identical")


def test_another_seed_gives_another_site() -> None:
    make_site = load("make_site.py")
    assert make_site.lights(1) == make_site.lights(1) != make_site.lights(2)
    assert make_site.Dice(1, "soundings").noise(64) != make_site.Dice(2, "soundings").noise(64)


def test_the_sample_site_counts_what_it_wrote(wrote: str, site: Path) -> None:
    kinds = [(name, os.lstat(os.path.join(folder, name))) for folder, folders, files in os.walk(site) for name in folders + files]
    files = [(name, status) for name, status in kinds if stat.S_ISREG(status.st_mode)]
    pages = sum(name.endswith(".html") for name, _ in files)
    links = sum(stat.S_ISLNK(status.st_mode) for _, status in kinds)
    folders = sum(stat.S_ISDIR(status.st_mode) for _, status in kinds)
    size = sum(status.st_size / status.st_nlink for _, status in files)
    expected = (
        f"wrote {pages} pages, {len(files) - pages} other files, {links} links, {folders} folders, {size / (1 << 20):.1f} MiB"
    )
    assert wrote.startswith(expected)
    assert wrote.count("\n") == 1
    assert pages >= 300


def test_the_sample_site_has_what_sites_have(site: Path) -> None:
    odd = site / "odd"
    names = set(os.listdir(os.fsencode(odd)))
    assert {b"a name with spaces.txt", b"-n", b".hidden", b"line\nbreak.txt", b"back\\slash.txt"} <= names
    if sys.platform == "linux":  # elsewhere filesystems refuse these, and the generator says so
        assert {
            "caf\u00e9.txt".encode(),
            "cafe\u0301.txt".encode(),
            b"latin-1 na\xefve caf\xe9.txt",
            b"Case.txt",
            b"case.txt",
        } <= names
    assert max(map(len, names)) == 255
    assert (site / "downloads/soundings.bin").stat().st_size == 24 << 20
    assert (odd / "empty").stat().st_size == 0
    assert os.listdir(odd / "empty folder") == []
    assert (odd / "first name.txt").samefile(odd / "second name.txt")
    assert (odd / "to-a-page.html").is_symlink()
    assert (odd / "to-a-page.html").exists()
    assert (odd / "broken").is_symlink()
    assert not (odd / "broken").exists()
    assert stat.S_IMODE((odd / "run-me.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((odd / "read-only.txt").stat().st_mode) == 0o444
    sparse = (odd / "sparse.img").stat()
    assert sparse.st_blocks * 512 < sparse.st_size
    assert (odd / "before 1970.txt").stat().st_mtime_ns < 0
    assert {path.suffix for path in site.rglob("*.*")} >= {".html", ".css", ".js", ".svg", ".png", ".xml", ".json", ".txt", ".csv"}
    for drawing in site.rglob("*.svg"):
        ET.parse(drawing)


def test_the_sample_site_never_goes_over_something(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = run(sys.executable, ROOT / "examples/make_site.py", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is there already" in done.stderr
    assert os.listdir(tmp_path) == ["mine"]


EDITS = {
    "content": (lambda top: (top / "page").write_text("pagf"), "page: other content"),
    "time": (lambda top: os.utime(top / "page", ns=(1, 2)), "page: time"),
    "mode": (lambda top: (top / "page").chmod(0o600), "page: mode"),
    "gone": (lambda top: (top / "page").unlink(), "page: only in"),
    "new": (lambda top: (top / "folder/new").touch(), "folder/new: only in"),
    "kind": (lambda top: ((top / "empty").rmdir(), (top / "empty").touch()), "empty: of another kind"),
    "link": (lambda top: ((top / "link").unlink(), (top / "link").symlink_to("elsewhere")), "link: points elsewhere"),
    "hard link": (lambda top: ((top / "two").unlink(), shutil.copy2(top / "one", top / "two")), "two: hard links differ"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_the_second_opinion_sees_every_difference(edit: str, tmp_path: Path) -> None:
    compare = load("compare.py")
    for top in (tmp_path / "a", tmp_path / "b"):
        (top / "folder").mkdir(parents=True)
        (top / "empty").mkdir()
        (top / "page").write_text("page")
        (top / "one").write_text("one")
        os.link(top / "one", top / "two")
        (top / "link").symlink_to("nowhere")
        for path in [*top.rglob("*"), top]:
            os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    a, b = (os.fsencode(tmp_path / name) for name in "ab")
    assert list(compare.differences(a, b)) == []
    change, expected = EDITS[edit]
    change(tmp_path / "b")
    found = list(compare.differences(a, b))
    assert any(line.startswith(expected) for line in found), found


# The scripts


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_can_be_started(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert run("bash", "-n", ROOT / script).returncode == 0
    assert "set -euo pipefail" in (ROOT / script).read_text("utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Another checkout, in a folder whose name has a space and a quote."""
    top = tmp_path / "someone's check out"
    for name in ("examples", ".ci", "tests/run.sh", "tests/no_skips.py", "pyproject.toml"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, top / name)
    return top


def test_quickstart(checkout: Path, tmp_path: Path) -> None:
    """From any folder, without HOME, beside spaces; leaves nothing; says what it does."""
    demo = tmp_path / "a demo"
    demo.mkdir()
    environment = {
        "PATH": os.defpath,
        "MIRROR_DEMO_DIR": str(demo),
        "MIRROR_DEMO_VENV": sys.prefix,
        "MIRROR_MAX_DELETE": "nonsense",
    }
    done = run("bash", checkout / "examples/quickstart.sh", env=environment, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nidentical: " in done.stdout
    assert os.listdir(demo) == []
    lines = done.stdout.splitlines()
    commands = [line for line in lines if line.startswith("$ mirror ")]
    assert [line.split()[2] for line in commands] == ["sync", "sync", "diff", "snapshots", "restore", "verify", "sync"]
    explained = [lines[i - 1].startswith(("# ", "$ ")) for i, line in enumerate(lines) if line.startswith("$ ")]
    assert all(explained)
    moved = lines[lines.index("$ mirror diff www 2 4") :]
    for path, symbol in {"about.html": "*", "news/storm.html": "+", "odd/empty": "-", "downloads/soundings.bin": "*"}.items():
        assert any(line.startswith(symbol) and path in line for line in moved), path
    assert any(line.startswith(">") and "news/archive/" in line for line in moved)


def test_quickstart_keeps_its_folder_when_asked(checkout: Path, tmp_path: Path) -> None:
    environment = {"PATH": os.defpath, "TMPDIR": str(tmp_path), "MIRROR_DEMO_VENV": sys.prefix, "MIRROR_KEEP": "1"}
    done = run("bash", checkout / "examples/quickstart.sh", env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = tmp_path.glob("mirror-quickstart.*")
    assert f"Kept: {kept.resolve()}" in done.stdout
    assert (kept / "www/.mirror/mirror.json").is_file()
    assert (kept / "backup/mirror.json").is_file()


def fake_python(folder: Path, body: str) -> dict[str, str]:
    """An environment in which every Python is a shell script; the few tools that the scripts need are there."""
    folder.mkdir()
    for tool in ("bash", "dirname", "basename", "cat", "sed", "env"):
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    for name in ("python3", "python"):
        (folder / name).write_text(f"#!{shutil.which('bash')}\n{body}\n")
        (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


@pytest.mark.parametrize("script", ["examples/quickstart.sh", "tests/run.sh"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("exit 1", "no Python 3.11 or newer found; install one, or say where it is with PYTHON=/path/to/python3"),
        (f'[[ "$*" == *ensurepip* ]] && exit 1\nexec {shlex.quote(sys.executable)} "$@"', "python3 has no ensurepip"),
    ],
    ids=["old", "ensurepip"],
)
def test_scripts_say_what_to_install(script: str, body: str, message: str, checkout: Path, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash
    done = run(bash, checkout / script, env=fake_python(tmp_path / "bin", body))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


SKIPPERS = {
    "call": "import pytest\ndef test_it():\n    pytest.skip('no reason')\n",
    "mark": "import pytest\n@pytest.mark.skip(reason='no reason')\ndef test_it():\n    pass\n",
    "fixture": "import pytest\n@pytest.fixture\ndef it():\n    pytest.skip('no reason')\ndef test_it(it):\n    pass\n",
    "module": "import pytest\npytest.skip('no reason', allow_module_level=True)\n",
}
HARMLESS = "import pytest\n@pytest.mark.xfail\ndef test_it():\n    assert False\ndef test_fine():\n    pass\n"


def test_in_ci_a_skip_is_a_failure(tmp_path: Path) -> None:
    for name, text in SKIPPERS.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    (tmp_path / "test_harmless.py").write_text(HARMLESS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    pytest_run = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors", tmp_path)
    environment = dict(os.environ, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    lenient = run(*pytest_run, cwd=ROOT, env=environment)
    assert "1 passed, 4 skipped, 1 xfailed" in lenient.stdout
    strict = run(*pytest_run, "-p", "tests.no_skips", cwd=ROOT, env=environment)
    assert strict.returncode == 1
    assert strict.stdout.count("nothing may be skipped in CI: ") >= 4
    assert all(f"test_{name}.py" in strict.stdout for name in SKIPPERS)
    assert " skipped" not in strict.stdout.splitlines()[-1]
    assert "1 passed, 1 xfailed" in strict.stdout
