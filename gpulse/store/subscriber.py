"""The receiving connection of a worker: one socket on the hub, one subscription per channel.

Two greenlets on the hub's thread.  The *reader* owns the connection: it connects, reads, hands
events out, and when the connection ends it waits and connects anew.  The *sender* writes what the
:class:`~gpulse.store.ledger.Ledger` wants the server told, all of one pass of the loop in one
batch, and fails the subscribes whose deadline passed.  Only the sender writes after the set-up, so
commands never interleave; only the reader closes for good, so there is one path to a new
connection.

redis-py's PubSub is not used: it costs 10 us a message against 0.3 us for a recv and hiredis, takes
seconds to see a dead server and resubscribes without telling anybody.  gevent's socket is used by
name, for in thread mode nothing is patched.  SELECT is not sent: pub/sub knows no database numbers.

A server that is gone without a word is found by silence: after ``PROBE`` seconds without a byte a
PING goes out, after as long again the connection is dead.  A new one is tried after a random part
of a pause that doubles up to ``BACKOFF_MOST``, so that a thousand workers do not come back at once.

Source: https://valkey.io/topics/pubsub/, https://valkey.io/topics/protocol/ (RESP2).
"""

import logging
import random
import ssl
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import gevent.socket
import gevent.ssl
import hiredis

from gpulse.errors import SubscribeError
from gpulse.store.base import Subscriber, check_channel
from gpulse.store.ledger import Answer, Ledger, pack
from gpulse.store.message import MAX_PAYLOAD, Event, decode
from gpulse.store.quiet import Quiet
from gpulse.storeurl import StoreURL

MAX_CHANNELS = 50_000
"""Channels of one worker, some 20 MB of its memory and of the server's."""
MAX_REPLY = 4 * MAX_PAYLOAD
"""Bytes of an unfinished reply after which the connection is closed: not a store of ours."""
CONFIRM = 2.0
"""Seconds for the server to confirm a subscribe, connecting included."""
CONNECT = 1.0
"""Seconds for each step of the set-up: connect, TLS, the answer to AUTH."""
PROBE = 5.0
"""Seconds of silence before a PING, and again before the connection is given up."""
STABLE = 2.0
"""Seconds that a connection must have lasted for the next pause to start small again."""
BACKOFF_LEAST, BACKOFF_MOST = 0.05, 2.0
"""Bounds of the longest pause before a connect, in seconds."""
RECV = 65536
TICK = 0.25
"""Seconds between two looks at deadlines while a subscribe waits."""

_log = logging.getLogger("gpulse.store")


def backoff(attempt: int, chance: float) -> float:
    """Seconds to wait before connect number ``attempt`` (from 0) after a loss; 0 <= chance < 1.

    "Full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return chance * min(BACKOFF_MOST, BACKOFF_LEAST * 2.0 ** min(attempt, 16))


class _AwayError(Exception):
    """The connection cannot be used; the message says why."""


class RedisSubscriber(Subscriber):
    """See the head of this file.

    :param prefix: what stands before every channel on the wire.
    """

    def __init__(
        self,
        url: StoreURL,
        prefix: bytes,
        on_event: Callable[[Event], None],
        on_reconnect: Callable[[list[str] | None], None] | None = None,
    ) -> None:
        self._ledger = Ledger(MAX_CHANNELS)
        self._wake = gevent.event.Event()
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._socket: Any = None
        self._silent = False
        self._probe_due = False
        self._closed = False
        self._away = False
        self._missed = False
        self._quiet = Quiet(10.0)
        self._url = url
        self._prefix = prefix
        self._on_event = on_event
        self._on_reconnect = on_reconnect
        self.connected = False
        self.malformed = 0

    # What the worker calls

    def subscribe(self, channel: str, done: Callable[[SubscribeError | None], None]) -> None:
        wire = self._prefix + check_channel(channel).encode()
        if self._closed:
            done(SubscribeError(f"channel {channel!r} is not subscribed: the worker is closing"))
            return
        if not self._greenlets:
            self._greenlets = [gevent.spawn(self._read_forever), gevent.spawn(self._send_forever)]
        self._tell(self._ledger.subscribe(wire, channel, done, time.monotonic() + CONFIRM))
        self._wake.set()

    def unsubscribe(self, channel: str) -> None:
        self._tell(self._ledger.unsubscribe(self._prefix + channel.encode()))
        self._wake.set()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.connected = False
        for greenlet in self._greenlets:
            greenlet.kill(block=False)
        if self._socket is not None:
            self._socket.close()
        self._tell(self._ledger.clear("the worker is closing"))

    # The sender

    def _send_forever(self) -> None:
        while True:
            self._wake.wait(TICK if self._ledger.pending else None)
            self._wake.clear()
            self._tell(self._ledger.expire(time.monotonic()))
            if not self.connected:
                continue
            data = self._ledger.commands()
            if self._probe_due:
                self._probe_due = False
                data += pack(b"PING")
            if data:
                self._send(self._socket, data)

    @staticmethod
    def _send(sock: Any, data: bytes) -> None:
        try:
            sock.sendall(data)
        except OSError:
            # Closing wakes the reader, which knows what to do about it.
            sock.close()

    # The reader

    def _read_forever(self) -> None:
        attempt = 0
        while True:
            opened = time.monotonic()
            try:
                self._read_one_connection()
            except (OSError, hiredis.HiredisError, _AwayError) as failure:
                self._say_away(str(failure) or type(failure).__name__)
            except Exception:
                _log.exception("the subscriber failed and starts anew")
                self._away = True
            finally:
                if self._socket is not None:
                    self._socket.close()
                    self._socket = None
            if self.connected:
                self.connected = False
                self._missed = True
                self._ledger.lost()
                if time.monotonic() - opened > STABLE:
                    attempt = 0
            gevent.sleep(backoff(attempt, random.random()))
            attempt += 1

    def _read_one_connection(self) -> None:
        """Connect and read until the connection ends, which raises."""
        self._socket = sock = self._connect()
        reader = hiredis.Reader()
        sock.settimeout(CONNECT)
        self._set_up(sock, reader)
        sock.settimeout(PROBE)
        self._silent = False
        self.connected = True
        self._wake.set()
        self._say_back()
        self._caught_up()
        while True:
            data = self._receive(sock)
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self._on_reply(reply)
            if reader.len() > MAX_REPLY:
                raise _AwayError(f"it sent a reply of more than {MAX_REPLY} bytes")
            if len(data) == RECV:
                # There is more: recv would find it at once and never let the loop run.
                gevent.sleep(0)

    def _connect(self) -> Any:
        url = self._url
        if url.scheme == "unix":
            sock = gevent.socket.socket(gevent.socket.AF_UNIX, gevent.socket.SOCK_STREAM)
            sock.settimeout(CONNECT)
            try:
                sock.connect(url.path)
            except BaseException:
                sock.close()
                raise
            return sock
        sock = gevent.socket.create_connection((url.host, url.port), CONNECT)
        sock.setsockopt(gevent.socket.IPPROTO_TCP, gevent.socket.TCP_NODELAY, 1)
        if not url.tls:
            return sock
        try:
            return _tls_context(url).wrap_socket(sock, server_hostname=url.host)
        except BaseException:
            sock.close()
            raise

    def _set_up(self, sock: Any, reader: Any) -> None:
        """Log in and see that the server answers: an overloaded one refuses here, in words."""
        url = self._url
        commands = [pack(b"PING")]
        if url.password is not None:
            login = [url.password.encode()]
            if url.username is not None:
                login.insert(0, url.username.encode())
            commands.insert(0, pack(b"AUTH", *login))
        sock.sendall(b"".join(commands))
        for _ in commands:
            while (reply := reader.gets()) is False:
                data = sock.recv(RECV)
                if not data:
                    raise _AwayError("it closed the connection during the set-up")
                reader.feed(data)
            if isinstance(reply, hiredis.ReplyError):
                raise _AwayError(str(reply))

    def _receive(self, sock: Any) -> bytes:
        """The next bytes; raises when the connection is at its end or dead."""
        while True:
            try:
                data: bytes = sock.recv(RECV)
            except TimeoutError:
                data = self._after_silence(sock)
                if not data:
                    continue
            if not data:
                raise _AwayError("it closed the connection")
            self._silent = False
            return data

    def _after_silence(self, sock: Any) -> bytes:
        """Ask for a sign of life, or give up if that was done; empty to go on waiting."""
        if not self._silent:
            self._silent = self._probe_due = True
            self._wake.set()
            return b""
        # The loop may have been blocked meanwhile: the answer may be there already.
        sock.settimeout(0.0)
        try:
            data: bytes = sock.recv(RECV)
        except (BlockingIOError, ssl.SSLWantReadError, TimeoutError):
            raise _AwayError(f"it did not answer for {2 * PROBE:g} s") from None
        finally:
            sock.settimeout(PROBE)
        if not data:
            raise _AwayError("it closed the connection")
        return data

    def _on_reply(self, reply: Any) -> None:
        if isinstance(reply, list) and len(reply) == 3:
            kind, wire, content = reply
            if kind == b"message":
                self._hand_out(wire, content)
                return
            if kind in (b"subscribe", b"unsubscribe"):
                self._answered(lambda: self._ledger.confirm(kind == b"subscribe", wire))
                return
        elif isinstance(reply, hiredis.ReplyError):
            _log.warning("the data store %s refused a channel: %s", self._url, reply)
            self._answered(lambda: self._ledger.refuse(str(reply)))
            return
        elif reply == b"PONG" or (isinstance(reply, list) and reply[:1] == [b"pong"]):
            return
        raise _AwayError("it sent a reply that is none of pub/sub")

    def _answered(self, enter: Callable[[], list[Answer]]) -> None:
        try:
            answers = enter()
        except ValueError as error:
            raise _AwayError(str(error)) from None
        self._tell(answers)
        self._caught_up()

    def _hand_out(self, wire: bytes, payload: bytes) -> None:
        channel = self._ledger.wanted(wire)
        if channel is None:
            return
        try:
            event = decode(channel.name, payload)
        except ValueError as error:
            self.malformed += 1
            if self._quiet.allows():
                _log.warning("a payload on channel %s was dropped: %s", channel.name, error)
            return
        try:
            self._on_event(event)
        except Exception:
            _log.exception("an event of channel %s was not handed out", channel.name)

    def _caught_up(self) -> None:
        """Tell ``on_reconnect`` once everything is as it was before the loss."""
        if not self._missed or self._ledger.behind:
            return
        self._missed = False
        if self._on_reconnect is None:
            return
        try:
            self._on_reconnect(None)
        except Exception:
            _log.exception("what was to happen after a reconnect failed")

    @staticmethod
    def _tell(answers: list[Answer]) -> None:
        for done, error in answers:
            try:
                done(error)
            except Exception:
                _log.exception("the answer to a subscribe was not taken")

    def _say_away(self, reason: str) -> None:
        if not self._away:
            self._away = True
            _log.warning(
                "the data store %s is away (%s): nothing arrives until it is back; trying on",
                self._url,
                reason,
            )

    def _say_back(self) -> None:
        if self._away:
            self._away = False
            _log.warning("the data store %s is back", self._url)


def _tls_context(url: StoreURL) -> Any:
    # Not ssl.create_default_context: unpatched it makes sockets that block the hub.
    options = dict(url.tls_options)
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if options.get("ssl_check_hostname") == "false" or options.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
    if options.get("ssl_cert_reqs") == "none":
        context.verify_mode = ssl.CERT_NONE
    if "ssl_ca_certs" in options:
        context.load_verify_locations(options["ssl_ca_certs"])
    else:
        context.load_default_certs()
    if "ssl_certfile" in options:
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"))
    return context
