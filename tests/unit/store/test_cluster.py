"""gpulse/store/cluster.py: which node gets a command, and what its answers lead to."""

from collections import deque
from typing import Any

import hiredis
import pytest

from gpulse.store import cluster
from gpulse.store.circuit import Circuit
from gpulse.store.cluster import ASKING, CLUSTER_SLOTS, ClusterCommands
from gpulse.store.commands import Command, Script, call
from gpulse.store.endpoint import Endpoint
from gpulse.store.link import AwayError
from gpulse.store.slots import key_slot
from gpulse.storeurl import parse

A, B, C = Endpoint("a", 1), Endpoint("b", 2), Endpoint("c", 3)
HALF = 8192
LOW = b"{a}"  # slot 15495, B's
HIGH = b"{b}"  # slot 3300, A's


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeLine:
    """One node: answers from ``script``, or OK."""

    def __init__(self, slots: Any, clock: Clock) -> None:
        self.circuit = Circuit(0.3, clock)
        self.got: list[bytes] = []
        self.fetches = 0
        self.answers: deque[Any] = deque()
        self.away = False
        self._slots = slots

    def call(self, data: bytes, count: int = 1) -> list[Any]:
        if self.away:
            self.circuit.open("away")
            raise AwayError("away")
        if data == CLUSTER_SLOTS:
            self.fetches += 1
            return [self._slots()]
        self.got.append(data)
        return [self.answers.popleft() if self.answers else b"OK" for _ in range(count)]


class Model(ClusterCommands):
    def __init__(self, clock: Clock) -> None:
        super().__init__(parse("redis+cluster://a:1,b:2"), clock)
        self.ranges = [[0, HALF - 1, [b"a", 1]], [HALF, 16383, [b"b", 2]]]
        self.nodes = {node: FakeLine(lambda: self.ranges, clock) for node in (A, B, C)}

    def _line(self, node: Endpoint, lane: str) -> Any:
        return self.nodes[node]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()

    def sleep(seconds: float) -> None:
        clock.now += seconds

    monkeypatch.setattr("gpulse.store.cluster.time.sleep", sleep)
    return clock


@pytest.fixture
def model(clock: Clock) -> Model:
    return Model(clock)


def get(key: bytes) -> Command:
    return Command(key, (b"GET", key))


def error(text: str) -> hiredis.ReplyError:
    return hiredis.ReplyError(text)


def test_each_command_goes_to_its_slot_s_primary_in_one_batch(model: Model) -> None:
    assert key_slot(HIGH) < HALF <= key_slot(LOW)
    model.nodes[A].answers.extend([1, 3])
    model.nodes[B].answers.append(2)
    assert model.run([get(HIGH), get(LOW), get(HIGH)]) == [1, 2, 3]
    assert model.nodes[A].got == [get(HIGH).pack() * 2]
    assert model.nodes[B].got == [get(LOW).pack()]
    assert (model.nodes[A].fetches, model.nodes[B].fetches) == (1, 0)


def test_a_slot_that_moved_is_followed_and_remembered(model: Model, clock: Clock) -> None:
    model.nodes[A].answers.append(error(f"MOVED {key_slot(HIGH)} c:3"))
    model.nodes[C].answers.append(b"there")
    assert model.run([get(HIGH)]) == [b"there"]
    model.ranges[0] = [0, HALF - 1, [b"c", 3]]
    assert model.run([get(HIGH)]) == [b"OK"]
    assert len(model.nodes[A].got) == 1
    clock.now += 1.0
    model.run([get(b"{b}x")])
    assert sum(line.fetches for line in model.nodes.values()) == 2


def test_a_key_that_is_on_its_way_is_asked_for_there_once(model: Model) -> None:
    model.nodes[A].answers.extend([b"first", error(f"ASK {key_slot(HIGH)} c:3")])
    model.nodes[C].answers.extend([b"OK", b"there"])
    assert model.run([get(HIGH), get(HIGH)]) == [b"first", b"there"]
    assert model.nodes[C].got == [ASKING + get(HIGH).pack()]
    model.run([get(HIGH)])
    assert len(model.nodes[C].got) == 1, "an ASK is for one command only"


@pytest.mark.parametrize("text", ["TRYAGAIN Multiple keys", "CLUSTERDOWN Hash slot not served"])
def test_what_comes_too_early_goes_again(model: Model, clock: Clock, text: str) -> None:
    model.nodes[A].answers.extend([error(text), error(text), b"now"])
    assert model.run([get(HIGH)]) == [b"now"]
    assert clock.now - 100.0 == pytest.approx(2 * cluster.MOMENT)


def test_it_goes_again_for_no_longer_than_a_call_may_take(model: Model, clock: Clock) -> None:
    model.nodes[A].answers.extend([error("CLUSTERDOWN")] * 1000)
    (reply,) = model.run([get(HIGH)])
    assert str(reply) == "CLUSTERDOWN"
    assert clock.now - 100.0 <= cluster.ANSWER + cluster.MOMENT


def test_nodes_that_send_to_each_other_are_left(model: Model) -> None:
    slot = key_slot(HIGH)
    model.nodes[A].answers.extend([error(f"MOVED {slot} c:3")] * 50)
    model.nodes[C].answers.extend([error(f"MOVED {slot} a:1")] * 50)
    (reply,) = model.run([get(HIGH)])
    assert str(reply).startswith("MOVED")


def test_an_error_of_the_command_is_its_reply(model: Model) -> None:
    model.nodes[A].answers.append(error("WRONGTYPE x"))
    (reply,) = model.run([get(HIGH)])
    assert str(reply) == "WRONGTYPE x"
    assert len(model.nodes[A].got) == 1


def test_an_unknown_script_is_sent_in_full(model: Model) -> None:
    script = call(Script("return 1"), [HIGH], [])
    model.nodes[A].answers.extend([error("NOSCRIPT x"), 1])
    assert model.run([script]) == [1]
    assert b"EVALSHA" in model.nodes[A].got[0]
    assert b"return 1" in model.nodes[A].got[1]


def test_an_unknown_script_is_sent_in_full_however_long_connecting_took(
    model: Model, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the first call to a node, which has to be connected: over TLS, on a busy machine."""
    node = model.nodes[A]
    answer = node.call

    def slowly(data: bytes, count: int = 1) -> list[Any]:
        clock.now += cluster.ANSWER + 0.01
        return answer(data, count)

    monkeypatch.setattr(node, "call", slowly)
    node.answers.extend([error("NOSCRIPT x"), 1])
    assert model.run([call(Script("return 1"), [HIGH], [])]) == [1]
    node.answers.extend([error("NOSCRIPT x"), error("NOSCRIPT x"), 1])
    (reply,) = model.run([call(Script("return 1"), [HIGH], [])])
    assert str(reply) == "NOSCRIPT x", "once only"


def test_a_dead_node_fails_the_call_and_the_map_is_fetched_from_another(
    model: Model, clock: Clock
) -> None:
    model.run([get(HIGH)])
    model.nodes[A].away = True
    with pytest.raises(AwayError, match="a:1"):
        model.run([get(HIGH)])
    assert model.run([get(LOW)]) == [b"OK"], "other slots are served"
    model.ranges[0] = [0, HALF - 1, [b"c", 3]]
    clock.now += 1.0
    assert model.run([get(HIGH)]) == [b"OK"]
    assert model.nodes[C].got


def test_a_cluster_that_nobody_tells_of_is_away(model: Model) -> None:
    for line in model.nodes.values():
        line.away = True
    with pytest.raises(AwayError, match="a:1: away; b:2: away"):
        model.run([get(HIGH)])


def test_a_slot_that_nobody_has_is_said(model: Model) -> None:
    del model.ranges[0]
    (reply,) = model.run([get(HIGH)])
    assert "no node has the slot" in str(reply)


def test_everywhere_is_every_primary(model: Model) -> None:
    assert model.everywhere((b"PUBSUB", b"SHARDCHANNELS")) == [b"OK", b"OK"]
    assert not model.nodes[C].got
