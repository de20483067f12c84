"""An open event stream on a fake connection."""

from dataclasses import replace

import pytest
from unit.websocket.test_session import LIMITS, FakeConnection, FakePool

from gpulse.connection.timers import DeadlineWheel
from gpulse.store.message import Event
from gpulse.websocket.eventstream import (
    COMMENT,
    READ_AND_THROWN_AWAY,
    EventStreamSession,
    decode_id,
    encode_event,
    encode_id,
)
from gpulse.websocket.frames import TEXT
from gpulse.websocket.shapes import plain
from gpulse.websocket.sockets import Sockets


class Reader:
    """The client: keeps what it reads."""

    def __init__(self):
        self.data = b""

    def receive_data(self, data):
        self.data += data

    def receive_eof(self):
        self.data += b"<end>"


class Handlers:
    handled = frozenset({"on_gap"})
    shape = staticmethod(plain)

    def __init__(self):
        self.seen = []

    def handle(self, handler, *args):
        self.seen.append((handler, *args))


class Rig:
    def __init__(self, opened=True, limits=LIMITS):
        self.reader = Reader()
        self.pool = FakePool()
        self.now = 1000.0
        self.sockets = Sockets(
            self.pool,
            DeadlineWheel(0.0),
            10,
            limits,
            lambda session: None,
            clock=lambda: self.now,
        )
        self.handlers = Handlers()
        self.connection = FakeConnection(self.reader)
        self.session = EventStreamSession(self.connection, self.sockets, self.handlers)
        self.connection.protocol = self.session
        self.session.start(b"")
        if opened:
            self.pool.run()


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (b"x", b"data: x\n\n"),
        (b"", b"data: \n\n"),
        (b"a\nb\r\nc\rd", b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        ("é: x".encode(), "data: é: x\n\n".encode()),
    ],
)
def test_an_event_has_a_data_line_for_each_line(payload, event):
    assert encode_event(payload) == event


def test_an_id_names_the_position_of_each_channel():
    positions = {"a": "e-1", "b:é": "f-22"}
    line = encode_id(positions)
    assert line == "id: a e-1 b:é f-22\n".encode()
    assert decode_id(line[4:-1].decode()) == positions
    assert decode_id("odd") == {}
    assert decode_id("") == {}


def test_messages_and_events_go_out_with_the_positions_that_are_known():
    rig = Rig()
    rig.session.at("b", "f-3")
    rig.session.send(TEXT, b"hello")
    rig.session.deliver(Event("a", "t", b"x", position="e-1"))
    rig.session.deliver(Event("c", "t", b"y"))
    assert rig.reader.data == (b"data: hello\n\nid: b f-3 a e-1\ndata: x\n\ndata: y\n\n")


def test_events_held_back_by_on_open_carry_their_positions_later():
    rig = Rig(opened=False)
    rig.session.deliver(Event("a", "t", b"x", position="e-1"))
    assert rig.reader.data == b""
    rig.pool.run()
    assert rig.reader.data == b"id: a e-1\ndata: x\n\n"


class TestIdsWhereTheOldestMayBeDropped:
    """Who is cut off amid what waits comes back with an id before it, and gets what was lost."""

    @pytest.fixture
    def rig(self):
        rig = Rig(limits=replace(LIMITS, slow="drop", outgoing=300))
        rig.connection.stuck = True
        return rig

    def deliver(self, rig, *numbers):
        for number in numbers:
            data = b"%d" % number * 100
            rig.session.deliver(Event("a", "t", data, position=f"e-{number}"))

    def test_none_is_behind_what_waits(self, rig):
        self.deliver(rig, *range(1, 8))
        assert rig.sockets.dropped > 0
        assert b"".join(rig.connection.waiting).count(b"id: ") == 1
        rig.connection.flush()
        assert b"e-7" not in rig.reader.data  # the gap comes first
        self.deliver(rig, 8)
        assert b"id: a e-8\ndata: 8" in rig.reader.data

    def test_it_follows_when_all_is_read_and_nothing_was_lost(self, rig):
        self.deliver(rig, 1, 2)
        rig.session.react(Event("a", "t", b"x", position="e-3"))
        rig.session.send(TEXT, b"3")
        rig.session.reacted(done=True)
        rig.connection.flush()
        assert rig.sockets.dropped == 0
        assert rig.reader.data.count(b"id: ") == 2
        assert rig.reader.data.endswith(b"data: 3\n\nid: a e-3\n\n")


def test_a_stream_that_is_closed_amid_a_reaction_does_not_say_that_it_is_done():
    rig = Rig()
    rig.session.react(Event("a", "t", b"x", position="e-1"))
    rig.session.send(TEXT, b"half of it")
    rig.session.close(1012, "drain")
    rig.session.send(TEXT, b"the rest")
    rig.session.reacted(done=True)
    assert rig.reader.data == b"data: half of it\n\n: closed 1012 drain\n\n"


def test_an_event_that_overtakes_a_reaction_does_not_say_that_it_is_done():
    rig = Rig()
    rig.session.react(Event("a", "t", b"x", position="e-1"))
    rig.session.send(TEXT, b"half of a")
    rig.session.deliver(Event("b", "t", b"b", position="f-1"))
    rig.session.reacted(done=True)
    assert rig.reader.data == b"data: half of a\n\nid: b f-1\ndata: b\n\nid: b f-1 a e-1\n\n"


def test_what_a_handler_sends_does_not_wait_for_its_end():
    rig = Rig()
    rig.session.react(Event("a", "t", b"x", position="e-1"))
    rig.session.send(TEXT, b"it begins")
    assert rig.reader.data == b"data: it begins\n\n"
    rig.session.reacted(done=True)
    assert rig.reader.data.endswith(b"\n\nid: a e-1\n\n")


def test_a_slow_client_amid_a_reaction_is_closed_once():
    rig = Rig()
    rig.connection.stuck = True
    rig.session.react(Event("a", "t", b"x", position="e-1"))
    for _ in range(20):
        rig.session.send(TEXT, b"x" * 100)
    assert rig.sockets.slow_closed == 1
    rig.connection.flush()
    assert rig.reader.data.count(b": closed") == 1


def test_silence_is_filled_with_comments():
    rig = Rig()
    assert rig.connection.deadline == rig.now + COMMENT
    rig.now += COMMENT
    rig.session.deadline_passed(rig.now)
    assert rig.reader.data == b":\n\n"
    assert rig.connection.deadline == rig.now + COMMENT


def test_a_client_that_takes_nothing_is_cut():
    rig = Rig()
    rig.connection.stuck = True
    rig.session.send(TEXT, b"x")
    rig.session.deadline_passed(rig.now)
    rig.pool.run()
    assert rig.connection.lost
    assert rig.handlers.seen[-1][0] == "on_close"


def test_a_client_that_does_not_read_is_closed_and_counted():
    rig = Rig()
    rig.connection.stuck = True
    for _ in range(20):
        rig.session.send(TEXT, b"x" * 100)
    assert rig.sockets.slow_closed == 1
    assert rig.connection.buffered < LIMITS.outgoing


def test_a_slow_client_that_lost_events_is_told_by_a_gap():
    rig = Rig(limits=replace(LIMITS, slow="drop", outgoing=300))
    rig.connection.stuck = True
    for number in range(10):
        rig.session.deliver(Event("a", "t", b"x" * 90, position=f"e-{number}"))
    rig.connection.flush()
    rig.pool.run()
    assert rig.sockets.dropped == 8
    assert [(name, event.channel) for name, event in rig.handlers.seen[1:]] == [("on_gap", "a")]


def test_what_a_client_sends_is_thrown_away_up_to_a_bound():
    rig = Rig()
    rig.session.data_received(b"x" * READ_AND_THROWN_AWAY)
    assert not rig.connection.lost
    rig.session.data_received(b"x")
    assert rig.connection.lost


def test_its_end_says_why_in_a_comment():
    rig = Rig()
    rig.session.close(4401, "logged\nout")
    assert rig.reader.data == b": closed 4401 logged out\n\n"
    assert rig.connection.lost


def test_a_stream_opened_while_the_worker_drains_is_asked_to_come_back():
    rig = Rig()
    rig.sockets.draining = True
    late = EventStreamSession(FakeConnection(rig.reader), rig.sockets, Handlers())
    late.connection.protocol = late
    late.start(b"")
    assert b": closed 1012 " in rig.reader.data
