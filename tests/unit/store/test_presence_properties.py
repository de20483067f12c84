"""gpulse/store/presence.py under any order of joins, leaves and failures: a beat makes it equal."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.store.frail_store import FrailStore, enter

from gpulse.errors import StoreError
from gpulse.store import presence as presence_module
from gpulse.store.presence import Presence

MEMBERS = ("ann", "bob", "eve")
WORKERS = 2
STEPS = 40


@pytest.fixture(scope="module", autouse=True)
def no_delay() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presence_module, "FLUSH", 0.0)
        yield


class Site:
    """Two workers on one frail store, and the sockets that each of them has open.

    What a worker spawns waits for its turn: a flush runs when the test says so.
    """

    def __init__(self) -> None:
        self.store = FrailStore()
        self.news = self.store.listen("room")
        self.spawned: list[list[Callable[[], None]]] = [[] for _ in range(WORKERS)]
        self.presences = [Presence(self.store, services.append) for services in self.spawned]
        self.open: Counter[tuple[int, str]] = Counter()

    def join(self, number: int, member: str) -> None:
        with suppress(StoreError):
            enter(self.presences[number], member)
            self.open[number, member] += 1

    def leave(self, number: int, member: str) -> None:
        if self.open[number, member]:
            self.open[number, member] -= 1
            with suppress(StoreError):
                self.presences[number].leave("room", member)

    def flush(self, number: int, member: str) -> None:
        for flush in self.spawned[number][1:]:
            self.spawned[number].remove(flush)
            flush()

    def beat(self, number: int, member: str) -> None:
        with suppress(StoreError):
            self.presences[number].beat()

    def be_away(self, number: int, member: str) -> None:
        self.store.away = True

    def lose_answers(self, number: int, member: str) -> None:
        self.store.loses_answers = True

    def be_well(self, number: int, member: str) -> None:
        self.store.away = self.store.loses_answers = False

    def let_time_pass(self, number: int, member: str) -> None:
        """Two of these and a worker that did not beat is swept; all of them are within RECALL."""
        self.store.now += 7.5

    def restart(self, number: int, member: str) -> None:
        self.store.restart()

    def settle(self) -> dict[str, int]:
        """Let the store be well, and every worker do what it has to do; what is there by then."""
        self.be_well(0, "")
        for number in range(WORKERS):
            self.flush(number, "")
            self.presences[number].beat()
        return self.store.members("room")

    @property
    def expected(self) -> dict[str, int]:
        totals: Counter[str] = Counter()
        for (_, member), sockets in self.open.items():
            totals[member] += sockets
        return dict(+totals)


Step = tuple[Callable[[Site, int, str], None], int, str]


def steps(*more: Callable[[Site, int, str], None]) -> st.SearchStrategy[list[Step]]:
    usual = (Site.join, Site.join, Site.join, Site.leave, Site.leave, Site.flush, Site.beat)
    step = st.tuples(
        st.sampled_from((*usual, *more)),
        st.integers(0, WORKERS - 1),
        st.sampled_from(MEMBERS),
    )
    return st.lists(step, max_size=STEPS)


def run(site: Site, done: list[Step]) -> None:
    for act, number, member in done:
        act(site, number, member)


FAULTS = (Site.be_away, Site.lose_answers, Site.be_well, Site.let_time_pass)


@settings(max_examples=300)
@given(steps(*FAULTS, Site.restart))
def test_a_beat_of_each_worker_makes_the_counts_equal(done: list[Step]) -> None:
    site = Site()
    run(site, done)
    assert site.settle() == site.expected
    site.store.calls.clear()
    for presence in site.presences:
        presence.beat()
    assert set(site.store.calls) <= {"renew"}, "there was nothing left to mend"


@settings(max_examples=300)
@given(steps(*FAULTS))
def test_comings_and_goings_are_said_in_turn(done: list[Step]) -> None:
    """But for a store that restarted, which cannot know what it had said."""
    site = Site()
    run(site, done)
    present = site.settle()
    for member in MEMBERS:
        said = [news for news in site.news if str(news).startswith(member)]
        turns = [f"{member} joined", f"{member} gone"] * (len(said) // 2 + 1)
        assert said == turns[: len(said)]
        assert len(said) % 2 == (member in present)


@settings(max_examples=200)
@given(steps())
def test_without_failures_a_flush_is_enough(done: list[Step]) -> None:
    site = Site()
    run(site, done)
    for number in range(WORKERS):
        site.flush(number, "")
    assert site.store.members("room") == site.expected
    assert "holdings" not in site.store.calls
