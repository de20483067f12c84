"""An open WebSocket on a fake connection, with the client's side of ``websockets`` as the peer."""

import json
import logging
import zlib
from dataclasses import replace

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN
from websockets.protocol import Protocol as WireProtocol

from gpulse.connection.timers import NEVER, DeadlineWheel
from gpulse.store.message import Event
from gpulse.websocket.deflate import Deflate
from gpulse.websocket.frames import BINARY, TEXT
from gpulse.websocket.limits import SocketLimits
from gpulse.websocket.outlet import HELD, IN_A_ROW
from gpulse.websocket.session import WebSocketSession
from gpulse.websocket.shapes import enveloped, plain
from gpulse.websocket.sockets import Sockets

LIMITS = SocketLimits(message=200, inbox=4, events=3, outgoing=1000, compress_from=50)


class FakeConnection:
    """Hands what is written to the peer, or keeps it while ``stuck``."""

    def __init__(self, peer):
        self.peer_core = peer
        self.peer = ("192.0.2.1", 4000)
        self.waiting = []
        self.stuck = False
        self.reading = False
        self.half_closed = False
        self.finishing = False
        self.lost = False
        self.deadline = NEVER
        self.drained = None
        self.protocol = None
        self.flushed = 0

    @property
    def buffered(self):
        return sum(map(len, self.waiting))

    @property
    def is_closing(self):
        return self.finishing or self.lost

    def write(self, data):
        if self.is_closing:
            return
        self.waiting.append(bytes(data))
        if not self.stuck:
            self.flush()

    def flush(self):
        """The peer reads all that waits."""
        self.stuck = False
        waiting, self.waiting = self.waiting, []
        self.flushed += sum(map(len, waiting))
        for data in waiting:
            self.peer_core.receive_data(data)
        drained, self.drained = self.drained, None
        if drained is not None:
            drained()
        if self.finishing:
            self.lose()

    def when_drained(self, call):
        if self.waiting and not self.lost:
            self.drained = call
        else:
            call()

    def drop_unsent(self):
        dropped = sum(map(len, self.waiting[1:]))
        del self.waiting[1:]
        return dropped

    def drop_oldest(self, size):
        count = freed = 0
        while len(self.waiting) > 1 and freed < size:
            freed += len(self.waiting.pop(1))
            count += 1
        return count, freed

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = not self.lost

    def set_deadline(self, deadline):
        self.deadline = deadline

    def shutdown_write(self):
        self.half_closed = True
        self.peer_core.receive_eof()

    def close(self):
        self.finishing = True
        if not self.waiting:
            self.lose()

    def abort(self):
        self.lose()

    def lose(self):
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost()


class FakePool:
    """Runs jobs when the test says so, one after the other."""

    is_on_hub = True

    def __init__(self):
        self.jobs = []

    def submit_handler(self, job):
        self.jobs.append(job)

    @property
    def has_waiting(self):
        return bool(self.jobs)

    def call_hub(self, call, *args):
        call(*args)

    def run(self):
        while self.jobs:
            self.jobs.pop(0)()


class Consumer:
    """The application's side: remembers, and does what the test gave it to do."""

    shape = staticmethod(plain)

    def __init__(self, takes_events):
        self.handled = frozenset({"on_event"} if takes_events else ())
        self.seen = []
        self.reactions = {}

    def handle(self, handler, *args):
        if handler == "on_event":
            args = (args[0].channel, args[0].message, args[0].position)
        self.seen.append((handler, *args))
        reaction = self.reactions.get(handler)
        if reaction is not None:
            reaction(*args)


class Rig:
    """``opened``: whether on_open has run."""

    def __init__(
        self,
        opened=True,
        takes_events=False,
        limit=10,
        early=b"",
        limits=LIMITS,
        deflate=None,
        call_soon=None,
    ):
        self.client = WireProtocol(CLIENT, state=OPEN, max_size=None)
        self.pool = FakePool()
        self.forgotten = []
        self.now = 1000.0
        self.sockets = Sockets(
            self.pool,
            DeadlineWheel(0.0),
            limit,
            limits,
            self.forgotten.append,
            call_soon or (lambda call: call()),
            lambda: self.now,
        )
        self.consumer = Consumer(takes_events)
        self.connection = FakeConnection(self.client)
        self.session = WebSocketSession(self.connection, self.sockets, self.consumer, None, deflate)
        self.connection.protocol = self.session
        self.session.start(early)
        if opened:
            self.pool.run()
            self.consumer.seen.clear()

    def sent(self, *calls):
        """Make the client send: each call is a method of its core and the arguments."""
        for name, *args in calls:
            getattr(self.client, "send_" + name)(*args)
        self.pump()

    def pump(self):
        """Deliver what the client's core has to say, as a well-behaved client does."""
        for data in self.client.data_to_send():
            if data and not self.connection.lost:
                self.session.data_received(data)
            elif not self.connection.lost:
                self.session.eof_received()

    def raw(self, data):
        self.session.data_received(data)

    @property
    def received(self):
        """Messages that the client got."""
        frames = self.client.events_received()
        return [
            frame.data.decode() if frame.opcode is Opcode.TEXT else bytes(frame.data)
            for frame in frames
            if isinstance(frame, Frame) and frame.opcode in (Opcode.TEXT, Opcode.BINARY)
        ]

    @property
    def close_code(self):
        """What the client was told."""
        received = self.client.close_rcvd
        return None if received is None else received.code


def event(text, kind="t"):
    return Event("room", kind, text.encode())


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, "gpulse.websocket")


class TestMessages:
    @pytest.mark.parametrize(
        ("calls", "messages"),
        [
            ([("text", b"hi")], ["hi"]),
            ([("text", "grüß".encode())], ["grüß"]),
            ([("binary", b"\x00\xff")], [b"\x00\xff"]),
            ([("text", b"")], [""]),
            ([("text", b"a"), ("binary", b"b"), ("text", b"c")], ["a", b"b", "c"]),
            ([("text", b"a", False), ("continuation", b"b", True)], ["ab"]),
            ([("text", b"\xc3", False), ("continuation", b"\xa9", True)], ["é"]),
            (
                [
                    ("binary", b"a", False),
                    *[("continuation", b"b", False)] * 3,
                    ("continuation", b"", True),
                ],
                [b"abbb"],
            ),
            ([("text", b"a", False), ("ping", b"p"), ("continuation", b"b", True)], ["ab"]),
            ([("text", b"x" * 200)], ["x" * 200]),
        ],
    )
    def test_they_come_whole_and_in_order(self, calls, messages):
        rig = Rig()
        rig.sent(*calls)
        rig.pool.run()
        assert rig.consumer.seen == [("on_message", message) for message in messages]
        assert rig.sockets.messages_in == len(messages)

    def test_the_cuts_between_reads_make_no_difference(self):
        rig = Rig()
        rig.client.send_text(b"a", False)
        rig.client.send_continuation(b"b", True)
        rig.client.send_binary(b"c")
        for byte in b"".join(rig.client.data_to_send()):
            rig.raw(bytes([byte]))
        rig.pool.run()
        assert rig.consumer.seen == [("on_message", "ab"), ("on_message", b"c")]

    def test_what_came_with_the_handshake_comes_behind_on_open(self):
        client = WireProtocol(CLIENT, state=OPEN)
        client.send_text(b"early")
        rig = Rig(opened=False, early=b"".join(client.data_to_send()))
        rig.pool.run()
        assert rig.consumer.seen == [("on_open",), ("on_message", "early")]

    def test_one_handler_runs_at_a_time_and_those_that_wait_run_in_a_row(self):
        rig = Rig()
        rig.sent(("text", b"a"), ("text", b"b"))
        assert len(rig.pool.jobs) == 1
        rig.pool.jobs.pop(0)()
        assert rig.pool.jobs == []
        assert rig.consumer.seen == [("on_message", "a"), ("on_message", "b")]

    def test_a_row_ends_so_that_others_get_their_turn(self):
        rig = Rig(limits=replace(LIMITS, inbox=100))
        for _ in range(IN_A_ROW + 1):
            rig.sent(("text", b"x"))
        rig.pool.jobs.pop(0)()
        assert len(rig.consumer.seen) == IN_A_ROW
        assert len(rig.pool.jobs) == 1

    def test_a_socket_with_much_to_do_goes_behind_others(self):
        rig = Rig()
        rig.sent(("text", b"a"), ("text", b"b"))
        rig.pool.submit_handler(lambda: rig.consumer.seen.append("another's"))
        rig.pool.run()
        assert rig.consumer.seen == [("on_message", "a"), "another's", ("on_message", "b")]

    def test_reading_stops_while_the_inbox_is_full_and_goes_on_when_it_is_half_empty(self):
        rig = Rig()
        states = []
        rig.consumer.reactions["on_message"] = lambda message: states.append(rig.connection.reading)
        for _ in range(LIMITS.inbox - 1):
            rig.sent(("text", b"x"))
        assert rig.connection.reading
        rig.sent(("text", b"x"))
        assert not rig.connection.reading
        rig.pool.run()
        assert states == [False] * LIMITS.inbox
        assert rig.connection.reading

    def test_a_ping_is_answered_without_a_handler(self):
        rig = Rig()
        rig.sent(("ping", b"are you there"))
        (pong,) = rig.client.events_received()
        assert (pong.opcode, bytes(pong.data)) == (Opcode.PONG, b"are you there")
        assert rig.pool.jobs == []


class TestSending:
    def test_messages_reach_the_client_in_order(self):
        rig = Rig()
        rig.session.send(TEXT, b"a")
        rig.session.send(BINARY, b"\xff")
        assert rig.received == ["a", b"\xff"]
        assert rig.sockets.deliveries == 2

    def test_one_message_of_any_size_is_sent_to_a_client_that_reads(self):
        rig = Rig()
        rig.session.send(TEXT, b"x" * (LIMITS.outgoing * 3))
        assert rig.received == ["x" * (LIMITS.outgoing * 3)]

    def test_a_client_that_does_not_read_is_closed_and_counted(self):
        rig = Rig()
        rig.connection.stuck = True
        for _ in range(20):
            rig.session.send(TEXT, b"x" * 100)
        assert rig.sockets.slow_closed == 1
        assert rig.connection.buffered < LIMITS.outgoing
        rig.connection.flush()
        assert rig.close_code == 4408
        assert rig.connection.half_closed

    def test_nothing_is_sent_behind_a_close(self):
        rig = Rig()
        rig.session.close()
        rig.session.send(TEXT, b"late")
        assert rig.received == []
        assert rig.session.is_closing

    def test_while_bytes_wait_the_deadline_is_the_stall_and_afterwards_the_ping(self):
        rig = Rig()
        assert rig.connection.deadline == 1000.0 + LIMITS.ping_interval
        rig.connection.stuck = True
        rig.session.send(TEXT, b"x")
        assert rig.connection.deadline == 1000.0 + LIMITS.write_stall
        rig.connection.flush()
        assert rig.connection.deadline == 1000.0 + LIMITS.ping_interval


class TestEvents:
    @pytest.mark.parametrize(
        ("kind", "text", "received"),
        [("t", "é", "é"), ("b", "x", b"x"), ("j", '{"a":1}', '{"a":1}')],
    )
    def test_they_go_straight_to_the_client(self, kind, text, received):
        rig = Rig()
        rig.session.deliver(event(text, kind))
        assert rig.received == [received]
        assert rig.pool.jobs == []

    def test_the_frame_is_encoded_once_for_all(self):
        shared = event("x")
        rigs = [Rig(), Rig()]
        rigs[0].session.deliver(shared)
        forms = dict(shared.forms)
        rigs[1].session.deliver(shared)
        assert list(shared.forms.items()) == list(forms.items())
        assert len(forms) == 1
        assert [rig.received for rig in rigs] == [["x"], ["x"]]

    def test_they_wait_until_on_open_has_run_and_sent(self):
        rig = Rig(opened=False)
        rig.consumer.reactions["on_open"] = lambda: rig.session.send(TEXT, b"snapshot")
        rig.session.deliver(event("change"))
        assert rig.received == []
        rig.pool.run()
        assert rig.received == ["snapshot", "change"]

    def test_too_many_before_on_open_has_run_close_the_socket(self):
        rig = Rig(opened=False)
        one = event("x")
        for _ in range(HELD):
            rig.session.deliver(one)
        assert rig.close_code is None
        rig.session.deliver(one)
        assert rig.close_code == 4408
        assert rig.sockets.slow_closed == 1

    def test_a_handler_gets_them_in_order_with_messages(self):
        rig = Rig(takes_events=True)
        rig.session.deliver(event("a"))
        rig.sent(("text", b"b"))
        rig.session.deliver(event('{"c":1}', "j"))
        rig.pool.run()
        assert rig.consumer.seen == [
            ("on_event", "room", "a", None),
            ("on_message", "b"),
            ("on_event", "room", {"c": 1}, None),
        ]
        assert rig.received == []

    def test_more_than_a_handler_takes_close_the_socket(self):
        rig = Rig(takes_events=True)
        for _ in range(LIMITS.events + 1):
            rig.session.deliver(event("x"))
        assert rig.close_code == 4408

    def test_a_handler_that_keeps_up_gets_any_number(self):
        rig = Rig(takes_events=True)
        for _ in range(LIMITS.events * 3):
            rig.session.deliver(event("x"))
            rig.pool.run()
        assert rig.close_code is None
        assert len(rig.consumer.seen) == LIMITS.events * 3


class TestClosing:
    @pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "bye"), (4000, "why ä")])
    def test_the_clients_close_is_answered_and_told(self, code, reason):
        rig = Rig()
        rig.sent(("close", code, reason))
        rig.pool.run()
        assert rig.close_code == code
        assert rig.connection.lost
        assert rig.consumer.seen == [("on_close", code, reason)]

    def test_a_close_without_a_code_is_1005(self):
        rig = Rig()
        rig.sent(("close",))
        rig.pool.run()
        assert rig.consumer.seen == [("on_close", 1005, "")]

    def test_our_close_waits_for_the_clients(self):
        rig = Rig()
        rig.session.close(4001, "enough")
        assert rig.close_code == 4001
        assert not rig.connection.lost
        rig.pump()
        rig.pool.run()
        assert rig.connection.lost
        assert rig.consumer.seen == [("on_close", 4001, "enough")]

    def test_a_client_that_never_answers_our_close_is_cut(self):
        rig = Rig()
        rig.session.close()
        rig.session.deadline_passed(rig.now)
        rig.pool.run()
        assert rig.connection.lost
        assert rig.consumer.seen == [("on_close", 1000, "")]

    def test_a_client_that_vanishes_is_1006(self):
        rig = Rig()
        rig.connection.abort()
        rig.pool.run()
        assert rig.consumer.seen == [("on_close", 1006, "the connection was lost")]

    def test_an_end_of_file_without_a_close_is_1006(self):
        rig = Rig()
        rig.session.eof_received()
        rig.pool.run()
        assert rig.consumer.seen[0][:2] == ("on_close", 1006)

    def test_closing_twice_is_closing_once(self):
        rig = Rig()
        rig.session.close(4000)
        rig.session.close(4001)
        assert rig.close_code == 4000

    def test_on_close_comes_once_and_last(self):
        rig = Rig()
        rig.sent(("text", b"a"), ("text", b"b"), ("close", 1000))
        rig.connection.abort()
        rig.pool.run()
        assert [seen[0] for seen in rig.consumer.seen] == ["on_message", "on_message", "on_close"]

    def test_on_close_comes_behind_an_on_open_that_had_not_run(self):
        rig = Rig(opened=False)
        rig.connection.abort()
        rig.pool.run()
        assert [seen[0] for seen in rig.consumer.seen] == ["on_open", "on_close"]

    def test_messages_behind_our_close_are_not_handled(self):
        rig = Rig()
        rig.connection.stuck = True  # the client has not read it yet
        rig.session.close()
        rig.sent(("text", b"late"))
        rig.pool.run()
        assert rig.consumer.seen == []

    def test_a_full_inbox_does_not_keep_us_from_seeing_the_clients_close(self):
        rig = Rig()
        for _ in range(LIMITS.inbox):
            rig.sent(("text", b"x"))
        assert not rig.connection.reading
        rig.session.close()
        assert rig.connection.reading

    def test_a_socket_that_ended_is_forgotten(self):
        rig = Rig()
        assert rig.sockets.sessions == {rig.session}
        rig.connection.abort()
        assert rig.sockets.sessions == set()
        assert rig.forgotten == [rig.session]
        assert rig.session.is_closed


class TestFaults:
    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (Frame(Opcode.TEXT, b"\xff").serialize(mask=True), 1007),
            (Frame(Opcode.TEXT, b"ok\xc3").serialize(mask=True), 1007),
            (Frame(Opcode.TEXT, b"x" * 201).serialize(mask=True), 1009),
            (
                Frame(Opcode.TEXT, b"x" * 120, fin=False).serialize(mask=True)
                + Frame(Opcode.CONT, b"x" * 120).serialize(mask=True),
                1009,
            ),
            (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", 1009),
            (Frame(Opcode.TEXT, b"x").serialize(mask=False), 1002),
            (b"\x83\x80\x00\x00\x00\x00", 1002),
            (b"\xc1\x80\x00\x00\x00\x00", 1002),
            (Frame(Opcode.CONT, b"x").serialize(mask=True), 1002),
            (b"\x09\x80\x00\x00\x00\x00", 1002),
            (b"\x89\xfe\x00\x7e" + bytes(130), 1002),
            (b"\x88\x81\x00\x00\x00\x00x", 1002),
            (Frame(Opcode.CLOSE, b"\x03\xed").serialize(mask=True), 1002),
        ],
        ids=[
            "text-not-utf-8",
            "text-cut-utf-8",
            "too-long",
            "fragments-too-long",
            "exabytes",
            "not-masked",
            "unknown-opcode",
            "reserved-bit",
            "continuation-of-nothing",
            "ping-in-fragments",
            "ping-too-long",
            "close-of-one-byte",
            "close-code-1005",
        ],
    )
    def test_each_has_its_close_code_and_ends_the_socket(self, data, code):
        rig = Rig()
        rig.raw(data)
        assert rig.close_code == code
        assert rig.session.is_closing
        assert rig.connection.half_closed or rig.connection.lost
        assert rig.connection.deadline != NEVER

    def test_nothing_that_comes_behind_a_fault_is_handled(self):
        rig = Rig()
        good = Frame(Opcode.TEXT, b"x").serialize(mask=True)
        rig.raw(Frame(Opcode.TEXT, b"\xff").serialize(mask=True) + good)
        rig.raw(good)
        rig.pool.run()
        assert rig.consumer.seen == []

    def test_messages_before_a_fault_are_handled(self):
        rig = Rig()
        good = Frame(Opcode.TEXT, b"x").serialize(mask=True)
        rig.raw(good + Frame(Opcode.TEXT, b"\xff").serialize(mask=True))
        rig.pool.run()
        assert rig.consumer.seen == [("on_message", "x")]

    @pytest.mark.parametrize("handler", ["on_open", "on_message", "on_event"])
    def test_a_handler_that_raises_is_1011(self, handler):
        rig = Rig(opened=False, takes_events=True)
        rig.consumer.reactions[handler] = lambda *args: 1 // 0
        rig.sent(("text", b"x"))
        rig.pool.run()
        rig.session.deliver(event("x"))
        rig.pool.run()
        assert rig.close_code == 1011

    def test_on_close_that_raises_is_nothing_to_anybody(self):
        rig = Rig()
        rig.consumer.reactions["on_close"] = lambda *args: 1 // 0
        rig.connection.abort()
        rig.pool.run()
        assert rig.pool.jobs == []


class TestSilence:
    def test_it_is_met_with_a_ping_and_a_pong_is_enough(self):
        rig = Rig()
        rig.session.deadline_passed(rig.now)
        assert rig.client.events_received()[0].opcode is Opcode.PING
        rig.pump()
        rig.session.deadline_passed(rig.now)
        assert not rig.connection.lost

    def test_anything_at_all_is_a_sign_of_life(self):
        rig = Rig()
        rig.session.deadline_passed(rig.now)
        rig.raw(Frame(Opcode.TEXT, b"x").serialize(mask=True)[:1])
        rig.session.deadline_passed(rig.now)
        assert not rig.connection.lost

    def test_no_answer_to_a_ping_cuts_the_connection(self):
        rig = Rig()
        rig.session.deadline_passed(rig.now)
        rig.session.deadline_passed(rig.now)
        assert rig.connection.lost

    def test_bytes_that_wait_until_the_deadline_cut_it_too(self):
        rig = Rig()
        rig.connection.stuck = True
        rig.session.send(TEXT, b"x")
        rig.session.deadline_passed(rig.now)
        assert rig.connection.lost


class TestSockets:
    def test_they_are_full_at_the_limit(self):
        rig = Rig(limit=1)
        assert rig.sockets.are_full
        rig.connection.abort()
        assert not rig.sockets.are_full

    def test_draining_asks_every_client_to_come_back_and_takes_no_more(self):
        rig = Rig()
        rig.sockets.drain()
        assert rig.close_code == 1012
        assert rig.sockets.are_full


class Turn:
    """Keeps what is to run at the end of a turn of the hub until the test ends it."""

    def __init__(self):
        self.calls = []

    def __call__(self, call):
        self.calls.append(call)

    def end(self):
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class TestOutbox:
    def test_the_messages_of_one_turn_leave_in_one_piece(self):
        turn = Turn()
        rig = Rig(call_soon=turn)
        pieces = []
        rig.connection.write = pieces.append
        for text in (b"a", b"b", b"c"):
            rig.session.send(TEXT, text)
        rig.session.deliver(event("d"))
        assert pieces == []
        turn.end()
        assert pieces == [b"\x81\x01a\x81\x01b\x81\x01c\x81\x01d"]
        assert rig.sockets.deliveries == 4
        assert turn.calls == []

    def test_the_one_event_of_a_turn_goes_out_at_once(self):
        turn = Turn()
        rig = Rig(call_soon=turn)
        for text in ("a", "b"):
            rig.session.deliver(event(text))
            assert rig.received == [text]
            turn.end()
        assert rig.received == []
        assert rig.sockets.deliveries == 2

    def test_events_that_come_in_bursts_leave_in_one_piece(self):
        turn = Turn()
        rig = Rig(call_soon=turn)
        write, pieces = rig.connection.write, []
        rig.connection.write = lambda data: (pieces.append(len(data) // 3), write(data))
        for burst in ("abc", "def", "g", "h"):
            for text in burst:
                rig.session.deliver(event(text))
            turn.end()
        assert rig.received == list("abcdefgh")
        # Nobody knows that a burst begins; then more are expected until one does not come.
        assert pieces == [1, 2, 3, 1, 1]
        assert not rig.sockets.gathers

    def test_an_event_does_not_overtake_what_waits(self):
        turn = Turn()
        rig = Rig(call_soon=turn)
        rig.session.send(TEXT, b"first")
        rig.session.deliver(event("second"))
        assert rig.received == []
        turn.end()
        assert rig.received == ["first", "second"]

    def test_an_event_that_the_client_does_not_take_has_its_deadline(self):
        rig = Rig(call_soon=Turn())
        rig.connection.stuck = True
        rig.session.deliver(event("x" * 100))
        assert rig.connection.deadline == rig.now + LIMITS.write_stall
        rig.connection.flush()
        assert rig.received == ["x" * 100]
        assert rig.connection.deadline == rig.now + LIMITS.ping_interval

    def test_a_client_that_takes_no_events_is_closed_and_counted(self):
        turn = Turn()
        rig = Rig(call_soon=turn)
        rig.connection.stuck = True
        for number in range(12):
            rig.session.deliver(event(f"{number:099}"))
            turn.end()
        assert rig.sockets.slow_closed == 1
        rig.connection.flush()
        assert (rig.received, rig.close_code) == ([f"{0:099}"], 4408)

    def test_a_close_goes_behind_what_was_sent_in_its_turn(self):
        turn = Turn()
        rig = Rig(call_soon=turn)
        rig.session.send(TEXT, b"last")
        rig.session.close(4000)
        turn.end()
        assert rig.received == ["last"]
        assert rig.close_code == 4000

    def test_a_socket_that_ended_in_the_turn_is_no_trouble(self):
        turn = Turn()
        rig = Rig(call_soon=turn)
        rig.session.send(TEXT, b"x")
        rig.connection.abort()
        turn.end()
        assert rig.sockets.deliveries == 0

    def test_much_does_not_wait_for_the_end_of_the_turn(self):
        rig = Rig(call_soon=Turn())
        for _ in range(64):
            rig.session.send(TEXT, b"x")
        assert len(rig.received) == 64


class TestRate:
    LIMITS = replace(LIMITS, rate=2.0, burst=3)

    def test_a_burst_passes_and_more_is_refused_with_the_time_to_wait(self):
        rig = Rig(limits=self.LIMITS)
        for _ in range(4):
            rig.sent(("text", b"x"))
            rig.pool.run()
        assert rig.consumer.seen == [("on_message", "x")] * 3 + [("on_rate_exceeded", "x", 0.5)]
        assert rig.sockets.rate_refused == 1

    def test_time_fills_the_bucket_again(self):
        rig = Rig(limits=self.LIMITS)
        for _ in range(6):
            rig.sent(("text", b"x"))
            rig.pool.run()
            rig.now += 0.5
        assert {seen[0] for seen in rig.consumer.seen} == {"on_message"}

    def test_a_burst_that_fills_the_inbox_is_refused_and_not_closed(self):
        rig = Rig(limits=replace(self.LIMITS, inbox=3))
        rig.sent(*[("text", b"x")] * 5)
        rig.pool.run()
        assert [seen[0] for seen in rig.consumer.seen] == [
            *["on_message"] * 3,
            *["on_rate_exceeded"] * 2,
        ]
        assert rig.close_code is None
        assert rig.connection.reading

    def test_who_goes_on_is_closed(self):
        rig = Rig(limits=self.LIMITS)
        for _ in range(7):
            rig.sent(("text", b"x"))
            rig.pool.run()
        assert rig.close_code == 4429


class TestDropping:
    LIMITS = replace(LIMITS, slow="drop", outgoing=300)

    def test_the_oldest_go_and_the_newest_arrive(self):
        rig = Rig(limits=self.LIMITS)
        rig.connection.stuck = True
        for number in range(10):
            rig.session.send(TEXT, b"%d" % number * 98)
        assert rig.connection.buffered <= 300
        rig.connection.flush()
        received = [message[0] for message in rig.received]
        assert received == ["0", "8", "9"]  # the first was on the wire
        assert rig.sockets.dropped == 7
        assert rig.close_code is None

    def deliver(self, rig, *channels, size=98):
        for channel in channels:
            rig.session.deliver(Event(channel, "t", channel.encode() * size))

    def told(self, rig):
        """What the client of gpulse.v1 gets: (type, channel) of each."""
        return [(each["type"], each["channel"]) for each in map(json.loads, rig.received)]

    @pytest.fixture
    def rig(self):
        rig = Rig(opened=False, limits=self.LIMITS)
        rig.consumer.shape = enveloped
        rig.session = WebSocketSession(rig.connection, rig.sockets, rig.consumer)
        rig.connection.protocol = rig.session
        rig.session.start(b"")
        rig.pool.run()
        rig.connection.stuck = True
        return rig

    def test_each_channel_that_lost_something_has_a_gap_when_the_client_reads_again(self, rig):
        self.deliver(rig, "a", "b", "c", "b", "d", "d", size=40)
        assert rig.sockets.dropped == 3
        rig.connection.flush()
        assert self.told(rig) == [
            *(("event", channel) for channel in "add"),
            *(("gap", channel) for channel in "bc"),
        ]
        rig.connection.stuck = True
        self.deliver(rig, "a")
        rig.connection.flush()
        assert self.told(rig) == [("event", "a")], "it is told once"

    def test_it_is_told_as_soon_as_there_is_room_and_before_what_comes_then(self, rig):
        self.deliver(rig, "a", "b", "c", size=80)
        assert rig.sockets.dropped == 1
        rig.connection.flushed += len(rig.connection.waiting.pop(0))  # the rest waits still
        rig.session.write_progressed()
        self.deliver(rig, "d", size=10)
        rig.connection.flush()
        assert self.told(rig) == [("event", "c"), ("gap", "b"), ("event", "d")]

    def test_a_channel_that_was_left_has_none(self, rig):
        self.deliver(rig, "a", "b", "c", "d", "e", size=40)
        rig.session.forget("b")
        rig.connection.flush()
        assert [each for each in self.told(rig) if each[0] == "gap"] == [("gap", "c")]

    def test_a_handler_of_gaps_is_told(self):
        rig = Rig(opened=False, limits=self.LIMITS)
        rig.consumer.handled = frozenset({"on_gap"})
        rig.session = WebSocketSession(rig.connection, rig.sockets, rig.consumer)
        rig.connection.protocol = rig.session
        rig.session.start(b"")
        rig.pool.run()
        rig.consumer.seen.clear()
        rig.connection.stuck = True
        self.deliver(rig, *"abcdef")  # more than may wait for handlers at once
        rig.connection.flush()
        rig.pool.run()
        assert [event.channel for _, event in rig.consumer.seen] == ["b", "c", "d"]
        assert rig.close_code is None

    def test_where_nothing_can_be_dropped_it_is_closed(self, rig):
        """As over TLS; and what waits may be an answer of TLS itself, all of ours being sent."""
        connection = rig.connection
        connection.drop_oldest = lambda size: (0, 0)
        self.deliver(rig, "a")
        connection.flushed += connection.buffered
        connection.waiting = [b"x" * 250]
        self.deliver(rig, "b")
        assert rig.sockets.slow_closed == 1
        assert not connection.lost

    def test_what_a_handler_sent_is_counted_only(self, rig):
        for _ in range(10):
            rig.session.send(TEXT, b'{"type":"push","channel":null}' + b" " * 65)
        rig.connection.flush()
        assert rig.sockets.dropped == 7
        assert {kind for kind, _ in self.told(rig)} == {"push"}

    def test_sockets_with_and_without_the_policy_share_no_frames(self, rig):
        other = Rig(opened=True)
        other.consumer.shape = enveloped
        event = Event("a", "t", b"x")
        other.session.deliver(event)
        rig.session.deliver(event)
        assert len(event.forms) == 2


class TestAge:
    LIMITS = replace(LIMITS, outgoing_age=10.0, outgoing=100_000)

    def test_a_client_whose_messages_grow_old_is_closed(self):
        rig = Rig(limits=self.LIMITS)
        rig.connection.stuck = True
        rig.session.send(TEXT, b"old")
        rig.now += 9.0
        rig.session.send(TEXT, b"young")
        assert not rig.session.is_closing
        rig.now += 2.0
        rig.session.send(TEXT, b"younger")
        assert rig.session.is_closing
        rig.connection.flush()
        assert rig.close_code == 4408


class TestIdle:
    LIMITS = replace(LIMITS, idle_timeout=50.0)

    def test_pongs_are_no_messages(self):
        rig = Rig(limits=self.LIMITS)
        for _ in range(3):
            rig.now = rig.connection.deadline
            rig.session.deadline_passed(rig.now)
            rig.pump()
        assert rig.now == 1050.0
        assert rig.close_code == 4408

    def test_a_message_begins_the_time_anew(self):
        rig = Rig(limits=self.LIMITS)
        rig.now += 49.0
        rig.sent(("text", b"x"))
        rig.now += 49.0
        rig.session.deadline_passed(rig.now)
        assert rig.close_code is None


class TestCompression:
    def test_messages_from_the_bound_on_are_compressed(self):
        rig = Rig(deflate=Deflate(15, ""))
        pieces = []
        rig.connection.write = pieces.append
        rig.session.send(TEXT, b"x" * 49)
        rig.session.send(TEXT, b"x" * 50)
        assert [piece[0] for piece in pieces] == [0x81, 0xC1]
        inflater = zlib.decompressobj(-15)
        assert inflater.decompress(pieces[1][2:] + b"\0\0\xff\xff") == b"x" * 50

    def test_a_broadcast_is_compressed_once_for_each_window(self):
        shared = event("x" * 500)
        rigs = [Rig(deflate=Deflate(bits, "")) for bits in (15, 15, 10)]
        for rig in rigs:
            rig.session.deliver(shared)
        assert len(shared.forms) == 2


class TestHolding:
    def test_what_a_handler_holds_back_goes_out_when_it_releases(self):
        rig = Rig()
        rig.session.hold()
        rig.session.deliver(event("later"))
        rig.session.send(TEXT, b"first")
        assert rig.received == ["first"]
        rig.session.release()
        assert rig.received == ["later"]

    def test_a_gap_says_nothing_to_a_client_that_knows_no_channels(self):
        rig = Rig()
        rig.session.gap("room", None)
        assert rig.received == []


class TestAtRest:
    """What an open socket holds between two messages."""

    @staticmethod
    def state(rig):
        return rig.session._inbox, rig.session._decoder, rig.session._pending

    @pytest.mark.parametrize("text", [b"short", b"long" * 50, b""])
    def test_nothing_is_kept_of_a_message_that_was_handled(self, text):
        rig = Rig()
        assert self.state(rig) == (None, None, None)
        rig.sent(("text", text))
        rig.pool.run()
        assert rig.consumer.seen == [("on_message", text.decode())]
        assert self.state(rig) == (None, None, None)

    def test_the_start_of_a_message_is_kept_until_its_end(self):
        rig = Rig()
        rig.session.data_received(b"\x81\x82\0\0")
        assert rig.session._decoder is not None
        rig.session.data_received(b"\0\0ok")
        rig.pool.run()
        assert rig.consumer.seen == [("on_message", "ok")]
        assert rig.session._decoder is None

    def test_nothing_is_heard_behind_an_error(self):
        rig = Rig()
        rig.session.data_received(b"\x81\x81\0\0\0\0\xff")
        rig.session.data_received(b"\x81\x82\0\0\0\0ok")
        rig.pool.run()
        assert (rig.close_code, rig.consumer.seen) == (1007, [])
