"""What is sent to a bucket from a site that can only be read from the beginning to the end."""

from __future__ import annotations

from collections.abc import Iterable
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
