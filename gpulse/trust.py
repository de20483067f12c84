"""Whom gpulse believes: the proxies in front of it, and what they may say of a client.

The two option parsers, in the manner of ``gpulse.values``, and the matching of addresses.  What the
headers mean is ``gpulse.http.forwarded``'s, what the PROXY protocol means
``gpulse.connection.proxyheader``'s.

Pure: no name is resolved, for an answer from DNS is no reason to believe anybody.  A proxy is
written as an IP address, a network in CIDR form, or the word ``unix`` for every peer of a unix
socket, whose file's mode and owner say who that can be.

An IPv4 address in IPv6 (``::ffff:192.0.2.1``, RFC 4291, 2.5.5.2), which is how IPv4 peers of a
listener for both look, counts as the IPv4 address, in options as in addresses.
"""

import ipaddress
from typing import Any

NONE = "none"
"""Stands for an empty list, where an empty text would count as not set."""
UNIX = "unix"
"""Stands for the peers of unix sockets, which have no address."""
DEFAULT_PROXIES = ("127.0.0.1", "::1", UNIX)
"""This machine."""

FORWARDED = "forwarded"
HEADERS = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    FORWARDED,
)
"""The headers that can be believed."""
DEFAULT_HEADERS = ("x-forwarded-for", "x-forwarded-proto")
"""What every proxy's documentation tells one to set.  Not the host: proxies pass ``Host`` on, and
few replace an ``X-Forwarded-Host`` that a client sent."""

ADDRESSES_KEPT = 1000
"""Addresses whose verdict is kept; beyond it, all are forgotten."""

_LONGEST = 64
"""Characters; anything longer is no address and is not kept."""

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def trusted_proxies(raw: object) -> tuple[str, ...]:
    """Proxies: a list, or text with commas or spaces between them; none at all trusts nobody.

    :returns: them in their canonical form: ``10.0.0.0/8``, ``192.0.2.1``, ``unix``.
    :raises ValueError: the reason, to continue a sentence.
    """
    proxies: list[str] = []
    for word in _words(raw, "addresses, networks and the word unix"):
        proxy = UNIX if word.lower() == UNIX else _written(_network(word))
        if proxy in proxies:
            raise ValueError(f"names {proxy} twice")
        proxies.append(proxy)
    return tuple(proxies)


def forwarded_headers(raw: object) -> tuple[str, ...]:
    """Names of headers: a list, or text with commas or spaces between; none believes no header.

    :returns: them in lower case.
    :raises ValueError: the reason, to continue a sentence.
    """
    names: list[str] = []
    for word in _words(raw, "names of headers"):
        name = word.lower()
        if name not in HEADERS:
            shown = name if name.isprintable() else ascii(name)
            raise ValueError(f"names {shown[:40]}, which is none of {', '.join(HEADERS)}")
        if name in names:
            raise ValueError(f"names {name} twice")
        names.append(name)
    if FORWARDED in names and len(names) > 1:
        raise ValueError(
            "must be forwarded alone or x-forwarded-* alone: a proxy sets one kind and passes on "
            "what a client sends of the other"
        )
    return tuple(names)


def _words(raw: object, what: str) -> list[str]:
    if isinstance(raw, (list, tuple)) and all(isinstance(item, str) for item in raw):
        return [word for item in raw for word in _words(item, what)]
    if isinstance(raw, str):
        return [] if raw == NONE else raw.replace(",", " ").split()
    raise ValueError(f"must be a list of {what}")


def _network(word: str) -> _Network:
    shown = word if word.isprintable() else ascii(word)
    try:
        network = ipaddress.ip_network(word, strict=False)
    except ValueError:
        network = None
    if network is None or "%" in word:
        raise ValueError(
            f"names {shown[:60]}, which is no IP address, no network such as 10.0.0.0/8 and not "
            "the word unix"
        )
    if "/" in word and str(network.network_address) != str(
        ipaddress.ip_address(word.partition("/")[0])
    ):
        # 10.0.0.1/8 may be meant as one machine: believing 16 million would be a poor guess.
        raise ValueError(f"names {shown}, an address within {network}; write the one or the other")
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is not None and network.prefixlen >= 96:
        network = ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _written(network: _Network) -> str:
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    return str(network)


def _prefix(network: _Network) -> int:
    return int(network.network_address) >> network.max_prefixlen - network.prefixlen


def read_address(text: str) -> _Address | None:
    """An address, IPv4 in IPv6 as IPv4; None for text that is none or that has a scope (%eth0),
    which means something on one machine only."""
    if len(text) > _LONGEST or "%" in text:
        return None
    try:
        if ":" not in text:
            return ipaddress.IPv4Address(text)
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address


class TrustedProxies:
    """The proxies that are believed.

    A verdict is kept, for a connection asks for each request; what is kept is bounded, because
    addresses come from clients.  Any thread may ask.

    :param proxies: what :func:`trusted_proxies` returned.
    """

    __slots__ = ("_prefixes", "_unix", "_verdicts")

    def __init__(self, proxies: tuple[str, ...]) -> None:
        self._unix = UNIX in proxies
        networks = [_network(proxy) for proxy in proxies if proxy != UNIX]
        # As numbers: a fresh client's address is compared with all of them.
        self._prefixes = {
            version: [
                (network.max_prefixlen - network.prefixlen, _prefix(network))
                for network in networks
                if network.version == version
            ]
            for version in (4, 6)
        }
        self._verdicts: dict[str, tuple[str, bool] | None] = {}

    def is_trusted(self, peer: Any) -> bool:
        """Is this the address of a trusted proxy?

        :param peer: as ``accept`` gave it: (host, port, ...) for TCP, str or bytes for a unix
            socket; None, for a peer of which nothing is known, is never trusted.
        """
        if type(peer) is tuple:
            host = peer[0]
            verdict = self.verdict(host)
            if verdict is None:
                verdict = self.verdict(host.partition("%")[0])  # fe80::1%eth0
            return verdict is not None and verdict[1]
        return self._unix and isinstance(peer, (str, bytes))

    def verdict(self, text: str) -> tuple[str, bool] | None:
        """The address in its canonical form, and whether it is a trusted proxy's; None for text
        that is no address."""
        try:
            return self._verdicts[text]
        except KeyError:
            pass
        address = read_address(text)
        verdict = None
        if address is not None:
            number = int(address)
            prefixes = self._prefixes[address.version]
            verdict = (str(address), any(number >> bits == prefix for bits, prefix in prefixes))
        if len(text) <= _LONGEST:
            if len(self._verdicts) >= ADDRESSES_KEPT:
                self._verdicts.clear()
            self._verdicts[text] = verdict
        return verdict
