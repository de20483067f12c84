"""THE table of WebSocket close codes: what each means and whether the client should come back.

The code of a close frame is all that a script in a browser learns of why its socket ended: the
status of a refused handshake is hidden from it.  So the codes are a contract between the server and
every client.  The page of the reference is generated from this table and the JavaScript client is
checked against it.

``comes_back`` tells a client what to do without asking a person:

* ``"no"``: it does not connect again by itself; the same would happen again.
* ``"now"``: it connects again at once, after a random part of a second or two, so that thousands
  do not come in the same moment.  If that fails it goes on as for ``"later"``.
* ``"later"``: it waits some seconds, and longer after each failure.

A code of 4000 to 4999 that is not here belongs to the application, and one of 3000 to 3999 to a
registered protocol.  gpulse's own are spelled like the HTTP status of the same meaning: 4401 is
401.

Pure.  Source: RFC 6455, 7.4, and IANA's registry of WebSocket close codes.
"""

from typing import Literal, NamedTuple

ComesBack = Literal["no", "now", "later"]

NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
UNSUPPORTED_DATA = 1003
NO_STATUS = 1005
ABNORMAL = 1006
INVALID_DATA = 1007
POLICY = 1008
TOO_LARGE = 1009
EXTENSION_MISSING = 1010
INTERNAL_ERROR = 1011
RESTART = 1012
OVERLOAD = 1013
BAD_GATEWAY = 1014
TLS_FAILED = 1015
BAD_REQUEST = 4400
UNAUTHENTICATED = 4401
FORBIDDEN = 4403
TOO_SLOW = 4408
REPLACED = 4409
RATE = 4429


class CloseCode(NamedTuple):
    """One row."""

    code: int
    name: str
    """In lower case; the constant of this module has the same name in capitals."""
    meaning: str
    """One sentence without its stop."""
    comes_back: ComesBack


CODES: tuple[CloseCode, ...] = (
    CloseCode(
        NORMAL, "normal", "The conversation is over: ``self.close()``, or the client's", "no"
    ),
    CloseCode(
        GOING_AWAY, "going_away", "The server stops; from a client: its page was left", "now"
    ),
    CloseCode(
        PROTOCOL_ERROR, "protocol_error", "The other side broke the WebSocket protocol", "no"
    ),
    CloseCode(
        UNSUPPORTED_DATA,
        "unsupported_data",
        "A kind of message came that the other side does not take",
        "no",
    ),
    CloseCode(NO_STATUS, "no_status", "The close frame that came had no code", "later"),
    CloseCode(ABNORMAL, "abnormal", "The connection was lost without a close frame", "now"),
    CloseCode(INVALID_DATA, "invalid_data", "A text message was not UTF-8", "no"),
    CloseCode(
        POLICY,
        "policy",
        "A rule of the application's was broken, or the client sent too many pings or pongs",
        "no",
    ),
    CloseCode(TOO_LARGE, "too_large", "A message was larger than the other side takes", "no"),
    CloseCode(
        EXTENSION_MISSING,
        "extension_missing",
        "From a client: the server does not speak an extension that it needs",
        "no",
    ),
    CloseCode(
        INTERNAL_ERROR, "internal_error", "A handler raised; the traceback is in the log", "later"
    ),
    CloseCode(
        RESTART, "restart", "The worker drains for a reload or a stop; another one serves", "now"
    ),
    CloseCode(OVERLOAD, "overload", "The server has too much to do", "later"),
    CloseCode(BAD_GATEWAY, "bad_gateway", "A proxy got no proper answer from the server", "later"),
    CloseCode(TLS_FAILED, "tls_failed", "The TLS handshake failed", "later"),
    CloseCode(
        BAD_REQUEST, "bad_request", "A request did not keep to the gpulse client protocol", "no"
    ),
    CloseCode(
        UNAUTHENTICATED,
        "unauthenticated",
        "Nobody is logged in, or the login that opened the socket ended",
        "no",
    ),
    CloseCode(FORBIDDEN, "forbidden", "The user is known and may not do this", "no"),
    CloseCode(
        TOO_SLOW, "too_slow", "The client read too slowly, or was silent for too long", "later"
    ),
    CloseCode(
        REPLACED,
        "replaced",
        "The user opened more sockets than allowed; this was the oldest",
        "no",
    ),
    CloseCode(
        RATE,
        "rate",
        "Too many messages of the client's, or too many sockets of its address",
        "later",
    ),
)
"""In the order of the codes."""

BY_CODE: dict[int, CloseCode] = {row.code: row for row in CODES}

NEVER_SENT = frozenset({NO_STATUS, ABNORMAL, TLS_FAILED})
"""Codes that only tell of something; no close frame carries them (RFC 6455, 7.4.1)."""

NOT_THE_SERVERS = frozenset({PROTOCOL_ERROR, EXTENSION_MISSING})
"""Codes that an application on the server may not choose: the first is the wire's to send, the
second a client's."""


def may_be_sent(code: int) -> bool:
    """Whether an application may close a socket with ``code``: 1000, 1001, 1003, 1007 to 1009, 1011
    to 1014 or 3000 to 4999."""
    if 3000 <= code < 5000:
        return True
    return code in BY_CODE and code not in NEVER_SENT and code not in NOT_THE_SERVERS


def may_be_received(code: int) -> bool:
    """Whether a close frame from a client may carry ``code``; any other is a protocol error."""
    return 3000 <= code < 5000 or (code in BY_CODE and code not in NEVER_SENT)


def comes_back(code: int) -> ComesBack:
    """What a client does after ``code``; it takes an application's own codes (3000 to 4999) for a
    decision, and codes that nobody knows yet for a passing failure."""
    row = BY_CODE.get(code)
    if row is not None:
        return row.comes_back
    return "no" if 3000 <= code < 5000 else "later"
