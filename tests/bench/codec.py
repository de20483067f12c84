"""What decoding costs: this server's decoder beside the core of ``websockets``, in one process.

Masked text messages per second, one and twenty in a read, and the memory of an idle decoder; no
sockets.  Run from the tree's top, by itself on a core::

    taskset -c 1 python tests/bench/codec.py
"""

import sys
from pathlib import Path

# Not this script's directory: its http.py would hide the standard library's.
sys.path[0] = str(Path(__file__).parents[2])

# ruff: noqa: E402
import argparse
import logging
import os
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from gpulse.websocket.codec import Decoder

SIZES = (32, 125, 1024, 16384)
LIMIT = 1 << 20
LOG = logging.getLogger("bench")
LOG.setLevel(logging.CRITICAL)


def core() -> Protocol:
    return Protocol(SERVER, state=OPEN, max_size=LIMIT, logger=LOG)


def core_feed() -> Callable[[bytes], list[Any]]:
    """Bytes to texts, as :meth:`Decoder.feed` does it."""
    wire = core()

    def feed(data: bytes) -> list[Any]:
        wire.receive_data(data)
        return [(event.opcode, bytes(event.data).decode()) for event in wire.events_received()]

    return feed


def rate(feed: Callable[[bytes], object], data: bytes, messages: int, seconds: float) -> float:
    """The best of five rounds."""
    best = 0.0
    for _ in range(5):
        count, begun = 0, time.perf_counter()
        while (passed := time.perf_counter() - begun) < seconds:
            for _ in range(50):
                feed(data)
            count += 50 * messages
        best = max(best, count / passed)
    return best


def size_of(make: Callable[[], object], count: int = 2000) -> float:
    """Bytes of one."""
    tracemalloc.start()
    kept = [make() for _ in range(count)]
    size = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return size


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.3, help="of one round")
    seconds = parser.parse_args().seconds
    for size in SIZES:
        frame = Frame(Opcode.TEXT, os.urandom(size // 2).hex().encode() + b"x" * (size & 1))
        for messages in (1, 20):
            data = frame.serialize(mask=True) * messages
            theirs = rate(core_feed(), data, messages, seconds)
            ours = rate(Decoder(LIMIT).feed, data, messages, seconds)
            say(
                f"{size:6} bytes, {messages:2} in a read: websockets {theirs / 1000:6.0f}k/s,"
                f" gpulse {ours / 1000:6.0f}k/s, {ours / theirs:.1f} times as many"
            )
    say(f"idle: websockets {size_of(core):.0f} bytes, gpulse {size_of(lambda: Decoder(LIMIT)):.0f}")


if __name__ == "__main__":
    main()
