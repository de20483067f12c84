"""Every case of ``tests/wire/http`` over a real socket, on both pools.

What the parser makes of the bytes is in ``test_wire.py``; here is what comes of it: which requests
the application sees, what the client is answered, and that the connection ends where it must.
"""

import contextlib
import random
import socket

import gevent
import pytest
from contract.wsgi_site import until
from wire.test_wire import CASES, read_case

SAMPLE = CASES[::3]
"""Cases that are also sent in two pieces."""

AT_ONCE = 100_000
"""Bytes that the server reads to its end even if it refuses them; more may meet a reset."""


class Recorder:
    """An application that notes its requests as the cases write them."""

    def __init__(self):
        self.calls = []

    def __call__(self, environ, start_response):
        body = environ["wsgi.input"].read().decode("latin-1").encode("unicode_escape").decode()
        self.calls.append(f'200 {environ["REQUEST_METHOD"]} {environ["RAW_URI"]} "{body}"')
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"seen"]


def send(client, pieces):
    """Send the pieces so that the server reads each by itself, as long as it reads."""
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.suppress(ConnectionError):
        for number, piece in enumerate(pieces):
            if number:
                gevent.sleep(0.004)
            client.send(piece)


def answer_to(client, line):
    """The response to a request that the outcome names, or the refusal."""
    answer = client.read("HEAD" if line.startswith("200 HEAD") else "GET")
    return answer if answer.status != 100 else answer_to(client, line)


def play(site, recorder, pieces, outcome):
    """Send the input on a connection of its own and compare what happens with the outcome."""
    served = [line for line in outcome if line.startswith("200")]
    refusals = [line for line in outcome if line.isdigit()]
    client = site.connect()
    recorder.calls.clear()
    site.lines.clear()
    sender = gevent.spawn(send, client, pieces)
    answers = [answer_to(client, line) for line in (*served, *refusals)]
    assert [answer.status for answer in answers] == [int(line[:3]) for line in served + refusals]
    ends = bool(refusals) or outcome[-1] == "close"
    if answers:
        assert [answer.closes for answer in answers[:-1]] == [False] * (len(answers) - 1)
        assert answers[-1].closes is ends
    sender.get()
    if not ends:
        client.finish_sending()  # otherwise it would wait for more
    if len(pieces) == 1 and len(pieces[0]) <= AT_ONCE:
        assert client.is_ended()
    else:
        with contextlib.suppress(ConnectionResetError):  # what came behind the end was not read
            assert client.is_ended()
    client.close()
    until(lambda: len(site.lines) >= len(answers))
    until(site.is_quiet)
    assert recorder.calls == served
    assert len(site.lines) == len(answers)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_whole(serve, path):
    data, outcome = read_case(path)
    recorder = Recorder()
    site = serve(recorder)
    play(site, recorder, [data], outcome)
    assert site.get("/after").body == b"seen"


@pytest.mark.parametrize("path", SAMPLE, ids=lambda path: path.stem)
def test_cut_in_two(serve, path):
    data, outcome = read_case(path)
    recorder = Recorder()
    site = serve(recorder)
    chance = random.Random(path.stem)
    for _ in range(2):
        cut = chance.randrange(1, len(data))
        play(site, recorder, [data[:cut], data[cut:]], outcome)


def test_all_at_once(serve):
    """One worker, all cases on connections that are open together: none touches another."""
    recorder = Recorder()
    site = serve(recorder)
    cases = [case for case in map(read_case, CASES) if len(case[0]) <= AT_ONCE]
    clients = [site.connect() for _ in cases]
    for client, (data, _) in zip(clients, cases, strict=True):
        client.send(data[: len(data) // 2])
    gevent.sleep(0.01)
    wanted = []
    for client, (data, outcome) in zip(clients, cases, strict=True):
        send(client, [data[len(data) // 2 :]])
        client.finish_sending()
        answered = [line for line in outcome if line[0].isdigit()]
        wanted += [line for line in answered if line.startswith("200")]
        assert [answer_to(client, line).status for line in answered] == [
            int(line[:3]) for line in answered
        ]
        assert client.is_ended()
    assert sorted(recorder.calls) == sorted(wanted)
