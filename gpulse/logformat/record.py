"""What the access log knows of a request, and how a text from outside is made harmless.  Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_ESCAPES[ord('"')] = '\\"'
_ESCAPES[ord("\\")] = "\\\\"


def escape(text: str) -> str:
    """A text from outside, safe between double quotes on one line."""
    return text.translate(_ESCAPES)


class Head(Protocol):
    """A request as it was parsed."""

    @property
    def method(self) -> str: ...
    @property
    def target(self) -> bytes:
        """As it was sent; any bytes."""

    @property
    def is_http_1_0(self) -> bool: ...


class Answer(Protocol):
    """A response."""

    @property
    def status(self) -> str:
        """As in "200 OK"; empty before the application called start_response."""

    @property
    def sent(self) -> int:
        """Body bytes, framing not counted."""

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """As the application gave them."""


class Record(Protocol):
    """A request whose response is complete; ``gpulse.http.exchange.Exchange`` is one."""

    @property
    def environ(self) -> Mapping[str, Any]:
        """PEP 3333's; REMOTE_ADDR is the client, whatever proxies are between."""

    @property
    def request(self) -> Head: ...
    @property
    def response(self) -> Answer | None: ...
    @property
    def switched(self) -> bool:
        """The connection became a WebSocket: the status is 101."""

    @property
    def queued_at(self) -> float:
        """When the request began to wait for a pool member, monotonic; 0.0 if it never did."""

    @property
    def started(self) -> float:
        """When the application was called, monotonic; 0.0 if it never was."""

    @property
    def request_id(self) -> str:
        """Empty where there is none."""

    @property
    def peer(self) -> Any:
        """Of the socket: (address, port, ...), or something else for a unix socket."""

    @property
    def served(self) -> int:
        """Requests on this connection so far, this one included."""


Line = Callable[[Record], str]
"""Makes the line of a request."""
Refusal = Callable[[int, str, str], str]
"""Makes the line of a request that no application saw: of its status (0: none), peer, reason."""


def peer_part(peer: Any, index: int) -> str:
    """Address (0) or port (1) of a socket's peer; a dash for one that has none."""
    return str(peer[index]) if type(peer) is tuple and len(peer) > index else "-"
