"""Request ids end to end: who makes them, who may bring one, and where they are seen."""

import json
import logging
import re

import gevent
import pytest
from contract.wsgi_site import until

MADE = re.compile(r"[0-9a-f]{32}")
GIVEN = "3f6c2a1e-8f5b-4c1d-9f00-0123456789ab"


class Application:
    """Answers with the id that it sees; remembers both of its keys."""

    def __init__(self, headers=()):
        self.headers = list(headers)
        self.seen = []

    def __call__(self, environ, start_response):
        self.seen.append((environ.get("HTTP_X_REQUEST_ID"), environ.get("gpulse.request_id")))
        if environ["PATH_INFO"] == "/raise":
            raise ValueError
        start_response("200 OK", [("Content-Type", "text/plain"), *self.headers])
        return [str(self.seen[-1][0]).encode()]


@pytest.fixture
def site(serve):
    """It has ``application``."""
    application = Application()
    site = serve(application, request_id=True, log_format="json")
    site.application = application
    return site


def logged(site, number=1):
    """The ids in the log, once there are so many lines."""
    until(lambda: len(site.lines) == number)
    return [json.loads(line)["id"] for line in site.lines]


def test_one_is_made_and_seen_everywhere(site):
    answer = site.get()
    made = answer.fields["x-request-id"]
    assert MADE.fullmatch(made)
    assert site.application.seen == [(made, made)]
    assert answer.body.decode() == made
    assert logged(site) == [made]


def test_each_request_has_its_own(site):
    client = site.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    ids = [client.read().fields["x-request-id"] for _ in range(20)]
    assert len(set(ids)) == 20
    assert logged(site, 20) == ids


@pytest.mark.parametrize(
    "given", [GIVEN, "a", "a" * 128, "urn:uuid:1~2", "Root=1-5f/3+a==", "user@host"]
)
def test_that_of_a_trusted_proxy_is_kept(site, given):
    answer = site.get(X_Request_ID=given)
    assert answer.fields["x-request-id"] == given
    assert site.application.seen == [(given, given)]
    assert logged(site) == [given]


@pytest.mark.parametrize(
    "given",
    [
        "",
        "a b",
        "a" * 129,
        'a"b',
        "a,b",
        "a\tb",
        "a;b",
        "<b>",
        "\xe9",
        "a%0d%0aX: y",
        "a'b",
        "$(a)",
    ],
)
def test_one_that_is_no_proper_id_is_replaced(site, given):
    client = site.connect()
    client.send(f"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: {given}\r\n\r\n".encode("latin-1"))
    answer = client.read()
    assert MADE.fullmatch(answer.fields["x-request-id"])
    assert site.application.seen == [(answer.fields["x-request-id"],) * 2]


def test_two_are_none(site):
    client = site.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: a\r\nX-Request-ID: b\r\n\r\n")
    assert MADE.fullmatch(client.read().fields["x-request-id"])


@pytest.mark.parametrize("name", ["X_Request_ID", "X_REQUEST-ID"])
def test_another_spelling_is_not_read(site, name):
    client = site.connect()
    client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{name}: {GIVEN}\r\n\r\n".encode())
    assert MADE.fullmatch(client.read().fields["x-request-id"])


@pytest.mark.parametrize("trusted", ["", "192.0.2.0/24"])
def test_that_of_anybody_else_is_replaced(serve, trusted):
    application = Application()
    site = serve(application, request_id=True, trusted_proxies=trusted)
    answer = site.get(X_Request_ID=GIVEN)
    assert MADE.fullmatch(answer.fields["x-request-id"])
    assert application.seen == [(answer.fields["x-request-id"],) * 2]


def test_that_of_a_client_that_a_proxy_header_names_is_replaced(serve):
    """The proxy passes bytes on and has not seen it."""
    application = Application()
    site = serve(application, request_id=True, proxy_protocol=True)
    client = site.connect()
    client.send(
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n"
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-ID: %b\r\n\r\n" % GIVEN.encode()
    )
    assert MADE.fullmatch(client.read().fields["x-request-id"])


@pytest.mark.parametrize("name", ["X-Request-ID", "x-request-id"])
def test_an_application_that_sends_one_itself_sends_the_only_one(serve, name):
    """django-request-id and others do; two fields would be two ids to whoever joins them."""
    site = serve(Application([(name, "mine")]), request_id=True)
    client = site.connect()
    for _ in range(2):
        client.request("GET", "/")
        assert client.read().fields["x-request-id"] == "mine"


def test_turned_off_nothing_is_made_or_changed(serve):
    application = Application()
    site = serve(application, log_format="json")
    assert "x-request-id" not in site.get().fields
    assert "x-request-id" not in site.get(X_Request_ID="a b").fields
    assert application.seen == [(None, None), ("a b", None)]
    assert logged(site, 2) == [None, None]


def test_a_format_of_the_log_has_it(serve):
    site = serve(Application(), request_id=True, log_format="%L %s")
    made = site.get().fields["x-request-id"]
    until(lambda: site.lines)
    assert site.lines == [f"{made} 200"]


def test_an_error_of_the_application_s_can_be_found_by_it(site, caplog):
    """The client shows the id to whoever looks for the traceback."""
    caplog.set_level(logging.CRITICAL, "gpulse")
    answer = site.get("/raise")
    assert answer.status == 500
    assert answer.fields["x-request-id"] == site.application.seen[0][0]
    assert logged(site) == [answer.fields["x-request-id"]]


def test_so_can_a_request_that_was_stopped(serve, caplog):
    """On threads the hub answers in place of a thread that goes on."""
    caplog.set_level(logging.CRITICAL, "gpulse")
    seen = []

    def application(environ, start_response):
        seen.append(environ["gpulse.request_id"])
        assert gate[0].wait(10)
        start_response("200 OK", [])
        return []

    site = serve(application, request_id=True, request_timeout="0.2", log_format="%L %s")
    gate = [site.gate()]
    answer = site.get()
    gate[0].set()
    assert answer.status == 503
    assert answer.fields["x-request-id"] == seen[0]
    until(site.is_quiet)
    assert site.lines == [f"{seen[0]} 503"]


def test_a_websocket_s_handshake_has_it(serve):
    def application(environ, start_response):
        socket = environ["wsgi.websocket"]
        socket.send(environ["gpulse.request_id"])
        return []

    site = serve(application, request_id=True)
    client = site.connect()
    answer = client.upgrade()
    assert answer.status == 101
    assert answer.fields["x-request-id"] == client.hear()


def test_many_at_once_do_not_mix_them_up(site):
    def visit(number):
        client = site.connect()
        for turn in range(10):
            given = f"{number}-{turn}"
            client.request("GET", "/", X_Request_ID=given)
            answer = client.read()
            assert (answer.fields["x-request-id"], answer.body) == (given, given.encode())

    gevent.joinall([gevent.spawn(visit, number) for number in range(20)], raise_error=True)
