"""The opening handshake, with the client of ``websockets`` as the peer and by hand."""

import pytest
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.http11 import Response
from websockets.uri import parse_uri

from gpulse.websocket.handshake import Accepted, HandshakeError, accept, tokens

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, 1.3
GOOD = {
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": KEY,
}


def without(key):
    return {name: value for name, value in GOOD.items() if name != key}


def test_the_example_of_the_rfc():
    assert accept(GOOD) == Accepted(
        [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ],
        subprotocol=None,
        deflate=None,
    )


def test_a_real_client_takes_the_answer():
    client = ClientProtocol(
        parse_uri("ws://x/"),
        subprotocols=["b", "a"],
        extensions=[ClientPerMessageDeflateFactory(server_max_window_bits=12)],
    )
    request = client.connect()
    environ = GOOD | {
        "HTTP_" + name.upper().replace("-", "_"): value
        for name, value in request.headers.raw_items()
    }
    accepted = accept(environ, ["a"])
    answer = Response(101, "Switching Protocols", Headers(accepted.headers))
    client.process_response(answer)
    assert client.subprotocol == accepted.subprotocol == "a"
    (extension,) = client.extensions
    assert extension.remote_max_window_bits == accepted.deflate.server_bits == 12


@pytest.mark.parametrize(
    "change",
    [
        {"HTTP_UPGRADE": "WebSocket"},
        {"HTTP_CONNECTION": "keep-alive, Upgrade"},
        {"HTTP_UPGRADE": "h2c, websocket"},
        {"HTTP_CONNECTION": "UPGRADE"},
        {"HTTP_SEC_WEBSOCKET_EXTENSIONS": "x-webkit-deflate-frame"},
        {"HTTP_SEC_WEBSOCKET_PROTOCOL": "a, , b"},
    ],
)
def test_what_clients_and_proxies_send(change):
    assert len(accept(GOOD | change).headers) == 3


def test_compression_is_agreed_on():
    environ = GOOD | {"HTTP_SEC_WEBSOCKET_EXTENSIONS": "permessage-deflate; client_max_window_bits"}
    accepted = accept(environ)
    assert accepted.deflate.server_bits == 15
    assert dict(accepted.headers)["Sec-WebSocket-Extensions"] == accepted.deflate.response
    assert accept(environ, deflate=False) == accept(GOOD)


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        (GOOD | {"REQUEST_METHOD": "POST"}, 405),
        (without("HTTP_UPGRADE"), 426),
        (without("HTTP_CONNECTION"), 426),
        (GOOD | {"HTTP_UPGRADE": "h2c"}, 426),
        (GOOD | {"HTTP_CONNECTION": "upgraded"}, 426),
        (GOOD | {"SERVER_PROTOCOL": "HTTP/1.0"}, 426),
        (without("HTTP_SEC_WEBSOCKET_VERSION"), 426),
        (GOOD | {"HTTP_SEC_WEBSOCKET_VERSION": "8"}, 426),
        (without("HTTP_SEC_WEBSOCKET_KEY"), 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_KEY": "c2hvcnQ="}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_KEY": KEY + "," + KEY}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_KEY": "\xe9" * 24}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_KEY": KEY[:-1]}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_KEY": KEY + ", " + KEY}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_KEY": ""}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_VERSION": "13,13"}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_VERSION": "8, 13"}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_VERSION": "013"}, 426),
        (GOOD | {"HTTP_UPGRADE": "websocket2"}, 426),
        (GOOD | {"HTTP_CONNECTION": "close"}, 426),
        (GOOD | {"REQUEST_METHOD": "HEAD"}, 405),
        (GOOD | {"HTTP_SEC_WEBSOCKET_PROTOCOL": "\xe9"}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_PROTOCOL": "a b"}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_PROTOCOL": 'a, "b"'}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_EXTENSIONS": "a; ="}, 400),
        (GOOD | {"HTTP_SEC_WEBSOCKET_EXTENSIONS": "a\x00"}, 400),
    ],
)
def test_what_is_refused(environ, status):
    with pytest.raises(HandshakeError) as caught:
        accept(environ)
    assert caught.value.status == status
    assert caught.value.reason


def test_a_refused_version_names_the_one_that_is_spoken():
    with pytest.raises(HandshakeError) as caught:
        accept(GOOD | {"HTTP_SEC_WEBSOCKET_VERSION": "8"})
    assert caught.value.headers == {"Sec-WebSocket-Version": "13"}


@pytest.mark.parametrize(
    ("wanted", "spoken", "chosen"),
    [("a, b", ["b", "a"], "a"), ("c, b", ["a", "b"], "b"), ("c", ["a"], None), ("", ["a"], None)],
)
def test_the_clients_first_subprotocol_that_is_spoken_is_chosen(wanted, spoken, chosen):
    accepted = accept(GOOD | {"HTTP_SEC_WEBSOCKET_PROTOCOL": wanted}, spoken)
    assert accepted.subprotocol == chosen
    assert dict(accepted.headers).get("Sec-WebSocket-Protocol") == chosen


def test_tokens():
    assert tokens(" a ,, b,") == ["a", "b"]
