"""Responses gathered within a turn of the hub."""

import pytest
from unit.connection.fake_loop import FakeLoop, FakeSocket

from gpulse.connection import outbox as module
from gpulse.connection.connection import Connection
from gpulse.connection.outbox import GATHER, PAUSES, SLOW, Outbox
from gpulse.connection.timers import DeadlineWheel


class Told:
    """A protocol that remembers what it was told."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *args: self.calls.append(name)


class Rig:
    """Connections of one loop and outbox, and a clock that a test moves."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self.loop = FakeLoop()
        self.outbox = Outbox(self.loop)
        self.wheel = DeadlineWheel(0.0)
        self.order = []

    def connect(self, room=float("inf")):
        sock = FakeSocket(room)
        connection = Connection(
            self.loop, sock, ("192.0.2.7", 5), None, self.wheel, lambda connection: None
        )
        connection.protocol = Told()
        return connection, sock


@pytest.fixture
def rig(monkeypatch):
    return Rig(monkeypatch)


class TestTheTurn:
    def test_responses_are_sent_together_at_its_end(self, rig):
        pairs = [rig.connect() for _ in range(3)]
        for connection, _ in pairs:
            assert connection.gather(b"response", rig.outbox)
        assert [sock.sent for _, sock in pairs] == [b""] * 3
        rig.loop.end_turn()
        assert [sock.sent for _, sock in pairs] == [b"response"] * 3
        assert rig.loop.callbacks == []

    def test_the_next_turn_gathers_again(self, rig):
        connection, sock = rig.connect()
        for number in range(1, 4):
            assert connection.gather(b"x", rig.outbox)
            rig.loop.end_turn()
            assert sock.sent == b"x" * number

    def test_a_second_response_of_a_connection_goes_behind_the_first(self, rig):
        connection, sock = rig.connect()
        assert connection.gather(b"one", rig.outbox)
        assert not connection.gather(b"two", rig.outbox)
        assert connection.try_send(b"two") == 3
        assert sock.sent == b"onetwo"
        rig.loop.end_turn()
        assert sock.sent == b"onetwo"

    @pytest.mark.parametrize(
        "use",
        [
            lambda connection: connection.try_send(b""),
            lambda connection: connection.write(b""),
            lambda connection: connection.enqueue(b""),
            lambda connection: connection.shutdown_write(),
            lambda connection: connection.close(),
            lambda connection: connection.abort(),
        ],
        ids=["try_send", "write", "enqueue", "shutdown_write", "close", "abort"],
    )
    def test_whatever_else_is_done_with_the_socket_sends_it_first(self, rig, use):
        connection, sock = rig.connect()
        assert connection.gather(b"response", rig.outbox)
        use(connection)
        assert sock.sent == b"response"
        rig.loop.end_turn()
        assert sock.sent == b"response"

    def test_what_the_kernel_does_not_take_is_buffered_and_the_protocol_is_told(self, rig):
        connection, sock = rig.connect(room=5)
        assert connection.gather(b"response", rig.outbox)
        rig.loop.end_turn()
        assert (sock.sent, connection.buffered) == (b"respo", 3)
        assert connection.protocol.calls == ["output_stalled"]
        sock.room = 100
        assert rig.loop.writable()
        assert (sock.sent, connection.buffered) == (b"response", 0)

    def test_a_client_that_is_gone_ends_its_connection_alone(self, rig):
        (gone, gone_sock), (here, here_sock) = rig.connect(), rig.connect()
        assert gone.gather(b"x", rig.outbox)
        assert here.gather(b"x", rig.outbox)
        gone_sock.error = ConnectionResetError()
        rig.loop.end_turn()
        assert gone.lost
        assert gone_sock.closed == 1
        assert (here.lost, here_sock.sent) == (False, b"x")

    def test_nothing_is_gathered_for_a_lost_or_waiting_connection(self, rig):
        lost, _ = rig.connect()
        lost.abort()
        waiting, _ = rig.connect(room=0)
        waiting.write(b"before")
        assert not lost.gather(b"x", rig.outbox)
        assert not waiting.gather(b"x", rig.outbox)


class TestHowLongAResponseWaits:
    def test_no_longer_than_gather_and_the_work_under_way(self, rig):
        (first, first_sock), (second, second_sock) = rig.connect(), rig.connect()
        assert first.gather(b"x", rig.outbox)
        rig.now += GATHER * 1.1
        assert not second.gather(b"x", rig.outbox)
        assert (first_sock.sent, second_sock.sent) == (b"x", b"")

    def test_work_that_ends_late_sends_what_waits(self, rig):
        connection, sock = rig.connect()
        assert connection.gather(b"x", rig.outbox)
        rig.outbox.slice_ended(rig.now)
        assert sock.sent == b""
        rig.now += GATHER * 1.1
        rig.outbox.slice_ended(rig.now - SLOW / 2)
        assert sock.sent == b"x"

    def test_after_slow_work_nobody_waits_for_a_multiple_of_its_time(self, rig):
        connection, _ = rig.connect()
        begun = rig.now
        rig.now += 0.05
        rig.outbox.slice_ended(begun)
        assert not connection.gather(b"x", rig.outbox)
        rig.now += 0.05 * PAUSES * 0.9
        assert not connection.gather(b"x", rig.outbox)
        rig.now += 0.05 * PAUSES * 0.2
        assert connection.gather(b"x", rig.outbox)

    def test_quick_work_pauses_nothing(self, rig):
        connection, _ = rig.connect()
        for _ in range(100):
            begun = rig.now
            rig.now += SLOW * 0.5
            rig.outbox.slice_ended(begun)
        assert connection.gather(b"x", rig.outbox)
