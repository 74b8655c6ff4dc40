"""What is sent to a bucket from a site that can only be read from the beginning to the end."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import fsspec
import xxhash
from mirrors import noise

from mirror.manifest import File
from mirror.site import CopyingSite, SiteSpec, Written
from mirror.site.open import open_site
from mirror.site.writing import Description
from mirror.transfer.upload import send_changed


class Whole:
    """Takes whole files, and nothing else."""

    data = b""

    def put(self, path: bytes, size: int, chunks: Iterable[bytes], what: Description, expected: str | None) -> Written:
        self.data = b"".join(chunks)
        return Written("new")


def test_a_changed_file_of_a_site_that_cannot_seek_is_sent_whole() -> None:
    data = noise(100_000)
    with fsspec.open("memory://sent-whole/a.bin", "wb") as stream:
        cast(Any, stream).write(data)
    entry = File(b"a.bin", len(data), xxhash.xxh3_128_digest(data), 0, b"", None)
    out = Whole()
    done = send_changed(
        open_site(SiteSpec("memory://sent-whole")), cast(CopyingSite, out), entry, Description(), "old", ([], 90_000), {}
    )
    assert (done.tag if isinstance(done, Written) else done) == "new"
    assert out.data == data


def test_many_threads_read_one_tar_file(tmp_path: Path) -> None:
    """What is published into a bucket is read by several threads; a tar file has one place at which it is read."""
    contents = {b"%03d" % number: noise(60_000 + number, number) for number in range(100)}
    with tarfile.open(tmp_path / "site.tar", "w") as archive:
        for name, data in contents.items():
            entry = tarfile.TarInfo(name.decode())
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    site = open_site(SiteSpec(f"tar://::file://{tmp_path}/site.tar"))

    def is_right(name: bytes) -> bool:
        content = site.open(name)
        with content.stream:
            pieces = iter(lambda: content.stream.read(4096), b"")
            return b"".join(pieces) == contents[name]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_right, contents))
