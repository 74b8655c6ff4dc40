"""Gets the corpora into a cache folder, once: Debian's `rust-doc`, and five releases of the npm package `next`.

    python tests/corpus/fetch.py [FOLDER]      default: MIRROR_CORPUS_DIR, else .corpus of the checkout

    FOLDER/rust-doc/                 `apt-get download rust-doc`, `dpkg -x`
    FOLDER/next-16.4.4/ …            `npm pack next@16.4.4`, unpacked with the modification times of the archive

A corpus that is there is left alone; one that is half there cannot be: it is unpacked beside its place and renamed. Needs only
the standard library, apt-get, dpkg, npm and tar.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

RELEASES = ("16.4.4", "16.4.5", "16.4.6", "16.5.0-canary.26", "16.5.0-canary.38")


class Missing(Exception):
    """A corpus is not there and could not be had; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Corpora:
    """Where the corpora are. nexts: the releases in their order."""

    rust_doc: Path
    nexts: tuple[Path, ...]


def default_folder() -> Path:
    """MIRROR_CORPUS_DIR, else `.corpus` of the checkout."""
    return Path(os.environ.get("MIRROR_CORPUS_DIR") or Path(__file__).resolve().parents[2] / ".corpus").absolute()


def fetch(folder: Path) -> Corpora:
    """All corpora, fetched if they are not there yet. Raises Missing."""
    folder.mkdir(parents=True, exist_ok=True)
    return Corpora(_rust_doc(folder), tuple(_next(folder, version) for version in RELEASES))


def describe(folder: Path) -> dict[str, str]:
    """What is there: name → files, bytes."""
    found = {}
    for name in ("rust-doc", *(f"next-{version}" for version in RELEASES)):
        files = [Path(where) / each for where, _, names in os.walk(folder / name) for each in names]
        found[name] = f"{len(files):,} files, {sum(file.lstat().st_size for file in files) / 1e6:,.0f} MB"
    return found


def _rust_doc(folder: Path) -> Path:
    place = folder / "rust-doc"
    if place.exists():
        return place
    _need("apt-get", "dpkg", what="rust-doc", hint="it is a package of Debian and Ubuntu")
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as work:
        _run(["apt-get", "download", "rust-doc"], Path(work), hint="is the package list old? try: apt-get update")
        (package,) = Path(work).glob("rust-doc_*.deb")
        unpacked = Path(work) / "unpacked"
        _run(["dpkg", "-x", str(package), str(unpacked)], Path(work))
        unpacked.rename(place)
    return place


def _next(folder: Path, version: str) -> Path:
    place = folder / f"next-{version}"
    if place.exists():
        return place
    _need("npm", "tar", what=f"next@{version}", hint="it is a package of the npm registry")
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as work:
        _run(["npm", "pack", "--silent", f"next@{version}"], Path(work), hint="is the npm registry in reach?")
        _run(["tar", "-xzf", f"next-{version}.tgz", "--no-same-owner"], Path(work))
        (Path(work) / "package").rename(place)
    return place


def _need(*commands: str, what: str, hint: str) -> None:
    for command in commands:
        if not shutil.which(command):
            raise Missing(f"{what}: cannot be fetched without {command}; {hint}; or put it into the corpus folder by hand")


def _run(command: list[str], cwd: Path, hint: str = "") -> None:
    run = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if run.returncode:
        said = (run.stderr or run.stdout).strip().splitlines()[-3:]
        raise Missing(
            f"{' '.join(command)} failed with exit code {run.returncode}: {' / '.join(said)}" + (f"; {hint}" if hint else "")
        )


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    folder = Path(arguments[0]).absolute() if arguments else default_folder()
    try:
        fetch(folder)
    except Missing as missing:
        sys.stderr.write(f"{missing}\n")
        return 1
    sys.stdout.writelines(f"{name}: {what}\n" for name, what in describe(folder).items())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
