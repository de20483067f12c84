"""How a worker hears of changed accounts, asks about logins, and closes sockets."""

import logging

import pytest

from gpulse.errors import SubscribeError
from gpulse.store.message import decode, encode
from gpulse.websocket.closecodes import UNAUTHENTICATED
from gpulse.websocket.identities import ANONYMOUS, FIRST_CHECK, Identities, Identity
from gpulse.websocket.watch import (
    BATCH,
    CHANNEL,
    EXPIRED,
    GAP_WITHIN,
    HOLDS,
    RETRY,
    SLOW,
    AccountWatch,
    Note,
    Verdict,
    apply,
)


class Socket:
    def __init__(self):
        self.entry = None
        self.closed = []

    def close(self, code, reason):
        self.closed.append((code, reason))


class Fanout:
    def __init__(self):
        self.asked = []

    def add(self, channel, receiver, done):
        self.asked.append((channel, receiver, done))


class Pool:
    """Runs jobs when it is told to."""

    def __init__(self):
        self.jobs = []

    def submit(self, job):
        assert job not in self.jobs
        self.jobs.append(job)

    def call_hub(self, call, *args):
        call(*args)

    def run(self):
        while self.jobs:
            self.jobs.pop(0)()


class Accounts:
    """All logins hold but those of ``gone``; notes are read from a table."""

    def __init__(self):
        self.asked = []
        self.error = None
        self.gone = {}
        self.notes = {}
        self.prolonged = None

    def check(self, logins):
        self.asked.append([login.user for login in logins])
        if self.error is not None:
            raise self.error
        return [
            Verdict(self.gone[login.user], None)
            if login.user in self.gone
            else Verdict("", self.prolonged)
            for login in logins
        ]

    def read(self, text):
        return self.notes.get(text)


class Rig:
    def __init__(self):
        self.now = 1000.0
        self.fanout, self.pool, self.accounts = Fanout(), Pool(), Accounts()
        self.identities = Identities(jitter=lambda: 1.0)
        self.watch = AccountWatch(self.identities, self.fanout, self.pool, lambda: self.now)
        self.watch.accounts = self.accounts

    def enter(self, user="1", session="a", expires_in=1e6):
        socket = Socket()
        identity = Identity(user, "h", session.encode() * 16, session * 32, "b", expires_in)
        self.watch.watch(socket, identity, "10.0.0.1")
        return socket

    def turn(self, seconds=0.0):
        self.now += seconds
        self.watch.tick(self.now)
        self.pool.run()

    def hear(self, note):
        self.accounts.notes["text"] = note
        self.watch.deliver(decode(CHANNEL, encode("text")))
        self.pool.run()


@pytest.fixture
def rig():
    return Rig()


def closed(socket):
    return [reason for code, reason in socket.closed if code == UNAUTHENTICATED]


# What a note does


@pytest.mark.parametrize(
    ("note", "to_close", "to_check"),
    [
        (Note("1", b"a" * 16, "out", close=True), ["1a", "1a'"], ["1b", "1a", "1a'"]),
        (Note("1", b"", "out", close=True), ["1a", "1a'", "1b"], ["1a", "1a'", "1b"]),
        (Note("1", b"", "", close=False), [], ["1a", "1a'", "1b"]),
        (Note("2", b"a" * 16, "out", close=True), [], ["2c"]),
        (Note("3", b"", "out", close=True), [], []),
        (Note(None, b"c" * 16, "out", close=True), ["2c"], []),
        (Note(None, b"v" * 16, "out", close=True), ["visitor"], []),
        (Note(None, b"", "", close=False), [], []),
    ],
)
def test_what_a_note_does(note, to_close, to_check):
    identities = Identities(jitter=lambda: 1.0)
    names = {}
    for name in ("1a", "1a'", "1b", "2c"):
        socket = Socket()
        names[socket] = name
        identity = Identity(name[0], "h", name[1].encode() * 16, name[1] * 32, "b", 1e6)
        identities.register(socket, identity, "", 1000.0)
    visitor = Socket()
    names[visitor] = "visitor"
    identities.register(visitor, ANONYMOUS._replace(session_digest=b"v" * 16), "", 1000.0)
    assert [names[socket] for socket in apply(note, identities, 1000.0)] == to_close
    due = [names[entry.socket] for entry in identities.due(1000.0, 10)]
    assert sorted(due) == sorted(to_check)


# Messages


def test_the_channel_is_subscribed_to_with_the_first_user(rig):
    rig.watch.watch(Socket(), ANONYMOUS, "10.0.0.1")
    assert rig.fanout.asked == []
    rig.enter()
    rig.enter()
    [(channel, receiver, _)] = rig.fanout.asked
    assert (channel, receiver) == (CHANNEL, rig.watch)


def test_a_failed_subscription_is_tried_again(rig, caplog):
    rig.enter()
    for _ in range(2):
        rig.fanout.asked[-1][2](SubscribeError("no answer"))
    assert caplog.text.count("no answer: a logout ends") == 1
    rig.turn(RETRY - 1)
    assert len(rig.fanout.asked) == 1
    rig.turn(1)
    assert len(rig.fanout.asked) == 2
    rig.turn(2 * RETRY)
    assert len(rig.fanout.asked) == 2  # it is under way


def test_what_was_said_before_the_subscription_is_caught_up_with(rig):
    rig.enter()
    rig.turn(FIRST_CHECK + 1)
    rig.fanout.asked[0][2](None)
    rig.turn(GAP_WITHIN + 1)
    assert rig.accounts.asked == [["1"], ["1"]]


def test_a_logout_closes_the_sessions_sockets_at_once_and_asks_about_the_users_others(rig):
    here, elsewhere, other = rig.enter("1", "a"), rig.enter("1", "b"), rig.enter("2", "c")
    rig.hear(Note("1", b"a" * 16, "logged out", close=True))
    assert here.closed == [(UNAUTHENTICATED, "logged out")]
    assert elsewhere.closed == other.closed == []
    assert rig.accounts.asked == [["1"]]
    assert rig.watch.closed == 1
    rig.turn(FIRST_CHECK + 1)
    assert here.closed == [(UNAUTHENTICATED, "logged out")]  # nobody asks about it again


def test_a_changed_user_is_asked_about_at_once(rig):
    mine, other = rig.enter("1"), rig.enter("2")
    rig.accounts.gone["1"] = "the password was changed"
    rig.hear(Note("1", b"", "", close=False))
    assert closed(mine) == ["the password was changed"]
    assert other.closed == []
    assert rig.watch.checked == 1


def test_a_message_that_the_site_did_not_write_is_counted_and_told_once(rig, caplog):
    socket = rig.enter()
    for forged in ({"user": "1", "close": True}, b"bytes", "signed by another site"):
        rig.watch.deliver(decode(CHANNEL, encode(forged)))
    assert socket.closed == []
    assert rig.watch.refused == 3
    assert caplog.text.count("not signed with this site's SECRET_KEY") == 1


def test_lost_messages_make_every_login_be_asked_about(rig):
    rig.enter("1")
    rig.enter("2", "b")
    rig.turn(FIRST_CHECK + 1)
    rig.watch.gap(CHANNEL, None)
    rig.turn(GAP_WITHIN + 1)
    assert rig.accounts.asked == [["1", "2"], ["1", "2"]]


# Asking


def test_a_session_that_ended_closes_its_socket(rig):
    ended, holds = rig.enter("1", "a", expires_in=3.0), rig.enter("2", "b")
    rig.accounts.gone["1"] = "the session ended"
    rig.turn(3.0)
    assert ended.closed == []
    rig.turn(1.0)
    assert closed(ended) == ["the session ended"]
    assert rig.accounts.asked == [["1"]]
    rig.turn(1000.0)
    assert holds.closed == []


def test_a_session_that_was_prolonged_keeps_its_socket(rig):
    socket = rig.enter(expires_in=3.0)
    rig.accounts.prolonged = 5.0
    rig.turn(4.0)
    rig.accounts.gone["1"] = "the session ended"
    rig.turn(5.0)
    assert socket.closed == []
    rig.turn(1.0)
    assert closed(socket) == ["the session ended"]


def test_a_session_in_a_cookie_ends_without_anybody_being_asked(rig):
    socket = Socket()
    rig.watch.watch(socket, Identity("1", "h", b"", "", "b", 30.0), "10.0.0.1")
    rig.turn(29.0)
    rig.turn(2.0)
    assert closed(socket) == [EXPIRED]
    assert rig.accounts.asked == [["1"]]  # about the password, after the opening


def test_a_login_that_only_time_ends_is_never_asked_about(rig):
    socket = Socket()
    rig.watch.watch(socket, Identity("1", "", b"", "", "", 300.0), "10.0.0.1")
    for _ in range(60):
        rig.turn(5.0)
    assert socket.closed == []
    rig.turn(1.0)
    assert closed(socket) == [EXPIRED]
    assert rig.accounts.asked == []


def test_one_batch_is_under_way_at_a_time_and_the_next_follows(rig):
    for number in range(BATCH + 10):
        rig.enter(str(number))
    rig.now += FIRST_CHECK + 1
    rig.watch.tick(rig.now)
    rig.watch.tick(rig.now)
    assert len(rig.pool.jobs) == 1
    rig.pool.run()
    assert [len(users) for users in rig.accounts.asked] == [BATCH, 10]
    assert rig.watch.checked == BATCH + 10


def test_a_socket_that_leaves_while_it_is_asked_about_is_left_alone(rig):
    socket = rig.enter()
    rig.accounts.gone["1"] = "gone"
    rig.now += FIRST_CHECK + 1
    rig.watch.tick(rig.now)
    rig.identities.unregister(socket)
    rig.pool.run()
    assert socket.closed == []


def test_while_the_database_is_away_sockets_stay_open_and_it_is_tried_again(rig, caplog):
    socket = rig.enter()
    rig.accounts.error = OSError("server closed the connection\nDETAIL: much more")
    rig.turn(FIRST_CHECK + 1)
    rig.turn(RETRY + 1)
    assert socket.closed == []
    assert rig.accounts.asked == [["1"], ["1"]]
    [line] = caplog.messages
    assert "server closed the connection" in line
    assert "much more" not in line
    rig.accounts.error = None
    rig.accounts.gone["1"] = "gone"
    rig.turn(RETRY + 1)
    assert closed(socket) == ["gone"]


def test_a_check_that_is_interrupted_is_tried_again(rig, caplog):
    rig.enter()
    rig.accounts.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        rig.turn(FIRST_CHECK + 1)
    assert "interrupted" in caplog.text
    rig.accounts.error = None
    rig.turn(RETRY + 1)
    assert rig.watch.checked == 1


def test_a_database_that_does_not_answer_is_complained_of_once(rig, caplog):
    rig.enter()
    rig.now += FIRST_CHECK + 1
    rig.watch.tick(rig.now)
    for _ in range(5):
        rig.now += SLOW
        rig.watch.tick(rig.now)
    assert caplog.text.count("has not said") == 1
    assert len(rig.pool.jobs) == 1
    rig.pool.run()
    rig.turn(100.0)
    assert rig.watch.checked == 2


def test_before_the_first_consumer_nothing_happens(rig):
    rig.watch.accounts = None
    rig.turn(1000.0)
    rig.watch.deliver(decode(CHANNEL, encode("text")))
    assert (rig.pool.jobs, rig.watch.refused) == ([], 0)


def test_what_is_closed_is_logged_with_its_reason(rig, caplog):
    caplog.set_level(logging.INFO, logger="gpulse.accounts")
    rig.enter("5")
    rig.hear(Note("5", b"", "logged out", close=True))
    assert caplog.messages == ["user 5: logged out; sockets closed: 1"]


def test_a_login_holds_without_a_reason():
    assert not HOLDS.reason
