"""Signatures: what was signed passes once and as it was; whatever is changed, missing or old is refused with the right words."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import http_message_signatures
import pytest

from mirror.access import ClientKey
from mirror.signing import (
    DIGESTED,
    WINDOW,
    Nonces,
    Unsigned,
    check_answer,
    check_request,
    digest_in,
    digest_of_body,
    sign_answer,
    sign_request,
)

KEY = ClientKey("nightly", bytes(range(32)))
KEY_ID = f"{KEY.name}/{KEY.fingerprint}"
OTHER = ClientKey("nightly", bytes(32))
URL, TARGET = "https://h.example:8443/www/log/000000000001.json?x=1", "/www/log/000000000001.json?x=1"
BODY = {"Content-Digest": digest_of_body(b"body"), "Content-Length": "4", "If-None-Match": "*"}


def known(name: str) -> ClientKey | None:
    return KEY if name == KEY.name else None


def check(headers: dict[str, str], method: str = "PUT", target: str = TARGET, **more: object) -> ClientKey:
    return check_request(known, Nonces(), method, target, headers, **more)  # type: ignore[arg-type]


def refused(headers: dict[str, str], **more: object) -> Unsigned:
    with pytest.raises(Unsigned) as caught:
        check(headers, **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-9"}, BODY])
def test_what_was_signed_passes(method: str, headers: dict[str, str]) -> None:
    assert check(sign_request(KEY, method, URL, headers), method) == KEY


def test_the_host_may_change_behind_a_proxy() -> None:
    signed = sign_request(KEY, "GET", "http://127.0.0.1:8750/www/a?b", {})
    assert check(signed, "GET", "/www/a?b") == KEY


@pytest.mark.parametrize(
    ("method", "target"),
    [("GET", TARGET), ("PUT", "/www/log/000000000002.json?x=1"), ("PUT", "/www/log/000000000001.json"), ("PUT", TARGET + "1")],
)
def test_another_method_path_or_query_is_refused(method: str, target: str) -> None:
    assert refused(sign_request(KEY, "PUT", URL, BODY), method=method, target=target).kind == "altered"


@pytest.mark.parametrize(
    ("name", "value"),
    [("content-digest", digest_of_body(b"evil")), ("content-length", "5"), ("if-none-match", '"x"'), ("range", "bytes=0-1")],
)
def test_headers_that_mean_something_are_covered(name: str, value: str) -> None:
    signed = sign_request(KEY, "PUT", URL, BODY)
    assert refused(signed | {name: value}).kind in ("altered", "not-signed")
    if name in signed:
        del signed[name]
        assert refused(signed).kind == "not-signed"


def test_who_is_not_known_and_who_has_another_secret() -> None:
    stranger = refused(sign_request(ClientKey("stranger", bytes(32)), "PUT", URL, {}))
    assert (stranger.kind, str(stranger)) == ("unknown-key", "there is no key 'stranger'")
    wrong = refused(sign_request(OTHER, "PUT", URL, {}))
    assert wrong.kind == "wrong-secret"
    assert f"that of the client has fingerprint {OTHER.fingerprint}, that of the server {KEY.fingerprint}" in str(wrong)


@pytest.mark.parametrize("seconds", [-86_400, -WINDOW - 2, WINDOW + 2, 10**9])
def test_clocks_that_differ_are_told_by_how_much(seconds: int) -> None:
    found = refused(sign_request(KEY, "PUT", URL, {}), now=time.time() - seconds)
    assert found.kind == "clock"
    assert (
        f"{abs(seconds)} seconds {'ahead of' if seconds > 0 else 'behind'} that of the server" in str(found)
        or abs(int(str(found).split(" seconds")[0].rsplit(" ", 1)[1]) - abs(seconds)) <= 2
    )
    assert check(sign_request(KEY, "PUT", URL, {}), now=time.time() + WINDOW - 2) == KEY


def test_each_request_counts_once() -> None:
    nonces, signed = Nonces(), sign_request(KEY, "GET", URL, {})
    check_request(known, nonces, "GET", TARGET, signed)
    with pytest.raises(Unsigned) as caught:
        check_request(known, nonces, "GET", TARGET, signed)
    assert caught.value.kind == "replayed"
    check_request(known, nonces, "GET", TARGET, sign_request(KEY, "GET", URL, {}))


def test_a_refused_request_uses_no_nonce() -> None:
    nonces = Nonces()
    with pytest.raises(Unsigned):
        check_request(known, nonces, "GET", TARGET, sign_request(OTHER, "GET", URL, {}))
    assert not nonces._minutes


def test_nonces_are_forgotten_and_bounded() -> None:
    nonces = Nonces(most=100)
    for number in range(100):
        nonces.use(f"a{number}", 1000, 1000.0)
    with pytest.raises(Unsigned) as caught:
        nonces.use("b", 1000, 1000.0)
    assert caught.value.kind == "busy"
    with pytest.raises(Unsigned, match="made before"):
        nonces.use("a7", 1000, 1000.0 + WINDOW)
    nonces.use("b", 2000, 2000.0)
    assert sum(map(len, nonces._minutes.values())) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda h: {},
        lambda h: {"signature": h["signature"]},
        lambda h: h | {"signature-input": "(("},
        lambda h: h | {"signature-input": 'mirror=("@method")'},
        lambda h: h | {"signature": "mirror=:AAAA:"},
        lambda h: h | {"signature": "mirror=7"},
        lambda h: h | {"signature-input": h["signature-input"].replace("mirror-request", "mirror-answer")},
        lambda h: h | {"signature-input": h["signature-input"].replace("hmac-sha256", "ed25519")},
        lambda h: h | {"signature-input": h["signature-input"].replace("created=", "created=1")},
        lambda h: h | {"signature-input": h["signature-input"].replace('nonce="', 'nonce="A')},
        lambda h: h | {"signature-input": h["signature-input"].replace('"@path" ', "")},
        lambda h: h | {"signature-input": h["signature-input"].replace('"@path"', '"@path";req')},
        lambda h: h | {"signature-input": "mirror=(" + '"@method" ' * 10_000 + ")"},
        lambda h: h | {"signature-input": h["signature-input"] + ", " + h["signature-input"].replace("mirror=", "b="),
                       "signature": h["signature"] + ", " + h["signature"].replace("mirror=", "b=")},
        lambda h: h | {"signature-input": "\x00\xff", "signature": "\x00"},
    ],
)  # fmt: skip
def test_rubbish_is_refused_in_words(spoil: Callable[[dict[str, str]], dict[str, str]]) -> None:
    refused(spoil(sign_request(KEY, "PUT", URL, BODY)))


# Answers


def answer(key: ClientKey = KEY, status: int = 200, body: bytes = b"body") -> tuple[dict[str, str], dict[str, str]]:
    """(headers of the request, headers of the answer)."""
    asked = sign_request(key, "GET", URL, {})
    headers = {"content-length": str(len(body)), "etag": '"7"'}
    if 0 < len(body) <= DIGESTED:
        headers["content-digest"] = digest_of_body(body)
    sign_answer(key, status, headers, asked)
    return asked, headers


def test_an_answer_is_believed_as_it_was_given() -> None:
    asked, headers = answer()
    check_answer(KEY, 200, headers, "GET", URL, asked, b"body")
    check_answer(KEY, 200, headers, "GET", URL, asked, None)
    asked, headers = answer(body=b"")
    check_answer(KEY, 200, headers, "GET", URL, asked, b"")
    large = bytes(DIGESTED + 1)
    asked, headers = answer(body=large)
    check_answer(KEY, 200, headers, "GET", URL, asked, large)


class Message:
    """As the library wants to see one."""

    def __init__(self, **members: Any) -> None:
        self.__dict__.update(members)


def library_signs(message: Message, covered: Sequence[str], **more: Any) -> tuple[str, str]:
    """(Signature-Input, Signature) as the library writes them, not we."""
    signer = http_message_signatures.HTTPMessageSigner(
        signature_algorithm=http_message_signatures.algorithms.HMAC_SHA256,
        key_resolver=http_message_signatures.MappingKeyResolver(public_keys={}, private_keys={KEY_ID: KEY.secret}),
    )
    signer.sign(message, key_id=KEY_ID, covered_component_ids=covered, use_existing_digest="content-digest" in covered, **more)
    return message.headers["Signature-Input"], message.headers["Signature"]


@pytest.mark.parametrize("url", [URL, "http://h/www", "http://h", "http://[::1]:80/w?", "https://h/a//b/%20?x=%2F&y=a+b"])
@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-9"}, BODY, {"If-None-Match": ""}, {"If-None-Match": '"a" , "b"'}])
def test_we_write_what_the_library_writes(url: str, headers: dict[str, str]) -> None:
    ours = sign_request(KEY, "PUT", url, headers, now=1_700_000_000)
    (nonce,) = re.findall('nonce="([^"]*)"', ours["signature-input"])
    covered = re.findall('"([^"]*)"', ours["signature-input"].partition(")")[0])
    when = datetime.fromtimestamp(1_700_000_000, UTC)
    message = Message(method="PUT", url=url, headers=dict(headers))
    theirs = library_signs(message, covered, nonce=nonce, created=when, label="mirror", tag="mirror-request")
    assert theirs == (ours["signature-input"], ours["signature"])


@pytest.mark.parametrize("odd", ["a\tb", " a", "a ", "a\nb", "a\r\n b", "\u00e9", "\x7f", "\ud800"])
def test_what_would_be_written_otherwise_is_not_signed(odd: str) -> None:
    with pytest.raises(ValueError, match="cannot be signed"):
        sign_request(KEY, "GET", URL, {"Range": odd})
    with pytest.raises(ValueError, match="no URL"):
        sign_request(KEY, "GET", URL + odd, {})


@pytest.mark.parametrize("names", ["as ours", "in another order"])
def test_an_answer_that_another_program_signed_is_believed(names: str) -> None:
    asked, headers = answer()
    covered = ["@status", "content-length", "content-digest", "etag", '"signature";req;key="mirror"']
    request = Message(method="GET", url=URL, headers=asked)
    for name in ("signature", "signature-input"):
        del headers[name]
    message = Message(status_code=200, request=request, headers=headers)
    library_signs(message, covered if names == "as ours" else covered[::-1], label="mirror", tag="mirror-answer")
    check_answer(KEY, 200, message.headers, "GET", URL, asked, b"body")
    with pytest.raises(Unsigned):
        check_answer(KEY, 200, message.headers | {"etag": '"8"'}, "GET", URL, asked, b"body")


def test_who_only_asks_does_not_load_the_library() -> None:
    """It takes as long to load as ten requests take."""
    code = """if True:
        import sys
        from mirror.access import ClientKey
        from mirror.signing import check_answer, sign_answer, sign_request
        key = ClientKey("nightly", bytes(32))
        asked, headers = sign_request(key, "GET", "http://h/www/x", {}), {"content-length": "0"}
        sign_answer(key, 200, headers, asked)
        check_answer(key, 200, headers, "GET", "http://h/www/x", asked, None)
        assert "http_message_signatures" not in sys.modules and "cryptography" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_answer_that_was_changed_is_not() -> None:
    asked, headers = answer()
    for status, changed, body in [
        (404, headers, b"body"),
        (200, headers | {"etag": '"8"'}, b"body"),
        (200, headers, b"evil"),
        (200, headers, b""),
        (200, headers | {"content-digest": digest_of_body(b"evil")}, b"evil"),
        (200, {name: value for name, value in headers.items() if name != "content-digest"}, b"evil"),
        (200, headers | {"content-range": "bytes 0-3/9"}, b"body"),
    ]:
        with pytest.raises(Unsigned):
            check_answer(KEY, status, changed, "GET", URL, asked, body)


def test_an_old_answer_is_no_answer() -> None:
    _, old = answer()
    asked, _ = answer()
    with pytest.raises(Unsigned) as caught:
        check_answer(KEY, 200, old, "GET", URL, asked, b"body")
    assert caught.value.kind == "altered"


def test_a_remote_that_does_not_sign() -> None:
    asked, _ = answer()
    with pytest.raises(Unsigned) as caught:
        check_answer(KEY, 200, {"Content-Length": "4"}, "GET", URL, asked, b"body")
    assert (caught.value.kind, str(caught.value)) == ("not-signed", "the remote does not sign its answers")


def test_a_remote_with_another_secret() -> None:
    asked, headers = answer(OTHER)
    with pytest.raises(Unsigned) as caught:
        check_answer(KEY, 200, headers, "GET", URL, asked, b"body")
    assert caught.value.kind == "wrong-secret"


@pytest.mark.parametrize("text", ["", "sha-256=:AAAA:", "md5=:AAAA:", digest_of_body(b"x") + ", " + digest_of_body(b"y")])
def test_what_is_no_digest(text: str) -> None:
    assert digest_in(text) is None
