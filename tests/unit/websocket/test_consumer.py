"""What stands around a handler."""

import pytest
from django.conf import settings
from django.urls import get_urlconf, set_urlconf
from django.utils import timezone

from gpulse.websocket import WebSocketConsumer


@pytest.fixture(autouse=True)
def configured():
    if not settings.configured:
        settings.configure()


class Curious(WebSocketConsumer):
    def on_open(self):
        self.found = (timezone.get_current_timezone_name(), get_urlconf())
        timezone.activate("Europe/Berlin")

    def on_close(self, code, reason):
        self.closed = (code, reason)
        self.zone = timezone.get_current_timezone_name()


def test_a_handler_finds_nothing_that_an_earlier_job_left():
    consumer = Curious()
    with timezone.override("Asia/Tokyo"):
        set_urlconf("other.urls")
        try:
            consumer.handle("on_open")
            consumer.handle("on_close", 1001, "away")
        finally:
            set_urlconf(None)
        assert timezone.get_current_timezone_name() == "Asia/Tokyo"
    assert consumer.found == (settings.TIME_ZONE, None)
    assert (consumer.closed, consumer.zone) == ((1001, "away"), settings.TIME_ZONE)


def test_what_a_handler_raises_comes_out():
    class Failing(WebSocketConsumer):
        def on_open(self):
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        Failing().handle("on_open")


def test_only_an_override_of_on_event_takes_events():
    class Listening(WebSocketConsumer):
        def on_event(self, channel, message, position):
            pass

    assert Listening().handled == {"on_event"}
    assert Curious().handled == frozenset()


@pytest.mark.parametrize(
    ("code", "reason", "sendable"),
    [
        (1000, "", True),
        (4401, "log in", True),
        (1005, "", False),
        (999, "", False),
        (1000, "é" * 62, False),
    ],
)
def test_a_close_code_or_reason_that_may_not_be_sent_is_refused(code, reason, sendable):
    sent = []

    class Pool:
        def call_hub(self, call, *args):
            sent.append(args)

    class Services:
        pool = Pool()

    consumer = Curious()
    consumer._services = Services()
    consumer._session = type("Session", (), {"close": None})()
    if sendable:
        consumer.close(code, reason)
        assert sent == [(code, reason)]
    else:
        with pytest.raises(ValueError, match=r"close (code|reason)"):
            consumer.close(code, reason)


def test_as_view_refuses_an_attribute_that_the_class_does_not_have():
    with pytest.raises(TypeError, match="color"):
        Curious.as_view(color="red")
