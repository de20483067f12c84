"""TLS over the parked connection: both ends in memory, the test carries the bytes."""

import contextlib
import logging
import random
import ssl
import threading

import pytest
import trustme
from certificates import Certificates
from unit.connection.tls_rig import (
    MIB,
    VERSIONS,
    MemoryClient,
    OtherClient,
    Recorder,
    Rig,
    context_for,
    sni,
)

from gpulse.connection import tls
from gpulse.connection.connection import READ_SIZE
from gpulse.connection.timers import NEVER
from gpulse.connection.tls import tls_environ


class TestHandshake:
    def test_the_protocol_comes_when_it_is_done(self, context, client):
        rig = Rig(context)
        client.take(b"")
        rig.receive(client.outgoing.read())
        assert rig.connection.protocol is not rig.protocol
        assert not rig.connection.is_secure
        assert tls_environ(rig.connection) == {}
        rig.shake(client)
        assert rig.connection.protocol is rig.protocol
        assert (rig.calls, rig.refusals) == ([], [])

    def test_in_pieces_of_one_byte(self, context, client):
        rig = Rig(context)
        rig.shake(client, step=1)
        rig.receive(client.say(b"hello"), step=1)
        assert rig.calls == [b"hello"]

    def test_a_request_that_comes_with_its_end(self, context, client):
        rig = Rig(context)
        client.take(b"")
        rig.receive(client.outgoing.read())
        client.take(rig.sent())
        last = client.outgoing.read()
        if not client.is_secure:  # TLS 1.2 has one more turn
            rig.receive(last)
            client.take(rig.sent())
            last = b""
        rig.receive(last + client.say(b"GET / HTTP/1.1\r\n"))
        assert rig.calls == [b"GET / HTTP/1.1\r\n"]

    def test_what_comes_behind_its_end_in_one_turn_is_decrypted(self, context, client):
        rig = Rig(context)
        client.take(b"")
        rig.receive(client.outgoing.read())
        client.take(rig.sent())
        last = client.outgoing.read()
        if not client.is_secure:  # TLS 1.2 has one more turn
            rig.receive(last)
            client.take(rig.sent())
            last = b""
        data = last + client.say(b"x" * (3 * READ_SIZE))
        for at in range(0, len(data), READ_SIZE):
            rig.sock.incoming.append(data[at : at + READ_SIZE])
        assert len(rig.sock.incoming) > 2
        while rig.sock.incoming:
            assert rig.loop.readable()
        assert rig.calls == [b"x" * (3 * READ_SIZE)]

    def test_its_deadline_is_taken_back(self, rig):
        assert rig.connection.deadline == NEVER

    def test_one_that_takes_too_long(self, context, client, caplog):
        caplog.set_level(logging.DEBUG)
        rig = Rig(context, timeout=5.0)
        client.take(b"")
        rig.receive(client.outgoing.read()[:100])
        rig.pass_time(4)
        assert rig.refusals == []
        rig.pass_time(6)
        assert rig.refusals == ["the handshake took longer than 5 s"]
        assert (rig.closed, rig.sock.closed) == ([rig.connection], 1)
        assert len(caplog.records) == 1
        assert rig.loop.watchers == []

    def test_bytes_that_drip_do_not_move_its_deadline(self, context, client):
        rig = Rig(context, timeout=5.0)
        before = rig.connection.deadline
        client.take(b"")
        rig.receive(client.outgoing.read()[:20], step=1)
        assert rig.connection.deadline == before

    @pytest.mark.parametrize("end", [b"", ConnectionResetError()])
    def test_a_client_that_leaves_in_the_middle(self, context, client, end, caplog):
        caplog.set_level(logging.DEBUG)
        rig = Rig(context)
        client.take(b"")
        rig.receive(client.outgoing.read())
        rig.sock.incoming.append(end)
        assert rig.loop.readable()
        assert rig.refusals == ["the client left before its end"]
        assert (rig.closed, rig.sock.closed) == ([rig.connection], 1)
        assert (rig.calls, len(caplog.records)) == ([], 1)

    def test_a_client_that_is_gone_when_it_is_answered(self, context, client):
        rig = Rig(context)
        client.take(b"")
        rig.sock.error = BrokenPipeError()
        rig.receive(client.outgoing.read())
        assert rig.refusals == ["the client left before its end"]
        assert rig.sock.closed == 1

    @pytest.mark.parametrize(
        "beginning", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"O", b"PRI * HTTP/2.0\r\n"]
    )
    def test_plain_http_is_told_so(self, context, beginning, caplog):
        caplog.set_level(logging.DEBUG)
        rig = Rig(context)
        rig.receive(beginning)
        head, _, body = rig.sent().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"TLS" in body
        assert rig.refusals == [tls.PLAIN_HTTP]
        assert rig.sock.shut
        assert len(caplog.records) == 1

    def test_a_refused_client_has_a_moment_to_read_why(self, context):
        rig = Rig(context)
        rig.receive(b"GET / HTTP/1.1\r\n")
        rig.receive(b"Host: x\r\n\r\n")
        assert not rig.sock.closed
        rig.receive(b"x" * tls.LINGER_BYTES)
        assert rig.sock.closed == 1

    @pytest.mark.parametrize("end", ["the client's", "the deadline's"])
    def test_then_it_is_closed(self, context, end):
        rig = Rig(context)
        rig.receive(b"GET / HTTP/1.1\r\n")
        if end == "the client's":
            rig.sock.incoming.append(b"")
            assert rig.loop.readable()
        else:
            rig.pass_time(tls.LINGER + 1)
        assert rig.sock.closed == 1
        assert len(rig.refusals) == 1

    def test_the_answer_to_plain_http_waits_for_a_slow_socket(self, context):
        rig = Rig(context, room=10)
        rig.receive(b"GET / HTTP/1.1\r\n")
        assert not rig.sock.shut
        rig.sock.room = 10_000
        assert rig.loop.writable()
        assert rig.sock.shut

    def test_no_common_version_gets_an_alert(self, pair, certificates):
        rig = Rig(context_for(pair, tls_minimum_version="1.3"))
        context = certificates.client()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        client = MemoryClient(context)
        client.take(b"")
        rig.receive(client.outgoing.read())
        with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
            client.take(rig.sent())
        assert rig.refusals == ["unsupported protocol"]

    def test_what_is_neither_tls_nor_http(self, context):
        rig = Rig(context)
        rig.receive(b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b")
        assert rig.refusals == ["wrong version number"]
        assert rig.sock.shut

    def test_a_client_that_does_not_trust_us(self, context, client_context):
        client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client = MemoryClient(client_context)
        client.take(b"")
        rig = Rig(context)
        rig.receive(client.outgoing.read())
        with pytest.raises(ssl.SSLCertVerificationError):
            client.take(rig.sent())
        rig.receive(client.outgoing.read())
        assert rig.refusals == ["tlsv1 alert unknown ca"]

    def test_what_came_behind_another_header_is_its_beginning(self, context, client):
        client.take(b"")
        rig = Rig(None)
        header = rig.connection.protocol = Recorder(rig)
        rig.connection.resume_reading()
        rig.receive(b"PROXY ...\r\n" + client.outgoing.read())
        line, _, rest = header.calls[0].partition(b"\r\n")
        assert line == b"PROXY ..."
        rig.start(context, 5.0, rest)
        client.take(rig.sent())
        rig.shake(client)
        rig.receive(client.say(b"hello"))
        assert rig.calls == [b"hello"]

    def test_a_server_that_stops_leaves_nothing_behind(self, context, client):
        rig = Rig(context)
        client.take(b"")
        rig.receive(client.outgoing.read())
        rig.connection.close()
        assert rig.sock.closed == 1
        assert rig.loop.watchers == []

    @pytest.mark.parametrize(
        ("offered", "chosen"), [(["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1")]
    )
    def test_alpn_is_http_1_1(self, context, client_context, offered, chosen):
        client_context.set_alpn_protocols(offered)
        client = MemoryClient(client_context)
        Rig(context).shake(client)
        assert client.tls.selected_alpn_protocol() == chosen

    def test_a_client_that_offers_http_2_alone_goes_on_without_alpn(self, context, client_context):
        client_context.set_alpn_protocols(["h2"])
        client = MemoryClient(client_context)
        rig = Rig(context)
        rig.shake(client)
        assert client.tls.selected_alpn_protocol() is None
        rig.receive(client.say(b"hello"))
        assert rig.calls == [b"hello"]


class TestDamage:
    """Bytes that were changed on their way: an alert, a line for debugging, never more."""

    @pytest.mark.parametrize("seed", range(60))
    def test_it_ends_quietly_and_no_wrong_byte_is_delivered(
        self, context, by_name, asking, certificates, seed, caplog, capfd
    ):
        caplog.set_level(logging.DEBUG)
        chance = random.Random(seed)
        client_context = certificates.client()
        client_context.maximum_version = chance.choice(VERSIONS)
        client = MemoryClient(client_context)
        rig = Rig(chance.choice([context, by_name, asking["optional"]]))
        client.take(b"")
        with contextlib.suppress(ssl.SSLError):  # the client's side, when the answer is an alert
            while not rig.connection.lost and not rig.sock.shut:
                data = bytearray(client.outgoing.read())
                if client.is_secure:
                    data += client.say(b"x" * chance.randrange(1, 40_000))
                if chance.random() < 0.7 and data:
                    data[chance.randrange(len(data))] = chance.randrange(256)
                rig.receive(bytes(data))
                client.take(rig.sent())
                if not data:
                    break  # a length was changed: the rest is waited for
        rig.connection.abort()
        assert set(b"".join(call for call in rig.calls if isinstance(call, bytes))) <= set(b"x")
        assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
        assert capfd.readouterr().err == ""
        assert (rig.sock.closed, rig.loop.watchers) == (1, [])


class TestServerNames:
    @pytest.mark.parametrize(
        ("asked", "given"),
        [
            ("shop.test", "shop.test"),
            ("SHOP.Test", "shop.test"),
            ("a.shop.test", "*.shop.test"),
            ("site.test", "site.test"),
        ],
    )
    def test_each_name_has_its_certificate(self, by_name, client_context, asked, given):
        client = MemoryClient(client_context, asked)
        Rig(by_name).shake(client)
        assert client.tls.getpeercert()["subjectAltName"] == (("DNS", given),)

    @pytest.mark.parametrize("asked", [None, "a.b.shop.test", "test", "."])
    def test_no_name_and_unknown_names_get_the_default_one(self, by_name, certificates, asked):
        context = certificates.client()
        context.check_hostname = False
        name = asked if asked != "." else None
        client = MemoryClient(context, name)
        Rig(by_name).shake(client)
        assert client.tls.getpeercert()["subjectAltName"] == (("DNS", "site.test"),)

    def test_a_name_that_is_no_text_leaves_no_traceback(self, by_name, client, capfd, caplog):
        caplog.set_level(logging.DEBUG)
        client.take(b"")
        hello = client.outgoing.read()
        assert b"site.test" in hello
        rig = Rig(by_name)
        rig.receive(hello.replace(b"site.test", b"\xffite.test"))
        assert rig.sent()[:1] == b"\x15"
        assert len(rig.refusals) == 1
        assert len(caplog.records) == 1
        assert capfd.readouterr().err == ""

    def test_client_certificates_are_asked_for_whatever_the_name(self, pair, certificates):
        context = context_for(
            pair,
            tls_sni=[sni("shop.test", certificates.pair("shop.test"))],
            tls_client_ca=certificates.ca,
            tls_client_certificates="required",
        )
        for name in ("shop.test", "site.test"):
            rig = Rig(context)
            rig.shake(MemoryClient(certificates.client(certificates.issue("someone")), name))
            assert tls_environ(rig.connection)["SSL_CLIENT_VERIFY"] == "SUCCESS"


class TestReading:
    def test_a_mebibyte(self, rig, client):
        data = bytes(range(256)) * (MIB // 256)
        rig.receive(client.say(data))
        assert rig.calls == [data]
        assert max(rig.protocol.sizes) <= READ_SIZE

    def test_a_record_in_two_parts_is_delivered_when_it_is_whole(self, rig, client):
        records = client.say(b"hello")
        rig.receive(records[:-1])
        assert rig.calls == []
        rig.receive(records[-1:])
        assert rig.calls == [b"hello"]

    @pytest.mark.parametrize("error", [BlockingIOError(), InterruptedError()])
    def test_a_false_alarm_is_nothing(self, rig, error):
        rig.sock.incoming.append(error)
        assert rig.loop.readable()
        assert (rig.calls, rig.connection.lost) == ([], False)

    def test_a_reset_loses_the_connection(self, rig):
        rig.sock.incoming.append(ConnectionResetError())
        assert rig.loop.readable()
        assert rig.calls == ["lost"]
        assert rig.refusals == []

    def test_a_pause_keeps_what_came_with_it_and_reads_no_more(self, rig, client):
        data = b"".join(bytes([n]) * 10_000 for n in range(6))
        rig.protocol.pause_after = 1
        rig.receive(client.say(data))
        first = len(rig.calls[0])
        assert 0 < first < len(data)
        assert not rig.loop.readable()
        assert len(rig.connection._unread) < READ_SIZE

    def test_resuming_delivers_it_without_another_event(self, rig, client):
        data = b"".join(bytes([n]) * 10_000 for n in range(6))
        rig.protocol.pause_after = 1
        rig.receive(client.say(data))
        rig.protocol.pause_after = None
        rig.connection.resume_reading()
        assert len(rig.protocol.sizes) == 1, "whoever resumes is not ready yet"
        assert rig.loop.turn() == 1
        assert rig.calls == [data]
        rig.receive(client.say(b"more"))
        assert rig.calls == [data + b"more"]

    def test_pausing_at_each_piece_loses_nothing(self, rig, client):
        data = bytes(range(256)) * 1000
        records = client.say(data)
        rig.protocol.pause_after = 1
        for at in range(0, len(records), READ_SIZE):
            rig.receive(records[at : at + READ_SIZE])
            while not rig.connection._reading:
                rig.connection.resume_reading()
                if not rig.loop.turn():
                    break
        assert rig.calls == [data]

    def test_a_pause_before_the_hubs_turn_holds(self, rig, client):
        rig.protocol.pause_after = 1
        rig.receive(client.say(b"x" * 60_000))
        before = len(rig.calls[0])
        rig.connection.resume_reading()
        rig.connection.pause_reading()
        rig.loop.turn()
        assert len(rig.calls[0]) == before
        rig.connection.resume_reading()
        rig.connection.pause_reading()
        rig.connection.resume_reading()
        rig.protocol.pause_after = None
        assert rig.loop.turn() == 1
        assert rig.calls == [b"x" * 60_000]
        assert rig.loop.readable()

    def test_a_protocol_that_pauses_and_resumes_at_once_goes_on_reading(self, rig, client):
        def data_received(data):
            Recorder.data_received(rig.protocol, data)
            rig.connection.pause_reading()
            rig.connection.resume_reading()

        rig.protocol.data_received = data_received
        rig.receive(client.say(b"x" * 60_000))
        rig.loop.turn()
        assert rig.calls == [b"x" * 60_000]
        rig.receive(client.say(b"y"))
        assert rig.calls[0][-1:] == b"y"

    def test_a_connection_that_is_lost_before_the_hubs_turn(self, rig, client):
        rig.protocol.pause_after = 1
        rig.receive(client.say(b"x" * 60_000))
        rig.connection.resume_reading()
        rig.connection.abort()
        rig.loop.turn()
        assert rig.calls[1:] == ["lost"]
        assert rig.loop.watchers == []

    def test_a_protocol_that_takes_over_gets_the_rest(self, rig, client):
        later = Recorder(rig)

        def data_received(data):
            Recorder.data_received(rig.protocol, data)
            rig.connection.protocol = later

        rig.protocol.data_received = data_received
        rig.receive(client.say(b"x" * 60_000))
        assert len(rig.calls[0]) + len(later.calls[0]) == 60_000

    def test_a_protocol_that_raises_ends_the_connection(self, rig, client, caplog):
        def data_received(data):
            raise ZeroDivisionError

        rig.protocol.data_received = data_received
        rig.receive(client.say(b"x"))
        assert rig.calls == ["lost"]
        assert "ZeroDivisionError" in caplog.text

    def test_it_may_raise_in_the_hubs_turn_too(self, rig, client, caplog):
        rig.protocol.pause_after = 1
        rig.receive(client.say(b"x" * 60_000))

        def data_received(data):
            raise ZeroDivisionError

        rig.protocol.data_received = data_received
        rig.connection.resume_reading()
        rig.loop.turn()
        assert rig.calls[1:] == ["lost"]

    def test_nothing_is_kept_of_what_was_delivered(self, rig, client):
        rig.receive(client.say(b"x" * 60_000))
        assert rig.connection._unread == b""
        assert not isinstance(rig.connection._unread, memoryview)

    def test_a_forged_record_loses_the_connection_and_says_so(self, rig, caplog):
        caplog.set_level(logging.DEBUG)
        rig.receive(b"\x17\x03\x03\x00\x30" + b"z" * 48)
        assert rig.calls == ["lost"]
        assert rig.sent()[:1] in (b"\x15", b"\x17")  # an alert; in TLS 1.3 it looks like data
        assert rig.sock.closed == 1
        (record,) = caplog.records
        assert "TLS broke" in record.getMessage()
        assert record.levelno == logging.DEBUG


class TestWriting:
    def test_a_mebibyte(self, rig, client):
        data = bytes(range(256)) * (MIB // 256)
        rig.connection.write(data)
        client.take(rig.sent())
        assert client.received == data

    def test_to_a_slow_socket(self, rig, client):
        rig.sock.room = 1000
        data = bytes(range(256)) * 1000
        rig.connection.write(data)
        assert rig.connection.buffered > len(data) - 1000
        while rig.connection.buffered:
            rig.sock.room = 7919
            assert rig.loop.writable()
        client.take(rig.sent())
        assert client.received == data
        assert "progress" in rig.calls

    def test_what_waits_is_counted_in_records(self, rig):
        rig.sock.room = 0
        rig.connection.write(b"x" * 100)
        assert rig.connection.buffered > 100

    def test_several_writes_stay_in_order(self, rig, client):
        rig.sock.room = 5
        for piece in (b"one ", b"two ", memoryview(b"three")):
            rig.connection.enqueue(piece)
        rig.sock.room = 1000
        rig.loop.writable()
        client.take(rig.sent())
        assert client.received == b"one two three"

    def test_what_is_enqueued_goes_out_at_once_if_it_can(self, rig, client):
        rig.connection.enqueue(memoryview(b"hello"))
        client.take(rig.sent())
        assert client.received == b"hello"
        assert len(rig.loop.watchers) == 1

    def test_nothing_is_a_write_of_nothing(self, rig):
        rig.connection.write(b"")
        assert rig.sent() == b""

    def test_a_holder_sends_nothing_itself(self, rig, client):
        rig.connection.held = True
        results = []
        member = threading.Thread(target=lambda: results.append(rig.connection.try_send(b"hello")))
        member.start()
        member.join()
        assert (results, rig.sent()) == ([0], b"")
        rig.connection.enqueue(memoryview(b"hello"))
        client.take(rig.sent())
        assert client.received == b"hello"

    def test_no_record_is_ever_dropped(self, rig, client):
        rig.sock.room = 0
        for piece in (b"first", b"second"):
            rig.connection.write(piece)
        assert rig.connection.drop_unsent() == 0
        assert rig.connection.drop_oldest(1) == (0, 0)
        rig.sock.room = 1000
        rig.loop.writable()
        client.take(rig.sent())
        assert client.received == b"firstsecond"

    def test_openssl_that_fails_loses_the_connection(self, rig, caplog):
        caplog.set_level(logging.DEBUG)

        class Broken:
            def write(self, data):
                raise ssl.SSLError(1, "[SSL: BAD_LENGTH] bad length (_ssl.c:2580)")

        rig.connection._tls = Broken()
        rig.connection.write(b"x")
        assert rig.calls == ["lost"]
        assert "TLS broke: bad length" in caplog.text

    def test_a_broken_pipe_loses_the_connection(self, rig):
        rig.sock.error = BrokenPipeError()
        rig.connection.write(b"x")
        assert rig.calls == ["lost"]
        assert rig.sock.closed == 1

    def test_nothing_is_written_to_a_lost_connection(self, rig):
        rig.connection.abort()
        rig.connection.write(b"x")
        rig.connection.enqueue(b"x")
        assert rig.sent() == b""

    def test_drained_is_called_when_the_records_are_out(self, rig):
        rig.sock.room = 0
        rig.connection.write(b"x" * 50_000)
        rig.connection.when_drained(lambda: rig.calls.append("drained"))
        assert rig.calls == []
        rig.sock.room = 100_000
        rig.loop.writable()
        assert rig.calls == ["drained"]


class TestTheEnd:
    def test_a_close_says_so_first(self, rig, client):
        rig.connection.write(b"bye")
        rig.connection.close()
        client.take(rig.sent())
        assert (client.received, client.closed) == (b"bye", True)
        assert (rig.sock.closed, rig.calls) == (1, ["lost"])

    def test_a_close_flushes_first(self, rig, client):
        rig.sock.room = 0
        rig.connection.write(b"bye")
        rig.connection.close()
        assert not rig.sock.closed
        rig.connection.write(b"behind it")
        rig.connection.enqueue(b"behind it")
        rig.sock.room = 1000
        rig.loop.writable()
        client.take(rig.sent())
        assert (client.received, client.closed) == (b"bye", True)
        assert rig.sock.closed == 1

    def test_an_abort_says_nothing(self, rig):
        rig.connection.abort()
        assert (rig.sent(), rig.sock.closed) == (b"", 1)

    def test_a_half_close_says_so_once_and_reads_on(self, rig, client):
        rig.connection.shutdown_write()
        assert rig.sock.shut
        client.take(rig.sent())
        assert client.closed
        rig.connection.write(b"late")
        assert rig.sent() == b""
        rig.receive(client.say(b"still talking"))
        assert rig.calls == [b"still talking"]
        rig.receive(client.close())
        assert rig.calls == [b"still talking", "eof"]
        rig.connection.close()
        assert (rig.sent(), rig.sock.closed) == (b"", 1)

    def test_a_half_close_within_a_record(self, rig, client):
        records = client.say(b"x" * 10_000)
        rig.receive(records[:5000])
        rig.connection.shutdown_write()
        rig.receive(records[5000:])
        assert rig.calls == [b"x" * 10_000]

    def test_a_half_close_to_a_slow_socket(self, rig, client):
        rig.sock.room = 3
        rig.connection.shutdown_write()
        assert not rig.sock.shut
        rig.sock.room = 1000
        rig.loop.writable()
        assert rig.sock.shut
        client.take(rig.sent())
        assert client.closed

    def test_a_half_close_whose_client_is_gone(self, rig):
        rig.sock.error = BrokenPipeError()
        rig.connection.shutdown_write()
        assert rig.calls == ["lost"]

    def test_the_clients_close_is_the_end_of_what_it_sends(self, rig, client):
        rig.receive(client.say(b"last") + client.close())
        assert rig.calls == [b"last", "eof"]
        assert not rig.loop.readable()
        rig.connection.write(b"answer")
        client.take(rig.sent())
        assert client.received == b"answer"

    def test_a_close_that_comes_during_a_pause_is_told_later(self, rig, client):
        rig.protocol.pause_after = 1
        rig.receive(client.say(b"last") + client.close())
        assert rig.calls == [b"last"]
        rig.connection.resume_reading()
        rig.loop.turn()
        assert rig.calls == [b"last", "eof"]
        assert not rig.loop.readable()

    def test_what_comes_behind_a_close_is_ignored(self, rig, client):
        rig.receive(client.close() + b"garbage" * 5000)
        assert (rig.calls, rig.connection._unread) == (["eof"], b"")
        rig.connection.resume_reading()
        rig.loop.turn()
        assert rig.calls == ["eof", "eof"]
        assert not rig.connection.lost

    def test_an_end_without_a_word_ends_reading_too(self, rig, client):
        rig.receive(client.say(b"half a requ"))
        rig.sock.incoming.append(b"")
        assert rig.loop.readable()
        assert rig.calls == [b"half a requ", "eof"]
        assert not rig.loop.readable()

    def test_a_record_that_is_cut_off_is_never_delivered(self, rig, client):
        rig.receive(client.say(b"x" * 10_000)[:-1])
        rig.sock.incoming.append(b"")
        assert rig.loop.readable()
        assert rig.calls == ["eof"]

    def test_a_held_connection_keeps_its_descriptor(self, rig, client):
        rig.connection.held = True
        rig.sock.incoming.append(ConnectionResetError())
        assert rig.loop.readable()
        assert rig.connection.lost
        assert not rig.sock.closed
        rig.connection.write(b"x")
        rig.connection.release()
        assert (rig.sock.closed, rig.calls) == (1, ["lost"])

    def test_a_lost_connection_keeps_nothing_of_openssl(self, rig):
        rig.connection.abort()
        connection = rig.connection
        assert (connection._tls, connection._incoming, connection._outgoing) == (None, None, None)


class TestRenegotiation:
    @pytest.fixture
    def other(self, context):
        other = OtherClient()
        yield other
        other.close()

    @pytest.fixture
    def rig(self, context, other):
        rig = Rig(context)
        data = other.advance()
        while not rig.connection.is_secure:
            rig.receive(data)
            data = other.advance(rig.sent())
        assert rig.connection.environ["SSL_PROTOCOL"] == "TLSv1.2"
        return rig

    def test_it_is_refused_and_the_connection_lives(self, rig, other):
        assert other.lib.SSL_renegotiate(other.ssl) == 1
        rig.receive(other.advance())
        answer = rig.sent()
        assert answer[:1] == b"\x15", "an alert, no handshake"
        assert len(answer) < 100
        assert (rig.calls, rig.connection.lost) == ([], False)

    def test_one_who_asks_and_does_not_read_is_cut_off(self, rig, other, monkeypatch):
        monkeypatch.setattr(tls, "MAX_ANSWERS", 16)
        rig.sock.room = 0
        other.lib.SSL_renegotiate(other.ssl)
        rig.receive(other.advance())
        assert rig.calls == ["lost"]


class TestEnviron:
    def test_without_client_certificates(self, context, client_context):
        rigs = [Rig(context), Rig(context)]
        for rig in rigs:
            rig.shake(MemoryClient(client_context))
        environ = tls_environ(rigs[0].connection)
        version = "TLSv1.3" if client_context.maximum_version == VERSIONS[1] else "TLSv1.2"
        assert (environ["HTTPS"], environ["SSL_PROTOCOL"]) == ("on", version)
        assert environ["SSL_CIPHER"].isascii()
        assert len(environ) == 3
        assert environ is tls_environ(rigs[1].connection)

    @pytest.mark.parametrize("mode", ["optional", "required"])
    def test_with_one(self, asking, mode, certificates, client_context):
        leaf = certificates.issue(
            "someone@site.test",
            common_name='Zoë, "the" boss ',
            organization_name="#1 + sons",
            organization_unit_name=" a;b\\c",
        )
        leaf.configure_cert(client_context)
        rig = Rig(asking[mode])
        rig.shake(MemoryClient(client_context))
        environ = tls_environ(rig.connection)
        assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS"
        assert environ["SSL_CLIENT_S_DN"] == (
            'CN=Zo\\C3\\AB\\, \\"the\\" boss\\ ,OU=\\ a\\;b\\\\c,O=\\#1 \\+ sons'
        )
        assert environ["SSL_CLIENT_I_DN"].endswith("O=trustme v" + trustme.__version__)
        assert int(environ["SSL_CLIENT_SERIAL"], 16) > 0
        assert (
            environ["SSL_CLIENT_CERT"].strip() == leaf.cert_chain_pems[0].bytes().decode().strip()
        )
        assert environ["HTTPS"] == "on"

    def test_without_one_where_it_is_optional(self, asking, client_context):
        rig = Rig(asking["optional"])
        rig.shake(MemoryClient(client_context))
        environ = tls_environ(rig.connection)
        assert environ["SSL_CLIENT_VERIFY"] == "NONE"
        assert "SSL_CLIENT_S_DN" not in environ

    def refused_by(self, asking, client_context):
        rig = Rig(asking)
        client = MemoryClient(client_context)
        client.take(b"")
        with pytest.raises(ssl.SSLError, match="ALERT"):
            rig.shake(client)
        assert rig.calls == []
        return rig.refusals

    def test_without_one_where_it_is_required(self, asking, client_context):
        refusals = self.refused_by(asking["required"], client_context)
        assert refusals == ["peer did not return a certificate"]

    @pytest.mark.parametrize("mode", ["optional", "required"])
    def test_with_a_strangers_one(self, asking, mode, client_context, tmp_path):
        Certificates(tmp_path).issue("stranger").configure_cert(client_context)
        (reason,) = self.refused_by(asking[mode], client_context)
        assert reason.startswith("certificate verify failed (")
