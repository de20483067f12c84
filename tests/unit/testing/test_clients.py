"""The inline clients themselves: what they tell when something is wrong, time, slow clients."""

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.test import override_settings
from django.urls import path

import gpulse
from gpulse import store
from gpulse.sse import EventStream
from gpulse.testing import EventStreamClient, InlineWorker, WebSocketClient
from gpulse.testing.live import live_pulse
from gpulse.websocket import WebSocketConsumer


class Echo(WebSocketConsumer):
    subprotocols = ["echo.v2", "echo.v1"]

    def on_message(self, message):
        if message == "fail":
            raise LookupError("on purpose")
        self.send(message)

    def on_close(self, code, reason):
        gpulse.publish("closed", {"code": code})


class Listener(WebSocketConsumer):
    def on_open(self):
        self.subscribe("news")
        self.subscribe("closed")


class Loop(WebSocketConsumer):
    """Publishes what makes it publish."""

    def on_open(self):
        self.subscribe("loop")

    def on_event(self, channel, message, position):
        self.publish(channel, message)


URLS = (
    path("echo", Echo.as_view()),
    path("listen", Listener.as_view()),
    path("loop", Loop.as_view()),
    path("stream", EventStream.as_view(channels=["news"])),
)


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    if not settings.configured:
        settings.configure()
    with override_settings(
        ROOT_URLCONF=URLS,
        MIDDLEWARE=[],
        ALLOWED_HOSTS=["testserver"],
        GPULSE={"websocket_outgoing": "64k"},
    ):
        yield
    assert InlineWorker.current is None


class TestMessages:
    @pytest.mark.parametrize("message", ["", "text", "ü" * 200, b"\x00\xff", b"x" * 70_000])
    def test_what_is_sent_comes_back(self, message):
        with WebSocketClient("/echo") as ws:
            ws.send(message)
            assert ws.receive() == message
            assert ws.received == []

    def test_the_subprotocol_is_the_servers_choice(self):
        with WebSocketClient("/echo", subprotocols=["other", "echo.v1"]) as ws:
            assert ws.subprotocol == "echo.v1"
        with WebSocketClient("/echo") as ws:
            assert ws.subprotocol is None

    def test_the_consumer_can_be_looked_at(self):
        with WebSocketClient("/echo") as ws:
            assert type(ws.consumer) is Echo

    def test_publishing_outside_a_handler_reaches_it(self):
        with WebSocketClient("/listen") as ws:
            assert gpulse.publish("news", "rain").receivers == 1
            assert ws.receive() == "rain"

    def test_a_handler_without_end_is_found_out(self, monkeypatch):
        monkeypatch.setattr("gpulse.testing.inline.STEPS", 100)
        ws = WebSocketClient("/loop").__enter__()
        gpulse.publish("loop", 1)
        with pytest.raises(AssertionError, match="100 steps and no end"):
            ws.receive()
        ws.__exit__(None, None, None)


class TestEnds:
    @pytest.mark.parametrize(
        ("code", "told"), [(1000, 1000), (4001, 4001), (None, 1005)], ids=["1000", "4001", "none"]
    )
    def test_the_clients_close_runs_on_close(self, code, told):
        with WebSocketClient("/listen") as other, WebSocketClient("/echo") as ws:
            ws.close(code)
            assert not ws.is_open
            assert ws.closed is not None
            assert other.receive_json() == {"code": told}

    def test_a_client_that_vanishes_is_1006(self):
        with WebSocketClient("/listen") as other, WebSocketClient("/echo") as ws:
            ws.vanish()
            assert ws.closed is not None
            assert ws.closed[0] == 1006
            assert other.receive_json() == {"code": 1006}

    def test_leaving_the_with_closes(self):
        with WebSocketClient("/listen") as other:
            with WebSocketClient("/echo"):
                pass
            assert other.receive_json() == {"code": 1000}

    def test_a_handlers_exception_comes_out_and_the_socket_is_closed(self, caplog):
        with WebSocketClient("/echo") as ws:
            with pytest.raises(LookupError, match="on purpose"):
                ws.send("fail")
            assert ws.closed is not None
            assert ws.closed[0] == 1011

    def test_or_stays_where_it_would_be_in_production(self, caplog):
        with WebSocketClient("/echo", raises=False) as ws:
            ws.send("fail")
            assert ws.closed is not None
            assert ws.closed[0] == 1011


class TestFailures:
    def test_nothing_to_receive_tells_what_was_sent(self):
        with WebSocketClient("/listen") as ws:
            ws.send("one")
            ws.send("two" * 100)
            with pytest.raises(AssertionError) as caught:
                ws.receive()
        text = str(caught.value)
        assert "WebSocketClient('/listen'), open, 2 sent so far (the last: 'twotwo" in text
        assert text.endswith("0 received: no message waits")
        assert len(text) < 400

    def test_a_refusal_is_in_the_text(self):
        with WebSocketClient("/echo", headers={"Origin": "https://evil.example"}) as ws:
            assert ws.response.status_code == 403
            assert ws.closed is None
            with pytest.raises(AssertionError, match=r"refused with 403 \(.*origin"):
                ws.send("x")

    def test_a_page_that_is_no_socket(self):
        with WebSocketClient("/nowhere") as ws:
            assert ws.response.status_code == 404
            assert not ws.is_open

    def test_what_is_not_json(self):
        with WebSocketClient("/echo") as ws:
            ws.send("{")
            with pytest.raises(AssertionError, match=r"'\{' is not JSON"):
                ws.receive_json()

    def test_sending_after_the_end_tells_of_the_end(self):
        with WebSocketClient("/echo") as ws:
            ws.close(4001)
            with pytest.raises(AssertionError, match="closed with 4001"):
                ws.send("x")

    def test_a_request_without_a_reply(self):
        with WebSocketClient("/listen") as ws:
            ws.consumer.send({"id": 7})
            with pytest.raises(AssertionError, match=r"no reply came; what waits: .{.id.:7}"):
                ws.request({"type": "send"})

    def test_outside_its_with(self):
        with pytest.raises(AssertionError, match="outside its with"):
            WebSocketClient("/echo").receive()


class TestOrigin:
    def test_it_is_the_sites_own_by_default(self):
        with WebSocketClient("/echo") as ws:
            assert ws.consumer.request.headers["Origin"] == "http://testserver"
        with WebSocketClient("/echo", secure=True) as ws:
            assert ws.consumer.request.headers["Origin"] == "https://testserver"
            assert ws.consumer.request.is_secure()

    def test_none_is_a_client_that_is_no_browser(self):
        with WebSocketClient("/echo", headers={"origin": None}) as ws:
            assert ws.is_open
            assert "Origin" not in ws.consumer.request.headers


class TestTime:
    def test_pings_are_answered_as_browsers_do(self):
        with WebSocketClient("/echo") as ws:
            ws.advance(3600)
            assert ws.is_open
            ws.send("still there")
            assert ws.receive() == "still there"

    def test_a_slow_client_is_closed(self):
        with WebSocketClient("/listen") as ws:
            ws.stop_reading()
            for _ in range(4):
                gpulse.publish("news", "x" * 30_000)
            assert ws.received == []
            ws.resume_reading()
            assert ws.closed is not None
            assert ws.closed[0] == 4408

    def test_a_client_that_is_slow_for_a_moment_gets_all(self):
        with WebSocketClient("/listen") as ws:
            ws.stop_reading()
            gpulse.publish("news", "one")
            gpulse.publish("news", "two")
            assert ws.received == []
            ws.resume_reading()
            assert ws.received == ["one", "two"]


class TestStreams:
    def test_events_come(self):
        with EventStreamClient("/stream") as stream:
            gpulse.publish("news", "two\nlines")
            gpulse.publish("news", {"n": 1})
            event = stream.receive()
            assert (event.data, event.event) == ("two\nlines", "message")
            assert stream.receive_json() == {"n": 1}
            with pytest.raises(AssertionError, match="open, 2 received: no event waits"):
                stream.receive()

    def test_comments_are_counted_and_are_no_events(self):
        with EventStreamClient("/stream") as stream:
            stream.advance(60)
            assert stream.comments >= 3
            assert stream.received == []
            assert stream.is_open

    def test_a_socket_and_a_stream_hear_each_other(self):
        with EventStreamClient("/stream") as stream, WebSocketClient("/listen") as ws:
            gpulse.publish("news", "x")
            assert (stream.receive().data, ws.receive()) == ("x", "x")

    def test_a_refusal_is_in_the_text(self):
        with EventStreamClient("/nowhere") as stream:
            assert not stream.is_open
            with pytest.raises(AssertionError, match="refused with 404"):
                stream.receive()


class TestWorker:
    def test_its_store_is_the_processs_while_it_runs(self):
        former = store.installed()
        with InlineWorker() as worker:
            assert store.installed() is worker.store
            assert InlineWorker.current is worker
        assert store.installed() is former

    def test_clients_share_it_and_it_outlives_them(self):
        with InlineWorker() as worker:
            with WebSocketClient("/listen"):
                assert worker.store.channels() == {"closed": 1, "news": 1}
            assert worker.store.channels() == {}
            assert InlineWorker.current is worker

    def test_without_one_clients_make_one_for_themselves(self):
        with WebSocketClient("/listen") as one:
            shared = InlineWorker.current
            with WebSocketClient("/listen") as two:
                assert InlineWorker.current is shared
            gpulse.publish("news", "x")
            assert (one.receive(), two.closed) == ("x", (1000, ""))
        assert InlineWorker.current is None

    def test_two_at_once_are_refused(self):
        with InlineWorker(), pytest.raises(RuntimeError, match="runs already"):
            InlineWorker().__enter__()

    def test_a_client_that_cannot_open_leaves_nothing_behind(self):
        with override_settings(ROOT_URLCONF="no.such.urls"), pytest.raises(ImportError):
            WebSocketClient("/echo").__enter__()
        assert InlineWorker.current is None

    def test_limits_are_those_of_the_settings(self):
        with InlineWorker() as worker:
            assert worker.sockets.limits.outgoing == 65_536


def test_live_pulse_is_a_fixture_of_pytest():
    made = live_pulse("--greenlet", workers=2, scope="module")
    assert "fixture" in repr(type(made)).lower()
