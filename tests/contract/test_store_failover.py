"""A primary that dies in mid-traffic, behind sentinels and in a cluster, and a slot that moves.

What is promised: a publish fails soon or is acknowledged; publishers and subscribers find the new
primary by themselves; and from the position of any message that was ever acknowledged a channel
with a history gives back all that followed it and was kept, in order and once, or says that it
cannot.  Replication is not waited for, so a server may acknowledge what its replica never gets: the
position of such a message is refused, and no worker goes on behind it as if nothing were missing.
"""

import threading
import time
from collections.abc import Callable, Iterator

import gevent
import pytest
from contract.store_ground import Ground, Listener, eventually, open_fanout
from services import Cluster, Sentinels, Valkey, start_cluster, start_sentinels

from gpulse.errors import PublishError, StoreError
from gpulse.historyrules import HistoryRules
from gpulse.store import Store, encode, open_store
from gpulse.store.fanout import Fanout
from gpulse.store.names import Names
from gpulse.store.slots import key_slot

ROOM = "kept:room"
RULES = HistoryRules([("kept:*", 10_000, 300.0)])
AT_MOST = 0.6
"""Seconds for a failed publish: a quarter to find out, and this machine is busy."""


class Publisher(threading.Thread):
    """Publishes 0, 1, 2 ... until it is stopped; remembers what was acknowledged."""

    def __init__(self, store: Store, channel: str) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[int] = []
        self.positions: dict[int, str] = {}
        """Of each message that was acknowledged."""
        self.failed: list[int] = []
        self.slowest = 0.0
        self._store = store
        self._channel = channel
        self._stopped = False

    def run(self) -> None:
        number = 0
        while not self._stopped:
            began = time.monotonic()
            try:
                receipt = self._store.publish(self._channel, encode(number))
                self.acknowledged.append(number)
                self.positions[number] = str(receipt.position)
            except PublishError:
                self.failed.append(number)
            self.slowest = max(self.slowest, time.monotonic() - began)
            number += 1
            time.sleep(0.002)

    def stop(self) -> None:
        self._stopped = True
        self.join(10.0)
        assert not self.is_alive()


class Place:
    """Stores with histories on servers of the test's own."""

    def __init__(self, servers: Sentinels | Cluster) -> None:
        self.servers = servers
        self.ground = Ground(servers.url)
        self.store = open_store(servers.url, self.ground.app_name, history=RULES)
        self._publishers: list[Publisher] = []
        self._fanouts: list[Fanout] = []

    def slot(self, channel: str) -> int:
        return key_slot(Names(self.ground.app_name, 0).wire(channel))

    def primary(self, channel: str) -> Valkey:
        if isinstance(self.servers, Cluster):
            return self.servers.owner(self.slot(channel))
        return self.servers.primary

    def replica(self, channel: str) -> Valkey:
        follows = f"master_port:{self.primary(channel).port}\r\n".encode()
        return next(
            node for node in self.servers.nodes if follows in node.command("INFO", "replication")
        )

    def fail_over(self) -> None:
        """Have the sentinels replace a primary that is well."""
        old = self.servers.primary
        self.servers.sentinels[0].command("SENTINEL", "FAILOVER", "site")
        eventually(lambda: self.servers.primary is not old, 15.0)

    def use(self, url: str) -> None:
        """Go on with a store of this URL."""
        self.store.close()
        self.store = open_store(url, self.ground.app_name, history=RULES)

    def publisher(self, channel: str) -> Publisher:
        publisher = Publisher(self.store, channel)
        self._publishers.append(publisher)
        publisher.start()
        return publisher

    def listener(self, channel: str) -> Listener:
        fanout = open_fanout(self.store)
        self._fanouts.append(fanout)
        return Listener().listen(fanout, channel)

    def close(self) -> None:
        for publisher in self._publishers:
            publisher.stop()
        for fanout in self._fanouts:
            fanout.close()
        self.ground.close()
        self.store.close()
        self.servers.stop()


@pytest.fixture(params=["sentinel", "cluster"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    start: Callable[[], Sentinels | Cluster] = start_sentinels
    if request.param == "cluster":
        start = lambda: start_cluster(replicas=1)  # noqa: E731
    there = Place(start())
    yield there
    there.close()


def holds_all(place: Place, channel: str, since: str, publisher: Publisher) -> list[int]:
    """What is recovered is all that was kept, in order and once, from wherever one asks; and every
    position of a message that was lost is refused.

    :returns: the acknowledged messages that were lost.
    """
    (found,) = place.store.recover([(channel, since)])
    assert found.recovered
    kept = [event.message for event in found.events]
    assert kept == sorted(set(kept))  # type: ignore[type-var]
    assert set(kept) <= {*publisher.acknowledged, *publisher.failed}
    asked = list(publisher.positions.items())
    answers = place.store.recover([(channel, position) for _, position in asked])
    lost = []
    for (number, position), answer in zip(asked, answers, strict=True):
        if number in kept:
            assert answer.recovered, position
            assert [e.message for e in answer.events] == kept[kept.index(number) + 1 :], position
        else:
            assert not answer.recovered, position
            lost.append(number)
    # What is lost was acknowledged last by a server that is gone: one piece, no holes.
    assert lost == [n for n in publisher.acknowledged if lost and lost[0] <= n <= lost[-1]]
    return lost


def heard_no_silent_hole(listener: Listener, publisher: Publisher) -> None:
    """Messages came in order and once; where one that was acknowledged did not, a gap was told."""
    last: int | None = -1
    for each in listener.heard:
        if not isinstance(each, int):
            last = None  # a gap
            continue
        if last is not None:
            assert last < each
            missing = [number for number in publisher.positions if last < number < each]
            assert not missing, f"{missing[0]} to {missing[-1]} are missing before {each}"
        last = each


class Traffic:
    """A publisher at work on a channel, and those that hear it: a plain subscriber and a receiver
    of a worker's."""

    def __init__(self, place: Place, *others: str) -> None:
        self.place = place
        (start,) = place.store.recover([(ROOM, None)])
        self._start = start.position
        self.ear = place.ground.ear(place.store).listen(ROOM, *others)
        self._listener = place.listener(ROOM)
        self.publisher = place.publisher(ROOM)
        self.goes_on()

    def goes_on(self) -> None:
        """More is published and heard."""
        heard, acknowledged = len(self.ear.events), len(self.publisher.acknowledged)
        eventually(lambda: len(self.ear.events) > heard + 50, 20.0)
        eventually(lambda: len(self.publisher.acknowledged) > acknowledged + 50, 20.0)

    def end(self) -> list[int]:
        """Stop, and check what was heard and what is kept.

        :returns: the acknowledged messages that were lost.
        """
        self.publisher.stop()
        last = self.publisher.acknowledged[-1]
        eventually(lambda: self.ear.events[-1].message == self._listener.heard[-1] == last)
        heard_no_silent_hole(self._listener, self.publisher)
        return holds_all(self.place, ROOM, self._start, self.publisher)


def test_a_primary_dies_in_mid_traffic(place: Place) -> None:
    traffic = Traffic(place, "other", "third")
    ear = traffic.ear
    place.primary(ROOM).kill()
    eventually(lambda: traffic.publisher.failed, 5.0)
    eventually(lambda: ROOM in ear.missed or "*" in ear.missed, 20.0)
    traffic.goes_on()
    traffic.end()
    assert traffic.publisher.slowest < AT_MOST
    assert ear.subscriber.connected
    for other in ("other", "third"):
        place.store.publish(other, encode(other))
    eventually(lambda: {event.channel for event in ear.events} == {ROOM, "other", "third"})
    assert None not in [place.store.join("room", "ann", "owner")]
    assert place.store.members("room") == {"ann": 1}


def test_a_primary_that_hangs_is_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpulse.store.feed.PROBE", 0.5)
    monkeypatch.setattr("gpulse.store.shards.LOOK", 0.5)
    traffic = Traffic(place)
    hung = place.primary(ROOM)
    hung.pause()
    eventually(lambda: traffic.publisher.failed, 5.0)
    traffic.goes_on()
    # It comes back, thinks for a moment that it is the primary still, and is told otherwise.
    hung.resume()
    gevent.sleep(1.0)
    traffic.end()
    assert traffic.publisher.slowest < AT_MOST


@pytest.mark.parametrize("place", ["cluster"], indirect=True)
def test_a_planned_failover_of_a_cluster_loses_nothing(place: Place) -> None:
    """The old primary hands over when its replica has everything, and lives on as a replica."""
    traffic = Traffic(place)
    replica = place.replica(ROOM)
    replica.command("CLUSTER", "FAILOVER")
    eventually(lambda: place.primary(ROOM) is replica, 15.0)
    traffic.goes_on()
    assert traffic.end() == []


@pytest.mark.parametrize("place", ["sentinel"], indirect=True)
def test_a_planned_failover_of_sentinels_is_followed_and_loses_nothing_in_silence(
    place: Place,
) -> None:
    """The old primary takes commands for seconds yet; a worker leaves it when it is announced."""
    traffic = Traffic(place)
    place.fail_over()
    eventually(lambda: traffic.ear.reconnects, 5.0)
    traffic.goes_on()
    traffic.end()


@pytest.mark.parametrize("place", ["sentinel"], indirect=True)
def test_what_a_replica_confirmed_survives_a_planned_failover(place: Place) -> None:
    """The old primary is believed only while its replica follows it."""
    place.use(f"{place.servers.url}?replicas=1")
    traffic = Traffic(place)
    place.fail_over()
    # The new primary's messages are confirmed as soon as the old one follows it.
    traffic.goes_on()
    assert traffic.end() == []
    assert traffic.publisher.failed, "nobody follows the old primary when its replica took over"


def test_a_message_that_no_replica_has_is_not_acknowledged(place: Place) -> None:
    place.use(f"{place.servers.url}?replicas=1")
    first = place.store.publish(ROOM, encode(1), key="a")
    replica = place.replica(ROOM)
    replica.pause()
    began = time.monotonic()
    for key in ("b", "b", ""):
        with pytest.raises(PublishError, match=r"NOREPLICAS 0 of 1 .* the message may be lost"):
            place.store.publish(ROOM, encode(2), key=key)
    assert time.monotonic() - began < 3 * AT_MOST
    began = time.monotonic()
    assert place.store.publish("plain", encode(1)).position is None
    assert place.store.recover([(ROOM, first.position)])[0].recovered
    assert time.monotonic() - began < 0.1, "only what has a history waits for replicas"
    replica.resume()

    def confirmed() -> bool:
        try:
            return place.store.publish(ROOM, encode(2), key="b").duplicate
        except PublishError:
            return False

    eventually(confirmed)


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Place]:
    there = Place(shared_cluster)
    there.servers = Cluster([])  # the session's servers stay
    yield there
    there.close()


def test_a_slot_moves_while_it_is_listened_to(shared_cluster: Cluster, cluster: Place) -> None:
    channel = "kept:moving"
    slot = cluster.slot(channel)
    (start,) = cluster.store.recover([(channel, None)])
    ear = cluster.ground.ear(cluster.store).listen(channel, "stays")
    publisher = cluster.publisher(channel)
    eventually(lambda: len(ear.events) > 20)
    old = shared_cluster.owner(slot)
    others = [node for node in shared_cluster.nodes if node is not old]
    for target in (*others, old):
        missed = ear.missed.count(channel)
        mover = threading.Thread(target=shared_cluster.move, args=(slot, target))
        mover.start()
        eventually(lambda missed=missed: ear.missed.count(channel) > missed)
        mover.join(10.0)
        heard = len(ear.events)
        eventually(lambda heard=heard: len(ear.events) > heard + 20)
    publisher.stop()
    assert publisher.failed == [], "a move is no outage"
    eventually(lambda: ear.events[-1].message == publisher.acknowledged[-1])
    (found,) = cluster.store.recover([(channel, start.position)])
    assert found.recovered
    assert [event.message for event in found.events] == publisher.acknowledged
    assert "stays" not in ear.missed


def test_a_publish_is_served_while_its_slot_is_on_its_way(
    shared_cluster: Cluster, cluster: Place
) -> None:
    channel = "kept:on-its-way"
    slot = cluster.slot(channel)
    first = cluster.store.publish(channel, encode(0)).position
    old = shared_cluster.owner(slot)
    target = next(node for node in shared_cluster.nodes if node is not old)
    target.command("SCRIPT", "FLUSH")
    published = [0]

    def publish() -> None:
        published.append(len(published))
        cluster.store.publish(channel, encode(published[-1]))

    shared_cluster.move(slot, target, publish)
    publish()
    (found,) = cluster.store.recover([(channel, first)])
    assert found.recovered
    assert [event.message for event in found.events] == published[1:] == [1, 2, 3]
    shared_cluster.move(slot, old)


def test_a_store_that_knows_an_old_map_is_sent_on(shared_cluster: Cluster, cluster: Place) -> None:
    channel = "kept:sent-on"
    slot = cluster.slot(channel)
    assert cluster.store.publish(channel, encode(0)).receivers == 0
    old = shared_cluster.owner(slot)
    target = next(node for node in shared_cluster.nodes if node is not old)
    shared_cluster.move(slot, target)
    receipt = cluster.store.publish(channel, encode(1))
    (found,) = cluster.store.recover([(channel, None)])
    assert found.position == receipt.position
    assert receipt.position is not None
    assert receipt.position.endswith("-2")
    shared_cluster.move(slot, old)


def test_slots_that_nobody_has_fail_in_time(cluster: Place) -> None:
    place = Place(start_cluster())
    try:
        place.store.publish("a", encode(1))
        victim = place.primary("a")
        victim.kill()
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(PublishError):
                place.store.publish("a", encode(1))
            assert time.monotonic() - began < AT_MOST
        other = next(f"c{n}" for n in range(50) if place.primary(f"c{n}") is not victim)
        ear = place.ground.ear(place.store)
        ear.subscriber.subscribe("a", ear.answers.append)
        eventually(lambda: ear.answers, 4.0)
        assert "in time" in str(ear.answers[0])
        with pytest.raises(StoreError):
            place.store.channels()
        assert other
    finally:
        place.close()
