"""Watches the logins behind a worker's sockets: hears of changes, asks, closes.

On the hub.  What is asked of the database runs on the pool, one batch at a time, so that a database
that is slow or away costs one member.  While nobody can say whether a login holds, its socket stays
open, and it is asked about again.

It subscribes to ``CHANNEL`` with the first socket of a user.  Messages may be lost there as on any
channel; after a gap all logins are looked at within ``GAP_WITHIN`` seconds.

Knows nothing of Django: what logins are is the matter of ``accounts``, see :class:`Accounts`.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from gpulse.errors import SubscribeError
from gpulse.store.message import TEXT, Event
from gpulse.store.quiet import Quiet
from gpulse.websocket.closecodes import UNAUTHENTICATED
from gpulse.websocket.identities import Credentials, Entry, Identities, Identity, Socket

log = logging.getLogger("gpulse.accounts")

CHANNEL = "gpulse:accounts"
"""Where the workers of a site are told of logouts and changed accounts."""

BATCH = 200
"""Logins asked about in one job: some 4 ms of a member, and two queries."""
RETRY = 10.0
"""Seconds until logins are asked about again that nobody could answer for, and until a subscription
is tried again that failed."""
GAP_WITHIN = 20.0
"""Seconds in which all logins are looked at after messages were lost."""
SLOW = 30.0
"""Seconds after which a job that still asks is complained of."""
QUIET = 60.0
"""Seconds between two lines of the log about the same trouble."""
EXPIRED = "the session ended"


class Note(NamedTuple):
    """What a message on ``CHANNEL`` says."""

    user: str | None
    """Whom it is about; None where only the session is known."""
    session: bytes
    """Digest of the session; empty for all of the user's."""
    reason: str
    """For the close frame."""
    close: bool
    """True: the sockets are closed, and the user's others checked.  False: they are checked."""


class Verdict(NamedTuple):
    """What is known of a login now."""

    reason: str
    """Why it holds no more; empty while it does."""
    expires_in: float | None
    """Seconds until its session ends; None if that is not known."""


HOLDS = Verdict("", None)


class Accounts(Protocol):
    """Who knows about logins: :mod:`gpulse.django.accounts`."""

    def check(self, logins: Sequence[Credentials]) -> list[Verdict]:
        """One verdict for each; on a pool member, may block and raise."""

    def read(self, text: str) -> Note | None:
        """The note in a message; None if it is not from this site.  Does not block."""


def apply(note: Note, identities: Identities, now: float) -> list[Socket]:
    """Do in the registry what the note says; the sockets to close."""
    found: list[Socket] = []
    if note.close and note.session:
        found = identities.sockets_of_session(note.session, note.user)
    elif note.close and note.user is not None:
        found = identities.sockets_of_user(note.user)
    if note.user is not None:
        identities.hurry(note.user, now)
    return found


class AccountWatch:
    """See the head of this file; one per worker, also a receiver of the fan-out.

    :param identities: the registry; sockets come into it by :meth:`watch` and leave it by its own
        ``unregister``.
    :param pool: has ``submit(job)`` and ``call_hub(call, *args)`` of the worker's pool.
    """

    def __init__(
        self,
        identities: Identities,
        fanout: Any,
        pool: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asking_since: float | None = None  # one batch at a time
        self._complained = False
        self._quiet_refused = Quiet(QUIET, clock)
        self._quiet_unchecked = Quiet(QUIET, clock)
        self._quiet_unheard = Quiet(QUIET, clock)
        self._subscribe_at = 0.0  # when to try to; inf while subscribed or trying
        self._wanted = False
        self.identities = identities
        self._clock = clock
        self._fanout = fanout
        self._pool = pool
        self.accounts: Accounts | None = None
        """Set by the first consumer: it needs Django, and the worker may serve another site."""
        self.checked = 0
        """Logins asked about."""
        self.closed = 0
        """Sockets closed because their login ended."""
        self.refused = 0
        """Messages on ``CHANNEL`` that this site did not write."""

    def watch(self, socket: Socket, identity: Identity, address: str) -> Entry:
        """Register a socket that opened and follow its login.

        :param address: of the client, as ``REMOTE_ADDR`` says it.
        """
        now = self._clock()
        entry = self.identities.register(socket, identity, address, now)
        if not self._wanted and (identity.user is not None or identity.session_digest):
            self._wanted = True
            self._subscribe(now)
        return entry

    def tick(self, now: float) -> None:
        """About once a second: ask about the logins that are due."""
        accounts = self.accounts
        if accounts is None:
            return  # no consumer yet
        self._subscribe(now)
        if self._asking_since is not None:
            if now - self._asking_since > SLOW and not self._complained:
                self._complained = True
                log.warning(
                    "the database has not said for %.0f s whether logins still hold: sockets stay "
                    "open until it does",
                    now - self._asking_since,
                )
            return
        asked: list[Entry] = []
        asking: list[Credentials] = []
        for entry in self.identities.due(now, BATCH):
            if entry.expires is not None and now >= entry.expires:
                self._close(entry.socket, EXPIRED)
                continue
            login = entry.credentials
            if login is None:
                self.identities.plan(entry, now)  # only its time can end it
            else:
                asked.append(entry)
                asking.append(login)
        if asking:
            self._asking_since = now
            self._complained = False
            self._pool.submit(partial(self._ask, accounts, asked, asking))

    # -- from the fan-out

    def deliver(self, event: Event) -> None:
        """A message on ``CHANNEL``."""
        if self.accounts is None:
            return
        note = self.accounts.read(event.text) if event.kind == TEXT else None
        if note is None:
            self.refused += 1
            if self._quiet_refused.allows():
                log.warning(
                    "a message on the channel %s is not signed with this site's SECRET_KEY and is "
                    "ignored: give each site a --pulse-app-name of its own, and all of its "
                    "processes the same key",
                    CHANNEL,
                )
            return
        now = self._clock()
        sockets = apply(note, self.identities, now)
        for socket in sockets:
            self._close(socket, note.reason)
        if sockets:
            whose = "a session" if note.user is None else f"user {note.user}"
            log.info("%s: %s; sockets closed: %d", whose, note.reason, len(sockets))
        self.tick(now)

    def gap(self, channel: str, position: str | None) -> None:
        """Messages were lost: look at everybody."""
        self.identities.hurry_all(self._clock(), GAP_WITHIN)

    # -- inside

    def _subscribe(self, now: float) -> None:
        if self._wanted and now >= self._subscribe_at:
            self._subscribe_at = float("inf")
            self._fanout.add(CHANNEL, self, self._subscribed)

    def _subscribed(self, outcome: object) -> None:
        now = self._clock()
        if isinstance(outcome, SubscribeError):
            self._subscribe_at = now + RETRY
            if self._quiet_unheard.allows():
                log.warning(
                    "%s: a logout ends the sockets of its user only at their next check", outcome
                )
        else:
            # What was said before the confirmation was not heard.
            self.identities.hurry_all(now, GAP_WITHIN)

    def _ask(self, accounts: Accounts, asked: list[Entry], logins: list[Credentials]) -> None:
        """On a pool member."""
        verdicts: list[Verdict] | None = None
        error: Exception | None = None
        try:
            verdicts = accounts.check(logins)
        except Exception as failure:
            error = failure
        finally:
            self._pool.call_hub(self._answered, asked, verdicts, error)

    def _answered(
        self, asked: list[Entry], verdicts: list[Verdict] | None, error: Exception | None
    ) -> None:
        now = self._clock()
        self._asking_since = None
        if verdicts is None:
            for entry in asked:
                self.identities.postpone(entry, now, RETRY)
            if self._quiet_unchecked.allows():
                log.warning(
                    "%d logins could not be checked (%s): their sockets stay open, and it is tried "
                    "again in %g s",
                    len(asked),
                    _one_line(error),
                    RETRY,
                )
            return
        self.checked += len(asked)
        for entry, verdict in zip(asked, verdicts, strict=True):
            if not verdict.reason:
                self.identities.plan(entry, now, verdict.expires_in)
            elif entry.socket is not None:
                log.info("user %s: %s; a socket is closed", entry.user, verdict.reason)
                self._close(entry.socket, verdict.reason)
        self.tick(now)

    def _close(self, socket: Socket | None, reason: str) -> None:
        if socket is not None:
            self.closed += 1
            self.identities.unregister(socket)  # nobody is asked about it again
            socket.close(UNAUTHENTICATED, reason)


def _one_line(error: Exception | None) -> str:
    if error is None:
        return "the check was interrupted"
    return (str(error).strip() or type(error).__name__).splitlines()[0]
