"""The PROXY header, read and refused; and a connection's time until it is there."""

import ipaddress
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.connection.fake_loop import FakeLoop, FakeSocket

from gpulse.connection.connection import Connection
from gpulse.connection.proxyheader import (
    HEADER_TIMEOUT,
    MAX_V1,
    MAX_V2,
    SIGNATURE_V2,
    Header,
    ProxyHeaderError,
    ProxyHeaderProtocol,
    read_header,
)
from gpulse.connection.timers import DeadlineWheel

REST = b"GET / HTTP/1.1\r\n"
CLIENT, SERVER = ("198.51.100.7", 56324), ("192.0.2.1", 443)
CLIENT6, SERVER6 = ("2001:db8::7", 1), ("2001:db8::1", 65535)
TCP4 = bytes.fromhex("c6336407 c0000201 dc04 01bb")
TCP6 = bytes.fromhex("20010db8000000000000000000000007 20010db8000000000000000000000001 0001 ffff")
TLVS = b"\x04\0\x03abc" + b"\x03\0\x04\xde\xad\xbe\xef"  # NOOP, and a CRC32C that is wrong


def v2(version_command, family, addresses, size=None):
    size = len(addresses) if size is None else size
    return SIGNATURE_V2 + struct.pack("!BBH", version_command, family, size) + addresses


GOOD = {
    "tcp4": (b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 443\r\n", CLIENT, SERVER),
    "tcp4-lowest": (
        b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n",
        ("0.0.0.0", 0),
        ("0.0.0.0", 0),
    ),
    "tcp4-longest": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        ("255.255.255.255", 65535),
        ("255.255.255.255", 65535),
    ),
    "tcp6": (b"PROXY TCP6 2001:db8::7 2001:DB8::1 1 65535\r\n", CLIENT6, SERVER6),
    "tcp6-longest": (
        b"PROXY TCP6 " + b" ".join([b":".join([b"ffff"] * 8)] * 2) + b" 65535 65535\r\n",
        (":".join(["ffff"] * 8), 65535),
        (":".join(["ffff"] * 8), 65535),
    ),
    "tcp6-mapped": (b"PROXY TCP6 ::ffff:198.51.100.7 ::1 56324 1\r\n", CLIENT, ("::1", 1)),
    "unknown": (b"PROXY UNKNOWN\r\n", None, None),
    "unknown-more": (b"PROXY UNKNOWN  what\0 \xff ever\r\n", None, None),
    "unknown-longest": (b"PROXY UNKNOWN ".ljust(MAX_V1 - 2, b"f") + b"\r\n", None, None),
    "v2-tcp4": (v2(0x21, 0x11, TCP4), CLIENT, SERVER),
    "v2-tcp6": (v2(0x21, 0x21, TCP6), CLIENT6, SERVER6),
    "v2-mapped": (
        v2(0x21, 0x21, bytes(10) + b"\xff\xff" + TCP4[:4] + TCP6[16:32] + TCP4[8:]),
        CLIENT,
        (SERVER6[0], SERVER[1]),
    ),
    "v2-tlvs": (v2(0x21, 0x11, TCP4 + TLVS), CLIENT, SERVER),
    "v2-longest": (v2(0x21, 0x21, TCP6.ljust(MAX_V2, b"\0")), CLIENT6, SERVER6),
    "v2-local": (v2(0x20, 0x00, b""), None, None),
    "v2-local-with-addresses": (v2(0x20, 0x11, TCP4), None, None),
    "v2-local-short": (v2(0x20, 0x11, b"abc"), None, None),
    "v2-local-of-no-family": (v2(0x20, 0xFF, b"abc"), None, None),
    "v2-unspecified": (v2(0x21, 0x00, TLVS), None, None),
    "v2-unspecified-transport": (v2(0x21, 0x10, TCP4), None, None),
    "v2-udp": (v2(0x21, 0x12, TCP4), None, None),
    "v2-unix": (v2(0x21, 0x31, bytes(216)), None, None),
}

BROKEN = {
    "get": (b"GET / HTTP/1.1\r\n", "it begins with no PROXY header"),
    "tls": (b"\x16\x03\x01", "it begins with no PROXY header"),
    "post": (b"POST", "it begins with no PROXY header"),
    "lower-case": (b"proxy TCP4", "it begins with no PROXY header"),
    "tab": (b"PROXY\tTCP4", "it begins with no PROXY header"),
    "empty-lines": (b"\r\n\r\nPROXY", "it begins with no PROXY header"),
    "v2-signature": (SIGNATURE_V2[:-1] + b"\r", "it begins with no PROXY header"),
    "v1-long": (b"PROXY UNKNOWN ".ljust(MAX_V1, b"f"), "more than 107 bytes"),
    "v1-one-too-long": (b"PROXY UNKNOWN ".ljust(MAX_V1 - 1, b"f") + b"\r\n", "more than 107"),
    "v1-lf": (b"PROXY TCP4 198.51.100.7 192.0.2.1 56324 443\n", "breaks the grammar"),
    "v1-cr": (b"PROXY TCP4 198.51.100.7\r192", "carriage return"),
    "v1-cr-cr-lf": (b"PROXY UNKNOWN\r\r\n", "breaks the grammar"),
    "v1-nothing": (b"PROXY \r\n", "breaks the grammar"),
    "v1-two-spaces": (b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n", "breaks the grammar"),
    "v1-two-spaces-within": (b"PROXY TCP4 1.2.3.4  1.2.3.4 1 1\r\n", "breaks the grammar"),
    "v1-space-at-the-end": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n", "breaks the grammar"),
    "v1-more": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n", "breaks the grammar"),
    "v1-less": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "breaks the grammar"),
    "v1-tcp": (b"PROXY TCP 1.2.3.4 1.2.3.4 1 1\r\n", "breaks the grammar"),
    "v1-udp4": (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", "breaks the grammar"),
    "v1-lower-case": (b"PROXY tcp4 1.2.3.4 1.2.3.4 1 1\r\n", "breaks the grammar"),
    "v1-unknown-and-more": (b"PROXY UNKNOWNS\r\n", "breaks the grammar"),
    "v1-4-in-6": (b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n", "without an IPv6 address"),
    "v1-6-in-4": (b"PROXY TCP4 ::1 ::1 1 1\r\n", "breaks the grammar"),
    "v1-6-and-4": (b"PROXY TCP6 ::1 1.2.3.4 1 1\r\n", "without an IPv6 address"),
    "v1-256": (b"PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n", "without an IPv4 address"),
    "v1-zero-in-front": (b"PROXY TCP4 1.2.3.04 1.2.3.4 1 1\r\n", "without an IPv4 address"),
    "v1-three-numbers": (b"PROXY TCP4 1.2.3.4 11.22.33 1 1\r\n", "without an IPv4 address"),
    "v1-twice-zeros": (b"PROXY TCP6 1::2::3 ::1 1 1\r\n", "without an IPv6 address"),
    "v1-scope": (b"PROXY TCP6 fe80::1%1 ::1 1 1\r\n", "breaks the grammar"),
    "v1-brackets": (b"PROXY TCP6 [::1] [::1] 1 1\r\n", "breaks the grammar"),
    "v1-port-65536": (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n", "a port above 65535"),
    "v1-port-99999": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n", "a port above 65535"),
    "v1-port-01": (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", "breaks the grammar"),
    "v1-port-00": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n", "breaks the grammar"),
    "v1-port-minus": (b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n", "breaks the grammar"),
    "v1-port-hex": (b"PROXY TCP4 1.2.3.4 1.2.3.4 0x1 1\r\n", "breaks the grammar"),
    "v1-8-bit-digit": (b"PROXY TCP4 1.2.3.\xb2 1.2.3.4 1 1\r\n", "breaks the grammar"),
    "v1-nul": (b"PROXY TCP4 1.2.3.4\0 1.2.3.4 1 1\r\n", "breaks the grammar"),
    "v2-version-1": (SIGNATURE_V2 + b"\x11", "version 1 of the PROXY protocol"),
    "v2-version-3": (SIGNATURE_V2 + b"\x31", "version 3 of the PROXY protocol"),
    "v2-command": (SIGNATURE_V2 + b"\x22", "command 2 in a PROXY header"),
    "v2-family": (SIGNATURE_V2 + b"\x21\x41", "family 4 with transport 1"),
    "v2-transport": (SIGNATURE_V2 + b"\x21\x13", "family 1 with transport 3"),
    "v2-long": (SIGNATURE_V2 + b"\x21\x11\0\xd9", "217 bytes of addresses, 216 at most"),
    "v2-longest": (SIGNATURE_V2 + b"\x20\x00\xff\xff", "65535 bytes of addresses"),
    "v2-tcp4-short": (SIGNATURE_V2 + b"\x21\x11\0\x0b", "11 of 12 bytes of addresses"),
    "v2-tcp6-short": (SIGNATURE_V2 + b"\x21\x21\0\x0c", "12 of 36 bytes of addresses"),
    "v2-unix-short": (SIGNATURE_V2 + b"\x21\x31\0\x24", "36 of 216 bytes of addresses"),
}


class TestReadHeader:
    @pytest.mark.parametrize(("data", "source", "destination"), GOOD.values(), ids=GOOD)
    def test_good(self, data, source, destination):
        header = Header(source, destination, len(data))
        assert read_header(data) == header
        assert read_header(data + REST) == header
        assert read_header(data + data) == header

    @pytest.mark.parametrize("data", [good[0] for good in GOOD.values()], ids=GOOD)
    def test_every_part_wants_more(self, data):
        assert [cut for cut in range(len(data)) if read_header(data[:cut]) is not None] == []

    @pytest.mark.parametrize(("data", "reason"), BROKEN.values(), ids=BROKEN)
    def test_broken(self, data, reason):
        with pytest.raises(ProxyHeaderError, match=reason) as caught:
            read_header(data)
        assert str(caught.value).isprintable()
        with pytest.raises(ProxyHeaderError):
            read_header(data + REST)

    @pytest.mark.parametrize("first", range(256))
    def test_the_first_byte_that_differs(self, first):
        byte = bytes([first])
        if byte in b"P\r":
            assert read_header(byte) is None
        else:
            with pytest.raises(ProxyHeaderError, match="begins with no PROXY header"):
                read_header(byte)

    @pytest.mark.parametrize("signature", [b"PROXY ", SIGNATURE_V2])
    def test_every_byte_that_differs(self, signature):
        for at in range(len(signature)):
            begun = signature[:at] + bytes([signature[at] ^ 0x20])
            with pytest.raises(ProxyHeaderError, match="begins with no PROXY header"):
                read_header(begun)

    @given(
        st.one_of(
            *(
                st.tuples(st.ip_addresses(v=version), st.ip_addresses(v=version))
                for version in (4, 6)
            )
        ),
        st.integers(0, 65535),
        st.integers(0, 65535),
        st.binary(max_size=MAX_V2 - 36),
        st.binary(),
    )
    def test_what_a_proxy_wrote(self, addresses, source_port, destination_port, tlvs, rest):
        source, destination = addresses
        line = f"PROXY TCP{source.version} {source} {destination} {source_port} {destination_port}"
        block = source.packed + destination.packed
        block += struct.pack("!HH", source_port, destination_port) + tlvs
        for data in (
            f"{line}\r\n".encode(),
            v2(0x21, 0x11 if source.version == 4 else 0x21, block),
        ):
            header = read_header(data + rest)
            assert header is not None
            assert header.size == len(data)
            for (host, port), address, number in (
                (header.source, source, source_port),
                (header.destination, destination, destination_port),
            ):
                mapped = getattr(address, "ipv4_mapped", None)
                assert ipaddress.ip_address(host) == (mapped or address)
                assert port == number

    @given(
        st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ::1 ", SIGNATURE_V2]).flatmap(
            lambda begun: st.binary(max_size=400).map(lambda rest: begun + rest)
        )
    )
    def test_any_bytes_are_a_header_or_refused_or_a_beginning(self, data):
        try:
            header = read_header(data)
        except ProxyHeaderError:
            return
        if header is None:
            assert len(data) < 16 + MAX_V2
        else:
            assert header.size <= min(len(data), 16 + MAX_V2)
            assert (header.source is None) is (header.destination is None)

    @given(
        st.sampled_from([good[0] for good in GOOD.values()]),
        st.integers(0, 250),
        st.binary(min_size=1, max_size=1),
    )
    def test_one_changed_byte(self, data, at, byte):
        at %= len(data)
        try:
            header = read_header(data[:at] + byte + data[at + 1 :])
        except ProxyHeaderError:
            return
        for end in (header.source, header.destination) if header and header.source else ():
            ipaddress.ip_address(end[0])
            assert 0 <= end[1] < 65536


class Next:
    """The protocol behind the header."""

    def __init__(self):
        self.calls = []

    def data_received(self, data):
        self.calls.append(data)

    def eof_received(self):
        self.calls.append("eof")

    def deadline_passed(self, now):
        self.calls.append("deadline")

    def connection_lost(self):
        self.calls.append("lost")


class Rig:
    def __init__(self):
        self.loop = FakeLoop()
        self.sock = FakeSocket()
        self.refused = []
        self.done = []
        self.next = Next()
        self.connection = Connection(
            self.loop,
            self.sock,
            ("10.0.0.1", 4000),
            None,
            DeadlineWheel(time.monotonic()),
            lambda connection: None,
        )
        self.protocol = ProxyHeaderProtocol(self.connection, self.header_read, self.refused.append)
        self.connection.protocol = self.protocol
        self.connection.resume_reading()

    def header_read(self, connection, header, rest):
        assert connection is self.connection
        self.done.append((header, rest))
        connection.protocol = self.next

    def receive(self, *items):
        for item in items:
            self.sock.incoming.append(item)
            assert self.loop.readable()


class TestProtocol:
    @pytest.mark.parametrize("name", ["tcp4", "v2-tcp6"])
    def test_the_rest_is_handed_on(self, name):
        data, source, destination = GOOD[name]
        rig = Rig()
        rig.receive(data + REST)
        assert rig.done == [(Header(source, destination, len(data)), REST)]
        rig.receive(b"more", b"")
        assert rig.next.calls == [b"more", "eof"]
        assert rig.refused == []

    def test_byte_by_byte(self):
        data, source, destination = GOOD["v2-tlvs"]
        rig = Rig()
        rig.receive(*(data[at : at + 1] for at in range(len(data))), REST)
        assert rig.done == [(Header(source, destination, len(data)), b"")]
        assert rig.next.calls == [REST]

    @pytest.mark.parametrize(
        ("pieces", "reason"),
        [
            ([REST], "it begins with no PROXY header"),
            ([b"P", b"O"], "it begins with no PROXY header"),
            ([b"PROXY TCP4 1.2.3.4", b""], "it ended within its PROXY header"),
            ([b"PROXY UNKNOWN ", b"f" * 100], "a PROXY line of more than 107 bytes"),
        ],
    )
    def test_a_refusal_cuts_the_connection_and_is_counted_once(self, pieces, reason, caplog):
        caplog.set_level("DEBUG", "gpulse.worker")
        rig = Rig()
        rig.receive(*pieces)
        assert rig.refused == [reason]
        assert rig.connection.lost
        assert rig.sock.closed == 1
        assert rig.sock.sent == b""
        assert rig.done == []
        assert [record.levelname for record in caplog.records] == ["DEBUG"]
        assert reason in caplog.text

    def test_a_knock_at_the_port_is_no_refusal(self, caplog):
        caplog.set_level("DEBUG", "gpulse.worker")
        rig = Rig()
        rig.receive(b"")
        assert rig.connection.lost
        assert rig.refused == []
        assert not caplog.records

    def test_the_deadline(self):
        before = time.monotonic()
        rig = Rig()
        assert before + HEADER_TIMEOUT <= rig.connection.deadline
        assert rig.connection.deadline <= time.monotonic() + HEADER_TIMEOUT
        rig.receive(b"PROXY ")  # moves nothing
        assert rig.connection.wheel.turn(before + HEADER_TIMEOUT - 0.3) == 0
        assert rig.connection.wheel.turn(time.monotonic() + HEADER_TIMEOUT + 0.3) == 1
        assert rig.refused == ["no PROXY header came within 5 s"]
        assert rig.sock.closed == 1

    def test_a_lost_connection_leaves_nothing_behind(self):
        rig = Rig()
        rig.receive(b"PROXY UNKNOWN")
        rig.receive(ConnectionResetError())
        assert rig.protocol._data == b""
        assert rig.refused == []
        assert not rig.loop.watchers
