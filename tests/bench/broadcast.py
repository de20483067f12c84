"""One message to 500 sockets: gpulse against Channels with both its Redis layers, gevent-websocket.

    python tests/bench/broadcast.py [--rounds 5] [--seconds 3] [--sockets 500] [--peers-python PATH]

All sockets listen to one room on one worker, which has a core to itself; the client has another,
with the data store (Valkey) and the publisher.  The publisher is a process of its own that goes
through the store, with what the server's users call: ``gpulse.publish``, ``layer.group_send``.
gevent-websocket has no store: its loop over the sockets runs in the process that has them.

Two kinds of rounds, each server's turn after the other.  *Flood*: ``--window`` messages are always
under way; what counts is deliveries per second.  *Paced*: ``--rate`` messages per second; what
counts is the time from telling the publisher to the read of each delivery.  A client that is nearly
100 % busy has measured itself; ``CPU us``, of the server per delivery, holds even then.
"""

import argparse
import contextlib
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from apps.message import TEXT
from audience import Audience
from crowd import SPARE_FILES, allow_files
from meter import Meter, note_others
from peers import (
    CHANNELS_LISTS,
    CHANNELS_PUBSUB,
    GEVENT_WEBSOCKET,
    ROOMS,
    SocketPeer,
    add_peer_options,
    chosen_peers,
)
from programs import Publisher, Store
from servers import Server, gpulse, median_ratio, pin_client, print_table
from sockets import open_websocket, text_frame
from targets import Target, at_least, below, finish

READY = text_frame(b"ready", masked=False)
FRAME = text_frame(TEXT.encode(), masked=False)
RATIOS = {CHANNELS_LISTS: 15.0, CHANNELS_PUBSUB: 15.0, GEVENT_WEBSOCKET: 1.5}
"""Least of gpulse's deliveries per second to each peer's."""
SILENCE = 5.0
"""Seconds without a delivery after which messages are lost."""
WARM_UP = 20
"""Messages."""


@dataclass(frozen=True)
class Room:
    """A server whose room is full.

    :param publish: has so many messages published.
    :param helpers: processes besides the client on its core.
    """

    server: Server
    audience: Audience
    publish: Callable[[int], None]
    helpers: Sequence[int]


@dataclass(frozen=True)
class Flood:
    """One round."""

    rate: float
    """Deliveries per second."""
    cost: float
    """Microseconds of the server's CPU time for each."""
    client: float
    """The client's share of its core, 0 to 1."""
    helpers: float
    """The publisher's and the store's."""
    others: float


@dataclass(frozen=True)
class Paced:
    """One round.  Milliseconds."""

    p50: float
    p99: float
    cost: float
    """Microseconds of the server's CPU time for each delivery, none of which shares a send."""
    others: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each kind, per server (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round (3)")
    parser.add_argument("--sockets", type=int, default=500, help="in the room (500)")
    parser.add_argument("--window", type=int, default=8, help="messages under way (8)")
    parser.add_argument("--rate", type=float, default=10.0, help="messages per second (10)")
    add_peer_options(parser, list(ROOMS), access_log=False)
    options = parser.parse_args()
    peers = chosen_peers(options, ROOMS, list(ROOMS), "django")
    allow_files(options.sockets * (1 + len(peers)) + SPARE_FILES)
    pin_client()
    floods: dict[str, list[Flood]] = defaultdict(list)
    paced: dict[str, list[Paced]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        rooms = [stack.enter_context(_gpulse_room(options.sockets))]
        for peer in peers:
            rooms.append(stack.enter_context(_peer_room(peer, options)))
        for room in rooms:
            _deliver(room, WARM_UP, options.window)
        for _ in range(options.rounds):
            for room in rooms:
                floods[room.server.name].append(_flood(room, options.window, options.seconds))
            for room in rooms:
                paced[room.server.name].append(_pace(room, options.rate, options.seconds))
    _print(floods, paced)
    note_others(itertools.chain(*floods.values(), *paced.values()))
    finish(_targets(floods, paced))


@contextlib.contextmanager
def _gpulse_room(sockets: int) -> Iterator[Room]:
    with Store() as store:
        environ = {"GPULSE_DATA_STORE": store.url}
        options = ("--data-store", store.url, "--websocket-ping-interval", "600")
        with (
            gpulse("benchsite.wsgi:application", *options) as server,
            Publisher("publish_gpulse.py", environ) as publisher,
            _audience(server, sockets) as audience,
        ):
            yield Room(server, audience, publisher.publish, [store.pid, *publisher.pids])


@contextlib.contextmanager
def _peer_room(peer: SocketPeer, options: argparse.Namespace) -> Iterator[Room]:
    python = options.peers_python
    if not peer.layer:
        with (
            peer.start(python, {}) as server,
            _audience(server, options.sockets) as audience,
            contextlib.closing(open_websocket(server.port, "/publish")) as client,
        ):
            yield Room(server, audience, partial(_send, client.send), [])
        return
    with Store() as store:
        environ = {"BENCH_LAYER": peer.layer, "BENCH_STORE": store.url}
        with (
            peer.start(python, environ) as server,
            Publisher("publish_channels.py", environ, python) as publisher,
            _audience(server, options.sockets) as audience,
        ):
            yield Room(server, audience, publisher.publish, [store.pid, *publisher.pids])


def _send(send: Callable[[bytes], int], count: int) -> None:
    send(text_frame(b"publish", masked=True) * count)


def _audience(server: Server, sockets: int) -> Audience:
    clients = [open_websocket(server.port, "/room/lobby", READY) for _ in range(sockets)]
    return Audience(server.name, len(FRAME), clients)


def _deliver(room: Room, messages: int, window: int) -> int:
    """Publish so many, ``window`` of them at most under way; the deliveries.

    :raises SystemExit: some are lost.
    """
    audience = room.audience
    audience.reset()
    sockets, published = len(audience), 0
    while published < messages:
        more = min(window - (published - audience.frames // sockets), messages - published)
        if more:
            room.publish(more)
            published += more
        _await(room, audience.frames + sockets)
    _await(room, published * sockets)
    return audience.frames


def _await(room: Room, frames: int) -> None:
    audience = room.audience
    before = -1
    while before < audience.frames < frames:
        before = audience.frames
        audience.listen(time.monotonic() + SILENCE, frames)
    if audience.frames < frames:
        raise SystemExit(f"{room.server.name} lost {frames - audience.frames} deliveries")


def _flood(room: Room, window: int, seconds: float) -> Flood:
    audience = room.audience
    audience.reset()
    sockets, published = len(audience), 0
    end = time.monotonic() + seconds
    with Meter(room.server, room.helpers) as meter:
        while time.monotonic() < end:
            more = window - (published - audience.frames // sockets)
            if more:
                room.publish(more)
                published += more
            _await(room, min(audience.frames + sockets, published * sockets))
        _await(room, published * sockets)
    deliveries = audience.frames
    return Flood(
        rate=deliveries / meter.seconds,
        cost=1e6 * meter.server / deliveries,
        client=meter.client,
        helpers=meter.helpers,
        others=meter.others,
    )


def _pace(room: Room, rate: float, seconds: float) -> Paced:
    audience = room.audience
    audience.reset()
    begun: list[float] = []
    times: list[float] = []

    def take(number: int, moment: float) -> None:
        times.append(1000 * (moment - begun[number]))

    messages = max(1, round(rate * seconds))
    first = time.monotonic()
    with Meter(room.server, room.helpers) as meter:
        for number in range(messages):
            audience.listen(first + number / rate, on_frame=take)
            begun.append(time.monotonic())
            room.publish(1)
        wanted = messages * len(audience)
        audience.listen(time.monotonic() + SILENCE, wanted, take)
    if audience.frames < wanted:
        raise SystemExit(f"{room.server.name} lost {wanted - audience.frames} deliveries")
    times.sort()
    return Paced(
        p50=times[len(times) // 2],
        p99=times[int(len(times) * 0.99)],
        cost=1e6 * meter.server / wanted,
        others=meter.others,
    )


def _print(floods: dict[str, list[Flood]], paced: dict[str, list[Paced]]) -> None:
    rows = []
    for name, found in floods.items():
        rates = [r.rate for r in found]
        row = ["broadcast", name]
        row += [f"{rate:,.0f}" for rate in (statistics.median(rates), min(rates), max(rates))]
        row.append(f"{statistics.median(r.cost for r in found):.1f}")
        row.append(f"{statistics.median(r.client for r in found):.0%}")
        row.append(f"{statistics.median(r.helpers for r in found):.0%}")
        row.append(f"{_ratio(floods, name):.2f} x")
        row.append(f"{statistics.median(r.p50 for r in paced[name]):.2f}")
        row.append(f"{_p99(paced[name]):.2f}")
        row.append(f"{statistics.median(r.cost for r in paced[name]):.1f}")
        rows.append(row)
    header = ("", "server", "deliveries/s", "min", "max", "CPU us", "client busy", "beside it")
    print_table((*header, "gpulse is", "p50 ms", "p99 ms", "CPU us"), rows)


def _targets(floods: dict[str, list[Flood]], paced: dict[str, list[Paced]]) -> list[Target]:
    targets = []
    for peer, least in RATIOS.items():
        ratio = _ratio(floods, peer) if peer in floods else None
        targets.append(at_least("broadcast", least, peer, ratio))
    own = _p99(paced["gpulse"])
    for peer in RATIOS:
        limit = _p99(paced[peer]) if peer in paced else None
        targets.append(below("broadcast p99", limit, "ms", own, f"{peer}'s"))
    return targets


def _ratio(rounds: dict[str, list[Flood]], peer: str) -> float:
    return median_ratio([r.rate for r in rounds["gpulse"]], [r.rate for r in rounds[peer]])


def _p99(found: list[Paced]) -> float:
    return statistics.median(r.p99 for r in found)


if __name__ == "__main__":
    main()
