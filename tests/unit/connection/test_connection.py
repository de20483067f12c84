"""The parked connection, on a loop and a socket that the test drives."""

import pytest
from unit.connection.fake_loop import FakeLoop, FakeSocket

from gpulse.connection.connection import Connection
from gpulse.connection.timers import NEVER, DeadlineWheel


class Recorder:
    """A protocol that remembers its calls."""

    def __init__(self):
        self.calls = []

    def data_received(self, data):
        self.calls.append(data)

    def eof_received(self):
        self.calls.append("eof")

    def write_progressed(self):
        self.calls.append("progress")

    def deadline_passed(self, now):
        self.calls.append("deadline")

    def peer_left(self):
        self.calls.append("left")

    def connection_lost(self):
        self.calls.append("lost")


class Rig:
    def __init__(self, room=float("inf")):
        self.loop = FakeLoop()
        self.sock = FakeSocket(room)
        self.wheel = DeadlineWheel(100.0)
        self.closed = []
        self.connection = Connection(
            self.loop, self.sock, ("192.0.2.1", 4000), None, self.wheel, self.closed.append
        )
        self.protocol = self.connection.protocol = Recorder()
        self.connection.resume_reading()

    def receive(self, *items):
        self.sock.incoming += items
        assert self.loop.readable()

    @property
    def calls(self):
        return self.protocol.calls


class TestReading:
    def test_what_arrives_goes_to_the_protocol(self):
        rig = Rig()
        rig.receive(b"abc")
        assert rig.calls == [b"abc"]

    @pytest.mark.parametrize("error", [BlockingIOError(), InterruptedError()])
    def test_a_false_alarm_is_nothing(self, error):
        rig = Rig()
        rig.receive(error)
        assert rig.calls == []
        assert not rig.connection.lost

    def test_the_end_stops_reading_but_not_writing(self):
        rig = Rig()
        rig.receive(b"")
        assert rig.calls == ["eof"]
        assert not rig.loop.readable()
        rig.connection.write(b"late")
        assert rig.sock.sent == b"late"

    def test_a_reset_loses_the_connection(self):
        rig = Rig()
        rig.receive(ConnectionResetError())
        assert rig.calls == ["lost"]
        assert rig.closed == [rig.connection]
        assert rig.sock.closed == 1

    def test_paused_reading_reads_nothing_until_resumed(self):
        rig = Rig()
        rig.connection.pause_reading()
        assert not rig.loop.readable()
        rig.connection.resume_reading()
        rig.connection.resume_reading()
        rig.receive(b"abc")
        assert rig.calls == [b"abc"]

    def test_reading_does_not_resume_on_a_lost_connection(self):
        rig = Rig()
        rig.connection.abort()
        rig.connection.resume_reading()
        assert rig.loop.watchers == []


class TestWriting:
    def test_a_small_write_is_one_send_and_no_watcher(self):
        rig = Rig()
        rig.connection.write(b"hello")
        assert (rig.sock.sent, rig.sock.sends) == (b"hello", 1)
        assert len(rig.loop.watchers) == 1

    def test_what_the_kernel_does_not_take_is_sent_in_order_when_it_does(self):
        rig = Rig(room=3)
        rig.connection.write(b"hello")
        rig.connection.write(b" world")
        assert (rig.sock.sent, rig.connection.buffered) == (b"hel", 8)
        while rig.connection.buffered:
            rig.sock.room = 1
            assert rig.loop.writable()
        assert rig.sock.sent == b"hello world"
        assert rig.loop.writable() is False

    def test_progress_is_told_as_long_as_something_is_left(self):
        rig = Rig(room=0)
        rig.connection.write(b"ab")
        rig.sock.room = 1
        rig.loop.writable()
        assert rig.calls == ["progress"]
        rig.sock.room = 1
        rig.loop.writable()
        assert rig.calls == ["progress"]

    def test_no_progress_is_told_when_nothing_was_taken(self):
        rig = Rig(room=0)
        rig.connection.write(b"ab")
        rig.loop.writable()
        assert rig.calls == []

    def test_a_broken_pipe_loses_the_connection(self):
        rig = Rig()
        rig.sock.error = BrokenPipeError()
        rig.connection.write(b"x")
        assert rig.calls == ["lost"]
        assert rig.sock.closed == 1

    def test_a_broken_pipe_while_flushing_loses_it_too(self):
        rig = Rig(room=0)
        rig.connection.write(b"x")
        rig.sock.error = BrokenPipeError()
        rig.loop.writable()
        assert rig.calls == ["lost"]
        assert rig.loop.watchers == []

    def test_nothing_is_written_to_a_lost_connection(self):
        rig = Rig()
        rig.connection.abort()
        rig.connection.write(b"x")
        rig.connection.enqueue(b"x")
        assert rig.sock.sent == b""
        assert rig.connection.buffered == 0

    def test_dropping_keeps_the_piece_that_is_half_on_the_wire(self):
        rig = Rig(room=1)
        for piece in (b"first", b"second", b"third"):
            rig.connection.write(piece)
        assert rig.connection.drop_unsent() == len(b"secondthird")
        assert rig.connection.buffered == len(b"irst")
        rig.sock.room = 100
        rig.loop.writable()
        assert rig.sock.sent == b"first"


class TestDrained:
    def test_it_is_called_at_once_when_nothing_waits(self):
        rig = Rig()
        rig.connection.when_drained(lambda: rig.calls.append("drained"))
        assert rig.calls == ["drained"]

    def test_it_is_called_once_when_the_last_byte_is_out(self):
        rig = Rig(room=0)
        rig.connection.write(b"ab")
        rig.connection.when_drained(lambda: rig.calls.append("drained"))
        rig.sock.room = 1
        rig.loop.writable()
        assert "drained" not in rig.calls
        rig.sock.room = 1
        rig.loop.writable()
        assert rig.calls.count("drained") == 1

    def test_a_lost_connection_counts_as_drained(self):
        rig = Rig(room=0)
        rig.connection.write(b"ab")
        rig.connection.when_drained(lambda: rig.calls.append("drained"))
        rig.connection.abort()
        assert rig.calls == ["drained", "lost"]


class TestTheEnd:
    def test_close_flushes_first(self):
        rig = Rig(room=0)
        rig.connection.write(b"bye")
        rig.connection.close()
        assert not rig.sock.closed
        assert rig.connection.is_closing
        rig.sock.room = 100
        rig.loop.writable()
        assert (rig.sock.sent, rig.sock.closed) == (b"bye", 1)
        assert rig.calls == ["lost"]

    def test_nothing_is_written_behind_a_close(self):
        rig = Rig(room=0)
        rig.connection.write(b"bye")
        rig.connection.close()
        rig.connection.write(b"more")
        rig.sock.room = 100
        rig.loop.writable()
        assert rig.sock.sent == b"bye"

    def test_abort_does_not_flush(self):
        rig = Rig(room=0)
        rig.connection.write(b"bye")
        rig.connection.abort()
        assert (rig.sock.sent, rig.sock.closed) == (b"", 1)

    def test_the_end_comes_once_and_leaves_no_watcher(self):
        rig = Rig(room=0)
        rig.connection.write(b"x")
        for _ in range(3):
            rig.connection.abort()
            rig.connection.close()
        assert rig.calls == ["lost"]
        assert rig.closed == [rig.connection]
        assert rig.sock.closed == 1
        assert rig.loop.watchers == []

    def test_a_held_connection_keeps_its_descriptor_until_it_is_released(self):
        rig = Rig()
        rig.connection.held = True
        rig.receive(ConnectionResetError())
        assert rig.connection.lost
        assert not rig.sock.closed
        assert rig.calls == ["left"]
        rig.connection.release()
        assert rig.sock.closed == 1
        assert rig.calls == ["left", "lost"]

    def test_releasing_a_good_connection_changes_nothing(self):
        rig = Rig()
        rig.connection.held = True
        rig.connection.release()
        assert not rig.connection.lost
        rig.receive(b"abc")
        assert rig.calls == [b"abc"]

    def test_a_send_of_the_holder_that_fails_only_marks_the_connection(self):
        rig = Rig()
        rig.connection.held = True
        rig.sock.error = BrokenPipeError()
        assert rig.connection.try_send(b"abc") == 3
        assert rig.connection.lost
        assert not rig.sock.closed
        rig.connection.release()
        assert rig.sock.closed == 1

    def test_the_protocol_that_took_over_sees_the_end(self):
        rig = Rig()
        later = rig.connection.protocol = Recorder()
        rig.connection.abort()
        assert (rig.calls, later.calls) == ([], ["lost"])

    def test_a_half_close_that_fails_loses_the_connection(self):
        rig = Rig()
        rig.sock.error = OSError()
        rig.connection.shutdown_write()
        assert rig.calls == ["lost"]


class TestTheDeadline:
    def test_the_protocol_is_told(self):
        rig = Rig()
        rig.connection.set_deadline(101.0)
        rig.wheel.turn(101.5)
        assert rig.calls == ["deadline"]

    def test_a_closed_connection_has_none(self):
        rig = Rig()
        rig.connection.set_deadline(101.0)
        rig.connection.abort()
        assert rig.connection.deadline == NEVER
        rig.wheel.turn(101.5)
        assert rig.calls == ["lost"]

    def test_one_that_is_held_keeps_it_when_its_peer_leaves(self):
        rig = Rig()
        rig.connection.held = True
        rig.connection.set_deadline(101.0)
        rig.connection.abort()
        rig.wheel.turn(101.5)
        assert rig.calls == ["left", "deadline"]
        rig.connection.release()
        assert rig.calls == ["left", "deadline", "lost"]
        assert rig.connection.deadline == NEVER
