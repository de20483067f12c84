"""Whether a delivery costs the same with few and with very many subscribers and channels.

    python tests/bench/flat.py [--rounds 5] [--seconds 1]

One message is under way at a time, through the real store, and each delivery is a send of its own;
what counts is the server's CPU time per delivery.

Subscribers: 100, 1,000 and 15,000 in one room, and beside them a bare loop of ``send`` over as many
sockets.  The kernel's part of a send doubles as soon as its sockets do not fit into the processor's
cache, for both ends of each lie on this machine: so gpulse's cost is taken relative to that loop's.

Channels: 1, 100 and 10,000, published to in turn, to all of which the same ten sockets listen; and
once more 10,000 with ten sockets each of a thousand, which shows the cache again.
"""

import argparse
import contextlib
import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from apps.message import TEXT
from audience import Audience
from crowd import SPARE_FILES, allow_files
from meter import Meter, note_others
from programs import Publisher, Store
from servers import DEADLINE, Server, gpulse, pin_client, print_table
from sockets import open_websocket, text_frame
from targets import Target, finish

READY = text_frame(b"ready", masked=False)
FRAME = text_frame(TEXT.encode(), masked=False)
SUBSCRIBERS = (100, 1000, 15_000)
CHANNELS = (1, 100, 10_000)
IN_EACH = 10
"""Subscribers of each of the channels."""
SPREAD = 100
"""Channels of each socket, where they are spread over many."""
FLAT = 1.2
"""Most of the dearest delivery, to the cheapest."""
LIMITS = ("--max-websockets", "20000", "--websocket-ping-interval", "600")


@dataclass(frozen=True)
class Round:
    """What one round showed."""

    cost: float
    """Microseconds of the server's CPU time per delivery."""
    deliveries: int
    client: float
    """The client's share of its core, 0 to 1."""
    others: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of each kind (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round, at least (1)")
    options = parser.parse_args()
    allow_files(max(SUBSCRIBERS) + SPARE_FILES)
    pin_client()
    rounds: dict[str, list[Round]] = {}
    bare: dict[str, list[Round]] = {}
    channels: dict[str, list[Round]] = {}
    with Store() as store, _publisher(store) as publisher:
        helpers = [store.pid, *publisher.pids]
        for count in SUBSCRIBERS:
            name = f"{count:,} subscribers"
            with _gpulse(store) as server, _subscribers(server, count) as audience:
                rounds[name] = _measure(
                    server, audience, partial(publisher.publish, 1), helpers, options
                )
            with (
                Server("bare loop", "bare_room.py", "{port}") as server,
                _subscribers(server, count) as audience,
                contextlib.closing(open_websocket(server.port, "/publish")) as client,
            ):
                message = text_frame(b"publish", masked=True)
                bare[name] = _measure(server, audience, partial(client.send, message), [], options)
        for count, of_each in [*((count, count) for count in CHANNELS), (CHANNELS[-1], SPREAD)]:
            with _gpulse(store) as server, _listeners(server, count, of_each) as audience:
                publish = _in_turn(publisher, count, of_each)
                found = _measure(server, audience, publish, helpers, options, IN_EACH)
                channels[f"{count:,} channels, {len(audience):,} sockets"] = found
    _print(rounds, bare, channels)
    note_others(itertools.chain(*rounds.values(), *bare.values(), *channels.values()))
    same_sockets = list(channels.values())[: len(CHANNELS)]
    relative = [_cost(rounds[name]) / _cost(bare[name]) for name in rounds]
    finish(
        [
            _flat("a delivery's cost relative to a bare loop's, by subscribers", relative),
            _flat("a delivery's cost, by channels", [_cost(found) for found in same_sockets]),
        ]
    )


def _publisher(store: Store) -> Publisher:
    return Publisher("publish_gpulse.py", {"GPULSE_DATA_STORE": store.url})


def _gpulse(store: Store) -> Server:
    return gpulse("benchsite.wsgi:application", "--data-store", store.url, *LIMITS)


def _subscribers(server: Server, count: int) -> Audience:
    clients = [open_websocket(server.port, "/room/lobby", READY) for _ in range(count)]
    return Audience(server.name, len(FRAME), clients)


def _listeners(server: Server, channels: int, of_each: int) -> Audience:
    """Sockets with so many channels each, IN_EACH to each channel."""
    paths = [f"/rooms/{first}/{of_each}" for first in range(0, channels, of_each)]
    clients = [open_websocket(server.port, path, READY) for path in paths for _ in range(IN_EACH)]
    return Audience(server.name, len(FRAME), clients)


def _in_turn(publisher: Publisher, channels: int, of_each: int) -> Callable[[], object]:
    """Publishes to one channel after the other; the next one is of other sockets where it can."""
    step = of_each + 1 if of_each < channels else 1
    numbers: Iterator[int] = (number * step % channels for number in itertools.count())
    return lambda: publisher.publish(1, f"room:{next(numbers)}")


def _measure(
    server: Server,
    audience: Audience,
    publish: Callable[[], object],
    helpers: list[int],
    options: argparse.Namespace,
    receivers: int | None = None,
) -> list[Round]:
    """The rounds, after one to warm up.

    :param receivers: of each message; by default the whole audience.
    """
    each = receivers or len(audience)
    found = []
    for _ in range(1 + options.rounds):
        audience.reset()
        published = 0
        end = time.monotonic() + options.seconds
        with Meter(server, helpers) as meter:
            while published < 3 or time.monotonic() < end:
                publish()
                published += 1
                audience.listen(time.monotonic() + DEADLINE, published * each)
                if audience.frames != published * each:
                    raise SystemExit(f"{server.name} lost deliveries")
        cost = 1e6 * meter.server / (published * each)
        found.append(Round(cost, published * each, meter.client, meter.others))
    return found[1:]


def _cost(found: list[Round]) -> float:
    return statistics.median(r.cost for r in found)


def _flat(what: str, costs: list[float]) -> Target:
    spread = max(costs) / min(costs)
    return Target(what, f"<= {FLAT:.2f} x the least", f"{spread:.2f}", met=spread <= FLAT)


def _print(
    rounds: dict[str, list[Round]], bare: dict[str, list[Round]], channels: dict[str, list[Round]]
) -> None:
    rows = []
    servers = {"gpulse": rounds | channels, "bare loop": bare}
    table: dict[str, list[list[str]]] = defaultdict(list)
    for server, found in servers.items():
        for name, each in found.items():
            costs = [r.cost for r in each]
            row = [name, server, f"{statistics.median(r.deliveries for r in each):,.0f}"]
            row += [f"{cost:.2f}" for cost in (_cost(each), min(costs), max(costs))]
            row.append(f"{statistics.median(r.client for r in each):.0%}")
            of_bare = f"{_cost(each) / _cost(bare[name]):.2f} x" if name in bare else ""
            table[name].append([*row, of_bare])
    for each_rows in table.values():
        rows.extend(each_rows)
    header = ("", "server", "deliveries", "CPU us", "min", "max", "client busy", "of bare")
    print_table(header, rows)


if __name__ == "__main__":
    main()
