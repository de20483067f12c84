"""Bytes on the wire and what the parser makes of them: one case per file in ``tests/wire/http``.

A case is text::

    Why this answer, and the source.
    > POST /a HTTP/1.1\\r\\n
    > Host: x\\r\\n
    > X: {70000*a}\\r\\n
    > \\r\\n
    < 200 POST /a "body"
    < 400

``>`` lines are the input: escapes as in a bytes literal, ``{N*text}`` is N times the text, nothing
is added at a line's end.  ``<`` lines are the outcome, in order: ``200`` is a call of the
application with method, target and body, escaped too; any other status is a refusal, which closes
the connection.  A last ``< close`` says that nothing more is read, ``< more`` that a request has
begun and is not whole.

Every case is run whole, cut in two at every byte, and byte by byte: the outcome is the same.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from gpulse.http.head import HeadParser
from gpulse.http.limits import Limits
from gpulse.http.parser import RequestParser

CASES = sorted((Path(__file__).parent / "http").glob("*.txt"))

HEADS = HeadParser(Limits())
"""Shared by all cases, as by all connections of a worker: what one leaves behind meets the next."""

CUTS = 3000
"""Longer inputs are cut at some bytes only: at the first and last hundred and at every 499th, or at
two hundred of those that are very long."""

_REPEAT = re.compile(r"\{(\d+)\*([^{}]*)\}")


def repeat(text: str) -> str:
    """``{N*text}`` written out, the innermost first."""
    while (longer := _REPEAT.sub(lambda found: int(found[1]) * found[2], text)) != text:
        text = longer
    return text


def read_case(path: Path) -> tuple[bytes, list[str]]:
    """The input and the outcome."""
    sent, outcome = "", []
    for line in path.read_text("ascii").splitlines():
        if line.startswith("> "):
            sent += repeat(line[2:])
        elif line.startswith("< "):
            outcome.append(repeat(line[2:]))
    return sent.encode("ascii").decode("unicode_escape").encode("latin-1"), outcome


def outcome_of(pieces: Iterable[bytes]) -> list[str]:
    """What a server would do: the same steps as the parked side of a connection, without one."""
    parser = RequestParser(Limits(), HEADS)
    outcome: list[str] = []
    for piece in pieces:
        rest = piece
        while rest:
            request = parser.feed(rest)
            rest = b""
            if request is not None:
                body = b"".join(request.body).decode("latin-1").encode("unicode_escape").decode()
                target = request.target.decode("latin-1")
                outcome.append(f'200 {request.method} {target} "{body}"')
                if not request.keep_alive:
                    return [*outcome, "close"]
                rest = parser.rest
        if parser.error is not None:
            return [*outcome, str(parser.error.status)]
    return [*outcome, "more"] if parser.has_begun else outcome


def cuts(size: int) -> Iterator[int]:
    step = max(499, size // 200)
    for cut in range(1, size):
        if size <= CUTS or cut < 100 or cut > size - 100 or not cut % step:
            yield cut


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
class TestWire:
    def test_whole(self, path):
        data, outcome = read_case(path)
        assert outcome_of([data]) == outcome

    def test_cut_in_two_at_every_byte(self, path):
        data, outcome = read_case(path)
        differing = [
            cut for cut in cuts(len(data)) if outcome_of([data[:cut], data[cut:]]) != outcome
        ]
        assert differing == []

    def test_byte_by_byte(self, path):
        data, outcome = read_case(path)
        assert outcome_of(data[at : at + 1] for at in range(len(data))) == outcome


def test_there_are_cases_and_each_says_why():
    assert len(CASES) > 200
    for path in CASES:
        lines = path.read_text("ascii").splitlines()
        assert lines[0][:1] not in ("", "<", ">"), path.name
        assert {line[:2] for line in lines[1:]} <= {"> ", "< "}, path.name
        assert read_case(path)[1], path.name
