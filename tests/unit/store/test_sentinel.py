"""gpulse/store/sentinel.py: whom the sentinels name, and who is asked first."""

import time

import pytest

from gpulse.store.endpoint import Endpoint
from gpulse.store.link import AwayError, Link
from gpulse.store.sentinel import ROLE, SentinelRoute
from gpulse.storeurl import parse

URL = parse("redis+sentinel://a:1,b:2,c:3/site/0?sentinel_password=s")
A, B, C = Endpoint("a", 1), Endpoint("b", 2), Endpoint("c", 3)
OLD, NEW = Endpoint("p", 7), Endpoint("q", 8)


class FakeSocket:
    def close(self) -> None:
        """Nothing is open."""


class FakeDialer:
    """Sentinels name whom ``names`` says; an error is raised, None is an unknown service."""

    def __init__(self) -> None:
        self.names: dict[Endpoint, Endpoint | Exception | None] = dict.fromkeys((A, B, C), OLD)
        self.roles: dict[Endpoint, bytes] = {OLD: b"master", NEW: b"slave"}
        self.asked: list[Endpoint] = []
        self.shares: list[float] = []

    def open(
        self,
        endpoint: Endpoint,
        deadline: float,
        *commands: bytes,
        login: tuple[str | None, str | None] | None = None,
    ) -> tuple[Link, list[object]]:
        link = Link(FakeSocket(), endpoint)
        if endpoint in self.roles:
            assert login is None
            return link, [[self.roles[endpoint]], *(b"OK" for _ in commands[1:])]
        assert login == (None, "s")
        self.asked.append(endpoint)
        self.shares.append(deadline - time.monotonic())
        named = self.names[endpoint]
        if isinstance(named, Exception):
            raise named
        return link, [None if named is None else [named.host.encode(), b"%d" % named.port]]


@pytest.fixture
def dialer() -> FakeDialer:
    return FakeDialer()


@pytest.fixture
def route(dialer: FakeDialer) -> SentinelRoute:
    return SentinelRoute(URL, dialer)  # type: ignore[arg-type]


def soon() -> float:
    return time.monotonic() + 10.0


def test_the_first_sentinel_that_answers_is_asked_first_from_then_on(
    dialer: FakeDialer, route: SentinelRoute
) -> None:
    dialer.names[A] = TimeoutError("timed out")
    assert route.open(soon()).endpoint == OLD
    assert dialer.asked == [A, B]
    assert route.open(soon()).endpoint == OLD
    assert dialer.asked == [A, B, B]


def test_one_that_does_not_answer_costs_its_share_only(
    dialer: FakeDialer, route: SentinelRoute
) -> None:
    dialer.names = dict.fromkeys((A, B, C), TimeoutError("timed out"))
    with pytest.raises(AwayError, match=r"a:1: timed out; b:2: timed out; c:3: timed out"):
        route.locate(soon())
    assert [round(share, 1) for share in dialer.shares] == [2.5, 3.3, 5.0]


def test_a_sentinel_that_does_not_know_the_service_is_passed_over(
    dialer: FakeDialer, route: SentinelRoute
) -> None:
    dialer.names[A] = None
    assert route.locate(soon()) == OLD
    dialer.names[B] = dialer.names[C] = None
    with pytest.raises(AwayError, match="it knows no site"):
        route.locate(soon())


def test_a_server_that_is_no_primary_is_refused_and_another_sentinel_asked(
    dialer: FakeDialer, route: SentinelRoute
) -> None:
    """The first sentinel is cut off: it names the old primary for good."""
    dialer.roles = {OLD: b"slave", NEW: b"master"}
    dialer.names.update({B: NEW, C: NEW})
    with pytest.raises(AwayError, match="p:7, which its sentinels name, is not a primary"):
        route.open(soon())
    assert route.open(soon()).endpoint == NEW


def test_there_is_an_end_to_the_time(route: SentinelRoute) -> None:
    with pytest.raises(AwayError, match="in time"):
        route.locate(time.monotonic() - 1.0)


def test_what_is_a_primary_s_answer(route: SentinelRoute) -> None:
    assert route.probe == ROLE
    assert route.accepts([b"master", 0, []])
    for reply in ([b"slave", b"h", 1], [b"sentinel", []], [], b"master", ValueError("NOPERM")):
        assert not route.accepts(reply)


def test_only_a_switch_of_our_service_counts(route: SentinelRoute) -> None:
    assert route.is_switch([b"message", b"+switch-master", b"site p 7 q 8"])
    for reply in (
        [b"message", b"+switch-master", b"other p 7 q 8"],
        [b"subscribe", b"+switch-master", 1],
        b"PONG",
    ):
        assert not route.is_switch(reply)
