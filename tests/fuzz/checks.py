"""What holds for any bytes that a client may send, as assertions.

The fuzz target and the property tests of the request parser call :func:`check`; see
``tests/fuzz/README.rst``.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gpulse.http.head import HeadParser
from gpulse.http.limits import Limits
from gpulse.http.parser import RequestParser
from gpulse.http.refusals import REASONS
from gpulse.http.request import RequestError

LIMITS = Limits(
    request_line=200,
    header_count=20,
    head=1000,
    body=5000,
    chunk_overhead=300,
    trailers=300,
)
"""Small, so that short inputs reach them."""

PROBE = b"GET /probe HTTP/1.1\r\nHost: probe\r\n\r\n"


class Seen(NamedTuple):
    """All that a server acts upon of one request."""

    method: str
    target: bytes
    fields: tuple[tuple[str, str], ...]
    body: bytes
    is_http_1_0: bool
    keep_alive: bool
    upgrade: bool
    chunked: bool
    content_length: int


class Outcome(NamedTuple):
    """What became of the bytes of one connection."""

    requests: tuple[Seen, ...]
    ends: tuple[int, ...]
    """Where each request ended: bytes of the connection."""
    error: RequestError | None
    has_begun: bool


def outcome_of(pieces: Iterable[bytes], heads: HeadParser, limits: Limits = LIMITS) -> Outcome:
    """Feed the pieces as the parked side of a connection does."""
    parser = RequestParser(limits, heads)
    requests: list[Seen] = []
    ends: list[int] = []
    received = 0
    for piece in pieces:
        received += len(piece)
        rest = piece
        while rest:
            request = parser.feed(rest)
            if request is None:
                break
            rest = parser.rest
            body = b"".join(request.body)
            assert request.body_size == len(body)
            requests.append(
                Seen(
                    request.method,
                    request.target,
                    tuple(request.fields.items()),
                    body,
                    request.is_http_1_0,
                    request.keep_alive,
                    request.upgrade,
                    request.chunked,
                    request.content_length,
                )
            )
            ends.append(received - len(rest))
            if not request.keep_alive:
                return Outcome(tuple(requests), tuple(ends), None, False)
        if parser.error is not None:
            assert parser.feed(PROBE) is None, "something is parsed behind an error"
            break
    return Outcome(tuple(requests), tuple(ends), parser.error, parser.has_begun)


def split(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """The pieces between the cuts, none of them empty."""
    edges = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
    for begin, end in itertools.pairwise(edges):
        yield data[begin:end]


def check(data: bytes, cuts: Iterable[int], heads: HeadParser) -> Outcome:
    """The bytes of one connection, whole and in pieces.

    :param heads: shared by all calls, as by all connections of a worker.
    :returns: the outcome of the whole.
    :raises AssertionError: a client could do something that it should not be able to.
    """
    whole = outcome_of([data] if data else [], heads)

    # Only what the server can answer is an error, and an error is the end.
    if whole.error is not None:
        assert type(whole.error) is RequestError
        assert whole.error.status in REASONS, whole.error
        assert not whole.has_begun

    # How the network cuts the bytes makes no difference.
    in_pieces = outcome_of(split(data, cuts), heads)
    assert in_pieces.requests == whole.requests
    assert in_pieces.ends == whole.ends
    assert (in_pieces.error is None) == (whole.error is None), (in_pieces.error, whole.error)
    assert in_pieces.has_begun == whole.has_begun

    # A request is what its own bytes say, whatever stands around them: never two for one.
    for seen, begin, end in zip(whole.requests, (0, *whole.ends), whole.ends, strict=False):
        assert begin < end
        alone = outcome_of([data[begin:end]], heads)
        assert alone.requests == (seen,)
        assert alone.ends == (end - begin,)
        check_request(seen, data[begin:end])

    # And the next connection of the worker finds nothing of this one.
    probed = outcome_of([PROBE], heads)
    assert [each.target for each in probed.requests] == [b"/probe"]
    assert probed.requests[0].fields == (("HTTP_HOST", "probe"),)
    return whole


def check_request(seen: Seen, sent: bytes) -> None:
    """What an application, and a proxy in front of us, rely upon."""
    head, _, body = sent.lstrip(b"\r\n").partition(b"\r\n\r\n")
    fields = dict(seen.fields)
    assert seen.target.startswith(b"/") or (seen.method, seen.target) == ("OPTIONS", b"*")
    assert not set(seen.target) & set(b" \t\r\n\x00")
    assert "HTTP_HOST" in fields or seen.is_http_1_0
    assert not {"HTTP_TRANSFER_ENCODING", "HTTP_PROXY"} & fields.keys()
    assert not any(character in value for value in fields.values() for character in "\r\n\x00")
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n")
    if seen.chunked:
        assert not seen.is_http_1_0
        assert "CONTENT_LENGTH" not in fields
        assert body.endswith(b"\r\n")
        assert len(seen.body) <= len(body)
    else:
        assert body == seen.body
        assert len(body) == seen.content_length == int(fields.get("CONTENT_LENGTH", "0"))
    if seen.upgrade:
        assert (seen.method, seen.body, seen.is_http_1_0) == ("GET", b"", False)
