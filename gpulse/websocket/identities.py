"""Who is behind the sockets of a worker, so that a socket ends when its user's login does.

Every open socket has an :class:`Entry`: its address, for the bound of sockets per address; its
user, for the bound of sockets per user; and, where a login stands behind it, what is needed to find
out later whether that login still holds (:class:`Credentials`).  Asking is the matter of
:mod:`gpulse.websocket.watch`; here is only who is to be asked about, and when:

* soon after a socket opened (what happened while its handshake was under way),
* when the session is expected to end,
* and in any case within ``RECHECK`` seconds.

Session keys are secrets.  They stay in the memory of the worker that got them in a cookie; what
travels between workers is a keyed digest (``Identity.session_digest``).

On the hub only, so there is no lock.  Pure: time is passed in, in monotonic seconds.  A socket
costs about 0.3 KB here: entries are packed, and the timetable is a wheel of whole seconds in which
the entries of gone sockets lie until their second comes, at most ``RECHECK`` seconds.
"""

import hashlib
import random
import socket as _socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, TypeVar

RECHECK = 60.0
"""The longest time between two looks at a login: how late a change is seen that nobody announced,
such as ``QuerySet.update(is_active=False)``."""
FIRST_CHECK = 10.0
"""A new socket's login is looked at again within this time."""
SUSPICION = 10.0
"""For so long after a message about a user a socket that opens in the user's name is looked at
within ``SETTLE`` seconds: its handshake may have begun before."""
SETTLE = 2.0
"""Time for a logout to take effect: it is announced a moment before the session is deleted."""
SUSPECTS = 1000
"""Users remembered for ``SUSPICION``."""

DIGEST = 16  # bytes of a digest
LISTED = 16  # entries of one user that a list holds; a dict finds one of more sooner
RIPE = -1  # in ``Entry.due``: due now, whatever the time


class Identity(NamedTuple):
    """Who opens a socket, as the handshake's request says it."""

    user: str | None
    """Primary key of the user as text; None for a visitor who is not logged in."""
    auth_hash: str
    """What ``user.get_session_auth_hash()`` was when the login was made; empty without one."""
    session_digest: bytes
    """Names the session to other workers: 16 bytes, or none without a session of the server's."""
    session_key: str
    """Of the session that the login stands in; empty where the server keeps none."""
    backend: str
    """Dotted path of the authentication backend; empty where no session says it."""
    expires_in: float | None
    """Seconds until the session is expected to end; None if it never does or nobody knows.  With a
    session key this is a guess, for the session may be prolonged; without one it is final."""

    def __repr__(self) -> str:
        return f"<Identity of user {self.user!r}>"  # a log gets no key and no hash


ANONYMOUS = Identity(None, "", b"", "", "", None)


class Credentials(NamedTuple):
    """What decides whether a login still holds."""

    user: str
    backend: str
    auth: bytes
    """``auth_digest`` of the hash; empty: the password is not looked at."""
    session_key: str
    """Empty: no session is looked at."""

    def __repr__(self) -> str:
        return f"<Credentials of user {self.user!r}>"


class Socket(Protocol):
    """What is registered: a WebSocket session, an event stream."""

    entry: "Entry | None"
    """Of this module; None while it is not registered."""

    def close(self, code: int, reason: str) -> None:
        """Start to close."""


class Entry:
    """One registered socket.  Read-only for others.

    The digests and the key lie in one bytes object, ``_proof``: each object by itself would cost
    33 bytes more.
    """

    __slots__ = ("_proof", "backend", "due", "expires", "network", "socket", "user")

    def __init__(self, socket: Socket, identity: Identity, network: bytes) -> None:
        self._proof = identity.session_digest
        if identity.user is not None and (identity.auth_hash or identity.session_key):
            self._proof = (
                identity.session_digest.ljust(DIGEST, b"\0")
                + auth_digest(identity.auth_hash).ljust(DIGEST, b"\0")
                + identity.session_key.encode("utf-8", "surrogatepass")
            )
        self.backend = identity.backend
        self.due = 0
        """The second in which its login is looked at next; 0: in none, ``RIPE``: now."""
        self.expires: float | None = None
        """When the login ends whatever anybody says; monotonic seconds."""
        self.network = network
        self.socket: Socket | None = socket
        """None once it is unregistered."""
        self.user = identity.user

    def share(self, sibling: "Entry") -> None:
        """Use the objects of another entry of the same user where they are equal."""
        self.user = sibling.user
        if self._proof == sibling._proof:
            self._proof = sibling._proof  # another tab of the same browser

    def clear(self) -> None:
        """The socket is gone.  The entry may lie in the wheel for a while, and is small then."""
        self._proof = b""
        self.due = 0
        self.socket = None

    @property
    def session_digest(self) -> bytes:
        return self._proof[:DIGEST]

    @property
    def credentials(self) -> Credentials | None:
        """None where there is no login that could end."""
        if self.user is None or len(self._proof) <= DIGEST:
            return None
        auth, key = self._proof[DIGEST : 2 * DIGEST], self._proof[2 * DIGEST :]
        if not any(auth):
            auth = b""
        return Credentials(self.user, self.backend, auth, key.decode("utf-8", "surrogatepass"))

    @property
    def is_watched(self) -> bool:
        """There is a login, and it may end."""
        return len(self._proof) > DIGEST or self.expires is not None


Entries = Entry | list[Entry] | dict[Entry, None]
"""Of one user or session, the oldest first: one alone, a few in a list, many in a dict."""


def auth_digest(auth_hash: str) -> bytes:
    """16 bytes that stand for a session's auth hash; none for an empty one."""
    return hashlib.sha256(auth_hash.encode()).digest()[:DIGEST] if auth_hash else b""


def network_of(address: str) -> bytes:
    """What counts as one address: an IPv4 address (4 bytes), or the first 64 bits of an IPv6 one
    (8 bytes), for every household has as many of those as it likes.

    Empty, and then not counted, for anything else: the peer of a unix socket has no address.
    """
    try:
        if ":" not in address:
            return _socket.inet_pton(_socket.AF_INET, address)
        packed = _socket.inet_pton(_socket.AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return b""
    if packed.startswith(b"\0\0\0\0\0\0\0\0\0\0\xff\xff"):
        return packed[12:]  # an IPv4 client of a listener for both
    return packed[:8]


class Identities:
    """The registered sockets of a worker.

    :param recheck: the longest time between two looks at a login, in seconds.
    :param jitter: random numbers from 0 to 1, so that sockets that opened together are not looked
        at together for ever.
    """

    def __init__(
        self, recheck: float = RECHECK, jitter: Callable[[], float] = random.random
    ) -> None:
        # A user's one entry stands alone; a list of one would cost 64 bytes more.
        self._of_user: dict[str, Entries] = {}
        # Of visitors who are not logged in; the sessions of users are found by the user.
        self._of_session: dict[bytes, Entries] = {}
        self._of_network: dict[bytes, int] = {}
        self._wheel: dict[int, list[Entry]] = {}
        self._turned = -1  # the last second whose entries were taken out of the wheel
        self._ripe: deque[Entry] = deque()
        self._suspects: dict[str, float] = {}
        self._recheck = recheck
        self._jitter = jitter

    # -- in and out

    def register(self, socket: Socket, identity: Identity, address: str, now: float) -> Entry:
        """Take in a socket that opened; sets its ``entry``.

        :param address: of the client, as ``REMOTE_ADDR`` says it.
        """
        entry = Entry(socket, identity, network_of(address))
        if entry.network:
            self._of_network[entry.network] = self._of_network.get(entry.network, 0) + 1
        if entry.user is not None:
            newest = _newest(self._of_user.get(entry.user))
            if newest is not None:
                entry.share(newest)
            _add(self._of_user, entry.user, entry)
            self._plan_first(entry, identity, now)
        elif identity.session_digest:
            _add(self._of_session, identity.session_digest, entry)
        socket.entry = entry
        return entry

    def unregister(self, socket: Socket) -> None:
        """Forget a socket; nothing happens to one that is not registered."""
        entry = socket.entry
        if entry is None:
            return
        socket.entry = None
        if entry.network:
            left = self._of_network[entry.network] - 1
            if left:
                self._of_network[entry.network] = left
            else:
                del self._of_network[entry.network]
        if entry.user is not None:
            _remove(self._of_user, entry.user, entry)
        elif entry.session_digest:
            _remove(self._of_session, entry.session_digest, entry)
        entry.clear()

    # -- who

    def __len__(self) -> int:
        """Users with at least one socket."""
        return len(self._of_user)

    def entries_of_user(self, user: str) -> list[Entry]:
        """The user's entries, the oldest first; of all sessions."""
        return _of(self._of_user, user)

    def sockets_of_user(self, user: str) -> list[Socket]:
        """The user's sockets, the oldest first."""
        return [entry.socket for entry in self.entries_of_user(user) if entry.socket is not None]

    def count_of_user(self, user: str | None) -> int:
        """Sockets of the user on this worker; 0 for None, a visitor who is not logged in."""
        found = self._of_user.get(user) if user is not None else None
        if found is None:
            return 0
        return 1 if isinstance(found, Entry) else len(found)

    def count_of_address(self, address: str) -> int:
        """Sockets of the address on this worker, see :func:`network_of`; 0 where it has none."""
        return self._of_network.get(network_of(address), 0)

    def sockets_of_session(self, digest: bytes, user: str | None = None) -> list[Socket]:
        """The sockets that the session opened.

        :param user: whose session it is, where that is known; else all sockets are looked at, some
            tenth of a microsecond each.
        """
        if not digest:
            return []
        if user is not None:
            entries: Iterator[Entry] = iter(self.entries_of_user(user))
        else:
            entries = self._all_of_users()
        found = [
            entry.socket
            for entry in entries
            if entry.socket is not None and entry._proof.startswith(digest)
        ]
        found += [
            entry.socket for entry in _of(self._of_session, digest) if entry.socket is not None
        ]
        return found

    def _all_of_users(self) -> Iterator[Entry]:
        for found in self._of_user.values():
            if isinstance(found, Entry):
                yield found
            else:
                yield from found

    # -- when

    def due(self, now: float, limit: int) -> list[Entry]:
        """Entries whose login is to be looked at now, at most ``limit``; they are out of the
        timetable until :meth:`plan` puts them back."""
        wheel, ripe, second = self._wheel, self._ripe, int(now)
        if self._turned < 0:
            self._turned = second
        while self._turned < second:
            self._turned += 1
            bucket = wheel.pop(self._turned, ())
            ripe.extend(entry for entry in bucket if entry.due == self._turned)
        found: list[Entry] = []
        while ripe and len(found) < limit:
            entry = ripe.popleft()
            if entry.due and entry.due <= second:  # else it is gone, or stood in here twice
                entry.due = 0
                found.append(entry)
        return found

    def plan(self, entry: Entry, now: float, expires_in: float | None = None) -> None:
        """The login holds: look again when its session ends, and within ``recheck`` at the latest.

        :param expires_in: seconds until the session is expected to end.
        """
        wait = self._recheck * (0.75 + 0.25 * self._jitter())
        if expires_in is not None:
            wait = min(wait, expires_in)
        self._plan(entry, now, now + wait)

    def postpone(self, entry: Entry, now: float, seconds: float) -> None:
        """Nobody could say whether the login holds: ask again in ``seconds``."""
        self._plan(entry, now, now + seconds)

    def hurry(self, user: str, now: float) -> int:
        """Something happened to the user: all logins are due at once, and those that open soon are
        looked at soon.  Returns how many sockets the user has here."""
        self._suspect(user, now)
        entries = self.entries_of_user(user)
        for entry in entries:
            self._make_ripe(entry)
        return len(entries)

    def hurry_all(self, now: float, within: float) -> None:
        """Something may have happened to anybody: every login is due within ``within`` seconds."""
        for entry in self._all_of_users():
            if entry.is_watched:
                self._plan(entry, now, now + within * self._jitter())

    def _plan_first(self, entry: Entry, identity: Identity, now: float) -> None:
        if identity.expires_in is not None and not identity.session_key:
            entry.expires = now + identity.expires_in
        if not entry.is_watched:
            return
        wait = min(FIRST_CHECK, self._recheck) * (0.5 + 0.5 * self._jitter())
        if identity.expires_in is not None:
            wait = min(wait, identity.expires_in)
        if self._suspects and self._suspects.get(entry.user or "", 0.0) > now:
            wait = min(wait, SETTLE)
        self._plan(entry, now, now + wait)

    def _plan(self, entry: Entry, now: float, moment: float) -> None:
        """Never to a later time than is planned: somebody may have had a reason since."""
        if entry.socket is None or entry.due == RIPE:
            return
        if entry.expires is not None:
            moment = min(moment, entry.expires)
        if self._turned < 0:
            self._turned = int(now)
        # Rounded up, so that it is never early; and never into a second that was turned already.
        second = max(int(moment) + 1, self._turned + 1)
        if 0 < entry.due <= second:
            return
        bucket = self._wheel.setdefault(second, [])
        if bucket and bucket[0].due == second:
            second = bucket[0].due  # the same number, one object: 32 bytes less
        entry.due = second
        bucket.append(entry)

    def _make_ripe(self, entry: Entry) -> None:
        if entry.is_watched and entry.due != RIPE:
            # No second of the wheel: where the entry lies there, it is stale.
            entry.due = RIPE
            self._ripe.append(entry)

    def _suspect(self, user: str, now: float) -> None:
        suspects = self._suspects
        suspects.pop(user, None)
        suspects[user] = now + SUSPICION
        oldest = next(iter(suspects))
        while len(suspects) > SUSPECTS or suspects[oldest] <= now:
            del suspects[oldest]
            oldest = next(iter(suspects))


Key = TypeVar("Key")


def _of(table: dict[Key, Entries], key: Key) -> list[Entry]:
    found = table.get(key)
    if found is None:
        return []
    return [found] if isinstance(found, Entry) else list(found)


def _newest(found: Entries | None) -> Entry | None:
    if found is None or isinstance(found, Entry):
        return found
    return next(reversed(found))


def _add(table: dict[Key, Entries], key: Key, entry: Entry) -> None:
    found = table.get(key)
    if found is None:
        table[key] = entry
    elif isinstance(found, Entry):
        table[key] = [found, entry]
    elif isinstance(found, dict):
        found[entry] = None
    elif len(found) < LISTED:
        found.append(entry)
    else:
        table[key] = dict.fromkeys([*found, entry])


def _remove(table: dict[Key, Entries], key: Key, entry: Entry) -> None:
    found = table[key]
    if isinstance(found, Entry):
        del table[key]
    elif isinstance(found, dict):
        del found[entry]
        if not found:
            del table[key]
    else:
        found.remove(entry)
        if len(found) == 1:
            table[key] = found[0]
