"""Bytes that a connection begins with and the PROXY header that is read from them: one case per
file in ``tests/wire/proxy``.

A case is written as those of ``test_wire.py`` are, with other outcomes::

    Why this answer, and the source.
    > PROXY TCP4 198.51.100.7 192.0.2.1 56324 443\\r\\n
    > GET /
    < 198.51.100.7 56324 to 192.0.2.1 443
    < "GET /"

First what the header says, with ``peer`` for one that leaves the connection's own peer in place,
then the bytes that are the client's, escaped as the input is.  ``< refused`` is a connection that
is cut, ``< more`` one whose header is not whole.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest
from wire.test_wire import cuts, read_case

from gpulse.connection.proxyheader import ProxyHeaderProtocol

CASES = sorted((Path(__file__).parent / "proxy").glob("*.txt"))


class Connection:
    """As much of a connection as its first protocol uses."""

    peer = ("10.0.0.1", 4000)
    lost = False

    def set_deadline(self, deadline):
        self.deadline = deadline

    def abort(self):
        self.lost = True


def outcome_of(pieces: Iterable[bytes]) -> list[str]:
    """What a worker would do: the header's protocol first, then the client's bytes."""
    connection = Connection()
    headers = []
    rest = b""

    def done(connection, header, data):
        nonlocal rest
        headers.append(header)
        rest = data

    protocol = ProxyHeaderProtocol(connection, done, lambda reason: None)
    for piece in pieces:
        if headers:
            rest += piece
        elif not connection.lost:
            protocol.data_received(piece)
    if connection.lost:
        return ["refused"]
    if not headers:
        return ["more"]
    says = "peer"
    if headers[0].source is not None:
        source, destination = headers[0].source, headers[0].destination
        says = f"{source[0]} {source[1]} to {destination[0]} {destination[1]}"
    shown = rest.decode("latin-1").encode("unicode_escape").decode()
    return [says, f'"{shown}"']


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
class TestProxyWire:
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
    assert len(CASES) > 40
    for path in CASES:
        lines = path.read_text("ascii").splitlines()
        assert lines[0][:1] not in ("", "<", ">"), path.name
        assert {line[:2] for line in lines[1:]} <= {"> ", "< "}, path.name
        assert read_case(path)[1], path.name
