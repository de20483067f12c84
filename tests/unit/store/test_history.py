"""gpulse/store/history.py: no message lost, none twice, or an explicit gap."""

import random
from collections import deque

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpulse.errors import StoreError, SubscribeError
from gpulse.store.base import Recovery, recovery
from gpulse.store.history import Track
from gpulse.store.message import Event, decode
from gpulse.store.position import Head, Position
from gpulse.store.receivers import Counts, Subscribed

SIZE = 6


class Ear:
    """A receiver that remembers, and whose memory can be checked against the store's."""

    def __init__(self, since: Position | None = None, number: int | None = None) -> None:
        self.since = since
        self.number = number
        """Which message ``since`` is; None if that is not known."""
        self.answers: list[Subscribed | SubscribeError] = []
        self.heard: list[Event | str] = []

    def deliver(self, event: Event) -> None:
        assert self.answers, "an event came before the answer"
        self.heard.append(event)

    def gap(self, channel: str, position: str | None) -> None:
        assert position is not None
        self.heard.append(position)

    @property
    def messages(self) -> list[str]:
        return [each if isinstance(each, str) else each.text for each in self.heard]

    def check(self, store: "Model") -> None:
        """Each event follows the one before it, gaps apart, and the last is the newest."""
        (answer,) = self.answers
        assert isinstance(answer, Subscribed)
        assert answer.position is not None
        if answer.recovered:
            assert self.since is not None
            at, number = self.since, self.number
        else:
            at, number = Position.parse(answer.position), None
        for each in self.heard:
            if isinstance(each, str):
                at, number = Position.parse(each), None
                continue
            assert each.position is not None
            assert Position.parse(each.position).offset == at.offset + 1
            before = store.before[int(each.text)]
            assert number is None or before == number
            at, number = Position.parse(each.position), int(each.text)
        assert at == store.newest


class Model:
    """A store, the way from it to one worker, and the worker's track."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.kept: deque[tuple[int, bytes]] = deque(maxlen=size)
        self.newest = Position("e0", 0)
        self.earlier: tuple[Position, ...] = ()
        self.is_taken_over = False
        """Another server counts from the next message on."""
        self.stranded: tuple[Position, int] | None = None
        """The newest position and message of an old primary that the worker still hears."""
        self.number = 0
        self.last = 0
        self.before: dict[int, int] = {}
        self.known: list[tuple[Position, int | None]] = [(self.newest, None)]
        self.copies: list[
            tuple[Position, int, tuple[Position, ...], tuple[tuple[int, bytes], ...]]
        ] = []
        """What replicas may have, the latest last."""
        self._copy()
        self.connected = True
        self.flying: deque[bytes] = deque()
        self.questions: deque[tuple[str | None, int]] = deque()
        self.answers: deque[tuple[int, Recovery | StoreError]] = deque()
        self.ears: list[Ear] = []
        self.failed: list[object] = []
        self.counts = Counts()
        self.track = Track(
            "c",
            size,
            lambda since, question: self.questions.append((since, question)),
            self.failed.append,
            self.counts,
        )

    def publish(self, _: int = 0) -> None:
        if self.is_taken_over:
            self.is_taken_over = False
            self.earlier = (self.newest, *self.earlier)[:8]
            self.newest = self.newest._replace(epoch=f"e{self.number}x{len(self.known)}")
        payload = self._count(self.newest, self.last)
        self.newest, self.last = self.known[-1][0], self.number
        self.kept.append((self.number, payload))
        self._copy()
        if self.connected and self.stranded is None:
            self.flying.append(payload)

    def _count(self, newest: Position, before: int) -> bytes:
        """The next message's payload."""
        self.number += 1
        self.before[self.number] = before
        position = newest._replace(offset=newest.offset + 1)
        self.known.append((position, self.number))
        return b"p%s:t%d" % (str(position).encode(), self.number)

    def land(self, _: int = 0) -> None:
        """One event arrives."""
        if self.flying:
            self.track.live(decode("c", self.flying.popleft()))

    def ask(self, _: int = 0) -> None:
        """The store looks at a question."""
        self._look(self.newest, self.earlier, [payload for _, payload in self.kept])

    def ask_old(self, number: int = 0) -> None:
        """A server looks at it that another one has replaced, or a replica that lags."""
        newest, _, earlier, kept = self.copies[-1 - number % min(4, len(self.copies))]
        self._look(newest, earlier, [payload for _, payload in kept])

    def _look(self, newest: Position, earlier: tuple[Position, ...], payloads: list[bytes]) -> None:
        if not self.questions:
            return
        since, question = self.questions.popleft()
        asked = None if since is None else Position.parse(since)
        head = Head(newest, earlier)
        after = payloads[max(len(payloads) - (head.distance_from(asked) or 0), 0) :]
        self.answers.append((question, recovery("c", head, asked, after)))

    def answer(self, _: int = 0) -> None:
        if self.answers:
            self.track.answered(*self.answers.popleft())

    def fail(self, _: int = 0) -> None:
        if self.questions:
            _, question = self.questions.popleft()
            self.answers.append((question, StoreError("away")))

    def add(self, number: int) -> Ear:
        known = [*self.known, (Position("other", 3), None), None, None]
        found = known[number % len(known)]
        ear = Ear(*found) if found is not None else Ear()
        self.ears.append(ear)
        self.track.add(ear, ear.since, ear.answers.append)
        return ear

    def remove(self, number: int) -> None:
        if self.ears:
            ear = self.ears.pop(number % len(self.ears))
            done = self.track.remove(ear)
            assert (done is None) == bool(ear.answers)
            assert ear not in self.track

    def lose(self, _: int = 0) -> None:
        self.connected = False
        self.stranded = None
        self.flying.clear()

    def connect(self, _: int = 0) -> None:
        """The channel is subscribed again, but the worker is told only later."""
        self.connected = True

    def tell(self, _: int = 0) -> None:
        if self.connected:
            self.track.reconnected()

    def flush(self, _: int = 0) -> None:
        self.kept.clear()
        self.earlier, self.is_taken_over = (), False
        self.newest = Position(f"e{self.number}x{len(self.known)}", 0)
        self.known.append((self.newest, None))
        self._copy()

    def promote(self, number: int) -> None:
        """A replica takes over, perhaps without the last writes."""
        self._take_over(number)
        self.lose()

    def split(self, number: int) -> None:
        """A replica takes over, but the worker goes on listening to the old primary."""
        if self.is_taken_over:
            return  # it would begin an epoch of its own
        if self.connected and self.stranded is None:
            self.stranded = (self.newest, self.last)
        self._take_over(number)

    def strand(self, _: int = 0) -> None:
        """The old primary publishes."""
        if self.stranded is not None:
            self.flying.append(self._count(*self.stranded))
            self.stranded = (self.known[-1][0], self.number)

    def _take_over(self, number: int) -> None:
        del self.copies[max(len(self.copies) - number % 3, 1) :]
        self.newest, self.last, self.earlier, kept = self.copies[-1]
        self.kept = deque(kept, self.size)
        self.is_taken_over = True

    def _copy(self) -> None:
        self.copies.append((self.newest, self.last, self.earlier, tuple(self.kept)))

    def settle(self) -> None:
        """The connection is back, the store answers, all arrives."""
        if self.stranded is not None:
            self.lose()
        self.connect()
        self.tell()
        for _ in range(2):
            for _ in range(1000):
                if not (self.flying or self.questions or self.answers):
                    break
                self.land()
                self.ask()
                self.answer()
            else:
                raise AssertionError("it asks for ever")
            self.publish()
        while self.flying or self.questions or self.answers:
            self.land()
            self.ask()
            self.answer()


USUAL = ("publish", "land", "ask", "answer", "add")
RARE = ("fail", "remove", "lose", "connect", "tell", "flush")


def run(model: Model, steps: list[tuple[str, int]]) -> None:
    for name, number in steps:
        getattr(model, name)(number)
    model.settle()
    assert model.failed == []
    for ear in model.ears:
        if not isinstance(ear.answers[0], SubscribeError):
            ear.check(model)


def steps(*names: str) -> st.SearchStrategy[list[tuple[str, int]]]:
    return st.lists(st.tuples(st.sampled_from(names), st.integers(0, 30)), max_size=60)


@settings(max_examples=400, deadline=None)
@given(steps(*USUAL, *USUAL, *RARE))
@example([("add", 3), ("ask", 0), ("answer", 0), ("lose", 0), ("tell", 0), ("publish", 0)])
def test_every_receiver_gets_the_exact_sequence_or_a_gap(found: list[tuple[str, int]]) -> None:
    run(Model(), found)


TAKEOVER = ("promote", "split", "strand", "strand", "ask_old")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(steps(*USUAL, *USUAL, *RARE, *TAKEOVER))
def test_a_replica_that_lacks_the_last_writes_is_noticed(found: list[tuple[str, int]]) -> None:
    run(Model(), found)


def test_a_replica_that_has_all_is_no_gap() -> None:
    model, ear = opened(size=20)
    for _ in range(12):
        model.publish()
        model.promote(0)
        model.connect()
        model.tell()
        model.ask()
        model.answer()
    model.settle()
    assert [int(text) for text in ear.messages] == list(range(1, model.number + 1))
    ear.check(model)
    forgotten, known = model.add(2), model.add(8)  # epochs of which the first is too long ago
    model.settle()
    assert forgotten.answers == [Subscribed(str(model.known[-3][0]), False, 0)]
    known.check(model)
    assert [int(text) for text in known.messages] == list(range(9, model.number + 1))


def test_who_comes_while_the_worker_listens_to_an_old_primary_is_told() -> None:
    model, ear = opened(size=20, published=3)
    model.split(0)
    model.strand()
    model.land()
    comer = model.add(2)
    model.ask()
    model.answer()
    assert comer.messages == ["3", "e0-4"]
    model.strand()
    model.land()
    assert (ear.messages, comer.messages) == (["4", "5"], ["3", "e0-4", "5"])
    model.settle()
    assert model.counts.gaps == 3  # the new primary knows nothing of two messages
    ear.check(model)


def test_who_was_served_what_was_then_lost_is_told() -> None:
    model, ear = opened(size=20, published=5)
    model.lose()
    model.publish()
    model.publish()
    comer = model.add(4)
    model.ask()
    model.answer()
    assert comer.messages == ["5", "6", "7"]
    del model.copies[-2:]
    model.promote(0)  # nobody else had 6 and 7
    for _ in range(3):
        model.publish()
    model.settle()
    assert comer.messages == ["5", "6", "7", "e0-5", "8", "9", "10", "11", "12"]
    assert ear.messages == ["8", "9", "10", "11", "12"]


def test_an_event_that_the_store_does_not_know_yet_is_not_dropped() -> None:
    model, ear = opened(size=20, published=5)
    model.split(0)
    model.stranded = None  # the worker hears the new primary; its questions go to the old one
    model.publish()
    model.land()
    model.ask_old(1)
    model.answer()
    assert [each.position if isinstance(each, Event) else each for each in ear.heard] == [
        str(model.newest._replace(offset=5)),
        str(model.newest),
    ]
    assert not model.questions


def listening_to_the_old_primary() -> Model:
    """A model whose worker knows of the new primary already."""
    model, _ = opened(size=200, published=3)
    model.split(0)
    model.publish()
    model.add(2)
    model.ask()
    model.answer()
    return model


def test_events_of_an_old_primary_are_asked_about_together() -> None:
    model = listening_to_the_old_primary()
    questions = 0
    for _ in range(100):
        model.strand()
        model.land()
    while model.questions:
        questions += 1
        model.ask()
        model.answer()
    assert questions == 2  # the one about the first, and the one about all that came meanwhile


def test_events_of_an_old_primary_keep_nobody_waiting() -> None:
    model = listening_to_the_old_primary()
    model.strand()
    model.land()
    comer = model.add(2)
    for _ in range(3):
        model.strand()
        model.land()
        model.ask()
        model.answer()
    assert comer.answers[0].recovered  # type: ignore[union-attr]


def test_an_answer_that_tells_of_a_new_epoch_is_no_gap_for_the_others() -> None:
    model, ear = opened(size=20, published=3)
    model.lose()
    model.publish()
    model.promote(0)
    model.publish()
    model.publish()
    comer = model.add(len(model.known) - 2)  # it was at another worker, and knows message 5
    model.ask()
    model.answer()
    assert comer.answers == [Subscribed(str(model.newest), True, 1)]
    model.ask()
    model.answer()
    assert (ear.messages, comer.messages) == (["4", "5", "6"], ["6"])
    assert model.counts.gaps == 0


def test_long_random_lives_end_in_order() -> None:
    chance = random.Random(7)
    for length in [40] * 600 + [400] * 40:  # what is lost shows where a life ends
        model = Model(size=chance.choice((1, 3, 50)))
        for _ in range(length):
            name = chance.choice(USUAL * 4 + RARE + TAKEOVER)
            getattr(model, name)(chance.randrange(1000))
        run(model, [])


def opened(size: int = SIZE, published: int = 0) -> tuple[Model, Ear]:
    """A model with one receiver that is up to date."""
    model = Model(size)
    for _ in range(published):
        model.publish()
    model.flying.clear()
    ear = model.add(-1)
    model.ask()
    model.answer()
    assert ear.answers == [Subscribed(f"e0-{published}", None, 0)]
    return model, ear


def test_a_hole_is_filled_in_order() -> None:
    model, ear = opened()
    model.publish()
    model.land()
    model.lose()
    model.publish()
    model.publish()
    model.connect()
    model.publish()
    model.land()
    assert ear.messages == ["1"]
    model.ask()
    model.answer()
    assert ear.messages == ["1", "2", "3", "4"]
    assert (model.counts.recovered, model.counts.gaps) == (1, 0)


def test_a_hole_that_no_history_reaches_is_a_gap_and_what_came_since_is_not_lost() -> None:
    model, ear = opened(size=2)
    model.lose()
    for _ in range(5):
        model.publish()
    model.connect()
    model.publish()
    model.publish()
    model.land()
    model.land()
    model.ask()
    model.answer()
    assert ear.messages == ["e0-5", "6", "7"]
    assert model.counts.gaps == 1


def test_a_receiver_far_behind_takes_nothing_from_the_others() -> None:
    model, ear = opened(size=3, published=10)
    old, near = Ear(Position("e0", 1)), Ear(Position("e0", 9), 9)
    model.track.add(old, old.since, old.answers.append)
    model.track.add(near, near.since, near.answers.append)
    model.lose()
    model.publish()
    model.connect()
    model.tell()
    while model.questions:
        model.ask()
        model.answer()
    assert old.answers == [Subscribed("e0-11", False, 0)]
    assert near.answers == [Subscribed("e0-11", True, 2)]
    assert (ear.messages, near.messages, old.messages) == (["11"], ["10", "11"], [])
    assert model.counts.gaps == 0


def test_a_storm_of_receivers_costs_two_questions() -> None:
    model, _ = opened(size=100, published=50)
    asked = 0
    ears = [Ear(Position("e0", 40 + number % 10)) for number in range(1000)]
    for ear in ears:
        model.track.add(ear, ear.since, ear.answers.append)
    while model.questions:
        asked += 1
        model.ask()
        model.answer()
    assert asked == 2
    for ear in ears:
        assert ear.since is not None
        assert ear.messages == [str(n) for n in range(ear.since.offset + 1, 51)]
    assert model.counts.missed == sum(len(ear.heard) for ear in ears)


def test_a_store_that_cannot_say_is_a_gap_and_the_channel_goes_on() -> None:
    model, ear = opened()
    model.publish()
    model.land()
    model.tell()
    late = model.add(-1)
    model.fail()
    model.answer()
    assert ear.messages == ["1", "e0-1"]
    model.ask()
    model.answer()
    model.publish()
    model.land()
    assert ear.messages == ["1", "e0-1", "2"]
    assert late.messages == ["2"]


def test_offsets_that_show_that_nothing_is_missing_are_enough() -> None:
    model, ear = opened()
    model.tell()
    model.publish()
    model.land()
    model.fail()
    model.answer()
    assert ear.messages == ["1"]
    assert model.counts.gaps == 0


def test_who_waits_while_the_store_fails_is_told() -> None:
    model = Model()
    ear = model.add(-1)
    model.fail()
    model.answer()
    assert isinstance(ear.answers[0], SubscribeError)
    assert not model.track


def test_events_held_have_a_bound() -> None:
    model, ear = opened(size=2)
    model.lose()
    model.publish()
    model.connect()
    for _ in range(3000):
        model.publish()
        model.land()
    assert ear.heard == []
    assert len(model.track._held or ()) == 1002
    model.settle()
    ear.check(model)
    assert model.counts.gaps > 0


def test_a_receiver_that_raises_harms_nobody() -> None:
    def bad(answer: object) -> None:
        raise RuntimeError("of the test")

    model, ear = opened()
    faulty, good = Ear(Position("e0", 0)), Ear(Position("e0", 0), 0)
    model.publish()
    model.land()
    model.track.add(faulty, faulty.since, bad)
    model.track.add(good, good.since, good.answers.append)
    model.settle()
    assert model.failed[0] is faulty
    good.check(model)
    ear.check(model)


def test_closing_hands_back_those_that_wait() -> None:
    model, _ = opened()
    waiting = Ear(Position("e0", 7))
    model.track.add(waiting, waiting.since, waiting.answers.append)
    assert model.track.close() == [waiting.answers.append]
    assert not model.track


def payloads(*offsets: int) -> list[bytes]:
    return [b"pe-%d:t%d" % (offset, offset) for offset in offsets]


@pytest.mark.parametrize(
    ("since", "kept", "recovered", "heard"),
    [
        ("e-2", (3, 4, 5), True, [3, 4, 5]),
        ("e-5", (), True, []),
        ("e-1", (3, 4, 5), False, [3, 4, 5]),
        ("e-2", (2, 4, 5), False, [4, 5]),
        ("e-2", (3, 4), False, []),
        ("e-6", (), False, []),
        ("f-2", (), False, []),
        (None, (), False, []),
    ],
)
def test_a_recovery_is_complete_or_says_so(
    since: str | None, kept: tuple[int, ...], recovered: bool, heard: list[int]
) -> None:
    asked = None if since is None else Position.parse(since)
    found = recovery("c", Head(Position("e", 5)), asked, payloads(*kept))
    assert (found.position, found.recovered) == ("e-5", recovered)
    assert [int(event.text) for event in found.events] == heard


def test_a_foreign_entry_ends_what_is_known() -> None:
    kept = [*payloads(3), b"rubbish", *payloads(5)]
    found = recovery("c", Head(Position("e", 5)), Position("e", 2), kept)
    assert (found.recovered, [event.text for event in found.events]) == (False, ["5"])
