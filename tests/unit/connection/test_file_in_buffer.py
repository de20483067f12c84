"""A file among the buffered output: who sends it when, and who closes it whatever happens."""

import os
import socket

import pytest
from unit.connection.test_connection import Rig

from gpulse.connection import connection as module
from gpulse.connection.connection import FILE_STEP


class FileThreads:
    """A pool's ``in_file_thread`` that the test drives."""

    def __init__(self):
        self.waiting = []

    def run(self, call, args, done, *done_args):
        self.waiting.append((call, args, done, done_args))

    def finish(self, sent=None, error=None):
        """The thread is done: it sent so many bytes, or failed."""
        _, _, done, done_args = self.waiting.pop()
        done(*done_args, sent, error)

    def work(self):
        """Really send."""
        call, args, done, done_args = self.waiting.pop()
        try:
            result, failure = call(*args), None
        except OSError as error:
            result, failure = None, error
        done(*done_args, result, failure)


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture
def threads():
    return FileThreads()


@pytest.fixture
def opened(tmp_path):
    """``opened(content)`` gives a descriptor; what is still open at the end is closed."""
    made = []

    def opened(content=b"f" * 1000):
        path = tmp_path / str(len(made))
        path.write_bytes(content)
        made.append(os.open(path, os.O_RDONLY))
        return made[-1]

    yield opened
    for fd in made:
        if is_open(fd):
            os.close(fd)


class TestOrder:
    def test_the_thread_is_asked_when_the_socket_takes_something(self, threads, opened):
        rig = Rig()
        rig.connection.send_file(opened(), 0, 1000, threads.run)
        assert rig.connection.buffered == 1000
        assert threads.waiting == []
        assert rig.loop.writable()
        assert len(threads.waiting) == 1

    def test_what_was_buffered_before_goes_first(self, threads, opened):
        rig = Rig(room=3)
        rig.connection.write(b"before")
        rig.connection.send_file(opened(), 0, 1000, threads.run)
        assert rig.connection.buffered == 3 + 1000
        rig.sock.room = 2
        rig.loop.writable()
        assert threads.waiting == []
        rig.sock.room = 100
        rig.loop.writable()
        assert rig.sock.sent == b"before"
        assert len(threads.waiting) == 1

    def test_what_is_written_behind_it_waits_for_its_end(self, threads, opened):
        rig = Rig()
        rig.connection.send_file(opened(), 0, 1000, threads.run)
        rig.loop.writable()
        rig.connection.write(b"behind")
        assert not rig.loop.writable()  # the thread has the socket
        assert rig.connection.buffered == 1006
        threads.finish(600)
        assert rig.loop.writable()
        threads.finish(400)
        assert rig.sock.sent == b""
        assert rig.loop.writable()
        assert rig.sock.sent == b"behind"
        assert rig.connection.buffered == 0

    def test_two_files(self, threads, opened):
        rig = Rig()
        first, second = opened(), opened()
        for fd in (first, second):
            rig.connection.send_file(fd, 0, 1000, threads.run)
        rig.loop.writable()
        threads.finish(1000)
        assert (is_open(first), is_open(second)) == (False, True)
        rig.loop.writable()
        threads.finish(1000)
        assert not is_open(second)
        assert rig.connection.buffered == 0

    def test_the_thread_is_asked_anew_for_each_part(self, threads, opened):
        rig = Rig()
        fd = opened()
        rig.connection.send_file(fd, 100, 900, threads.run)
        for sent in (500, 300, 100):
            assert rig.loop.writable()
            (piece,) = threads.waiting[0][1]
            assert (piece.fd, piece.offset + piece.left) == (fd, 1000)
            threads.finish(sent)
        assert rig.connection.buffered == 0
        assert not rig.loop.writable()
        assert not is_open(fd)


class TestProgress:
    def test_it_is_told_and_counted(self, threads, opened):
        rig = Rig()
        rig.connection.send_file(opened(), 0, 1000, threads.run)
        rig.loop.writable()
        assert rig.calls == []
        threads.finish(600)
        assert rig.calls == ["progress"]
        assert (rig.connection.buffered, rig.connection.flushed) == (400, 600)

    def test_a_socket_that_was_full_is_none(self, threads, opened):
        rig = Rig()
        rig.connection.send_file(opened(), 0, 1000, threads.run)
        rig.loop.writable()
        threads.finish(error=BlockingIOError())
        assert rig.calls == []
        assert rig.connection.buffered == 1000
        assert rig.loop.writable()

    def test_who_waits_for_an_empty_buffer_is_called_at_its_end(self, threads, opened):
        rig = Rig()
        drained = []
        rig.connection.send_file(opened(), 0, 1000, threads.run)
        rig.connection.when_drained(lambda: drained.append(rig.connection.buffered))
        rig.loop.writable()
        threads.finish(999)
        assert drained == []
        rig.loop.writable()
        threads.finish(1)
        assert drained == [0]

    def test_a_protocol_that_raises_cuts_the_connection(self, threads, opened, caplog):
        rig = Rig()
        fd = opened()
        rig.protocol.write_progressed = lambda: 1 / 0
        rig.connection.send_file(fd, 0, 1000, threads.run)
        rig.loop.writable()
        threads.finish(1)
        assert rig.connection.lost
        assert "the connection is cut" in caplog.text
        assert not is_open(fd)


class TestEnd:
    """The descriptors of the file and of the socket are closed once, and by nobody too early."""

    def test_a_close_waits_for_the_file(self, threads, opened):
        rig = Rig()
        fd = opened()
        rig.connection.send_file(fd, 0, 1000, threads.run)
        rig.connection.close()
        assert rig.closed == []
        rig.loop.writable()
        threads.finish(1000)
        assert rig.closed == [rig.connection]
        assert (rig.sock.closed, is_open(fd)) == (1, False)
        assert rig.calls == ["lost"]

    def test_an_end_before_its_turn_closes_it(self, threads, opened):
        rig = Rig(room=0)
        first, second = opened(), opened()
        rig.connection.write(b"before")
        for fd in (first, second):
            rig.connection.send_file(fd, 0, 1000, threads.run)
        rig.connection.abort()
        assert (is_open(first), is_open(second)) == (False, False)
        assert rig.sock.closed == 1
        assert rig.connection.buffered == 0

    def test_an_end_between_two_parts_closes_it(self, threads, opened):
        rig = Rig()
        fd = opened()
        rig.connection.send_file(fd, 0, 1000, threads.run)
        rig.loop.writable()
        threads.finish(10)
        rig.connection.abort()
        assert not is_open(fd)
        assert rig.sock.closed == 1

    @pytest.mark.parametrize(
        "outcome", [{"sent": 600}, {"sent": 1000}, {"sent": 0}, {"error": BrokenPipeError()}]
    )
    def test_an_end_while_the_thread_is_at_it_waits_for_the_thread(self, threads, opened, outcome):
        rig = Rig()
        fd = opened()
        drained = []
        rig.connection.send_file(fd, 0, 1000, threads.run)
        rig.connection.when_drained(lambda: drained.append(True))
        rig.loop.writable()
        rig.connection.abort()
        assert rig.connection.lost
        assert drained == [True]
        assert rig.sock.shut  # the peer, and the thread in its call, learn of it now
        assert (rig.sock.closed, is_open(fd), rig.closed) == (0, True, [])
        threads.finish(**outcome)
        assert (rig.sock.closed, is_open(fd), rig.closed) == (1, False, [rig.connection])
        assert rig.calls == ["lost"]
        assert rig.connection.buffered == 0

    def test_nor_is_a_file_behind_it_left_open(self, threads, opened):
        rig = Rig()
        first, second = opened(), opened()
        for fd in (first, second):
            rig.connection.send_file(fd, 0, 1000, threads.run)
        rig.loop.writable()
        rig.connection.abort()
        threads.finish(1000)
        assert (is_open(first), is_open(second)) == (False, False)

    def test_a_thread_and_a_member_that_both_have_the_socket(self, threads, opened):
        for last in ("thread", "member"):
            rig = Rig()
            fd = opened()
            rig.connection.held = True
            rig.connection.send_file(fd, 0, 1000, threads.run)
            rig.loop.writable()
            rig.connection.abort()
            if last == "member":
                threads.finish(1000)
                assert rig.sock.closed == 0
                rig.connection.release()
            else:
                rig.connection.release()
                assert rig.sock.closed == 0
                threads.finish(1000)
            assert (rig.sock.closed, is_open(fd), rig.calls) == (1, False, ["left", "lost"])

    @pytest.mark.parametrize("outcome", [{"sent": 0}, {"error": OSError(5, "broken disk")}])
    def test_a_file_that_ends_early_or_breaks_cuts_the_connection(self, threads, opened, outcome):
        rig = Rig()
        fd = opened()
        rig.connection.send_file(fd, 0, 1000, threads.run)
        rig.connection.write(b"behind")
        rig.loop.writable()
        threads.finish(**outcome)
        assert rig.closed == [rig.connection]
        assert rig.sock.sent == b""
        assert not is_open(fd)

    def test_a_lost_connection_takes_none(self, threads, opened):
        rig = Rig()
        rig.connection.abort()
        fd = opened()
        rig.connection.send_file(fd, 0, 1000, threads.run)
        assert not is_open(fd)
        assert rig.connection.buffered == 0

    def test_output_that_is_dropped_takes_its_file_along(self, threads, opened):
        rig = Rig(room=1)
        fd = opened()
        rig.connection.write(b"begun")
        rig.connection.send_file(fd, 0, 1000, threads.run)
        assert rig.connection.drop_unsent() == 1000
        assert not is_open(fd)
        assert rig.connection.buffered == 4

    def test_one_that_is_being_sent_is_not_dropped(self, threads, opened):
        rig = Rig()
        fd = opened()
        rig.connection.send_file(fd, 0, 1000, threads.run)
        rig.loop.writable()
        rig.connection.write(b"behind")
        assert rig.connection.drop_unsent() == 6
        assert is_open(fd)
        threads.finish(1000)
        assert rig.connection.buffered == 0


class TestSending:
    """What the thread does, with a socket of the kernel's."""

    @pytest.fixture
    def pair(self):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        yield ours, theirs
        ours.close()
        theirs.close()

    def rig(self, ours):
        rig = Rig()
        rig.connection._sock = ours
        return rig

    def test_a_part_of_the_file(self, threads, opened, pair):
        ours, theirs = pair
        rig = self.rig(ours)
        fd = opened(b"0123456789")
        rig.connection.send_file(fd, 3, 4, threads.run)
        rig.loop.writable()
        threads.work()
        assert theirs.recv(100) == b"3456"
        assert rig.connection.buffered == 0

    def test_no_more_than_a_step_at_once(self, opened, pair, threads, monkeypatch):
        asked = []
        monkeypatch.setattr(module.os, "sendfile", lambda *args: asked.append(args) or args[-1])
        rig = self.rig(pair[0])
        size = 2 * FILE_STEP + 5
        rig.connection.send_file(opened(), 0, size, threads.run)
        for _ in range(3):
            rig.loop.writable()
            threads.work()
        assert [each[2:] for each in asked] == [
            (0, FILE_STEP),
            (FILE_STEP, FILE_STEP),
            (2 * FILE_STEP, 5),
        ]

    def test_a_full_socket_is_waited_for(self, threads, opened, pair):
        ours, theirs = pair
        rig = self.rig(ours)
        rig.connection.send_file(opened(b"x" * 3_000_000), 0, 3_000_000, threads.run)
        got = 0
        turns = 0
        while rig.connection.buffered:
            turns += 1
            assert rig.loop.writable()
            threads.work()
            theirs.setblocking(False)
            try:
                got += len(theirs.recv(500_000))
            except BlockingIOError:
                continue
        theirs.setblocking(True)
        while got < 3_000_000:
            got += len(theirs.recv(500_000))
        assert turns > 3
        assert rig.connection.flushed == 3_000_000

    def test_a_peer_that_has_left_ends_it(self, threads, opened, pair):
        ours, theirs = pair
        rig = self.rig(ours)
        fd = opened(b"x" * 1000)
        theirs.close()
        rig.connection.send_file(fd, 0, 1000, threads.run)
        rig.loop.writable()
        threads.work()
        assert rig.connection.lost
        assert not is_open(fd)

    def test_what_the_peer_has_not_taken_is_known(self, pair):
        ours, theirs = pair
        rig = self.rig(ours)
        assert rig.connection.unsent() == 0
        ours.send(b"x" * 1000)
        assert rig.connection.unsent() > 0
        theirs.recv(1000)
        assert rig.connection.unsent() == 0
        ours.close()
        assert rig.connection.unsent() == 0
