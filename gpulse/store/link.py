"""Connections to a store's servers: dial, log in, ask.  Where, and what for, others decide.

Two kinds of sockets are served by this one code.  Commands use those of the standard library, which
in a patched process are gevent's (``NATIVE``).  The subscriber uses gevent's by name, for in thread
mode nothing is patched and it must not block the hub; it brings them itself, so that a script that
only publishes stays free of gevent.

Each step blocks its greenlet or thread, up to a deadline.  The protocol is RESP2, without HELLO:
any server speaks it.  No password is in any message made here.

Source: https://valkey.io/topics/protocol/, https://valkey.io/commands/auth/
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import hiredis

from gpulse.store.endpoint import Endpoint
from gpulse.store.ledger import pack
from gpulse.storeurl import StoreURL

RECV = 65536
NOBODY_TRUSTED = (18, 19, 20, 21)
"""OpenSSL's codes where no authority that is known signed: X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
and the three behind it, X509_STORE_CTX_get_error(3)."""


class AwayError(Exception):
    """The server cannot be used; the message says why and does not name it."""


class Net(NamedTuple):
    """The modules that sockets and TLS come from."""

    socket: Any
    ssl: Any


NATIVE = Net(socket, ssl)


class Link:
    """One open connection and its parser.

    :param endpoint: where it leads.
    """

    __slots__ = ("endpoint", "reader", "sock")

    def __init__(self, sock: Any, endpoint: Endpoint) -> None:
        self.sock = sock
        self.reader = hiredis.Reader()
        self.endpoint = endpoint

    def ask(self, deadline: float, *commands: bytes) -> list[Any]:
        """The replies to packed commands, in one round trip; error replies are among them.

        :raises AwayError: it closed the connection or did not answer in time.
        :raises OSError: as of sockets.
        """
        self.sock.settimeout(remaining(deadline))
        self.sock.sendall(b"".join(commands))
        replies: list[Any] = []
        while len(replies) < len(commands):
            while (reply := self.reader.gets()) is False:
                self.sock.settimeout(remaining(deadline))
                data = self.sock.recv(RECV)
                if not data:
                    raise AwayError("it closed the connection during the set-up")
                self.reader.feed(data)
            replies.append(reply)
        return replies

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()


class Dialer:
    """Opens connections to the servers of one store URL.

    :param net: the sockets to use.
    """

    def __init__(self, url: StoreURL, net: Net) -> None:
        self._context: Any = None
        self._url = url
        self._net = net

    def open(
        self,
        endpoint: Endpoint,
        deadline: float,
        *commands: bytes,
        login: tuple[str | None, str | None] | None = None,
    ) -> tuple[Link, list[Any]]:
        """A connection that is logged in, and the replies to packed ``commands``.

        :param deadline: monotonic seconds by which all of it must be done.
        :param login: user and password, by default the URL's.
        :raises AwayError: it refused the log-in or a command, in its words, or took too long.
        :raises OSError: as of sockets and TLS.
        """
        username, password = login or (self._url.username, self._url.password)
        setup = list(commands)
        if password is not None:
            words = (
                [password.encode()] if username is None else [username.encode(), password.encode()]
            )
            setup.insert(0, pack(b"AUTH", *words))
        link = Link(self._connect(endpoint, deadline), endpoint)
        try:
            replies = link.ask(deadline, *setup) if setup else []
            for reply in replies:
                if isinstance(reply, hiredis.ReplyError):
                    raise AwayError(str(reply))
        except TimeoutError:
            link.close()
            raise AwayError("it did not answer in time") from None
        except ssl.SSLError as failure:
            # With TLS 1.3 a server says only now that it does not take our certificate.
            link.close()
            raise AwayError(tls_failure(failure)) from None
        except BaseException:
            link.close()
            raise
        return link, replies[len(setup) - len(commands) :]

    def _connect(self, endpoint: Endpoint, deadline: float) -> Any:
        net = self._net.socket
        if endpoint.path:
            sock = net.socket(net.AF_UNIX, net.SOCK_STREAM)
        else:
            sock = net.create_connection((endpoint.host, endpoint.port), remaining(deadline))
        try:
            if endpoint.path:
                sock.settimeout(remaining(deadline))
                sock.connect(endpoint.path)
                return sock
            sock.setsockopt(net.IPPROTO_TCP, net.TCP_NODELAY, 1)
            sock.setsockopt(net.SOL_SOCKET, net.SO_KEEPALIVE, 1)
            return self._secured(sock, endpoint, deadline) if self._url.tls else sock
        except BaseException:
            sock.close()
            raise

    def _secured(self, sock: Any, endpoint: Endpoint, deadline: float) -> Any:
        """TLS on an open socket."""
        if self._context is None:
            self._context = self._tls_context()
        sock.settimeout(remaining(deadline))
        # It has the descriptor from now on.  The handshake is apart, so that it is closed here if
        # that ends by an exception of whatever kind: gevent's wrap_socket closes for OSError only.
        secured = self._context.wrap_socket(
            sock, server_hostname=endpoint.host, do_handshake_on_connect=False
        )
        try:
            secured.do_handshake()
        except BaseException as failure:
            secured.close()
            if isinstance(failure, TimeoutError):
                words = "TLS did not begin in time; does it speak TLS on this port?"
                raise AwayError(words) from None
            if isinstance(failure, ssl.SSLError):
                raise AwayError(tls_failure(failure)) from None
            raise
        return secured

    def _tls_context(self) -> Any:
        # Not ssl.create_default_context: unpatched it makes sockets that block the hub.
        options = dict(self._url.tls_options)
        context = self._net.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if options.get("ssl_check_hostname") == "false" or options.get("ssl_cert_reqs") == "none":
            context.check_hostname = False
        if options.get("ssl_cert_reqs") == "none":
            context.verify_mode = ssl.CERT_NONE
        authorities, ours = options.get("ssl_ca_certs"), options.get("ssl_certfile")
        key = options.get("ssl_keyfile")
        if authorities is None:
            context.load_default_certs()
        else:
            with _files(f"ssl_ca_certs {authorities}"):
                context.load_verify_locations(authorities)
        if ours is not None:
            with _files(f"ssl_certfile {ours}" + (f" with ssl_keyfile {key}" if key else "")):
                context.load_cert_chain(ours, key)
        return context


@contextlib.contextmanager
def _files(names: str) -> Iterator[None]:
    """Loading files that the URL names.  :raises AwayError: they cannot be used."""
    try:
        yield
    except ssl.SSLError as failure:
        reason = _reason(failure) if failure.reason else "a certificate or key in PEM is missing"
        raise AwayError(f"{names} cannot be used: {reason}") from None
    except OSError as failure:
        raise AwayError(f"{names} cannot be used: {failure.strerror}") from None


def tls_failure(failure: ssl.SSLError) -> str:
    """Why there is no TLS with a server, in one line for the person who set up the site."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        words = f"its certificate is not accepted: {failure.verify_message.rstrip('.')}"
        if failure.verify_code in NOBODY_TRUSTED:
            words += "; ssl_ca_certs in the URL has to name its authority"
        return words
    if isinstance(failure, ssl.SSLEOFError):
        return "it closed the connection during TLS; does it ask for an ssl_certfile?"
    return f"TLS failed: {_reason(failure)}"


def _reason(failure: ssl.SSLError) -> str:
    """Without numbers and places in the sources of OpenSSL, where there is more than these."""
    return failure.reason.replace("_", " ").lower() if failure.reason else str(failure)


def remaining(deadline: float) -> float:
    """Seconds until ``deadline``.  :raises AwayError: none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise AwayError("it did not answer in time")
    return left
