"""One receiving connection on the hub, and the two greenlets that keep it.

The *reader* owns the connection: it opens it, reads, hands messages out, and when the connection
ends it waits and opens another.  The *sender* writes what the :class:`~gpulse.store.ledger.Ledger`
wants the server told, all of one pass of the loop in one batch, and fails the subscribes whose
deadline passed.  Only the sender writes after the set-up, so commands never interleave; only the
reader closes for good, so there is one path to a new connection.

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
from typing import Any, Protocol

import gevent
import gevent.event
import gevent.socket
import gevent.ssl
import hiredis

from gpulse.store.ledger import Answer, Ledger, pack
from gpulse.store.link import RECV, AwayError, Link, Net
from gpulse.store.message import MAX_PAYLOAD

HUB = Net(gevent.socket, gevent.ssl)

MAX_REPLY = 4 * MAX_PAYLOAD
"""Bytes of an unfinished reply after which the connection is closed: not a store of ours."""
CONNECT = 1.0
"""Seconds to open a connection and log in."""
PROBE = 5.0
"""Seconds of silence before a PING, and again before the connection is given up."""
STABLE = 2.0
"""Seconds that a connection must have lasted for the next pause to start small again."""
BACKOFF_LEAST, BACKOFF_MOST = 0.05, 2.0
"""Bounds of the longest pause before a connect, in seconds."""
TICK = 0.25
"""Seconds between two looks at deadlines while a subscribe waits."""
PING = pack(b"PING")

_log = logging.getLogger("gpulse.store")


def backoff(attempt: int, chance: float) -> float:
    """Seconds to wait before connect number ``attempt`` (from 0) after a loss; 0 <= chance < 1.

    "Full jitter": https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return chance * min(BACKOFF_MOST, BACKOFF_LEAST * 2.0 ** min(attempt, 16))


class Listener(Protocol):
    """Who owns a feed.  On the hub; none of these blocks."""

    def on_message(self, feed: "Feed", wire: bytes, payload: bytes) -> None:
        """A message of a channel, wanted or not."""

    def on_answers(self, answers: list[Answer]) -> None:
        """Call these."""

    def on_back(self, feed: "Feed", names: list[str]) -> None:
        """All that the ledger wants is confirmed again after a loss; ``names`` missed messages."""

    def on_lost(self, feed: "Feed") -> None:
        """The connection ended, or could not be opened; the next try comes by itself."""

    def on_error(self, feed: "Feed", error: str) -> None:
        """The server answered the ledger's next command with an error.

        :raises ValueError: nothing was asked.
        """

    def on_ended(self, feed: "Feed", wire: bytes) -> None:
        """The server ended a subscription by itself."""


class Feed:
    """See the head of this file.

    :param open_link: opens a connection by a deadline, given packed commands to begin with.
    :param ledger: what the server is to be told.
    :param label: the server for the log, without a password.
    """

    def __init__(
        self,
        open_link: Callable[..., Link],
        ledger: Ledger,
        listener: Listener,
        label: str,
    ) -> None:
        self._wake = gevent.event.Event()
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._silent = False
        self._probe_due = False
        self._away = False
        self._missed = False
        self._open_link = open_link
        self._listener = listener
        self._label = label
        self.ledger = ledger
        self.link: Link | None = None
        self.connected = False

    def wake(self) -> None:
        """Tell the server what the ledger wants; connects at the first call."""
        if not self._greenlets:
            self._greenlets = [gevent.spawn(self._read_forever), gevent.spawn(self._send_forever)]
        self._wake.set()

    def drop(self) -> None:
        """Give the connection up and open another: it leads to the wrong server."""
        if self.link is not None:
            self.link.close()

    def close(self) -> None:
        """End it; the ledger is the caller's."""
        self.connected = False
        for greenlet in self._greenlets:
            if greenlet is not gevent.getcurrent():
                greenlet.kill(block=False)
        if self.link is not None:
            self.link.close()

    # The sender

    def _send_forever(self) -> None:
        while True:
            self._wake.wait(TICK if self.ledger.pending else None)
            self._wake.clear()
            self._listener.on_answers(self.ledger.expire(time.monotonic()))
            link = self.link
            if not self.connected or link is None:
                continue
            data = self.ledger.commands()
            if self._probe_due:
                self._probe_due = False
                data += PING
            if data:
                try:
                    link.sock.sendall(data)
                except OSError:
                    # Closing wakes the reader, which knows what to do about it.
                    link.close()

    # The reader

    def _read_forever(self) -> None:
        attempt = 0
        while True:
            opened = time.monotonic()
            try:
                self._read_one_connection()
            except (OSError, hiredis.HiredisError, AwayError) as failure:
                self._say_away(str(failure) or type(failure).__name__)
            except Exception:
                _log.exception("the subscriber failed and starts anew")
                self._away = True
            finally:
                if self.link is not None:
                    self.link.close()
                    self.link = None
            if self.connected:
                self.connected = False
                self._missed = True
                self.ledger.lost()
                if time.monotonic() - opened > STABLE:
                    attempt = 0
            self._listener.on_lost(self)
            gevent.sleep(backoff(attempt, random.random()))
            attempt += 1

    def _read_one_connection(self) -> None:
        """Open and read until the connection ends, which raises."""
        # An overloaded server refuses the first command, in words.
        self.link = link = self._open_link(time.monotonic() + CONNECT, PING)
        link.sock.settimeout(PROBE)
        self._silent = False
        self.connected = True
        self._wake.set()
        self._say_back()
        self._caught_up()
        reader = link.reader
        while True:
            data = self._receive(link.sock)
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self._on_reply(reply)
            if reader.len() > MAX_REPLY:
                raise AwayError(f"it sent a reply of more than {MAX_REPLY} bytes")
            if len(data) == RECV:
                # There is more: recv would find it at once and never let the loop run.
                gevent.sleep(0)

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
                raise AwayError("it closed the connection")
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
            raise AwayError(f"it did not answer for {2 * PROBE:g} s") from None
        finally:
            sock.settimeout(PROBE)
        if not data:
            raise AwayError("it closed the connection")
        return data

    def _on_reply(self, reply: Any) -> None:
        if isinstance(reply, list) and len(reply) == 3:
            kind, wire, content = reply
            if kind in (b"message", b"smessage"):
                self._listener.on_message(self, wire, content)
                return
            if kind in (b"subscribe", b"ssubscribe"):
                self._confirmed(True, wire)
                return
            if kind in (b"unsubscribe", b"sunsubscribe"):
                if kind == b"unsubscribe" or self.ledger.is_expected(wire):
                    self._confirmed(False, wire)
                else:
                    self._listener.on_ended(self, wire)
                return
        elif isinstance(reply, hiredis.ReplyError):
            try:
                self._listener.on_error(self, str(reply))
            except ValueError as error:
                raise AwayError(str(error)) from None
            self._caught_up()
            return
        elif reply == b"PONG" or (isinstance(reply, list) and reply[:1] == [b"pong"]):
            return
        raise AwayError("it sent a reply that is none of pub/sub")

    def _confirmed(self, subscribes: bool, wire: bytes) -> None:
        try:
            answers = self.ledger.confirm(subscribes, wire)
        except ValueError as error:
            raise AwayError(str(error)) from None
        self._listener.on_answers(answers)
        self._caught_up()

    def _caught_up(self) -> None:
        """Tell the listener once everything is as it was before a loss."""
        if self.ledger.behind or not self.connected:
            return
        names = self.ledger.take_back()
        if names or self._missed:
            self._missed = False
            self._listener.on_back(self, names)

    def _say_away(self, reason: str) -> None:
        if not self._away:
            self._away = True
            _log.warning(
                "the data store %s is away (%s): nothing arrives until it is back; trying on",
                self._label,
                reason,
            )

    def _say_back(self) -> None:
        if self._away:
            self._away = False
            _log.warning("the data store %s is back", self._label)
