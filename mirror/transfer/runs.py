"""Which runs of a file's new content are in its old one: from the two lists of chunks, without reading either. Pure.

Chunks are cut where the content says so, so a byte that was inserted moves all that is behind it and changes one chunk.

    >>> a, b, c = (ChunkId(letter * 32) for letter in (b"a", b"b", b"c"))
    >>> list(unchanged([(a, 10), (b, 20), (c, 30)], [(c, 1), (a, 10), (b, 20), (a, 10)]))
    [Unchanged(at=1, old=0, length=30), Unchanged(at=31, old=0, length=10)]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from mirror.chunking import ChunkId
from mirror.site import Unchanged

_OLD_MOST: Final = 1_000_000  # chunks of the old content that are looked for, about 200 MB; 500 GB of a file in the largest class


def unchanged(old: Iterable[tuple[ChunkId, int]], new: Iterable[tuple[ChunkId, int]]) -> Iterator[Unchanged]:
    """The runs, in order of the new content, none touching the next both here and there. old, new: chunks as (id, length in bytes).

    A run goes on as long as it can, even where a chunk is in several places. Equal ids are equal bytes.
    """
    ids: list[ChunkId] = []
    starts = [0]
    first: dict[ChunkId, int] = {}
    for id_, length in islice(old, _OLD_MOST):
        first.setdefault(id_, len(ids))
        ids.append(id_)
        starts.append(starts[-1] + length)
    at, run, following = 0, Unchanged(0, 0, 0), -1
    for id_, length in new:
        if 0 <= following < len(ids) and ids[following] == id_:
            run = run._replace(length=run.length + length)
            following += 1
        else:
            if run.length:
                yield run
            found = first.get(id_)
            run = Unchanged(at, starts[found] if found is not None else 0, length if found is not None else 0)
            following = found + 1 if found is not None else -1
        at += length
    if run.length:
        yield run
