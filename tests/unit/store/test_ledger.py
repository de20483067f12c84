"""gpulse/store/ledger.py: what the server is told, and whose answer a reply is."""

import random

import pytest

from gpulse.errors import SubscribeError
from gpulse.store.feed import BACKOFF_MOST, backoff
from gpulse.store.ledger import BATCH, SSUBSCRIBE, Answer, Ledger, pack


class Said:
    """What the callers of subscribe were told, in order: None or the error's text."""

    def __init__(self) -> None:
        self.list: list[str | None] = []

    def done(self, error: SubscribeError | None) -> None:
        self.list.append(None if error is None else str(error))

    def take(self, answers: list[Answer]) -> list[str | None]:
        for done, error in answers:
            done(error)
        taken, self.list = self.list, []
        return taken


def subscribed(*names: bytes) -> tuple[Ledger, Said]:
    ledger, said = Ledger(10), Said()
    for name in names:
        said.take(ledger.subscribe(name, name.decode(), said.done, 2.0))
    ledger.commands()
    for name in names:
        said.take(ledger.confirm(True, name))
    return ledger, said


def test_a_batch_is_sent_once_and_answered_one_by_one() -> None:
    ledger, said = Ledger(10), Said()
    for name in (b"a", b"b"):
        assert said.take(ledger.subscribe(name, name.decode(), said.done, 2.0)) == []
    assert ledger.commands() == pack(b"SUBSCRIBE", b"a", b"b")
    assert ledger.commands() == b""
    assert said.take(ledger.confirm(True, b"a")) == [None]
    assert ledger.pending
    assert said.take(ledger.confirm(True, b"b")) == [None]
    assert not ledger.pending


def test_what_is_settled_is_answered_at_once() -> None:
    ledger, said = subscribed(b"a")
    assert said.take(ledger.subscribe(b"a", "a", said.done, 2.0)) == [None]
    assert ledger.commands() == b""


def test_two_waiters_share_one_command() -> None:
    ledger, said = Ledger(10), Said()
    ledger.subscribe(b"a", "a", said.done, 2.0)
    ledger.subscribe(b"a", "a", said.done, 3.0)
    assert ledger.commands() == pack(b"SUBSCRIBE", b"a")
    assert said.take(ledger.confirm(True, b"a")) == [None, None]


def test_subscribe_and_unsubscribe_in_one_batch_cost_nothing() -> None:
    ledger, said = Ledger(10), Said()
    ledger.subscribe(b"a", "a", said.done, 2.0)
    (answer,) = said.take(ledger.unsubscribe(b"a"))
    assert "before the store confirmed it" in str(answer)
    assert ledger.commands() == b""
    assert len(ledger) == 0


def test_only_the_last_of_three_commands_in_flight_settles() -> None:
    ledger, said = Ledger(10), Said()
    ledger.subscribe(b"a", "a", said.done, 2.0)
    ledger.commands()
    assert len(said.take(ledger.unsubscribe(b"a"))) == 1
    assert ledger.commands() == pack(b"UNSUBSCRIBE", b"a")
    assert ledger.wanted(b"a") is None
    ledger.subscribe(b"a", "a", said.done, 2.0)
    assert ledger.commands() == pack(b"SUBSCRIBE", b"a")
    assert said.take(ledger.confirm(True, b"a")) == []
    assert said.take(ledger.confirm(False, b"a")) == []
    assert said.take(ledger.confirm(True, b"a")) == [None]


def test_an_unsubscribed_channel_is_forgotten_when_the_server_has() -> None:
    ledger, said = subscribed(b"a")
    ledger.unsubscribe(b"a")
    assert ledger.wanted(b"a") is None
    assert ledger.commands() == pack(b"UNSUBSCRIBE", b"a")
    ledger.confirm(False, b"a")
    assert len(ledger) == 0
    assert said.take(ledger.unsubscribe(b"a")) == []


def test_after_a_loss_all_is_sent_again_and_it_is_behind_until_confirmed() -> None:
    ledger, said = subscribed(b"a", b"b", b"c")
    ledger.unsubscribe(b"c")
    ledger.lost()
    assert ledger.behind
    assert ledger.wanted(b"c") is None
    assert ledger.commands() == pack(b"SUBSCRIBE", b"a", b"b")
    assert said.take(ledger.confirm(True, b"a")) == []
    assert ledger.behind
    ledger.confirm(True, b"b")
    assert not ledger.behind


def test_a_subscribe_in_flight_survives_a_loss_until_its_deadline() -> None:
    ledger, said = Ledger(10), Said()
    ledger.subscribe(b"a", "a", said.done, 2.0)
    ledger.commands()
    ledger.lost()
    assert not ledger.behind
    assert said.take(ledger.expire(1.9)) == []
    (answer,) = said.take(ledger.expire(2.0))
    assert "in time" in str(answer)
    assert len(ledger) == 0


def test_a_late_confirmation_is_undone() -> None:
    ledger, said = Ledger(10), Said()
    ledger.subscribe(b"a", "a", said.done, 2.0)
    ledger.commands()
    assert len(said.take(ledger.expire(2.0))) == 1
    assert said.take(ledger.confirm(True, b"a")) == []
    assert ledger.commands() == pack(b"UNSUBSCRIBE", b"a")
    ledger.confirm(False, b"a")
    assert len(ledger) == 0


def test_an_expired_wish_is_taken_back_from_the_server() -> None:
    ledger, said = Ledger(10), Said()
    ledger.subscribe(b"a", "a", said.done, 2.0)
    ledger.commands()
    said.take(ledger.expire(2.0))
    assert ledger.commands() == pack(b"UNSUBSCRIBE", b"a")
    ledger.confirm(True, b"a")
    ledger.confirm(False, b"a")
    assert len(ledger) == 0


def test_a_settled_channel_outlives_the_deadline_of_a_later_waiter() -> None:
    ledger, said = subscribed(b"a")
    ledger.lost()
    ledger.subscribe(b"a", "a", said.done, 2.0)
    assert len(said.take(ledger.expire(2.0))) == 1
    assert ledger.behind
    assert ledger.commands() == pack(b"SUBSCRIBE", b"a")


def test_an_error_reply_refuses_the_first_command_and_no_other() -> None:
    ledger, said = Ledger(10), Said()
    ledger.subscribe(b"a", "a", said.done, 2.0)
    ledger.commands()
    ledger.subscribe(b"b", "b", said.done, 2.0)
    ledger.commands()
    (answer,) = said.take(ledger.refuse("NOPERM"))
    assert answer == "channel 'a' is not subscribed: NOPERM"
    assert said.take(ledger.confirm(True, b"b")) == [None]
    assert len(ledger) == 1


def test_more_channels_than_the_limit_are_refused() -> None:
    ledger, said = subscribed(*(b"%d" % number for number in range(10)))
    (answer,) = said.take(ledger.subscribe(b"x", "x", said.done, 2.0))
    assert "10 channels" in str(answer)
    assert len(ledger) == 10


def test_a_reply_to_nothing_is_an_error() -> None:
    ledger, _ = subscribed(b"a")
    with pytest.raises(ValueError, match="not asked"):
        ledger.confirm(True, b"a")
    with pytest.raises(ValueError, match="not asked"):
        ledger.refuse("ERR")


def test_a_command_is_of_bounded_length() -> None:
    ledger, said = Ledger(5000), Said()
    for number in range(2 * BATCH + 1):
        ledger.subscribe(b"%d" % number, str(number), said.done, 2.0)
    assert ledger.commands().count(b"SUBSCRIBE") == 3


def test_clear_answers_all_that_wait() -> None:
    ledger, said = subscribed(b"a")
    ledger.subscribe(b"b", "b", said.done, 2.0)
    assert len(said.take(ledger.clear("closing"))) == 1
    assert len(ledger) == 0


@pytest.mark.parametrize("seed", range(20))
def test_any_history_ends_with_the_server_knowing_what_is_wanted(seed: int) -> None:
    """A model of a server, which answers late, forgets at a loss and never errs."""
    chance = random.Random(seed)
    ledger, said = Ledger(100), Said()
    names = [b"a", b"b", b"c"]
    wanted: set[bytes] = set()
    server: set[bytes] = set()
    replies: list[tuple[bool, bytes]] = []

    def send() -> None:
        words = [word for word in ledger.commands().split(b"\r\n") if word[:1] not in (b"*", b"$")]
        kind = b""
        for word in filter(None, words):
            if word.endswith(b"SUBSCRIBE"):
                kind = word
                continue
            (server.add if kind == b"SUBSCRIBE" else server.discard)(word)
            replies.append((kind == b"SUBSCRIBE", word))

    for _ in range(300):
        name = chance.choice(names)
        match chance.randrange(10):
            case 0 | 1 | 2:
                said.take(ledger.subscribe(name, name.decode(), said.done, 1e9))
                wanted.add(name)
            case 3 | 4:
                said.take(ledger.unsubscribe(name))
                wanted.discard(name)
            case 5 | 6:
                send()
            case 7 | 8 if replies:
                said.take(ledger.confirm(*replies.pop(0)))
            case 9 if chance.random() < 0.2:
                ledger.lost()
                server.clear()
                replies.clear()
    while True:
        send()
        if not replies:
            break
        said.take(ledger.confirm(*replies.pop(0)))
    assert server == wanted
    assert len(ledger) == len(wanted)
    assert not ledger.pending
    assert not ledger.behind


def test_the_pause_before_a_connect_grows_to_its_bound() -> None:
    assert backoff(0, 0.0) == 0.0
    assert backoff(0, 1.0) == 0.05
    assert backoff(1, 1.0) == 0.1
    assert backoff(1_000_000, 1.0) == BACKOFF_MOST


def sharded(*names: bytes) -> tuple[Ledger, Said]:
    ledger, said = Ledger(10, SSUBSCRIBE), Said()
    for name in names:
        ledger.subscribe(name, name.decode(), said.done, 2.0)
    ledger.commands()
    for name in names:
        said.take(ledger.confirm(True, name))
    return ledger, said


def test_sharded_channels_are_told_one_by_one() -> None:
    ledger, said = Ledger(10, SSUBSCRIBE), Said()
    for name in (b"a", b"b"):
        ledger.subscribe(name, name.decode(), said.done, 2.0)
    assert ledger.commands() == pack(b"SSUBSCRIBE", b"a") + pack(b"SSUBSCRIBE", b"b")


def test_what_was_behind_is_named_once_when_it_is_back() -> None:
    ledger, said = subscribed(b"a", b"b")
    ledger.lost()
    ledger.subscribe(b"new", "new", said.done, 2.0)
    ledger.commands()
    for name in (b"a", b"b", b"new"):
        ledger.confirm(True, name)
    assert ledger.take_back() == ["a", "b"]
    assert ledger.take_back() == []


def test_a_moved_channel_takes_those_who_wait_and_its_loss_along() -> None:
    old, said = sharded(b"a", b"b")
    new = Ledger(10, SSUBSCRIBE)
    old.subscribe(b"c", "c", said.done, 5.0)
    for name in (b"a", b"c"):
        move = old.release(name)
        assert move is not None
        assert new.adopt(move) == []
    assert old.commands() == pack(b"SUNSUBSCRIBE", b"a")
    assert list(old) == [b"b"]
    assert new.commands() == pack(b"SSUBSCRIBE", b"a") + pack(b"SSUBSCRIBE", b"c")
    assert new.behind
    assert said.take(new.confirm(True, b"a")) == []
    assert said.take(new.confirm(True, b"c")) == [None]
    assert new.take_back() == ["a"], "c was new: it has missed nothing"
    assert old.release(b"unknown") is None


def test_a_channel_that_moves_there_and_back_at_once_is_settled() -> None:
    ledger, said = sharded(b"a")
    move = ledger.release(b"a")
    assert move is not None
    move.waiting.append((2.0, said.done))
    assert said.take(ledger.adopt(move)) == [None]
    assert ledger.commands() == b""
    assert ledger.take_back() == ["a"]


def test_a_bounced_command_leaves_its_channel_wanted_and_untold() -> None:
    ledger, said = sharded(b"a")
    ledger.subscribe(b"b", "b", said.done, 2.0)
    ledger.commands()
    assert ledger.bounce() == [b"b"]
    assert ledger.commands() == b""
    ledger.again(b"b")
    assert ledger.commands() == pack(b"SSUBSCRIBE", b"b")
    assert said.take(ledger.confirm(True, b"b")) == [None]
    with pytest.raises(ValueError, match="not asked"):
        ledger.bounce()


def test_a_bounce_of_what_is_not_wanted_is_forgotten() -> None:
    ledger, said = sharded(b"a")
    ledger.subscribe(b"b", "b", said.done, 2.0)
    ledger.commands()
    ledger.unsubscribe(b"b")
    assert ledger.bounce() == []
    assert len(ledger) == 1


def test_a_subscription_that_the_server_ends_is_behind() -> None:
    ledger, _ = sharded(b"a")
    assert not ledger.is_expected(b"a")
    assert ledger.ended(b"a")
    assert ledger.behind
    assert ledger.commands() == b"", "where to is not known yet"
    ledger.again(b"a")
    assert ledger.commands() == pack(b"SSUBSCRIBE", b"a")
    ledger.confirm(True, b"a")
    assert ledger.take_back() == ["a"]
    assert not ledger.ended(b"unknown")


def test_an_end_that_crosses_an_unsubscribe_is_taken_for_its_answer() -> None:
    ledger, _ = sharded(b"a")
    ledger.unsubscribe(b"a")
    ledger.commands()
    assert ledger.is_expected(b"a")
    ledger.confirm(False, b"a")
    # The answer itself, which comes a moment later, is of a channel that nobody knows.
    assert not ledger.is_expected(b"a")
    assert not ledger.ended(b"a")
    assert len(ledger) == 0


def test_an_end_that_crosses_a_new_subscribe_is_ignored() -> None:
    ledger, said = sharded(b"a")
    ledger.unsubscribe(b"a")
    ledger.commands()
    ledger.subscribe(b"a", "a", said.done, 2.0)
    ledger.commands()
    ledger.confirm(False, b"a")
    assert ledger.ended(b"a")
    assert said.take(ledger.confirm(True, b"a")) == [None]
