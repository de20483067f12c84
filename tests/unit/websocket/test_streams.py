"""Event streams of a site: what a browser's Last-Event-ID says, and how many one user may have."""

import logging

import django
import pytest
from django.conf import settings
from django.test import override_settings
from django.urls import path

from gpulse.sse import EventStream
from gpulse.testing import EventStreamClient, InlineWorker, WebSocketClient
from gpulse.websocket import ChannelConsumer


class Reacts(EventStream):
    """Sends an event's message as often as it says."""

    channels = ("news",)

    def on_event(self, channel, message, position):
        for number in range(message["times"]):
            self.send(f"{message['text']} {number}")
        if message.get("then") == "close":
            self.close()
        elif message.get("then") == "fail":
            raise ValueError(message)


class User:
    """Somebody whom the site's own middleware knows."""

    is_authenticated = True

    def __init__(self, pk):
        self.pk = pk

    def __str__(self):
        return str(self.pk)


def token(get_response):
    """The middleware that knows."""

    def middleware(request):
        name = request.headers.get("X-User")
        request.user = User(name) if name else None
        return get_response(request)

    return middleware


class Talks(ChannelConsumer):
    def may_subscribe(self, channel):
        return True


FEW = {"per_user": 2}
SLOW = {"slow": "drop", "outgoing": 1024}
URLS = (
    path("reacts", Reacts.as_view()),
    path("few", EventStream.as_view(channels=["news"], limits=FEW)),
    path("talks", Talks.as_view(limits=FEW)),
    path("slow-reacts", Reacts.as_view(limits=SLOW)),
    path("slow", EventStream.as_view(channels=["a", "b", "c"], limits=SLOW)),
)


@pytest.fixture(autouse=True)
def site():
    if not settings.configured:
        settings.configure()
    django.setup()  # it is looked whether users are the site's model
    with override_settings(
        ROOT_URLCONF=URLS,
        MIDDLEWARE=[f"{__name__}.token"],
        ALLOWED_HOSTS=["testserver"],
        GPULSE={"history": "*=100/300"},
    ):
        yield


def came_back(last, where="/reacts"):
    """What a browser that read up to ``last`` gets when it comes back."""
    headers = {"Last-Event-ID": last}
    with EventStreamClient(where, headers=headers, raises=False) as stream:
        return [(each.event, each.data) for each in stream.received]


class TestIdsOfAnEventThatAHandlerTakes:
    """An id says that the client has all that its event led to, and nothing before does."""

    def publish(self, text, times, then=None):
        self.stream.consumer.publish("news", {"text": text, "times": times, "then": then})

    @pytest.fixture(autouse=True)
    def stream(self):
        with InlineWorker(), EventStreamClient("/reacts", raises=False) as self.stream:
            self.publish("first", 1)
            (first,) = self.stream.received
            self.first = first.id
            yield

    def test_the_one_message_has_it(self):
        assert self.first.startswith("news ")
        consumer = self.stream.consumer
        consumer.publish("news", {"text": "missed", "times": 1})
        assert came_back(self.first) == [("message", "missed 0")]

    def test_the_last_of_several_has_it(self):
        self.publish("a", 3)
        got = self.stream.received
        assert [each.data for each in got] == ["a 0", "a 1", "a 2"]
        assert [each.id == self.first for each in got] == [True, True, False]
        assert came_back(got[-1].id) == []
        assert came_back(got[1].id) == [("message", f"a {number}") for number in range(3)]

    def test_where_nothing_is_sent_it_goes_alone(self):
        self.publish("a", 0)
        assert self.stream.received == []
        assert self.stream.last_id != self.first
        assert came_back(self.stream.last_id) == []

    def test_a_handler_that_fails_gets_the_event_again(self, caplog):
        caplog.set_level(logging.CRITICAL, "gpulse.websocket")
        self.publish("a", 2, then="fail")
        assert [each.data for each in self.stream.received] == ["a 0", "a 1"]
        assert not self.stream.is_open
        assert self.stream.last_id == self.first
        assert came_back(self.first)[:2] == [("message", "a 0"), ("message", "a 1")]

    def test_a_handler_that_closes_does_not_get_it_again(self):
        """Else the browser, which always comes back, is closed again and again."""
        self.publish("a", 1, then="close")
        assert [each.data for each in self.stream.received] == ["a 0"]
        assert not self.stream.is_open
        assert came_back(self.stream.last_id) == []


def test_who_left_before_the_first_event_misses_nothing():
    with InlineWorker():
        with EventStreamClient("/few") as stream:
            consumer = stream.consumer
            assert stream.received == []
        consumer.publish("news", "missed")
        assert came_back(stream.last_id, "/few") == [("message", "missed")]


def test_who_reads_too_slowly_is_told_which_channels_lost_something():
    with EventStreamClient("/slow") as stream:
        stream.stop_reading()
        for channel in "abaaaaaaaaaa":
            stream.consumer.publish(channel, channel * 200)
            stream.advance(0)  # each in a turn of its own
        assert stream.consumer._services.sockets.dropped > 0
        stream.resume_reading()
        got = [(each.event, each.data[:1]) for each in stream.received]
        assert got[-2:] == [("gap", ""), ("gap", "")]  # of a and b
        assert set(got[:-2]) == {("message", "a")}
        stream.consumer.publish("c", "on")
        assert stream.receive().data == "on"


def test_who_lost_what_a_handler_sent_of_an_event_is_told_too():
    """The ids that follow say that the client has it: it would never come again."""
    with EventStreamClient("/slow-reacts") as stream:
        stream.stop_reading()
        for _ in range(8):
            stream.consumer.publish("news", {"text": "x" * 200, "times": 1})
            stream.advance(0)  # each in a turn of its own
        assert stream.consumer._services.sockets.dropped > 0
        stream.resume_reading()
        assert stream.received[-1].event == "gap"


@override_settings(GPULSE={"max_websockets": 1})
def test_who_comes_back_to_a_full_worker_is_to_ask_again_later():
    with EventStreamClient("/few") as stream:
        assert stream.received == []
        with EventStreamClient("/few") as new:
            assert new.response.status_code == 503
        back = {"Last-Event-ID": stream.last_id}
        with EventStreamClient("/few", headers=back) as refused:
            assert refused.response.status_code == 200
            assert refused.response.content.startswith(b"retry: 10000\n\n: closed 1013 ")


@override_settings(GPULSE={})
def test_who_comes_back_is_not_refused_for_good_where_no_history_is_kept():
    user = {"X-User": "ann"}
    with EventStreamClient("/few", headers=user) as first, EventStreamClient("/few", headers=user):
        assert first.received == []
        assert first.last_id  # a browser sends no empty one
        back = {"Last-Event-ID": first.last_id, **user}
        with EventStreamClient("/few", headers=back) as refused:
            assert refused.response.status_code == 200
            assert refused.response.content.startswith(b"retry: ")
    with EventStreamClient("/few", headers=back) as stream:
        stream.consumer.publish("news", "on")
        assert [each.data for each in stream.received] == ["on"]  # and no gap


@pytest.mark.parametrize("where", ["/few", "/talks"])
class TestStreamsBeyondThoseOfOneUser:
    def stream(self, where, user="ann"):
        return EventStreamClient(where, headers={"X-User": user})

    def test_the_new_one_is_refused_for_good_and_the_old_ones_stay(self, where):
        with self.stream(where) as first, self.stream(where) as second:
            for _ in range(3):  # it is no use to come back
                with self.stream(where) as third:
                    assert third.response.status_code == 429
                    assert third.response["Retry-After"] == "10"
            with self.stream(where, "bob") as other, self.stream(where, "") as nobody:
                assert other.is_open
                assert nobody.is_open
            assert first.is_open
            assert second.is_open

    def test_who_comes_back_is_to_ask_again_later(self, where):
        """Its last stream may count for a while yet: it vanished without a word."""
        with self.stream(where) as first, self.stream(where) as second:
            headers = {"X-User": "ann", "Last-Event-ID": "kept:a e-1"}
            with EventStreamClient(where, headers=headers) as back:
                assert back.response.status_code == 200
                assert back.response["Content-Type"] == "text/event-stream; charset=utf-8"
                assert back.response.content == (
                    b"retry: 10000\n\n: closed 4429 too many streams of this user\n\n"
                )
            assert first.is_open
            assert second.is_open

    def test_there_is_room_when_one_has_ended(self, where):
        with self.stream(where):
            with self.stream(where):
                pass
            with self.stream(where) as next_one:
                assert next_one.is_open

    def test_a_websocket_replaces_the_oldest_which_does_not_get_in_again(self, where):
        websocket = WebSocketClient("/talks", subprotocols=["gpulse.v1"], headers={"X-User": "ann"})
        with self.stream(where) as first, self.stream(where) as second, websocket:
            assert not first.is_open
            assert second.is_open
            with self.stream(where) as again:
                assert again.response.status_code == 429
