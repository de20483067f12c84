"""Who is behind a worker's sockets, and when a login is looked at again."""

import gc
import tracemalloc

import pytest

from gpulse.websocket.identities import (
    ANONYMOUS,
    FIRST_CHECK,
    LISTED,
    RECHECK,
    SETTLE,
    SUSPECTS,
    SUSPICION,
    Credentials,
    Identities,
    Identity,
    auth_digest,
    network_of,
)

BACKEND = "django.contrib.auth.backends.ModelBackend"


class Socket:
    __slots__ = ("closed", "entry")

    def __init__(self):
        self.entry = None
        self.closed = None

    def close(self, code, reason):
        self.closed = (code, reason)


def login(user="1", session="a", *, auth_hash="h", expires_in=1e6):
    key = session * 32
    return Identity(user, auth_hash, session.encode() * 16, key, BACKEND, expires_in)


@pytest.fixture
def identities():
    return Identities(jitter=lambda: 1.0)


def enter(identities, identity=ANONYMOUS, address="10.0.0.1", now=1000.0):
    socket = Socket()
    identities.register(socket, identity, address, now)
    return socket


def due(identities, now, limit=1000):
    return [entry.socket for entry in identities.due(now, limit)]


# Counting


def test_sockets_are_counted_by_user_and_by_address_until_they_leave(identities):
    first = enter(identities, login("1"))
    second = enter(identities, login("1", "b"), "10.0.0.2")
    visitor = enter(identities)
    assert identities.count_of_user("1") == 2
    assert identities.count_of_user("2") == identities.count_of_user(None) == 0
    assert identities.count_of_address("10.0.0.1") == 2
    assert identities.sockets_of_user("1") == [first, second]
    assert len(identities) == 1
    for socket in (first, second, visitor):
        identities.unregister(socket)
        identities.unregister(socket)
    assert identities.count_of_user("1") == identities.count_of_address("10.0.0.1") == 0
    assert len(identities) == 0


def test_a_socket_that_was_never_registered_may_be_unregistered(identities):
    identities.unregister(Socket())
    assert len(identities) == 0


@pytest.mark.parametrize("count", [2, LISTED, LISTED + 1, 3 * LISTED])
def test_many_sockets_of_one_user_keep_their_order_and_leave_in_any(identities, count):
    sockets = [enter(identities, login("1", "abc"[number % 3])) for number in range(count)]
    assert identities.sockets_of_user("1") == sockets
    assert identities.count_of_user("1") == count
    for gone in sockets[1::2]:
        identities.unregister(gone)
    left = sockets[0::2]
    assert identities.sockets_of_user("1") == left
    newest = enter(identities, login("1"))
    assert identities.sockets_of_user("1") == [*left, newest]
    for gone in [newest, *left]:
        identities.unregister(gone)
    assert len(identities) == 0
    assert identities.count_of_user("1") == 0


@pytest.mark.parametrize(
    ("address", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("2001:db8::1", "2001:db8:0:0:ffff::2", True),  # one household
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_what_counts_as_one_address(address, other, same):
    assert (network_of(address) == network_of(other)) is same
    assert network_of(address)


@pytest.mark.parametrize("address", ["", "unix:", "somewhere", "1.2.3", "1:2", "\0"])
def test_what_is_no_address_is_not_counted(identities, address):
    assert network_of(address) == b""
    enter(identities, address=address)
    enter(identities, address=address)
    assert identities.count_of_address(address) == 0


def test_sockets_are_found_by_their_session(identities):
    tab, other_tab = enter(identities, login("1", "a")), enter(identities, login("1", "a"))
    phone = enter(identities, login("1", "b"))
    visitor = enter(identities, ANONYMOUS._replace(session_digest=b"v" * 16))
    enter(identities)
    assert identities.sockets_of_session(b"a" * 16) == [tab, other_tab]
    assert identities.sockets_of_session(b"a" * 16, "1") == [tab, other_tab]
    assert identities.sockets_of_session(b"b" * 16, "1") == [phone]
    assert identities.sockets_of_session(b"b" * 16, "2") == []
    assert identities.sockets_of_session(b"v" * 16) == [visitor]
    assert identities.sockets_of_session(b"") == []
    identities.unregister(visitor)
    assert identities.sockets_of_session(b"v" * 16) == []


# What is kept


def test_an_entry_keeps_what_a_check_needs(identities):
    entry = enter(identities, login("7", "k", auth_hash="secret")).entry
    assert entry.credentials == Credentials("7", BACKEND, auth_digest("secret"), "k" * 32)
    assert entry.session_digest == b"k" * 16


@pytest.mark.parametrize(
    ("identity", "credentials"),
    [
        (ANONYMOUS, None),
        (ANONYMOUS._replace(session_digest=b"v" * 16), None),
        (Identity("7", "", b"", "", "", None), None),  # nobody can be asked about it
        (Identity("7", "h", b"", "", "", None), Credentials("7", "", auth_digest("h"), "")),
        (Identity("7", "", b"s" * 16, "k" * 32, "", 9.0), Credentials("7", "", b"", "k" * 32)),
        (Identity("7", "h", b"", "", "b", 9.0), Credentials("7", "b", auth_digest("h"), "")),
    ],
)
def test_what_can_be_asked_about_a_login(identities, identity, credentials):
    entry = enter(identities, identity).entry
    assert entry.credentials == credentials
    assert entry.is_watched is (credentials is not None)


def test_no_secret_is_shown():
    identity = login("7", "k", auth_hash="secret")
    credentials = Credentials("7", BACKEND, auth_digest("secret"), "k" * 32)
    for text in (repr(identity), repr(credentials), f"{identity} {credentials}"):
        assert "kkk" not in text
        assert "secret" not in text
        assert "'7'" in text


def test_two_tabs_of_one_browser_share_what_is_kept(identities):
    first = enter(identities, login("".join(["1", "2"]), "a")).entry
    second = enter(identities, login("".join(["1", "2"]), "a")).entry
    assert second.user is first.user
    assert second._proof is first._proof


def test_a_socket_that_left_leaves_nothing_but_a_small_entry(identities):
    socket = enter(identities, login())
    entry = socket.entry
    identities.unregister(socket)
    assert socket.entry is None
    assert entry.socket is None
    assert entry.credentials is None
    assert due(identities, 1000.0 + 2 * RECHECK) == []
    assert identities._wheel == {}


def test_a_socket_costs_less_than_four_hundred_bytes():
    """Each with a user, a session and an address of its own; the design allows 4 KB in all."""
    count = 5000
    sockets = [Socket() for _ in range(count)]
    identities = Identities()
    gc.collect()
    tracemalloc.start()
    try:
        for number, socket in enumerate(sockets):
            key = f"{number:032}"
            identity = Identity(
                str(100_000 + number), key * 2, key[16:].encode(), key, BACKEND, 1e6
            )
            address = f"10.0.{number >> 8}.{number & 255}"
            identities.register(socket, identity, address, 1000.0 + number / 100)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / count < 400


# When


def test_a_login_is_looked_at_soon_after_its_socket_opened_and_then_at_every_recheck(identities):
    socket = enter(identities, login())
    assert due(identities, 1000.0 + FIRST_CHECK) == []
    assert due(identities, 1000.0 + FIRST_CHECK + 1) == [socket]
    assert due(identities, 1e6) == []  # not before it is planned
    identities.plan(socket.entry, 1e6)
    assert due(identities, 1e6 + RECHECK) == []
    assert due(identities, 1e6 + RECHECK + 1) == [socket]


def test_looks_are_spread_but_never_later_than_recheck():
    identities = Identities(jitter=lambda: 0.0)
    socket = enter(identities, login())
    assert due(identities, 1000.0 + FIRST_CHECK / 2 + 1) == [socket]
    identities.plan(socket.entry, 2000.0)
    assert due(identities, 2000.0 + 0.75 * RECHECK + 1) == [socket]


def test_a_session_is_looked_at_in_the_second_after_its_end(identities):
    socket = enter(identities, login(expires_in=3.0))
    assert due(identities, 1003.0) == []
    assert due(identities, 1004.0) == [socket]
    identities.plan(socket.entry, 1004.0, expires_in=20.5)  # it was prolonged
    assert due(identities, 1024.0) == []
    assert due(identities, 1025.0) == [socket]


def test_a_session_that_ended_before_it_was_planned_is_looked_at_at_once(identities):
    socket = enter(identities, login(expires_in=-5.0))
    assert due(identities, 1001.0) == [socket]


def test_without_a_session_key_the_end_is_final(identities):
    final = enter(identities, Identity("1", "h", b"", "", BACKEND, 100.0))
    guessed = enter(identities, login(expires_in=100.0))
    assert final.entry.expires == 1100.0
    assert guessed.entry.expires is None
    due(identities, 1090.0)
    for socket in (final, guessed):
        identities.plan(socket.entry, 1090.0)
    assert due(identities, 1101.0) == [final]


def test_nobody_looks_at_a_visitor_or_at_a_user_of_another_kind(identities):
    enter(identities)
    enter(identities, ANONYMOUS._replace(session_digest=b"v" * 16))
    enter(identities, Identity("7", "", b"", "", "", None))
    identities.hurry("7", 1000.0)
    identities.hurry_all(1000.0, 1.0)
    assert due(identities, 1e6) == []


def test_at_most_the_limit_is_handed_out_and_nothing_is_forgotten(identities):
    sockets = [enter(identities, login(str(number))) for number in range(5)]
    assert due(identities, 1020.0, limit=2) == sockets[:2]
    assert due(identities, 1020.0, limit=2) == sockets[2:4]
    identities.unregister(sockets[4])
    assert due(identities, 1020.0, limit=2) == []


def test_entries_planned_before_the_first_turn_are_not_missed(identities):
    sockets = [enter(identities, login(), now=1000.0), enter(identities, login(), now=1300.0)]
    assert due(identities, 1400.0) == sockets


def test_after_news_of_a_user_all_logins_are_due_at_once_and_once(identities):
    mine = [enter(identities, login("1", "a")), enter(identities, login("1", "b"))]
    enter(identities, login("2"))
    due(identities, 1000.0)
    assert identities.hurry("1", 1000.0) == 2
    assert identities.hurry("1", 1000.0) == 2
    assert identities.hurry("3", 1000.0) == 0
    assert due(identities, 1000.0) == mine
    assert due(identities, 1000.0) == []


def test_news_that_come_while_a_login_is_looked_at_are_not_lost(identities):
    socket = enter(identities, login("1"))
    entry = identities.due(1011.0, 1)[0]
    identities.hurry("1", 1011.0)
    identities.plan(entry, 1011.5)  # an answer from before the news
    assert due(identities, 1012.0) == [socket]


def test_a_socket_that_opens_just_after_news_of_its_user_is_looked_at_soon(identities):
    identities.hurry("1", 1000.0)
    suspect = enter(identities, login("1"), now=1001.0)
    other = enter(identities, login("2"), now=1001.0)
    later = enter(identities, login("1"), now=1000.0 + SUSPICION)
    assert due(identities, 1001.0 + SETTLE + 1) == [suspect]
    assert due(identities, 1000.0 + SUSPICION + FIRST_CHECK + 1) == [other, later]


def test_the_memory_of_news_is_bounded(identities):
    for number in range(2 * SUSPECTS):
        identities.hurry(str(number), 1000.0)
    assert len(identities._suspects) == SUSPECTS
    assert str(2 * SUSPECTS - 1) in identities._suspects
    identities.hurry("x", 1000.0 + SUSPICION)
    assert list(identities._suspects) == ["x"]


def test_after_a_gap_every_login_is_looked_at_within_the_time(identities):
    socket = enter(identities, login())
    due(identities, 1011.0)
    identities.plan(socket.entry, 1011.0)
    identities.hurry_all(1012.0, within=5.0)
    assert due(identities, 1018.0) == [socket]
    identities.plan(socket.entry, 1018.0, expires_in=1.0)
    identities.hurry_all(1018.0, within=5.0)  # never later than it was planned
    assert due(identities, 1020.0) == [socket]


def test_a_login_that_nobody_could_answer_for_is_asked_about_again(identities):
    socket = enter(identities, login())
    entry = identities.due(1011.0, 1)[0]
    identities.postpone(entry, 1011.0, 10.0)
    assert due(identities, 1021.0) == []
    assert due(identities, 1022.0) == [socket]


def test_entries_of_sockets_that_come_and_go_do_not_pile_up(identities):
    for second in range(1000, 1000 + int(10 * RECHECK)):
        identities.unregister(enter(identities, login(), now=float(second)))
        identities.due(float(second), 100)
    assert sum(map(len, identities._wheel.values())) <= FIRST_CHECK + 2
    assert not identities._ripe
