"""``environ["wsgi.early_hints"]``: 103 before the response (RFC 8297)."""

import gc
import logging
import weakref

import gevent
import pytest
from contract.wsgi_site import until

LINK = ("Link", "</style.css>; rel=preload; as=style")
OTHER = ("Link", "</script.js>; rel=preload; as=script")


def hinting(*hints, late=()):
    """Sends each of the hints, then its response."""

    def application(environ, start_response):
        for fields in hints:
            environ["wsgi.early_hints"](list(fields))
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        if late:
            write(b"begun ")
            for fields in late:
                environ["wsgi.early_hints"](list(fields))
        return [b"done"]

    return application


def test_it_precedes_the_response(serve):
    client = serve(hinting([LINK])).connect()
    for _ in range(2):
        client.request("GET", "/")
        hint = client.read()
        assert (hint.status, hint.fields) == (103, {"link": LINK[1]})  # no Date, no Connection
        answer = client.read()
        assert (answer.status, answer.body) == (200, b"done")
        assert "link" not in answer.fields


def test_it_arrives_before_the_response_is_made(serve):
    def application(environ, start_response):
        environ["wsgi.early_hints"]([LINK])
        assert gate[0].wait(5)
        start_response("200 OK", [])
        return [b"done"]

    site = serve(application)
    gate = [site.gate()]
    client = site.connect()
    client.request("GET", "/")
    assert client.read().status == 103
    gate[0].set()
    assert client.read().body == b"done"


def test_several(serve):
    client = serve(hinting([LINK], [LINK, ("X-A", "b")], [OTHER])).connect()
    client.request("GET", "/")
    assert [client.read().fields["link"] for _ in range(3)] == [LINK[1], LINK[1], OTHER[1]]
    assert client.read().status == 200


def test_before_a_head_and_behind_other_requests(serve):
    client = serve(hinting([LINK])).connect()
    each = b"%b / HTTP/1.1\r\nHost: x\r\n\r\n"
    client.send(each % b"GET" + each % b"HEAD" + each % b"GET")
    for method in ("GET", "HEAD", "GET"):
        assert client.read().status == 103
        assert client.read(method).status == 200


def test_an_old_client_would_take_it_for_the_response(serve):
    client = serve(hinting([LINK])).connect()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.read().status == 200
    assert client.is_ended()


def test_it_is_too_late_behind_the_head(serve):
    client = serve(hinting(late=[[LINK]])).connect()
    for _ in range(2):
        client.request("GET", "/")
        assert client.read().body == b"begun done"


def test_it_is_too_late_behind_the_response(serve):
    kept = []

    def application(environ, start_response):
        kept.append(environ["wsgi.early_hints"])
        start_response("200 OK", [])
        return [b"done"]

    site = serve(application)
    client = site.connect()
    client.request("GET", "/")
    assert client.read().body == b"done"
    until(lambda: site.pool.busy == 0)
    kept[0]([LINK])
    client.request("GET", "/")
    assert client.read().status == 200


def test_it_keeps_nothing_of_a_request_for_the_garbage_collector(serve):
    class Mark:
        pass

    marks = []

    def application(environ, start_response):
        environ["test.mark"] = mark = Mark()
        marks.append(weakref.ref(mark))
        environ["wsgi.early_hints"]([LINK])
        start_response("200 OK", [])
        return [b"done"]

    site = serve(application)
    gc.disable()
    try:
        for _ in range(3):
            client = site.connect()
            client.request("GET", "/", Connection="close")
            assert client.read().status == 103
            assert client.read().status == 200
        until(lambda: [mark() for mark in marks] == [None] * 3)
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "field",
    [
        ("Link", "a\r\nX-Injected: yes"),
        ("Link", "a\nb"),
        ("Link", "a\rb"),
        ("Link", "a\0b"),
        ("Link\r\nX-Injected", "yes"),
        ("Li nk", "a"),
        ("", "a"),
        ("Link", "€"),
        ("Link", 5),
        (5, "a"),
        ("Connection", "close"),
        ("Keep-Alive", "timeout=5"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "websocket"),
        ("Trailer", "a"),
        ("Content-Length", "5"),
    ],
)
def test_a_field_that_may_not_be_there_is_a_500_and_nothing_is_sent_of_it(serve, field, caplog):
    caplog.set_level(logging.CRITICAL, "gpulse")
    client = serve(hinting([LINK], [field])).connect()
    client.request("GET", "/")
    assert client.read().status == 103
    answer = client.read()
    assert (answer.status, answer.closes) == (500, True)
    assert "x-injected" not in answer.fields
    assert client.is_ended()


def test_an_application_may_catch_the_refusal(serve):
    def application(environ, start_response):
        with pytest.raises(Exception, match="CR, LF"):
            environ["wsgi.early_hints"]([("Link", "a\r\nb")])
        start_response("200 OK", [])
        return [b"done"]

    assert serve(application).get().body == b"done"


def test_one_that_fails_behind_a_hint_is_a_500(serve, caplog):
    caplog.set_level(logging.CRITICAL, "gpulse")

    def application(environ, start_response):
        environ["wsgi.early_hints"]([LINK])
        raise ValueError

    client = serve(application).connect()
    client.request("GET", "/")
    assert client.read().status == 103
    assert client.read().status == 500


def test_a_client_that_has_left_ends_an_application_that_hints_for_ever(serve):
    def application(environ, start_response):
        while True:
            environ["wsgi.early_hints"]([LINK])
            site.pool.waiter().wait(0.001)

    site = serve(application)
    client = site.connect()
    client.request("GET", "/")
    client.read()
    client.close()
    until(site.is_quiet)


def test_hints_for_a_client_that_reads_nothing_are_bounded(serve):
    def application(environ, start_response):
        for _ in range(100_000):
            environ["wsgi.early_hints"]([("Link", "l" * 5000)])
        start_response("200 OK", [])
        return []

    site = serve(application, write_timeout=0.3)
    client = site.connect(receive_buffer=4096)
    client.request("GET", "/")
    until(lambda: site.server.requests)
    most = []
    while not site.is_quiet():
        most.append(max((each.buffered for each in site.server.connections), default=0))
        gevent.sleep(0.01)
    assert max(most) < 1_000_000
