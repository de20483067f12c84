"""What a proxy says of its client, put into the environ; what others say, taken out of it.

Pure.  It runs for each request, before the application sees the environ.  Sources: RFC 7239 for
``Forwarded``; the X-Forwarded-* headers have no standard but the habits of proxies.

The rules:

* A peer that is no trusted proxy says nothing: all these headers are removed.  Of a trusted one
  those named by ``--forwarded-headers`` are read and the others removed, since a proxy that does
  not set a header passes on what the client sent.
* Lists are read from the right.  The right end is the word of the peer; an element is believed
  because the one to its right was a trusted proxy's.  The first address that is no trusted
  proxy's is the client; what stands to the left of it is the client's own invention and is not
  even looked at.  So it changes nothing that the client sent such a header, too.
* What is no IP address ("unknown", "_hidden", garbage) ends the walk; the last address before it
  is the client.
* What was believed stays in the environ in plain form, what was not is removed from it: Django's
  SECURE_PROXY_SSL_HEADER and USE_X_FORWARDED_HOST then never see a stranger's word.

Refused: a bad value is never an error for the client.  It is removed, and the environ tells what
gpulse knows by itself.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gpulse.trust import FORWARDED, TrustedProxies

MAX_HOPS = 64
"""Elements of a list that are looked at, from the right; more proxies than that are in no chain."""
MAX_ELEMENT = 1024
"""Characters of one element of ``Forwarded``; a longer one ends the walk."""

_FORWARDED = "HTTP_FORWARDED"
_FOR = "HTTP_X_FORWARDED_FOR"
_PROTO = "HTTP_X_FORWARDED_PROTO"
_HOST = "HTTP_X_FORWARDED_HOST"
_PORT = "HTTP_X_FORWARDED_PORT"

KEYS = frozenset(
    (
        _FORWARDED,
        _FOR,
        _PROTO,
        _HOST,
        _PORT,
        # Never read, always removed: other spellings of the same claims, which middleware reads.
        "HTTP_X_FORWARDED_PREFIX",
        "HTTP_X_FORWARDED_PROTOCOL",
        "HTTP_X_FORWARDED_SCHEME",
        "HTTP_X_FORWARDED_SSL",
        "HTTP_X_REAL_IP",
    )
)
"""Keys of the environ by which a request says who sent it, and how."""

_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_NODE = re.compile(
    r"(?:([0-9.]{7,15})|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{1,5}|_[A-Za-z0-9._-]{1,64}))?"
)
"""RFC 7239, 6: an address with a port, or an IPv6 address in brackets."""
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_NUMBER = re.compile(r"[0-9]{1,5}")

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_PAIR = rf"{_TOKEN}=(?:{_TOKEN}|{_QUOTED})"
_ELEMENT = re.compile(rf"[\t ]*+(?:{_PAIR})?(?:;(?:{_PAIR})?)*+[\t ]*+")
_PAIRS = re.compile(rf"({_TOKEN})=({_TOKEN}|{_QUOTED})")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose headers are believed, and which; made of two options.

    :param trusted_proxies: what ``gpulse.trust.trusted_proxies`` returned.
    :param forwarded_headers: what ``gpulse.trust.forwarded_headers`` returned.
    """

    trusted_proxies: tuple[str, ...]
    forwarded_headers: tuple[str, ...]
    _proxies: TrustedProxies = field(init=False, repr=False, compare=False)
    _removed: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        believed = {"HTTP_" + name.upper().replace("-", "_") for name in self.forwarded_headers}
        object.__setattr__(self, "_proxies", TrustedProxies(self.trusted_proxies))
        object.__setattr__(self, "_removed", KEYS - believed)

    def is_trusted(self, peer: Any) -> bool:
        """Is this peer a trusted proxy?  See :meth:`TrustedProxies.is_trusted`."""
        return self._proxies.is_trusted(peer)

    def apply(self, environ: dict[str, Any], peer: Any) -> None:
        """Let the environ show the client as far as it is known.

        :param environ: with REMOTE_ADDR, REMOTE_PORT, ``wsgi.url_scheme``, SERVER_PORT and the
            headers as they came; changed in place.
        :param peer: whose word the headers are, as for :meth:`is_trusted`.
        """
        trusted = self._proxies.is_trusted(peer)
        removed = self._removed if trusted else KEYS
        if not environ.keys().isdisjoint(removed):
            for key in removed:
                environ.pop(key, None)
        if not trusted:
            return
        if FORWARDED in self.forwarded_headers:
            self._apply_forwarded(environ)
        else:
            self._apply_x_forwarded(environ)

    def _apply_x_forwarded(self, environ: dict[str, Any]) -> None:
        hops = place = 0
        value = environ.get(_FOR)
        if value is not None:
            hops = value.count(",") + 1
            chain = self._walk(reversed(value.rsplit(",", MAX_HOPS)) if hops > 1 else (value,))
            place = len(chain)
            if chain:
                client = chain[-1][0]
                _set_client(environ, client, "")
                environ[_FOR] = (
                    client if place == 1 else ", ".join([address for address, _ in reversed(chain)])
                )
            else:
                del environ[_FOR]
        scheme = host = port = ""
        if _PROTO in environ:
            scheme = _keep(environ, _PROTO, _scheme(_word(environ[_PROTO], hops, place)))
        if _HOST in environ:
            host = _keep(environ, _HOST, _authority(_word(environ[_HOST], hops, place)))
        if _PORT in environ:
            port = _keep(environ, _PORT, _port(_word(environ[_PORT], hops, place)))
        _set_server(environ, scheme, host, port)

    def _apply_forwarded(self, environ: dict[str, Any]) -> None:
        value = environ.pop(_FORWARDED, None)
        if value is None:
            return
        elements: list[tuple[int, dict[str, str]]] = []

        def nodes() -> Iterator[str]:
            for element in _elements(value):
                elements.append(element)
                yield element[1].get("for", "")

        chain = self._walk(nodes())
        if chain:
            _set_client(environ, *chain[-1])
        if elements:
            # Without an address the right end is still the peer's word about its own client.
            start, pairs = elements[max(len(chain), 1) - 1]
            if pairs:
                environ[_FORWARDED] = value[start:].strip("\t ")
            scheme, host = pairs.get("proto", ""), pairs.get("host", "")
            _set_server(environ, _scheme(scheme), _authority(host), "")

    def _walk(self, nodes: Iterable[str]) -> list[tuple[str, str]]:
        """From the peer's word to the client.

        :param nodes: the elements, the right end first.
        :returns: (address, port or "") of each that is believed, the client last; at most
            MAX_HOPS, none if the right end is no address.
        """
        chain: list[tuple[str, str]] = []
        for node in nodes:
            node = node.strip("\t ")
            port = ""
            verdict = self._proxies.verdict(node)  # most are an address and nothing else
            if verdict is None:
                found = _NODE.fullmatch(node)
                if found is None or not _is_port(found[3]):
                    break
                port = found[3] or ""
                verdict = self._proxies.verdict(found[1] or found[2])
                if verdict is None:
                    break
            address, trusted = verdict
            chain.append((address, port))
            if not trusted or len(chain) == MAX_HOPS:
                break
        return chain


def _is_port(text: str | None) -> bool:
    """Is it what may stand behind an address: nothing, a hidden port, or a number that is one?"""
    return not text or text[0] == "_" or int(text) < 65536


def _word(value: str, hops: int, place: int) -> str:
    """The element of a list that goes with the client.

    Where every proxy adds to both headers, that is the one at the client's place (counted from
    the right, 1 or more, in a list of ``hops``).  Where not, only the right end is sure to be a
    proxy's word.
    """
    if "," in value:
        if place < 2 or value.count(",") + 1 != hops:
            place = 1
        value = value.rsplit(",", place)[-place]
    return value.strip("\t ")


def _keep(environ: dict[str, Any], key: str, text: str) -> str:
    """Let the environ have the plain form, or nothing where that is empty."""
    if text:
        environ[key] = text
    else:
        del environ[key]
    return text


def _scheme(text: str) -> str:
    """The scheme, http or https; empty for anything else."""
    return _SCHEMES.get(text.lower(), "")


def _authority(text: str) -> str:
    """A host with or without a port; empty for anything else."""
    found = _AUTHORITY.fullmatch(text)
    return text if found and (found[1] is None or _port(found[1])) else ""


def _port(text: str) -> str:
    """A number from 1 to 65535; empty for anything else."""
    number = int(text) if _NUMBER.fullmatch(text) else 0
    return str(number) if 0 < number < 65536 else ""


def _set_client(environ: dict[str, Any], address: str, port: str) -> None:
    if port and _port(port):
        environ["REMOTE_PORT"] = _port(port)
    elif environ.get("REMOTE_ADDR") != address:
        environ.pop("REMOTE_PORT", None)
    environ["REMOTE_ADDR"] = address


def _set_server(environ: dict[str, Any], scheme: str, host: str, port: str) -> None:
    """Each is empty where it is not known."""
    if host:
        environ["HTTP_HOST"] = host
    if scheme:
        environ["wsgi.url_scheme"] = scheme
    if scheme == "https" and not port:
        # The listener's own port speaks no TLS.
        host = host or environ.get("HTTP_HOST", "")
        port = "443"
        if ":" in host:
            known = _AUTHORITY.fullmatch(host)
            port = (known and _port(known[1] or "")) or port
    if port:
        environ["SERVER_PORT"] = port


def _elements(value: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The elements of a ``Forwarded`` field from the right: where each begins, and its pairs with
    names in lower case.

    Ends before the first that breaks the grammar.  A comma may stand in a quoted string, so each
    is tried: what lies behind a quoted comma has an odd number of quotes and is no element.
    """
    end = cut = len(value)
    for _ in range(MAX_HOPS):
        cut = value.rfind(",", 0, cut)
        if end - cut > MAX_ELEMENT:
            return
        if _ELEMENT.fullmatch(value, cut + 1, end):
            pairs: dict[str, str] = {}
            for name, text in _PAIRS.findall(value, cut + 1, end):
                if name.lower() in pairs:
                    return  # RFC 7239, 4: once in an element
                pairs[name.lower()] = _ESCAPED.sub(r"\1", text[1:-1]) if text[0] == '"' else text
            yield cut + 1, pairs
            end = cut
        if cut < 0:
            return
