"""Faults of the realtime parts that a review found, each as the smallest case that shows it."""

import gc
import json
import logging
import weakref
import zlib
from dataclasses import replace

import gevent
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.urls import path
from unit.websocket.test_eventstream import Rig as StreamRig
from unit.websocket.test_session import LIMITS, Rig, event
from websockets.frames import Opcode

from gpulse.errors import StoreError, SubscribeError
from gpulse.historyrules import HistoryRules, parse_history
from gpulse.sse import EventStream
from gpulse.store import memory
from gpulse.store.memory import MemoryStore
from gpulse.store.message import Event
from gpulse.testing import EventStreamClient, InlineWorker, WebSocketClient
from gpulse.websocket import ChannelConsumer
from gpulse.websocket.closecodes import TOO_SLOW
from gpulse.websocket.deflate import Deflate
from gpulse.websocket.eventstream import decode_id
from gpulse.websocket.frames import TEXT


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, "gpulse.websocket")


class TestHandlersThatEndOtherwise:
    @pytest.mark.parametrize("error", [gevent.Timeout(1), SystemExit(1), GeneratorExit()])
    def test_what_is_no_exception_ends_the_socket_too(self, error):
        rig = Rig()

        def fail(message):
            raise error

        rig.consumer.reactions["on_message"] = fail
        rig.sent(("text", b"x"))
        with pytest.raises(type(error)):  # the pool's members survive it
            rig.pool.run()
        assert rig.close_code == 1011
        rig.connection.lose()
        rig.pool.run()
        assert rig.consumer.seen[-1][0] == "on_close"


class TestTheEnd:
    def test_a_socket_that_was_not_admitted_has_no_handlers_called(self):
        rig = Rig()
        other = type(rig.session)(rig.connection, rig.sockets, rig.consumer)
        rig.connection.protocol = other
        other.start_closing(4401, "not admitted")
        rig.connection.lose()
        rig.pool.run()
        assert rig.consumer.seen == []

    @pytest.mark.parametrize("way", ["close", "client's close", "ping", "own ping"])
    def test_nothing_follows_a_close_frame(self, way):
        rig = Rig(call_soon=lambda call: None)
        rig.connection.stuck = True
        rig.session.send(TEXT, b"x" * 900)
        rig.session.flush()
        rig.session.send(TEXT, b"y" * 200)  # waits for the end of the turn; is too much
        if way == "close":
            rig.session.close(1000, "bye")
        elif way == "client's close":
            rig.client.send_close(1000)
            rig.raw(b"".join(rig.client.data_to_send()))
        elif way == "ping":
            rig.client.send_ping(b"p")
            rig.raw(b"".join(rig.client.data_to_send()))
        else:
            rig.session._send_out(b"\x89\x00")
        frames = _frames(b"".join(rig.connection.waiting))
        assert Opcode.CLOSE in frames
        assert frames.index(Opcode.CLOSE) == len(frames) - 1

    def test_a_closed_socket_is_freed_without_the_collector(self):
        rig = Rig()
        rig.consumer._session = rig.session  # as WebSocketConsumer has it
        gone = weakref.ref(rig.session)
        rig.connection.lose()
        rig.pool.run()
        rig.connection.protocol = None  # as Connection does
        rig.forgotten.clear()
        gc.disable()
        try:
            del rig.session, rig.consumer
            assert gone() is None
        finally:
            gc.enable()


def _frames(data):
    opcodes = []
    while data:
        opcode, size, head = data[0] & 15, data[1] & 127, 2
        if size == 126:
            size, head = int.from_bytes(data[2:4], "big"), 4
        opcodes.append(Opcode(opcode))
        data = data[head + size :]
    return opcodes


class TestBounds:
    def test_messages_of_one_read_beyond_the_inbox_are_not_unpacked_yet(self):
        """96 KiB of compressed frames would be 90 MB of messages, for each of many sockets."""
        limits = replace(LIMITS, message=1_048_576, inbox=4)
        rig = Rig(limits=limits, deflate=Deflate(15, ""))
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = (packer.compress(b"x" * 1_048_576) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        frame = b"\xc1\xfe" + len(packed).to_bytes(2, "big") + bytes(4) + packed
        rig.raw(frame * 20)
        assert rig.sockets.messages_in <= 2 * limits.inbox
        rig.pool.run()
        assert len(rig.consumer.seen) == 20
        assert rig.sockets.messages_in == 20

    def test_a_recovery_is_not_taken_for_a_slow_handler(self):
        """A history larger than ``events``: a client that comes back would be closed each time."""
        rig = Rig(opened=False, takes_events=True, limits=replace(LIMITS, events=3))
        for number in range(10):
            rig.session.deliver(event(str(number)))
        rig.pool.run()
        assert [each[2] for each in rig.consumer.seen if each[0] == "on_event"] == [
            str(number) for number in range(10)
        ]
        assert rig.close_code is None


class TestStreams:
    def test_a_position_is_not_told_without_its_message(self):
        """Else the browser's Last-Event-ID is behind what it has, and the message is lost."""
        rig = StreamRig()
        rig.connection.stuck = True
        rig.session.deliver(Event("a", "t", b"1", position="e-1"))
        rig.session.deliver(Event("a", "t", b"2" * 2000, position="e-2"))
        rig.session.deliver(Event("a", "t", b"3" * 2000, position="e-3"))
        rig.connection.flush()
        told, got = _read_as_a_browser(rig.reader.data)
        assert told.get("a", "e-0") == f"e-{len(got)}"


def _read_as_a_browser(data):
    """The last event ID after the data, and the events (HTML, 9.2.6)."""
    last, buffered, events = "", "", []
    blocks = data.decode().split("\n\n")
    for block in blocks[:-1]:
        lines = []
        for line in block.split("\n"):
            if line.startswith("id: "):
                buffered = line[4:]
            elif line.startswith("data: "):
                lines.append(line[6:])
        last = buffered
        if lines:
            events.append("\n".join(lines))
    return decode_id(last), events


class Talker(ChannelConsumer):
    closed = 0
    verdict = None

    def admit(self, request):
        return self.verdict

    def may_subscribe(self, channel):
        return True

    def member(self):
        return "ann"

    def on_request(self, data, key):
        if data == "set":
            return {1, 2}
        return data


class Choosy(Talker):
    verdict = 4401


class Many(EventStream):
    def get_channels(self, request):
        return [f"{'long' * 20}:{number}" for number in range(60)]


URLS = (
    path("talk", Talker.as_view()),
    path("choosy", Choosy.as_view()),
    path("news", EventStream.as_view(channels=["news"])),
    path("räume", EventStream.as_view(channels=["räume:1"])),
    path("many", Many.as_view()),
    path("toomany", EventStream.as_view(channels=["a", "b"], limits={"subscriptions": 1})),
    path("nochannel", EventStream.as_view(channels=["with space"])),
)


@pytest.fixture
def site():
    if not settings.configured:
        settings.configure()
    with override_settings(
        ROOT_URLCONF=URLS,
        MIDDLEWARE=[],
        ALLOWED_HOSTS=["testserver"],
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
        GPULSE={"history": "*=100/300"},
    ):
        yield


@pytest.mark.usefixtures("site")
class TestRequestsOfClients:
    @pytest.mark.parametrize(
        "text",
        [
            '{"type":"send","id":"\\ud800","data":1}',
            '{"type":"send","id":1e999,"data":1}',
            '{"type":"send","id":1,"data":NaN}',
            '{"type":"send","id":1,"data":"\\ud800"}',
            '{"type":"send","id":1,"data":"set"}',
            '{{"type":"send","id":{}1{},"data":1}}'.format("[" * 300, "]" * 300),
            '{"type":"subscribe","id":1,"channel":"\\ud800"}',
            '{"type":"unsubscribe","id":1,"channel":"\\ud800"}',
            '{"type":"presence","id":1,"channel":"with space"}',
            '{"type":"presence","id":1,"channel":""}',
            '{"type":"subscribe","id":1,"channel":"a\\u0000b"}',
            '{"type":"subscribe","id":1,"channel":"a","since":"x"}',
        ],
    )
    def test_odd_values_are_answered_and_the_socket_stays(self, text, caplog):
        caplog.set_level(logging.ERROR, "gpulse.websocket")
        with WebSocketClient("/talk", subprotocols=["gpulse.v1"], raises=False) as ws:
            ws.receive_json()
            ws.send(text)
            if ws.is_open:
                ws.receive_json()
                ws.send('{"type":"ping"}')
                assert ws.receive_json() == {"type": "pong"}
            else:
                assert ws.closed[0] == 4400
        if '"set"' not in text:  # that is a fault of the application's
            assert not [r for r in caplog.records if r.exc_info], "a client can fill the log"

    def test_a_socket_that_is_not_admitted_ends_without_a_traceback(self, caplog):
        caplog.set_level(logging.ERROR, "gpulse.websocket")
        with WebSocketClient("/choosy", subprotocols=["gpulse.v1"], raises=False) as ws:
            assert ws.closed[0] == 4401
        assert [r.getMessage() for r in caplog.records] == []

    def test_a_subscription_that_fails_leaves_nobody_present(self, monkeypatch):
        with InlineWorker(), WebSocketClient("/talk", subprotocols=["gpulse.v1"]) as ws:
            ws.receive_json()
            presence = ws.consumer.presence

            def away(channel):
                raise StoreError("away")

            monkeypatch.setattr(type(presence), "roster", lambda self, channel: away(channel))
            ws.send_json({"type": "subscribe", "id": 1, "channel": "room", "presence": True})
            assert "error" in [json.loads(each)["type"] for each in ws.received]
            monkeypatch.undo()
            assert presence.roster("room") == {}

    def test_a_second_subscription_that_is_refused_keeps_the_first(self):
        with InlineWorker(), WebSocketClient("/talk", subprotocols=["gpulse.v1"]) as ws:
            ws.receive_json()
            ws.send_json({"type": "subscribe", "id": 1, "channel": "room"})
            assert ws.receive_json()["type"] == "subscribed"
            ws.send_json({"type": "subscribe", "id": 2, "channel": "room", "since": "no position"})
            assert ws.receive_json()["type"] == "error"
            ws.consumer.publish("room", "hello")
            assert [each for each in ws.received if "hello" in each]


@pytest.mark.usefixtures("site")
class TestStreamsOfASite:
    def test_a_cache_of_whole_pages_does_not_keep_the_head_of_a_stream(self):
        with override_settings(
            MIDDLEWARE=[
                "django.middleware.cache.UpdateCacheMiddleware",
                "django.middleware.cache.FetchFromCacheMiddleware",
            ]
        ):
            for _ in range(2):
                with EventStreamClient("/news") as stream:
                    assert stream.is_open

    def test_who_comes_back_to_many_channels_misses_nothing_or_is_told(self):
        with InlineWorker():
            with EventStreamClient("/many") as stream:
                for channel in Many().get_channels(None):
                    stream.consumer.publish(channel, "1")
                assert len(stream.received) == 60
                last = stream.last_id
                consumer = stream.consumer
            consumer.publish(Many().get_channels(None)[7], "missed")
            with EventStreamClient("/many", headers={"Last-Event-ID": last}) as stream:
                got = stream.received
                assert [e.data for e in got] == ["missed"] or "gap" in [e.event for e in got]

    def test_positions_of_channels_with_other_letters_come_back(self):
        """Browsers send the id as UTF-8; WSGI's environ holds its bytes as Latin-1."""
        with InlineWorker():
            with EventStreamClient("/räume") as stream:
                stream.consumer.publish("räume:1", "1")
                assert stream.receive().data == "1"
                last = stream.last_id.encode().decode("latin-1")
                consumer = stream.consumer
            consumer.publish("räume:1", "missed")
            with EventStreamClient("/räume", headers={"Last-Event-ID": last}) as stream:
                assert [each.data for each in stream.received] == ["missed"]

    @pytest.mark.parametrize("where", ["/toomany", "/nochannel"])
    def test_channels_that_cannot_be_had_are_no_endless_reconnecting(self, where):
        """A browser comes back every three seconds to a stream that was opened and ended."""
        try:
            with EventStreamClient(where, raises=False) as stream:
                assert stream.response.status_code != 200
        except (ValueError, ImproperlyConfigured):
            pass  # a 500


def test_the_code_of_a_slow_reader_is_one_to_come_back_with():
    assert TOO_SLOW == 4408


class TestRecoveries:
    @pytest.mark.parametrize("slow", ["close", "drop"])
    def test_a_long_one_waits_for_a_client_that_reads(self, slow):
        """In one turn of the hub nobody can read more than the kernel holds: that is not slow."""
        rig = Rig(opened=False, limits=replace(LIMITS, outgoing=1000, slow=slow))
        for number in range(40):
            rig.session.deliver(event(f"{number:03}" + "x" * 100))
        rig.connection.stuck = True
        rig.pool.run()
        rig.session.deliver(event("live"))
        assert rig.connection.buffered <= 2000
        got = []
        for _ in range(40):
            rig.connection.flush()
            rig.connection.stuck = True
            got += rig.received
        assert [text[:3] for text in got] == [*(f"{number:03}" for number in range(40)), "liv"]
        assert rig.close_code is None


class SilentFanout:
    """Confirms when the test says so."""

    def __init__(self):
        self.asked = []
        self.removed = []

    def count_of(self, session):
        return 0

    def add(self, channel, receiver, done, since=None):
        self.asked.append(done)

    def remove(self, channel, receiver):
        self.removed.append(channel)


def test_a_subscription_that_was_not_confirmed_in_time_does_not_come_true_later(site):
    class Waiter:
        def set(self):
            pass

        def wait(self, seconds):
            return False

    rig = Rig()
    rig.pool.waiter = Waiter
    fanout = SilentFanout()
    consumer = Talker()
    consumer._session = rig.session
    consumer._services = type("Services", (), {"pool": rig.pool, "fanout": fanout})()
    with pytest.raises(SubscribeError):
        consumer.subscribe("room")
    assert fanout.removed == ["room"]


def test_a_busy_history_is_not_the_one_that_is_forgotten(monkeypatch):
    """Who may listen to any name could otherwise make a worker forget what all others need."""
    monkeypatch.setattr(memory, "MAX_KEPT", 100)
    store = MemoryStore(rules=HistoryRules(parse_history("*=10/60")))
    first = store.publish("busy", b"t1").position
    for number in range(200):
        store.recover([(f"other{number}", None)])
        store.publish("busy", b"t2")
    (found,) = store.recover([("busy", first)])
    assert found.position.partition("-")[0] == first.partition("-")[0]


def test_what_comes_behind_our_close_is_not_collected(site):
    """The inbox is full, the handler slow, and the client goes on to send until it is cut."""
    rig = Rig(limits=replace(LIMITS, inbox=4), deflate=Deflate(15, ""))
    rig.raw(b"\x81\x80\0\0\0\0" * 5)
    rig.session.fail(1011, "on purpose")
    for _ in range(20):
        if rig.connection.reading and not rig.connection.lost:
            rig.raw(b"\x82\xfe\xff\xff\0\0\0\0" + bytes(65_535))
    assert len(rig.session._unread) <= 2 * 65_543
