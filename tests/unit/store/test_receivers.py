"""gpulse/store/receivers.py: who gets an event."""

from collections.abc import Callable

from gpulse.store.message import Event
from gpulse.store.receivers import Receivers


class Calls:
    """A receiver that calls."""

    def __init__(self, call: Callable[[], object] = int) -> None:
        self.count = 0
        self._call = call

    def deliver(self, event: Event) -> None:
        self.count += 1
        self._call()

    def gap(self, channel: str, position: str | None) -> None:
        raise AssertionError("there is no gap")


def test_who_leaves_or_comes_during_a_delivery_gets_nothing_of_it() -> None:
    receivers = Receivers()
    victim, comer = Calls(), Calls()

    def change() -> None:
        receivers.discard(victim)
        receivers.add(comer)

    first, last = Calls(change), Calls()
    for each in (first, victim, last):
        receivers.add(each)
    event, failed = Event("c", "t", b"x"), list[object]()
    assert receivers.hand_out(event, failed.append) == 2
    assert [each.count for each in (first, victim, last, comer)] == [1, 0, 1, 0]
    assert receivers.hand_out(event, failed.append) == 3
