"""The HTTP client against servers that fail in every way that servers fail, over real sockets."""

from __future__ import annotations

import gzip
import inspect
import socket
import time
import zlib
from collections.abc import Callable, Iterator, Mapping

import pytest
import urllib3.exceptions
from webservers import Asked, Say, WebServer

from mirror.errors import AuthError, DamageError, MirrorError, NotFound, TemporaryError, UsageError
from mirror.webclient import Payload
from mirror.webclient.address import base_url, is_loopback, shown_url
from mirror.webclient.answers import error_for, failure, no_answer
from mirror.webclient.client import READ_SECONDS, WebClient

GZIP = {"Content-Encoding": "gzip"}


def turns(*answers: Say) -> Callable[[Asked], Say]:
    """One answer after another, the last one from then on."""
    left: Iterator[Say] = iter(answers)
    last = answers[-1]
    return lambda _: next(left, last)


def get(server: WebServer, path: str = "a", *, limit: int = 1000, patience: float = 5, **more: object) -> bytes:
    with WebClient(f"{server.url}/base", patience_seconds=patience) as client:
        return client.request("GET", path, what="cannot read", limit=limit, **more).body  # type: ignore[arg-type]


def fault(kind: type[MirrorError], server: WebServer, **more: object) -> str:
    with pytest.raises(kind) as found:
        get(server, **more)  # type: ignore[arg-type]
    assert type(found.value) is kind
    assert f"cannot read {server.url}/" in str(found.value)
    return str(found.value)


def test_it_asks_for_the_bytes_as_they_are_over_one_connection() -> None:
    with WebServer(turns(Say(body=b"hello"))) as server, WebClient(f"{server.url}/base/") as client:
        for _ in range(3):
            assert client.request("GET", "a%20b", what="cannot read").body == b"hello"
        assert {each.path for each in server.asked} == {"/base/a%20b"}
        assert server.asked[0].headers["accept-encoding"] == "identity"
        assert server.connections == 1


@pytest.mark.parametrize(
    "first",
    [
        Say(500),
        Say(502, b"<html>Bad Gateway</html>"),
        Say(503),
        Say(504),
        Say(429, headers={"Retry-After": "0"}),
        Say(200, b"hel", length=5),
        Say(200, b"hello", cut=2),
        Say(200, gzip.compress(b"hello")[:-4], GZIP),
    ],
    ids=lambda say: f"{say.status}-{len(say.body)}",
)
def test_what_passes_is_asked_again(first: Say) -> None:
    with WebServer(turns(first, Say(body=b"hello"))) as server:
        assert get(server) == b"hello"
        assert len(server.asked) == 2


def test_an_answer_that_is_lost_is_asked_for_again_once_the_server_has_spoken() -> None:
    with WebServer(turns(Say(body=b"1"), Say(hang_up=True), Say(body=b"2"))) as server, WebClient(server.url) as client:
        assert [client.request("GET", "a", what="cannot read").body for _ in range(2)] == [b"1", b"2"]
        assert len(server.asked) == 3


def test_a_server_that_never_spoke_is_not_waited_for() -> None:
    with WebServer(turns(Say(hang_up=True))) as server:
        before = time.monotonic()
        assert "the connection broke off" in fault(TemporaryError, server, patience=60)
        assert time.monotonic() - before < 5
        assert len(server.asked) == 1


def test_patience_ends() -> None:
    with WebServer(turns(Say(503, b"Down for repairs.\n", {"Content-Type": "text/plain"}))) as server:
        text = fault(TemporaryError, server, patience=1)
        assert "the server answers 503: Down for repairs, again and again" in text
        assert 2 <= len(server.asked) <= 5


def test_the_time_that_a_server_asks_for_is_waited() -> None:
    with WebServer(turns(Say(429, headers={"Retry-After": "1"}), Say(body=b"hello"))) as server:
        before = time.monotonic()
        assert get(server) == b"hello"
        assert time.monotonic() - before >= 1
    with WebServer(turns(Say(429, headers={"Retry-After": "3600"}))) as server:
        assert "try again in 3600 s, the server says" in fault(TemporaryError, server)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("say", "kind", "part"),
    [
        (Say(401), AuthError, "the server does not allow it (401)"),
        (Say(403, b'{"detail": "no right to read"}', {"Content-Type": "application/problem+json"}), AuthError, "no right to read"),
        (Say(400), MirrorError, "answers 400"),
        (Say(405), UsageError, "cannot do that"),
        (Say(507), TemporaryError, "no room"),
    ],
    ids=lambda each: each.status if isinstance(each, Say) else "",
)
def test_refusals_are_told_at_once(say: Say, kind: type[MirrorError], part: str) -> None:
    with WebServer(turns(say)) as server:
        assert part in fault(kind, server)
        assert len(server.asked) == 1


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_not_found(status: int) -> None:
    with WebServer(turns(Say(status, b"<html>nothing here</html>"))) as server:
        with pytest.raises(NotFound):
            get(server)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "say",
    [Say(body=b"x" * 1001), Say(body=b"x" * 5_000_000, length=-1), Say(body=gzip.compress(bytes(50_000_000)), headers=GZIP)],
    ids=["one too many", "without a length", "packed"],
)
def test_no_answer_is_longer_than_asked_for(say: Say) -> None:
    with WebServer(turns(say)) as server:
        assert "longer than the 1000 bytes" in fault(DamageError, server)
        assert len(server.asked) == 1


def test_a_claimed_length_makes_no_room() -> None:
    with WebServer(turns(Say(body=b"hello", length=1 << 60), Say(body=b"hello"))) as server:
        assert get(server) == b"hello"


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("x-gzip", gzip.compress)])
def test_what_a_proxy_packs_is_unpacked(name: str, pack: Callable[[bytes], bytes]) -> None:
    with WebServer(turns(Say(body=pack(b"hello" * 100), headers={"Content-Encoding": name}))) as server:
        assert get(server) == b"hello" * 100


@pytest.mark.parametrize(
    ("say", "kind", "part"),
    [
        (Say(body=b"hello", headers={"Content-Encoding": "br"}), MirrorError, "sends it as 'br'"),
        (Say(body=b"hello" * 10, headers=GZIP), DamageError, "its gzip encoding is broken"),
    ],
    ids=["unknown", "broken"],
)
def test_what_cannot_be_unpacked_is_told(say: Say, kind: type[MirrorError], part: str) -> None:
    with WebServer(turns(say)) as server:
        assert part in fault(kind, server)


def moved(to: str, status: int = 302) -> Say:
    return Say(status, headers={"Location": to})


def test_reads_follow_redirects_to_other_servers_without_what_was_for_the_first() -> None:
    with WebServer(turns(Say(body=b"hello"))) as other, WebServer(turns(moved(f"{other.url}/b?sign=1"))) as server:
        assert get(server, headers={"Authorization": "Basic abc", "X-Mine": "1"}) == b"hello"
        assert server.asked[0].headers["authorization"] == "Basic abc"
        assert "authorization" not in other.asked[0].headers
        assert other.asked[0].headers["x-mine"] == "1"


def test_redirects_end() -> None:
    with WebServer(turns(moved("/again"))) as server:
        assert "redirects to" in fault(UsageError, server)
        assert len(server.asked) == 6


@pytest.mark.parametrize("to", ["http://192.0.2.1/a?secret=1", "file:///etc/passwd", "//user:word@localhost/", "http://[::1", ""])
def test_redirects_lead_nowhere_unsafe(to: str) -> None:
    with WebServer(turns(moved(to))) as server:
        text = fault(UsageError, server)
        assert "secret" not in text
        assert "word" not in text
        assert len(server.asked) == 1


def test_writes_and_signed_reads_do_not_follow_redirects() -> None:
    with WebServer(lambda asked: Say() if asked.method == "HEAD" else moved("/elsewhere", 307)) as server:
        for method, sign in (("PUT", None), ("GET", lambda *_: {"Signature": "s"})):
            with (
                WebClient(server.url, sign=sign) as client,
                pytest.raises(UsageError, match=f"it redirects to {server.url}/elsewhere"),
            ):
                client.request(method, "a", what="cannot write")
        assert server.methods() == ["HEAD", "PUT", "GET"]


def test_each_try_is_signed_anew() -> None:
    signed: list[tuple[str, str, str, Payload | None]] = []

    def sign(method: str, url: str, headers: Mapping[str, str], body: Payload | None) -> Mapping[str, str]:
        signed.append((method, url, headers["Content-Length"] if body else "", body))
        return {"Nonce": str(len(signed))}

    with WebServer(turns(Say(), Say(503), Say(201))) as server, WebClient(f"{server.url}/x", sign=sign) as client:
        answer = client.request("PUT", "a", what="cannot write", body=b"hello", accept=(201,))
        assert answer.tries == 2
        assert answer.sent["Nonce"] == "3"
        assert [each.headers["nonce"] for each in server.asked] == ["1", "2", "3"]
        url = f"{server.url}/x/a"
        assert signed == [("HEAD", f"{server.url}/x", "", None), *[("PUT", url, "5", b"hello")] * 2]


def test_a_body_arrives_however_it_is_given() -> None:
    data = bytes(range(256)) * 1000
    tries = []

    def stream() -> Iterator[bytes]:
        tries.append(1)
        yield data[:100_000]
        yield data[100_000:]

    with WebServer(lambda asked: Say(503 if len(tries) == 1 and asked.method == "PUT" else 200)) as server:
        with WebClient(server.url) as client:
            for body in (data, bytearray(data), memoryview(data), stream):
                client.request("PUT", "a", what="cannot write", body=body)
        assert server.methods() == ["HEAD"] + ["PUT"] * 5
        assert {each.body for each in server.asked[1:]} == {data}
        assert server.asked[1].headers["content-length"] == str(len(data))


def test_what_must_not_be_done_twice_is_not_sent_again_when_nobody_knows() -> None:
    with WebServer(turns(Say(), Say(hang_up=True))) as server, WebClient(server.url) as client:
        with pytest.raises(TemporaryError):
            client.request("MKCOL", "a", what="cannot make", resend=False)
        assert server.methods() == ["HEAD", "MKCOL"]
    with WebServer(turns(Say(), Say(503), Say(201))) as server, WebClient(server.url) as client:
        assert client.request("MKCOL", "a", what="cannot make", resend=False, accept=(201,)).status == 201


def test_a_stream_gives_what_arrives_and_tells_when_it_breaks() -> None:
    with WebServer(turns(Say(body=b"x" * 300_000), Say(body=b"x" * 300_000, cut=1000))) as server, WebClient(server.url) as client:
        with client.stream("GET", "a", what="cannot read", limit=300_000) as stream:
            assert sum(len(each) for each in stream.pieces) == 300_000
        with (
            pytest.raises(TemporaryError, match="the connection broke off"),
            client.stream("GET", "a", what="cannot read", limit=300_000) as stream,
        ):
            list(stream.pieces)
        with (
            pytest.raises(DamageError, match="longer than the 10"),
            client.stream("GET", "a", what="cannot read", limit=10) as stream,
        ):
            list(stream.pieces)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_an_endpoint_that_is_dead_is_told_soon(method: str) -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{port.getsockname()[1]}"
        before = time.monotonic()
        with WebClient(url) as client, pytest.raises(TemporaryError, match="no connection to the server"):
            client.request(method, "a", what="cannot read")
        assert time.monotonic() - before < READ_SECONDS


def test_what_speaks_no_tls_is_told() -> None:
    with WebServer(turns(Say())) as server, WebClient(server.url.replace("http:", "https:")) as client:
        with pytest.raises(MirrorError, match="it speaks no TLS") as found:
            client.request("GET", "a", what="cannot read")
        assert (found.value.kind, found.value.exit_code) == ("tls", 2)


@pytest.mark.parametrize(
    "url",
    ["http://example.org/a", "http://192.0.2.1", "https://u:word@h/a", "https://h/a?word=1", "https://h/a#b",
     "https://", "ftp://h", "https://h:x/", "https://h/a/../b", "https://h o/"],
)  # fmt: skip
def test_urls_that_cannot_be_used(url: str) -> None:
    with pytest.raises(UsageError) as found:
        WebClient(url)
    assert "word" not in str(found.value)


def test_plain_http_is_for_this_machine_and_for_who_accepts_it() -> None:
    WebClient("http://example.org/a", insecure=True).close()
    for host in ("localhost", "a.localhost", "127.1.2.3", "[::1]:80"):
        WebClient(f"http://{host}/").close()
    assert not is_loopback("127.0.0.1.example.org")


def test_one_spelling() -> None:
    assert base_url("HTTPS://Example.org:443/a b/%20//") == "https://example.org/a%20b/%20"
    assert base_url("http://[::1]:80") == "http://[::1]"
    assert shown_url("https://u:p@h/a?secret#x\n") == "https://h/a"


# -- what leaves urllib3 ---------------------------------------------------------------------------------------------------

URLLIB3 = [
    kind
    for _, kind in inspect.getmembers(urllib3.exceptions, inspect.isclass)
    if issubclass(kind, urllib3.exceptions.HTTPError) and not issubclass(kind, Warning)
]


def an(kind: type[Exception]) -> Exception:
    """An exception of a kind, made without its constructor: those ask for pools and responses."""
    error = kind.__new__(kind)
    error.args = ("Something went wrong",)
    return error


def test_there_is_something_to_enumerate() -> None:
    assert {"ProtocolError", "SSLError", "NewConnectionError", "ReadTimeoutError"} <= {kind.__name__ for kind in URLLIB3}


@pytest.mark.parametrize(
    "kind", [*URLLIB3, ConnectionResetError, TimeoutError, OSError, ValueError], ids=lambda kind: kind.__name__
)
def test_every_exception_of_urllib3_is_translated(kind: type[Exception]) -> None:
    error = no_answer(failure(an(kind)), "cannot read", "https://user:word@host/a?word=1")
    assert isinstance(error, MirrorError)
    assert str(error).startswith("cannot read https://host/a: ")
    assert "\n" not in str(error)
    assert "word" not in str(error)
    assert error.why
    assert error.hint


@pytest.mark.parametrize("body", [b"", b"[" * 100_000, b'{"detail": 1}', b"\xff" * 5000], ids=["empty", "deep", "odd", "binary"])
def test_every_status_is_an_error_in_one_sentence(body: bytes) -> None:
    headers = {"content-type": "application/json" if body[:1] in b"[{" else "text/plain", "location": "javascript:1"}
    for status in range(100, 600):
        error = error_for(status, headers, body, "cannot read", "https://host/a")
        assert str(error).startswith("cannot read https://host/a: ")
        assert len(str(error)) < 700
        assert str(error).isprintable()
