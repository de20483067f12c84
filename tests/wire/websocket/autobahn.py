"""The cases of the Autobahn test suite's fuzzing client, written down anew as a table.

Sections 1 to 7, 9, 10, 12 and 13 with the numbers that they have there (crossbario/
autobahn-testsuite on GitHub); each asks for what the suite calls strict, and where it takes several
close codes or is merely informed, for ours.

A case is a script of steps: bytes are written to the server by themselves; ``(opcode, content)`` is
what has to come next, with a close's code as its content; ``SILENCE`` is nothing at all.  After the
last step the server ends the connection.

Repetitions are cut down: 1000 messages of a section to ``TIMES`` or ``ROUNDS``.
"""

import random
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from websockets.speedups import apply_mask

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
FIN, RSV1 = 0x80, 0x40

NORMAL, PROTOCOL_ERROR, NO_STATUS, INVALID_DATA = 1000, 1002, 1005, 1007

KIB, MIB = 1024, 1024 * 1024
LARGEST = 16 * MIB

ROUNDS = 20
"""Messages of each case of 9.7 and 9.8."""
TIMES = 3
"""Messages of each case of 12 and 13."""

Content = bytes | int
Step = bytes | tuple[int, Content] | None
SILENCE = None

MASK = b"\x37\xfa\x21\x3d"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A client's frame."""
    first = bytes(((FIN if fin else 0) | rsv << 4 | opcode,))
    size = len(payload)
    if size < 126:
        head = first + bytes((0x80 | size,))
    elif size < 65536:
        head = first + struct.pack("!BH", 0xFE, size)
    else:
        head = first + struct.pack("!BQ", 0xFF, size)
    return head + MASK + apply_mask(payload, MASK)


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)


def fragments(opcode: int, pieces: Iterable[bytes], rsv: int = 0) -> list[bytes]:
    """The frames of a message in these pieces."""
    pieces = list(pieces)
    last = len(pieces) - 1
    return [
        frame(0 if number else opcode, piece, fin=number == last, rsv=0 if number else rsv)
        for number, piece in enumerate(pieces)
    ]


def chopped(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)] or [b""]


def joined(*frames: bytes) -> list[bytes]:
    """In one write."""
    return [b"".join(frames)]


def bytewise(*frames: bytes) -> list[bytes]:
    return chopped(b"".join(frames), 1)


@dataclass(frozen=True)
class Case:
    id: str
    make: Callable[[], Iterable[Step]]
    offer: str = ""
    """Sec-WebSocket-Extensions of the handshake."""

    def steps(self) -> Iterator[Step]:
        return iter(self.make())


CASES: list[Case] = []


def add(number: str, *steps: Step) -> None:
    CASES.append(Case(number, lambda: steps))


def clean(number: str, *steps: Step) -> None:
    """What ends with our close, and the server's answer to it."""
    add(number, *steps, close_frame(NORMAL), (CLOSE, NORMAL))


def refused(number: str, *steps: Step, code: int = PROTOCOL_ERROR) -> None:
    """What the server closes."""
    add(number, *steps, (CLOSE, code))


# 1: framing

for section, opcode, letter in (("1.1", TEXT, b"*"), ("1.2", BINARY, b"\xfe")):
    for number, size in enumerate((0, 125, 126, 127, 128, 65535, 65536), 1):
        content = letter * size
        clean(f"{section}.{number}", frame(opcode, content), (opcode, content))
    clean(f"{section}.8", *chopped(frame(opcode, content), 997), (opcode, content))

# 2: pings and pongs

for number, payload in enumerate((b"", b"Hello, world!", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), 1):
    clean(f"2.{number}", frame(PING, payload), (PONG, payload))
clean("2.4", frame(PING, b"\xfe" * 125), (PONG, b"\xfe" * 125))
refused("2.5", frame(PING, b"\xfe" * 126))
clean("2.6", *bytewise(frame(PING, b"\xfe" * 125)), (PONG, b"\xfe" * 125))
clean("2.7", frame(PONG), SILENCE)
clean("2.8", frame(PONG, b"unasked"), SILENCE)
clean("2.9", *joined(frame(PONG, b"unasked"), frame(PING, b"asked")), (PONG, b"asked"))
PINGS = [b"payload-%d" % number for number in range(10)]
clean("2.10", *joined(*(frame(PING, p) for p in PINGS)), *((PONG, p) for p in PINGS))
clean("2.11", *bytewise(*(frame(PING, p) for p in PINGS)), *((PONG, p) for p in PINGS))

# 3: reserved bits

HELLO = b"Hello, world!"
SEEN = (TEXT, HELLO)
BITS = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
refused("3.1", frame(TEXT, HELLO, rsv=1))
for number, rsv, cut in (("3.2", 2, joined), ("3.3", 3, list), ("3.4", 4, bytewise)):
    sent = frame(TEXT, HELLO), frame(TEXT, HELLO, rsv=rsv), frame(PING)
    refused(number, *(cut(sent) if cut is list else cut(*sent)), SEEN)
refused("3.5", frame(BINARY, BITS, rsv=5))
refused("3.6", frame(PING, BITS, rsv=6))
refused("3.7", frame(CLOSE, struct.pack("!H", NORMAL), rsv=7))

# 4: reserved opcodes

for section, first in (("4.1", 3), ("4.2", 11)):
    refused(f"{section}.1", frame(first))
    refused(f"{section}.2", frame(first + 1, HELLO))
    for number, payload, cut in ((3, b"", joined), (4, HELLO, joined), (5, HELLO, bytewise)):
        sent = frame(TEXT, HELLO), frame(first + number - 1, payload), frame(PING)
        refused(f"{section}.{number}", *cut(*sent), SEEN)

# 5: fragmentation

PIECES = b"fragment1", b"fragment2"
WHOLE = (TEXT, b"fragment1fragment2")
refused("5.1", *fragments(PING, PIECES))
refused("5.2", *fragments(PONG, PIECES))
one, two = fragments(TEXT, PIECES)
clean("5.3", *joined(one, two), WHOLE)
clean("5.4", one, two, WHOLE)
clean("5.5", *bytewise(one, two), WHOLE)
asked, answered = frame(PING, b"ping payload"), (PONG, b"ping payload")
clean("5.6", *joined(one, asked, two), answered, WHOLE)
clean("5.7", one, asked, answered, two, WHOLE)
clean("5.8", *bytewise(one, asked, two), answered, WHOLE)
for number, fin in ((9, True), (12, False)):
    sent = frame(0, b"non-continuation payload", fin=fin), frame(TEXT, HELLO)
    refused(f"5.{number}", *joined(*sent))
    refused(f"5.{number + 1}", *sent)
    refused(f"5.{number + 2}", *bytewise(*sent))
refused("5.15", *joined(one, two, frame(0, b"fragment3", fin=False), frame(TEXT, HELLO)), WHOLE)
for number, fin in ((16, False), (17, True)):
    refused(f"5.{number}", *joined(*(frame(0, b"fragment1", fin=fin), one, two) * 2))
refused("5.18", *joined(one, frame(TEXT, b"fragment2")))
FIVE = [b"fragment%d" % number for number in range(1, 6)]
parts = fragments(TEXT, FIVE)
parts[2:2] = [frame(PING, b"pongme 1!")]
parts[5:5] = [frame(PING, b"pongme 2!")]
echoed = (PONG, b"pongme 2!"), (TEXT, b"".join(FIVE))
clean("5.19", *joined(*parts[:3]), (PONG, b"pongme 1!"), *joined(*parts[3:]), *echoed)
clean("5.20", *parts[:3], (PONG, b"pongme 1!"), *parts[3:], *echoed)

# 6: UTF-8

KOSME = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode()
GERMAN = "Hello-µ@ßöäüàá-UTF-8!!".encode()
WRONG = KOSME + b"\xed\xa0\x80" + b"edited"
clean("6.1.1", frame(TEXT), (TEXT, b""))
clean("6.1.2", *fragments(TEXT, (b"", b"", b"")), (TEXT, b""))
clean(
    "6.1.3", *fragments(TEXT, (b"", b"middle frame payload", b"")), (TEXT, b"middle frame payload")
)
clean("6.2.1", frame(TEXT, GERMAN), (TEXT, GERMAN))
clean("6.2.2", *fragments(TEXT, (GERMAN[:12], GERMAN[12:])), (TEXT, GERMAN))
clean("6.2.3", *fragments(TEXT, chopped(GERMAN, 1)), (TEXT, GERMAN))
clean("6.2.4", *fragments(TEXT, chopped(KOSME, 1)), (TEXT, KOSME))
refused("6.3.1", frame(TEXT, WRONG), code=INVALID_DATA)
refused("6.3.2", *fragments(TEXT, chopped(WRONG, 1)), code=INVALID_DATA)
BEYOND = KOSME + b"\xf4\x90\x80\x80" + b"edited"
"""Wrong with its byte 13: code points end at 10ffff."""
for number, cuts in ((1, (11, 15)), (2, (12, 13))):
    first, second = BEYOND[: cuts[0]], BEYOND[cuts[0] : cuts[1]]
    sent = frame(TEXT, first, fin=False), SILENCE, frame(0, second, fin=False)
    refused(f"6.4.{number}", *sent, code=INVALID_DATA)
    data = frame(TEXT, BEYOND)
    sent = data[: 6 + cuts[0]], SILENCE, data[6 + cuts[0] : 6 + cuts[1]]
    refused(f"6.4.{number + 2}", *sent, code=INVALID_DATA)

PREFIXES = [KOSME[:size] for size in range(1, len(KOSME) + 1)]
WHOLE_PREFIXES = {2, 5, 7, 9, 11}
UNFINISHED = (
    "c0",
    "e080",
    "f08080",
    "f8808080",
    "fc80808080",
    "df",
    "efbf",
    "f7bfbf",
    "fbbfbfbf",
    "fdbfbfbfbf",
)
VALID, INVALID = True, False
SEQUENCES: tuple[tuple[bool, tuple[str, ...]], ...] = (
    (VALID, (*(f"hello{c}world".encode().hex() for c in "$¢€\U00024b62"), KOSME.hex())),
    # 6.6 has both kinds, see below
    (VALID, ()),
    (VALID, ("00", "c280", "e0a080", "f0908080")),
    (INVALID, ("f888808080", "fc8480808080")),
    (VALID, ("7f", "dfbf", "efbfbf", "f48fbfbf")),
    (INVALID, ("f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf")),
    (VALID, ("ed9fbf", "ee8080", "efbfbd", "f48fbfbf", "f4908080")),
    (
        INVALID,
        (
            "80",
            "bf",
            *("80bf" * pairs + "80" * odd for pairs in (1, 2) for odd in (0, 1)),
            "80bf80bf80bf",
            bytes(range(0x80, 0xBF)).hex(),
        ),
    ),
    (
        INVALID,
        tuple(
            b"".join(b"%c " % byte for byte in range(*ends)).hex()
            for ends in ((0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD))
        ),
    ),
    (INVALID, UNFINISHED),
    (INVALID, ("".join(UNFINISHED),)),
    (INVALID, ("fe", "ff", "fefeffff")),
    (INVALID, ("c0af", "e080af", "f08080af", "f8808080af", "fc80808080af")),
    (INVALID, ("c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf")),
    (INVALID, ("c080", "e08080", "f0808080", "f880808080", "fc8080808080")),
    (INVALID, ("eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf")),
    (
        INVALID,
        tuple(
            high + low
            for high in ("eda080", "edadbf", "edae80", "edafbf")
            for low in ("edb080", "edbfbf")
        ),
    ),
    (
        VALID,
        tuple(
            chr(plane << 16 | low).encode().hex() for plane in range(17) for low in (0xFFFE, 0xFFFF)
        ),
    ),
    (VALID, ("efbfb9", "efbfba", "efbfbb", "efbfbc", "efbfbd", "efbfbe", "efbfbf")),
)
"""6.5 to 6.23: whether they are UTF-8, and the texts in hexadecimal."""


def add_text(number: str, content: bytes, is_valid: bool) -> None:
    if is_valid:
        clean(number, frame(TEXT, content), (TEXT, content))
    else:
        refused(number, frame(TEXT, content), code=INVALID_DATA)


for section, (is_valid, texts) in enumerate(SEQUENCES, 5):
    for number, text in enumerate(texts, 1):
        # The last of 6.11 is the first code point that there is not.
        add_text(f"6.{section}.{number}", bytes.fromhex(text), is_valid and text != "f4908080")
    if section == 6:
        for number, content in enumerate(PREFIXES, 1):
            add_text(f"6.6.{number}", content, len(content) in WHOLE_PREFIXES)

# 7: closing

GOODBYE, GONE = close_frame(NORMAL), (CLOSE, NORMAL)
add("7.1.1", frame(TEXT, HELLO), SEEN, GOODBYE, GONE)
add("7.1.2", *joined(GOODBYE, GOODBYE), GONE)
add("7.1.3", *joined(GOODBYE, frame(PING)), GONE)
add("7.1.4", *joined(GOODBYE, frame(TEXT, HELLO)), GONE)
add("7.1.5", *joined(one, GOODBYE, two), GONE)
LONG = b"BAsd7&jh23" * 26_215
add(
    "7.1.6",
    *joined(frame(TEXT, LONG), frame(TEXT, HELLO), GOODBYE, frame(PING)),
    (TEXT, LONG),
    SEEN,
    GONE,
)
add("7.3.1", frame(CLOSE), (CLOSE, NO_STATUS))
refused("7.3.2", frame(CLOSE, b"a"))
add("7.3.3", GOODBYE, GONE)
add("7.3.4", close_frame(NORMAL, HELLO), GONE)
add("7.3.5", close_frame(NORMAL, b"*" * 123), GONE)
refused("7.3.6", close_frame(NORMAL, b"*" * 124))
refused("7.5.1", close_frame(NORMAL, WRONG), code=INVALID_DATA)
VALID_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
for number, code in enumerate(VALID_CODES, 1):
    add(f"7.7.{number}", close_frame(code), (CLOSE, code))
for number, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
    refused(f"7.9.{number}", close_frame(code))
refused("7.13.1", close_frame(5000))
refused("7.13.2", close_frame(65535))

# 9: sizes and speed


def lazily(number: str, make: Callable[[], Iterable[Step]]) -> None:
    CASES.append(Case(number, make))


def large(
    number: str, opcode: int, size: int, *, fragment: int = 0, chop: int = 0, times: int = 1
) -> None:
    """A message of ``size`` bytes, in frames or writes of these sizes."""

    def make() -> Iterator[Step]:
        content = (b"*" if opcode == TEXT else b"\xfe") * size
        sent = (
            fragments(opcode, chopped(content, fragment))
            if fragment
            else chopped(frame(opcode, content), chop or size + 14)
        )
        for _ in range(times):
            # Frames go out as they do over TCP, several in a segment.
            yield from sent if chop else chopped(b"".join(sent), 65536)
            yield opcode, content
        yield GOODBYE
        yield GONE

    lazily(number, make)


for section, opcode in ((1, TEXT), (2, BINARY)):
    sizes = (64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB)
    for number, size in enumerate(sizes, 1):
        large(f"9.{section}.{number}", opcode, size)
for section, opcode in ((3, TEXT), (4, BINARY)):
    for number in range(1, 10):
        large(f"9.{section}.{number}", opcode, 4 * MIB, fragment=16 * 4**number)
for section, opcode in ((5, TEXT), (6, BINARY)):
    for number in range(1, 7):
        large(f"9.{section}.{number}", opcode, MIB, chop=32 * 2**number)
for section, opcode in ((7, TEXT), (8, BINARY)):
    for number, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
        large(f"9.{section}.{number}", opcode, size, times=ROUNDS)

# 10: automatic fragmentation

large("10.1.1", TEXT, 65536, fragment=1300)

# 12 and 13: compression

SIZES = tuple((16 * 4**power, 0) for power in range(5)) + tuple(
    (size, piece)
    for piece, sizes in (
        (0, (8192, 16384, 32768, 65536, 131072)),
        (256, (8192, 16384, 32768, 65536, 131072)),
        (1024, (131072,)),
        (4096, (131072,)),
        (32768, (131072,)),
    )
    for size in sizes
)
"""Bytes of a message and of its fragments; 0: one frame."""


def _material(kind: str) -> bytes:
    """About 200 KB of one kind of data."""
    dice = random.Random(kind)
    if kind == "bitmap":
        rows = (
            bytes((x * y // 512 + dice.randrange(4)) & 255 for x in range(512)) for y in range(400)
        )
        return b"".join(rows)
    if kind == "packed":
        return zlib.compress(dice.randbytes(190_000)) + b"\x00" * 4096 + b"endstream\n" * 400
    letters = "abcdefghijklmnopqrstuvwxyz" if kind != "prose" else "abcdefghiklmnoprstuwzäöüß"
    words = ["".join(dice.choices(letters, k=dice.randrange(2, 10))) for _ in range(1500)]
    lines = [" ".join(dice.choices(words, k=8)) for _ in range(4000)]
    if kind == "json":
        lines = [f'{{"id": {dice.randrange(10**6)}, "text": "{line}"}},' for line in lines]
    elif kind == "html":
        lines = [f'<p class="line">{line}<br/></p>' for line in lines]
    return "\n".join(lines).encode()[:200_000]


KINDS = ("prose", "bitmap", "packed", "json", "html")
MATERIAL = {kind: _material(kind) for kind in KINDS}

DEFLATE = "permessage-deflate; client_no_context_takeover; client_max_window_bits"
OFFERS = (
    DEFLATE,
    f"{DEFLATE}; server_no_context_takeover",
    # 8 in the suite's first releases, 9 since zlib can no longer do 8.
    f"{DEFLATE}; server_max_window_bits=9",
    f"{DEFLATE}; server_max_window_bits=15",
    f"{DEFLATE}; server_no_context_takeover; server_max_window_bits=9",
    f"{DEFLATE}; server_no_context_takeover; server_max_window_bits=15",
    f"{DEFLATE}; server_no_context_takeover; server_max_window_bits=9, "
    f"{DEFLATE}; server_no_context_takeover, {DEFLATE}",
)


def deflated(content: bytes) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (deflater.compress(content) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def compressed(number: str, kind: str, size: int, piece: int, offer: str) -> None:
    opcode = TEXT if kind in ("json", "html") else BINARY

    def make() -> Iterator[Step]:
        material = MATERIAL[kind] * 2
        for turn in range(TIMES):
            at = turn * size % (len(material) // 2)
            content = material[at : at + size]
            data = deflated(content)
            yield from fragments(opcode, chopped(data, piece) if piece else [data], rsv=4)
            yield opcode, content
        yield GOODBYE
        yield GONE

    CASES.append(Case(number, make, offer))


for section, kind in enumerate(KINDS, 1):
    for number, (size, piece) in enumerate(SIZES, 1):
        compressed(f"12.{section}.{number}", kind, size, piece, DEFLATE)
for section, offer in enumerate(OFFERS, 1):
    for number, (size, piece) in enumerate(SIZES, 1):
        compressed(f"13.{section}.{number}", "json", size, piece, offer)


class Reader:
    """A client's ear: frames of the server, one at a time; refuses what no server may send.

    :param bits: the window that the server may use, 0 without compression.
    """

    def __init__(self, bits: int = 0) -> None:
        self.data = bytearray()
        self.bits = bits

    def feed(self, data: bytes) -> None:
        self.data += data

    def next(self) -> tuple[int, Content] | None:
        """The next message or control frame, None while it is not whole."""
        data = self.data
        if len(data) < 2:
            return None
        first, size = data[0], data[1]
        assert first & 0xB0 == FIN, "the server sends whole messages without reserved bits"
        assert size < 128, "a server's frames are not masked"
        start = 2
        if size > 125:
            start = 4 if size == 126 else 10
            if len(data) < start:
                return None
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            return None
        payload = bytes(data[start : start + size])
        del data[: start + size]
        opcode = first & 15
        if first & RSV1:
            assert self.bits, "compression was not agreed on"
            assert opcode in (TEXT, BINARY)
            payload = zlib.decompressobj(-self.bits).decompress(payload + b"\x00\x00\xff\xff")
        if opcode == CLOSE:
            return CLOSE, int.from_bytes(payload[:2], "big") if payload else NO_STATUS
        return opcode, payload


def check(found: tuple[int, Content] | None, wanted: Step) -> None:
    """Fails without megabytes in the report."""
    if found != wanted:
        raise AssertionError(f"{str(found)[:80]} came, not {str(wanted)[:80]}")
