"""Files over TLS: read on a file thread, encrypted on the hub, block by block."""

import logging
import os
import ssl

import pytest
from unit.connection.tls_rig import FileThread, OtherClient, Rig, context_for

from gpulse.connection.tls import FILE_BLOCK

CONTENT = bytes(range(256)) * (FILE_BLOCK // 256 * 2) + b"the rest"
"""Three blocks, the last of them short."""


@pytest.fixture
def thread(tmp_path):
    thread = FileThread(tmp_path)
    yield thread
    # A test may end with some open; one that says "closed" has looked at it itself.
    for fd in thread.descriptors:
        if not thread.is_closed(fd):
            os.close(fd)


@pytest.fixture
def send(rig, thread):
    """``send(content)`` has the connection send a file; its descriptor."""

    def send_file(content=CONTENT, offset=0, size=None):
        fd = thread.open(content)
        rig.connection.send_file(fd, offset, len(content) if size is None else size, thread)
        return fd

    return send_file


def flush(rig, thread):
    """Let the socket take all, and the file thread work, until nothing is left to do."""
    rig.sock.room = float("inf")
    while rig.loop.writable() or thread.turn():
        pass


class TestSending:
    def test_all_of_it_arrives(self, rig, client, thread, send):
        fd = send()
        flush(rig, thread)
        client.take(rig.sent())
        assert client.received == CONTENT
        assert thread.is_closed(fd)
        assert rig.connection.buffered == 0

    def test_a_part_of_it(self, rig, client, thread, send):
        send(offset=100, size=FILE_BLOCK + 1)
        flush(rig, thread)
        client.take(rig.sent())
        assert client.received == CONTENT[100 : 100 + FILE_BLOCK + 1]

    def test_behind_a_head_and_in_front_of_what_follows(self, rig, client, thread, send):
        rig.sock.room = 10
        rig.connection.write(b"head ")
        send(b"first file ")
        rig.connection.enqueue(memoryview(b"between "))
        second = send(b"second file ")
        rig.connection.write(b"the end")
        flush(rig, thread)
        client.take(rig.sent())
        assert client.received == b"head first file between second file the end"
        assert thread.is_closed(second)
        assert rig.connection.buffered == 0

    def test_a_slow_reader_has_one_block_in_memory(self, rig, client, thread, send):
        rig.sock.room = 0
        size = len(CONTENT)
        send()
        while rig.connection.buffered:
            while thread.turn() or rig.loop.writable():
                if rig.sock.room < 1:
                    break
            assert rig.connection.buffered - size < FILE_BLOCK // 16
            before = len(client.received)
            rig.sock.room = 50_000
            rig.loop.writable()
            client.take(rig.sent())
            size -= len(client.received) - before
        assert client.received == CONTENT

    def test_no_block_is_read_while_another_waits(self, rig, thread, send):
        send()
        rig.loop.writable()
        rig.sock.room = 1000
        assert thread.turn()
        for _ in range(3):
            rig.loop.writable()
            assert thread.calls == []
        rig.sock.room = FILE_BLOCK * 2
        rig.loop.writable()
        assert len(thread.calls) == 1

    def test_it_is_buffered_until_the_last_byte_is_out(self, rig, thread, send):
        send()
        rig.connection.when_drained(lambda: rig.calls.append("drained"))
        rig.loop.writable()
        while thread.turn():
            assert rig.connection.buffered > 0
            assert "drained" not in rig.calls
            rig.loop.writable()
        assert rig.calls.count("drained") == 1
        assert rig.calls[-1] == "drained"

    def test_its_progress_is_told(self, rig, thread, send):
        send()
        flush(rig, thread)
        assert rig.calls.count("progress") >= 2
        assert rig.connection.flushed == len(rig.sent())

    def test_the_thread_touches_neither_socket_nor_openssl(self, rig, thread, send):
        send()
        rig.loop.writable()
        rig.connection._tls, tls = None, rig.connection._tls
        rig.sock.closed, sock_closed = 1, rig.sock.closed
        call, args, done, done_args = thread.calls.pop()
        block = call(*args)
        rig.connection._tls, rig.sock.closed = tls, sock_closed
        assert block == CONTENT[:FILE_BLOCK]
        done(*done_args, block, None)
        assert rig.connection.buffered

    def test_requests_are_read_meanwhile(self, rig, client, thread, send):
        send()
        rig.loop.writable()
        rig.receive(client.say(b"the next request"))
        assert b"the next request" in rig.calls


ALERT = 21


def records_in(data):
    """Type and number of each record.  AES-GCM in TLS 1.2 shows the number: RFC 5288, 3."""
    while data:
        size = int.from_bytes(data[3:5], "big")
        yield data[0], int.from_bytes(data[5:13], "big")
        data = data[5 + size :]


class TestWhatTlsSaysMeanwhile:
    """TLS's own records have their place in the numbering."""

    @pytest.fixture
    def other(self):
        other = OtherClient()
        yield other
        other.close()

    @pytest.mark.parametrize("moment", ["waits", "is read"])
    def test_its_answers_go_in_front_of_what_is_not_encrypted(self, pair, other, thread, moment):
        rig = Rig(context_for(pair, tls_ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"))
        data = other.advance()
        while not rig.connection.is_secure:
            rig.receive(data)
            data = other.advance(rig.sent())
        rig.sock.room = 0
        rig.connection.write(b"head ")
        fd = thread.open(CONTENT)
        rig.connection.send_file(fd, 0, len(CONTENT), thread)
        if moment == "is read":
            rig.sock.room = 1000
            rig.loop.writable()
            assert thread.calls
        assert other.lib.SSL_renegotiate(other.ssl) == 1
        rig.receive(other.advance())
        flush(rig, thread)
        found = list(records_in(rig.sent()))
        first = found[0][1]
        assert [number for _, number in found] == list(range(first, first + len(found)))
        assert [kind for kind, _ in found].index(ALERT) == 1, "behind the head"
        assert rig.connection.buffered == 0
        assert thread.is_closed(fd)


class TestTheEnd:
    def test_a_close_says_so_behind_it(self, rig, client, thread, send):
        fd = send()
        rig.connection.close()
        rig.connection.write(b"never")
        late = send(b"never")
        assert thread.is_closed(late)
        assert not rig.sock.closed
        flush(rig, thread)
        client.take(rig.sent())
        assert (client.received, client.closed) == (CONTENT, True)
        assert (rig.sock.closed, rig.calls[-1]) == (1, "lost")
        assert thread.is_closed(fd)

    def test_a_close_behind_two_says_so_once(self, rig, client, thread, send):
        send(b"one ")
        send(b"two")
        rig.connection.close()
        flush(rig, thread)
        client.take(rig.sent())
        assert (client.received, client.closed) == (b"one two", True)
        assert rig.sock.closed == 1

    def test_a_half_close_comes_behind_it(self, rig, client, thread, send):
        send()
        rig.connection.shutdown_write()
        rig.loop.writable()
        while thread.turn():
            assert not rig.sock.shut
            rig.loop.writable()
        assert rig.sock.shut
        client.take(rig.sent())
        assert (client.received, client.closed) == (CONTENT, True)

    def test_one_that_ends_early_cuts_the_connection(self, rig, client, thread, send, caplog):
        caplog.set_level(logging.DEBUG)
        fd = send(b"short", size=10)
        flush(rig, thread)
        client.take(rig.sent())
        assert (client.received, client.closed) == (b"short", False)
        assert rig.calls[-1] == "lost"
        assert (rig.sock.closed, thread.is_closed(fd)) == (1, True)
        assert "ended early" in caplog.text

    def test_one_that_cannot_be_read_cuts_the_connection(self, rig, thread, tmp_path, caplog):
        caplog.set_level(logging.DEBUG)
        fd = os.open(tmp_path, os.O_RDONLY)
        rig.connection.send_file(fd, 0, 10, thread)
        flush(rig, thread)
        assert rig.calls == ["lost"]
        assert thread.is_closed(fd)
        assert "Is a directory" in caplog.text

    def test_openssl_that_fails_cuts_the_connection(self, rig, thread, send):
        class Broken:
            def write(self, data):
                raise ssl.SSLError(1, "[SSL: BAD_LENGTH] bad length (_ssl.c:2580)")

        fd = send()
        rig.loop.writable()
        rig.connection._tls = Broken()
        assert thread.turn()
        assert rig.calls == ["lost"]
        assert thread.is_closed(fd)

    @pytest.mark.parametrize("moment", ["waits", "is encrypted"])
    def test_a_connection_lost_meanwhile_closes_it(self, rig, thread, send, moment):
        first, second = send(), send()
        if moment == "is encrypted":
            rig.loop.writable()
            rig.sock.room = 0
            assert thread.turn()
        rig.connection.abort()
        assert (thread.is_closed(first), thread.is_closed(second)) == (True, True)
        assert (rig.sock.closed, rig.loop.watchers, rig.connection.buffered) == (1, [], 0)

    def test_a_connection_lost_while_it_is_read_closes_it_afterwards(self, rig, thread, send):
        first, second = send(), send()
        rig.loop.writable()
        rig.connection.abort()
        assert not thread.is_closed(first), "its thread reads it"
        assert thread.is_closed(second)
        assert rig.sock.shut, "the client learns of it now"
        again = os.dup(first)  # would take the number of a descriptor that is closed twice
        assert thread.turn()
        assert thread.is_closed(first)
        assert not thread.is_closed(again)
        os.close(again)
        assert (rig.sock.closed, rig.calls) == (1, ["lost"])
        assert not thread.turn()

    def test_a_client_that_leaves_in_the_middle(self, rig, thread, send):
        fd = send()
        rig.loop.writable()
        thread.turn()
        rig.sock.error = BrokenPipeError()
        rig.loop.writable()
        assert rig.calls[-1] == "lost"
        assert (rig.sock.closed, thread.is_closed(fd)) == (1, True)

    def test_a_lost_connection_takes_none(self, rig, thread, send):
        rig.connection.abort()
        assert thread.is_closed(send())
        assert rig.connection.buffered == 0
