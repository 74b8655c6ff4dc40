"""What goes over the wire to an S3 server: requests and bytes, counted between client and server, whoever the client is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from servers import scripted_http


@dataclass
class Wire:
    """What has passed so far. endpoint: where clients go; requests; bytes: of the bodies that clients sent."""

    endpoint: str = ""
    requests: int = 0
    bytes: int = 0


@contextmanager
def wire_to(endpoint: str) -> Iterator[Wire]:
    """A way to the server at this URL that counts. It is slower than the straight one: no time is taken of what goes this way."""
    wire = Wire()

    def heard(method: str, path: str, size: int) -> None:
        wire.requests += 1
        wire.bytes += size

    with scripted_http(lambda method, path, number: None, endpoint.removeprefix("http://"), heard=heard) as address:
        wire.endpoint = f"http://{address}"
        yield wire
