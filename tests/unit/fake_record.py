"""A request whose response is complete, as the access log sees it."""

CLOCK = 1_700_000_000.9375
"""Seconds since the epoch at which lines are made; a fraction that floats hold exactly."""
MONOTONIC = 1000.0


class Head:
    def __init__(self, target):
        self.method = "GET"
        self.target = target
        self.is_http_1_0 = False


class Answer:
    def __init__(self, status, sent, headers):
        self.status = status
        self.sent = sent
        self.headers = headers


class FakeRecord:
    """Waited 250 ms for the pool, ran for 1.5 s, ends at MONOTONIC.

    Keywords in capitals are environ keys.
    """

    def __init__(self, target=b"/a?b=c", status="200 OK", sent=5, headers=(), **environ):
        self.request = Head(target)
        self.environ = {
            "REMOTE_ADDR": "192.0.2.7",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8060",
        } | environ
        self.response = Answer(status, sent, list(headers))
        self.switched = False
        self.started = MONOTONIC - 1.5
        self.queued_at = self.started - 0.25
        self.request_id = ""
        self.peer = ("192.0.2.7", 5000)
        self.served = 3


def clock():
    return CLOCK


def monotonic():
    return MONOTONIC


HOSTILE = 'x" 200 0 "-" "-" 0\r\n192.0.2.9 \\ \x85\x7f\té'
