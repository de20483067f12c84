"""Every case of the Autobahn table over real sockets, on greenlets and on threads: against a parked
echo, and against a loop in gevent-websocket's way.

``tests/unit/websocket/test_autobahn.py`` plays the same table in memory.
"""

import dataclasses
import logging
import socket

import gevent
import pytest
from wire.websocket.autobahn import BINARY, CASES, LARGEST, SILENCE, TEXT, Reader, check

from gpulse.http.upgrade import Upgrade
from gpulse.websocket.deflate import negotiate
from gpulse.websocket.handshake import accept
from gpulse.websocket.limits import SocketLimits
from gpulse.websocket.session import WebSocketSession

SECTIONS = list(dict.fromkeys(case.id.split(".")[0] for case in CASES))

LIMITS = dataclasses.replace(SocketLimits(), message=LARGEST, rate=0, compress_from=1)

QUIET = 0.02
"""Seconds without a word from the server that count as silence."""


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, "gpulse")


class Echo:
    """What a consumer is to its session."""

    handled = frozenset()
    session = None

    def __init__(self, pool):
        self.pool = pool

    def shape(self, event):
        raise AssertionError("nothing is published here")

    def handle(self, handler, *args):
        if handler == "on_message":
            (message,) = args
            if isinstance(message, str):
                self.pool.call_hub(self.session.send, TEXT, message.encode())
            else:
                self.pool.call_hub(self.session.send, BINARY, message)


def parked(environ, start_response):
    site = environ["test.site"]
    accepted = accept(environ)

    def open_protocol(connection, data):
        echo = Echo(site.pool)
        session = echo.session = WebSocketSession(
            connection, site.sockets, echo, deflate=accepted.deflate
        )
        connection.protocol = session
        session.start(data)
        return session

    environ["gpulse.exchange"].upgrade = Upgrade(accepted.headers, open_protocol)
    start_response("101 Switching Protocols", [])
    return []


def loop(environ, start_response):
    ws = environ["wsgi.websocket"]
    while (message := ws.receive()) is not None:
        ws.send(message)
    return []


def play(site, case):
    """One case on a connection of its own."""
    client = site.connect()
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    fields = {"Sec_WebSocket_Extensions": case.offer} if case.offer else {}
    answer = client.upgrade(**fields)
    assert answer.status == 101
    agreed = negotiate(case.offer)
    assert answer.fields.get("sec-websocket-extensions") == (agreed.response if agreed else None)
    reader = Reader(agreed.server_bits if agreed else 0)

    def read():
        while (found := reader.next()) is None:
            reader.feed(bytes(client.buffer))
            client.buffer.clear()
            if (found := reader.next()) is not None:
                return found
            assert client.more(), "the connection ended"
        return found

    for step in case.steps():
        if isinstance(step, bytes):
            client.send(step)
            gevent.sleep(0)  # so that the server reads this piece by itself
        elif step is SILENCE:
            with gevent.Timeout(QUIET, False):
                check(read(), SILENCE)
        else:
            check(read(), step)
    assert not reader.data
    assert client.is_ended()
    client.close()


def play_section(site, section):
    site.sockets.limits = LIMITS
    failed = {}
    for case in CASES:
        if case.id.split(".")[0] == section:
            try:
                play(site, case)
            except (AssertionError, OSError) as error:
                failed[case.id] = f"{type(error).__name__}: {error}"
    assert failed == {}


@pytest.mark.parametrize("section", SECTIONS)
def test_a_parked_echo(serve, section):
    play_section(serve(parked), section)


@pytest.mark.parametrize("section", [name for name in SECTIONS if int(name) < 12])
def test_a_loop(serve, section):
    play_section(serve(loop), section)
