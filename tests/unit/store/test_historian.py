"""gpulse/store/historian.py: many questions in one round trip, and an answer to each."""

from collections.abc import Callable, Sequence

from gpulse.errors import StoreError
from gpulse.historyrules import HistoryRules, parse_history
from gpulse.store import MemoryStore, encode
from gpulse.store.base import Recovery
from gpulse.store.historian import BATCH, PATIENCE, Historian


class Store(MemoryStore):
    """Counts its round trips and fails as often as the test says."""

    def __init__(self) -> None:
        super().__init__(rules=HistoryRules(parse_history("*=10/60")))
        self.trips: list[int] = []
        self.failures = 0
        self.error: Exception = StoreError("away")

    def recover(self, requests: Sequence[tuple[str, str | None]]) -> list[Recovery]:
        self.trips.append(len(requests))
        if self.failures:
            self.failures -= 1
            raise self.error
        return super().recover(requests)


class Ground:
    """A historian whose runner starts when the test says so, with a clock of the test."""

    def __init__(self) -> None:
        self.now = 100.0
        self.store = Store()
        self.runs: list[Callable[[], None]] = []
        self.answers: list[Recovery | StoreError] = []
        self.historian = Historian(
            self.store,
            self.runs.append,
            lambda call, *args: call(*args),
            lambda: self.now,
            self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def ask(self, channel: str = "a", since: str | None = None) -> None:
        self.historian.ask(channel, since, self.answers.append)

    def run(self) -> None:
        self.runs.pop()()


def test_what_waits_is_asked_together_and_in_batches() -> None:
    ground = Ground()
    for number in range(2 * BATCH + 1):
        ground.ask(f"c{number}")
    assert len(ground.runs) == 1
    ground.run()
    assert ground.store.trips == [BATCH, BATCH, 1]
    assert all(isinstance(answer, Recovery) for answer in ground.answers)
    ground.ask()
    assert len(ground.runs) == 1


def test_the_answer_is_the_history() -> None:
    ground = Ground()
    first = ground.store.publish("a", encode("one"))
    ground.store.publish("a", encode("two"))
    ground.ask("a", first.position)
    ground.run()
    (answer,) = ground.answers
    assert isinstance(answer, Recovery)
    assert [event.message for event in answer.events] == ["two"]


def test_a_store_that_is_away_for_a_moment_is_asked_again() -> None:
    ground = Ground()
    ground.store.failures = 3
    ground.ask()
    ground.run()
    assert ground.store.trips == [1, 1, 1, 1]
    assert isinstance(ground.answers[0], Recovery)


def test_a_store_that_stays_away_is_an_error_in_time() -> None:
    ground = Ground()
    ground.store.failures = 10_000
    ground.ask()
    ground.ask("b")
    ground.run()
    assert [str(answer) for answer in ground.answers] == ["away", "away"]
    assert PATIENCE - 0.5 < ground.now - 100.0 <= PATIENCE


def test_who_waited_for_too_long_is_not_asked_about() -> None:
    ground = Ground()
    ground.ask()
    ground.now += PATIENCE + 0.1
    ground.run()
    assert ground.store.trips == []
    assert isinstance(ground.answers[0], StoreError)
    assert ground.historian.refused == 1


def test_a_fault_is_an_answer_and_the_next_question_is_asked() -> None:
    ground = Ground()
    ground.store.failures, ground.store.error = 1, RuntimeError("of the test")
    ground.ask()
    ground.run()
    assert "of the test" in str(ground.answers[0])
    ground.ask()
    ground.run()
    assert isinstance(ground.answers[1], Recovery)


def test_without_a_thread_there_is_an_answer() -> None:
    def refuse(run: object) -> None:
        raise RuntimeError("can't start new thread")

    answers: list[Recovery | StoreError] = []
    historian = Historian(Store(), refuse, lambda call, *args: call(*args))
    historian.ask("a", None, answers.append)
    historian.ask("b", None, answers.append)
    assert [type(answer) for answer in answers] == [StoreError, StoreError]
    assert historian.refused == 2


def test_one_that_raises_on_its_answer_keeps_it_from_nobody() -> None:
    def fail(answer: object) -> None:
        raise RuntimeError("of the test")

    ground = Ground()
    ground.historian.ask("a", None, fail)
    ground.ask("b")
    ground.run()
    assert len(ground.answers) == 1
