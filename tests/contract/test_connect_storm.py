"""More handshakes than a worker can take at once: what becomes of them, and of pages meanwhile."""

import itertools
import logging
import time

import gevent
import pytest
from contract.test_pools import settle
from contract.test_upgrade import parked
from contract.wsgi_site import until

from gpulse.http import server
from gpulse.http.server import FIRST_READS

HANDSHAKE = (
    b"GET /%d HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
READY = "/-/ready"


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, "gpulse")


@pytest.fixture
def crowd(serve):
    """``crowd(count)``: a site of two members, one of which a handshake has, and ``count`` clients
    with a handshake that waits; ``gate`` lets all go on."""

    def begin(count, **options):
        site = serve(application, size=2, **options)
        gates.append(site.gate())
        site.gate = gates[0]
        clients = [site.connect() for _ in range(count + 1)]
        for number, client in enumerate(clients):
            client.send(HANDSHAKE % number)
            until(lambda number=number: site.server.requests == number + 1)
            until(lambda: site.pool.busy == 1)
        assert site.pool.handshakes == count
        return site, clients

    def application(environ, start_response):
        if environ["PATH_INFO"] != "/page":
            assert gates[0].wait(10)
        return parked()(environ, start_response)

    gates = []
    return begin


def say_and_hear(clients):
    for number, client in enumerate(clients):
        client.say("text", b"%d" % number)
        assert client.hear() == f"echo {number}"


def test_pages_are_answered_beside_them_and_all_open(crowd):
    site, clients = crowd(30)
    assert site.get("/page").body == b"a page"
    site.gate.set()
    assert [client.read().status for client in clients] == [101] * 31
    say_and_hear(clients)


def test_one_more_than_may_wait_is_refused_and_pages_are_not(crowd):
    site, clients = crowd(3, max_queued=3)
    late = site.connect()
    answer = late.upgrade()
    assert (answer.status, answer.fields["retry-after"], answer.closes) == (503, "1", True)
    assert site.get("/page").body == b"a page"
    assert site.get(READY).status == 200
    site.gate.set()
    assert [client.read().status for client in clients] == [101] * 4
    until(lambda: not site.pool.has_waiting)
    assert site.connect().upgrade().status == 101


def test_one_that_waits_too_long_is_refused_and_logged(crowd):
    site, clients = crowd(2, queue_timeout=0.2)
    assert [client.read().status for client in clients[1:]] == [503] * 2
    assert site.pool.handshakes == 0
    assert len(site.lines) == 2
    for number, line in enumerate(sorted(site.lines), 1):
        assert f'"GET /{number} HTTP/1.1" 503 ' in line
    site.gate.set()
    assert clients[0].read().status == 101


def test_one_whose_client_leaves_is_not_run(crowd):
    site, clients = crowd(2)
    clients[1].reset()
    until(lambda: site.pool.handshakes == 1)
    site.gate.set()
    assert [clients[number].read().status for number in (0, 2)] == [101] * 2
    until(lambda: sorted(line.split('"')[2][:4] for line in site.lines) == [" 101", " 101", " 499"])


def test_a_drain_empties_the_queue(crowd):
    site, clients = crowd(10)
    site.server.stop_accepting()
    site.sockets.drain()
    site.gate.set()
    for client in clients:
        assert client.read().status == 101
        assert client.hear() == 1012
    until(lambda: not site.pool.has_waiting)


def speak_at_once(site, count):
    """Clients that were accepted before any of them spoke."""
    before = len(site.server.connections)
    clients = [site.connect() for _ in range(count)]
    until(lambda: len(site.server.connections) == before + count)
    settle()
    for number, client in enumerate(clients):
        client.send(HANDSHAKE % number)
    return clients


def test_a_storm_of_those_that_were_silent_does_not_fill_the_queue(serve, monkeypatch):
    monkeypatch.setattr(server, "FIRST_READS_PAUSE", 0.05)  # threads share a core with the test
    site = serve(parked(), size=2, max_queued=20)
    clients = speak_at_once(site, 80)
    assert [client.read().status for client in clients] == [101] * 80
    assert site.get("/page").body == b"a page"
    say_and_hear(clients)


def test_newcomers_are_read_although_handshakes_hang(crowd):
    site, _ = crowd(4, max_queued=8, queue_timeout=60)
    clients = [site.connect() for _ in range(20)]
    for client in clients:
        client.sock.settimeout(2)
        client.request("GET", "/page")
        assert client.read().body == b"a page"
    site.gate.set()


def test_few_are_read_in_one_turn_of_the_hub(serve):
    site = serve(parked(), size=2)
    turns = []
    watcher = gevent.get_hub().loop.prepare()
    watcher.start(lambda: turns.append(site.server.requests))
    clients = speak_at_once(site, 10 * FIRST_READS)
    assert [client.read().status for client in clients] == [101] * len(clients)
    watcher.stop()
    watcher.close()
    steps = {now - then for then, now in itertools.pairwise(turns)}
    assert max(steps) <= FIRST_READS


def test_an_open_connection_is_read_between_newcomers(serve):
    site = serve(parked(), size=2)
    reader = site.connect()
    reader.request("GET", "/page")
    assert reader.read().body == b"a page"
    clients = speak_at_once(site, 20 * FIRST_READS)
    reader.request("GET", "/page")
    assert reader.read().body == b"a page"
    assert len(site.sockets.sessions) < len(clients)
    assert [client.read().status for client in clients] == [101] * len(clients)


@pytest.mark.parametrize("leave", ["close", "reset", "finish_sending"])
def test_newcomers_that_leave_are_forgotten(serve, leave):
    site = serve(parked())
    clients = [site.connect() for _ in range(3 * FIRST_READS)]
    until(lambda: len(site.server.connections) == len(clients))
    for client in clients:
        getattr(client, leave)()
    until(lambda: not site.server.connections)
    assert site.get("/page").body == b"a page"


def test_a_newcomer_that_stays_silent_has_its_time(serve):
    site = serve(parked(), head_timeout=0.2)
    client = site.connect()
    assert client.is_ended()
    until(lambda: not site.server.connections)
    assert not site.server._newcomers._watchers
    assert site.get("/page").body == b"a page"


def test_many_open_while_pages_are_asked_for_without_end(serve):
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/page":
            time.sleep(0.0005)  # not gevent's: where members are greenlets, the hub is held up
        return parked()(environ, start_response)

    site = serve(application, size=4)
    readers = [site.connect() for _ in range(8)]
    answered = [0]

    def ask(client):
        while True:
            client.request("GET", "/page")
            assert client.read().body == b"a page"
            answered[0] += 1

    asking = [gevent.spawn(ask, client) for client in readers]
    clients = [site.connect() for _ in range(60)]
    for number, client in enumerate(clients):
        client.send(HANDSHAKE % number)
    assert [client.read().status for client in clients] == [101] * 60
    gevent.killall(asking)
    assert answered[0] > 8
    say_and_hear(clients)
