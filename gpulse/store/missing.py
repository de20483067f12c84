"""The store that is not there: a site that never uses one works without.

Stands in where ``--data-store`` is ``embedded``, no server program was found and more than one
worker runs.  The first use, not the boot, tells what to install or set.
"""

from collections.abc import Callable, Sequence
from typing import NoReturn

from gpulse.errors import PublishError, StoreError, SubscribeError
from gpulse.historyrules import HistoryRules
from gpulse.store.base import (
    LEASE,
    Held,
    Holding,
    Note,
    Receipt,
    Recovery,
    Store,
    Subscriber,
    check_channel,
)
from gpulse.store.message import Event

HINT = (
    "there is no data store: neither valkey-server nor redis-server was found; "
    "pip install gpulse[standard], or set --data-store to a redis:// URL"
)


class MissingStore(Store):
    """Every use raises, or hands ``done``, an error with ``HINT``."""

    rules = HistoryRules()

    def publish(self, channel: str, payload: bytes, *, key: str = "") -> Receipt:
        raise PublishError(HINT)

    def recover(self, requests: Sequence[tuple[str, str | None]]) -> list[Recovery]:
        self._refuse()

    def channels(self, pattern: str = "*") -> dict[str, int]:
        self._refuse()

    def join(
        self,
        key: str,
        member: str,
        owner: str,
        will: Note | None = None,
        hello: Note | None = None,
    ) -> int:
        self._refuse()

    def leave(self, key: str, member: str, owner: str, farewell: Note | None = None) -> int:
        self._refuse()

    def restore(self, owner: str, holdings: Sequence[Holding]) -> None:
        self._refuse()

    def members(self, key: str) -> dict[str, int]:
        self._refuse()

    def holdings(self, owner: str) -> dict[tuple[str, str], int]:
        self._refuse()

    def renew(self, owner: str, lease: float = LEASE) -> Held:
        self._refuse()

    def release(self, owner: str) -> list[tuple[str, str]]:
        self._refuse()

    def sweep(self) -> int:
        self._refuse()

    def ping(self) -> None:
        self._refuse()

    def close(self) -> None:
        """Nothing is open."""

    def describe(self) -> str:
        return "none"

    def open_subscriber(
        self,
        on_event: Callable[[Event], None],
        on_reconnect: Callable[[list[str] | None], None] | None = None,
    ) -> Subscriber:
        return _MissingSubscriber()

    @staticmethod
    def _refuse() -> NoReturn:
        raise StoreError(HINT)


class _MissingSubscriber(Subscriber):
    def subscribe(self, channel: str, done: Callable[[SubscribeError | None], None]) -> None:
        check_channel(channel)
        done(SubscribeError(HINT))

    def unsubscribe(self, channel: str) -> None:
        """Nothing is ever subscribed."""

    def close(self) -> None:
        """Nothing is open."""
