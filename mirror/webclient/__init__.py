"""The one HTTP client: how web servers are asked, how often, and what their failures mean.

Owns addresses (`address`), requests with their time-outs and patience (`client`), proxies (`proxies`), bodies with a hard limit
(`bodies`), how much is asked for at once over a link that breaks (`pace`), requests to a `mirror serve` (`signed`) and the words
for what goes wrong (`answers`). Knows nothing of stores or WebDAV: who speaks a protocol says which statuses are answers, and hands
in what signs a request.

    with WebClient("https://www.example.org/mirror") as client:
        client.request("GET", "mirror.json", what="cannot read", limit=1 << 20).body
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from mirror.errors import TemporaryError

Payload = bytes | bytearray | memoryview
"""A body that is in memory."""

Body = Payload | Callable[[], Iterable[bytes]] | None
"""What a request carries: bytes; or what makes its pieces, called anew for every try (give Content-Length, else it is chunked)."""

Sign = Callable[[str, str, Mapping[str, str], Payload | None], Mapping[str, str]]
"""(method, whole URL, headers so far, body; None for none and for a streamed one) → headers to add. Called for every try, from any
thread, so that each has a time and a nonce of its own."""


class BrokeOff(TemporaryError):
    """What failed and was not repeated, by the caller's wish: it may have been acted on, and less at once may get through."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said. headers: found in any case. url: that answered in the end, behind redirects. sent: the headers of the
    request that was answered. tries: how often it was sent; where that is more than once, an earlier try may have been acted on."""

    status: int
    headers: Mapping[str, str]
    url: str
    body: bytes = field(default=b"", repr=False)
    sent: Mapping[str, str] = field(default_factory=dict, repr=False)
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose body is still to come. pieces: at least a byte each, as they arrive; TemporaryError when it breaks off,
    DamageError behind its limit. To be used before the `with` block ends."""

    status: int
    headers: Mapping[str, str]
    url: str
    pieces: Iterator[bytes]
    sent: Mapping[str, str]
    tries: int = 1
