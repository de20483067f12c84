"""The access log's format "json": one JSON object a line, always with the same fields.  Pure.

Whatever comes in, a line is valid JSON and nothing but ASCII: bytes that are no ASCII arrive as
latin-1 text and leave as ``\\u00xx``.

Source: RFC 8259; RFC 3339 for the time.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from gpulse.logformat.record import Line, Record, Refusal, peer_part

FIELDS = (
    "time",
    "id",
    "remote",
    "peer",
    "method",
    "target",
    "protocol",
    "host",
    "status",
    "bytes",
    "referer",
    "agent",
    "queued_us",
    "app_us",
    "total_us",
    "worker",
    "refused",
)
"""The names in every line, in this order; what is not known is null."""

MAX_LINE = 16_000
"""Bytes of a line, less than where the writer cuts: half an object is none.  The longest values of
a longer line are shortened."""
_KEPT = (1000, 100)
"""Characters kept of each value of a line that is too long.  100 always suffice: eleven values are
texts, and a character takes twelve bytes at most."""
_CUT = "[...]"

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def line(worker: int, clock: Callable[[], float], monotonic: Callable[[], float]) -> Line:
    """See :func:`gpulse.logformat.compile_format`."""
    stamp = _stamp(clock)

    def line(record: Record) -> str:
        end = monotonic()
        started = record.started or end
        queued = record.queued_at or started
        get = record.environ.get
        request, response = record.request, record.response
        status, size = None, 0
        if record.switched:
            status = 101
        elif response is not None and response.status:
            status, size = int(response.status[:3]), response.sent
        remote = _text(get("REMOTE_ADDR"))
        peer = peer_part(record.peer, 0)
        return _object(
            {
                "time": stamp(),
                "id": record.request_id or None,
                "remote": remote,
                "peer": None if peer in ("-", remote) else peer,
                "method": request.method,
                "target": request.target.decode("latin-1"),
                "protocol": "HTTP/1.0" if request.is_http_1_0 else "HTTP/1.1",
                "host": _text(get("HTTP_HOST")),
                "status": status,
                "bytes": size,
                "referer": _text(get("HTTP_REFERER")),
                "agent": _text(get("HTTP_USER_AGENT")),
                "queued_us": int((started - queued) * 1_000_000),
                "app_us": int((end - started) * 1_000_000),
                "total_us": int((end - queued) * 1_000_000),
                "worker": worker,
                "refused": None,
            }
        )

    return line


def refusal(worker: int, clock: Callable[[], float]) -> Refusal:
    """See :func:`gpulse.logformat.compile_refusal`."""
    stamp = _stamp(clock)
    nothing: dict[str, Any] = dict.fromkeys(FIELDS)
    nothing |= {"bytes": 0, "queued_us": 0, "app_us": 0, "total_us": 0, "worker": worker}

    def refusal(status: int, peer: str, reason: str) -> str:
        known = {"remote": _without_port(peer), "status": status or None, "refused": reason}
        return _object(nothing | {"time": stamp()} | known)

    return refusal


def _stamp(clock: Callable[[], float]) -> Callable[[], str]:
    """Makes the time that it is, in UTC and to the millisecond."""
    shared = [(-1, "")]

    def stamp() -> str:
        now = clock()
        second, text = shared[0]
        if second != int(now):
            second = int(now)
            text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
            shared[0] = (second, text)
        return f"{text}{int(now % 1 * 1000):03d}Z"

    return stamp


def _text(value: Any) -> str | None:
    """An environ's value as a text or null, whatever an application has put there."""
    if type(value) is str:
        return value or None
    return None if value is None else str(value)


def _without_port(peer: str) -> str | None:
    """The address of "ADDRESS:PORT" or "[ADDRESS]:PORT"; another text is taken as it is."""
    address, colon, port = peer.rpartition(":")
    if colon and port.isdecimal() and (":" not in address or address[:1] == "["):
        peer = address.strip("[]")
    return peer or None


def _object(fields: dict[str, Any]) -> str:
    """One line of ASCII."""
    text = _encode(fields)
    if "\\ud" in text:
        # JSON's grammar lets half a surrogate pair pass, but hardly any reader does.
        fields = {name: _whole(value) for name, value in fields.items()}
        text = _encode(fields)
    for kept in _KEPT:
        if len(text) <= MAX_LINE:
            break
        text = _encode({name: _shortened(value, kept) for name, value in fields.items()})
    return text


def _whole(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _shortened(value: Any, kept: int) -> Any:
    return value[:kept] + _CUT if isinstance(value, str) and len(value) > kept else value
