"""The primary that sentinels name.

Sentinels watch a primary and its replicas, and when it is gone they make a replica the primary.
Clients ask one of them where the primary is, connect there, and make sure with ROLE that it is one:
for some moments around a failover a sentinel names a server that is dead, or was demoted.

A connection is lost when its server dies, and when the sentinels demote it (CLIENT KILL).  Either
way the next one asks again.  A server that was demoted without that is noticed by ROLE, which goes
along with the commands once a second, by its refusal to write (READONLY), and by
:func:`watch`: sentinels publish ``+switch-master``.

The sentinel that answered is asked first the next time; one that does not answer costs no more than
its share of the time there is.

Source: https://valkey.io/topics/sentinel-clients/, https://valkey.io/topics/sentinel/
"""

import time
from collections.abc import Callable
from typing import Any

import hiredis

from gpulse.store.endpoint import Endpoint
from gpulse.store.ledger import pack
from gpulse.store.link import AwayError, Dialer, Link, remaining
from gpulse.storeurl import StoreURL

LEAST = 0.05
"""Seconds at least that one sentinel is given."""
ROLE = pack(b"ROLE")
LOGIN = ("NOAUTH", "WRONGPASS", "AUTH <password>")
"""What is in the errors of a server that wants another log-in, or none."""


class SentinelRoute:
    """The way to the primary of ``url.service``."""

    probe = ROLE

    def __init__(self, url: StoreURL, dialer: Dialer) -> None:
        self._sentinels = [Endpoint(host, port) for host, port in url.nodes]
        self._url = url
        self._dialer = dialer

    def open(self, deadline: float, *commands: bytes) -> Link:
        primary = self.locate(deadline)
        try:
            link, replies = self._dialer.open(primary, deadline, ROLE, *commands)
        except (OSError, AwayError) as failure:
            # Or it would read as if a sentinel had failed.
            raise AwayError(f"the primary {primary}: {failure}") from None
        if not self.accepts(replies[0]):
            link.close()
            # Another sentinel may know better.
            self._sentinels.append(self._sentinels.pop(0))
            raise AwayError(f"{primary}, which its sentinels name, is not a primary; a failover?")
        return link

    def accepts(self, reply: object) -> bool:
        """Whether a reply to ROLE is a primary's."""
        return isinstance(reply, list) and reply[:1] == [b"master"]

    def locate(self, deadline: float) -> Endpoint:
        """Where the sentinels say that the primary is.

        :raises AwayError: none says so by ``deadline``; the message tells what each did.
        """
        reasons = []
        for tried, sentinel in enumerate(list(self._sentinels)):
            # One share is kept for the primary itself.
            share = max(LEAST, remaining(deadline) / (len(self._sentinels) - tried + 1))
            try:
                found = self._ask(sentinel, min(deadline, time.monotonic() + share))
            except (OSError, AwayError, hiredis.HiredisError) as failure:
                reasons.append(f"{sentinel}: {failure or type(failure).__name__}")
                continue
            if found is None:
                reasons.append(f"{sentinel}: it knows no {self._url.service}")
                continue
            if tried:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
            return found
        told = "; ".join(reasons)
        if any(word in told for word in LOGIN):
            told += "; to log in at sentinels the URL has sentinel_username and sentinel_password"
        raise AwayError(f"no sentinel names the primary ({told})")

    def _ask(self, sentinel: Endpoint, deadline: float) -> Endpoint | None:
        ask = pack(b"SENTINEL", b"get-master-addr-by-name", self._url.service.encode())
        link, (reply,) = self._dialer.open(sentinel, deadline, ask, login=self._login())
        link.close()
        if reply is None:
            return None
        host, port = reply
        return Endpoint(host.decode(), int(port))

    def _login(self) -> tuple[str | None, str | None]:
        return self._url.sentinel_username, self._url.sentinel_password

    def watch(self, deadline: float, hear: Callable[[Link], Any]) -> None:
        """Subscribe to ``+switch-master`` at a sentinel and hand the connection to ``hear``.

        :raises AwayError, OSError: no sentinel answers by ``deadline``.
        """
        self.locate(deadline)  # who answers is the first now
        subscribe = pack(b"SUBSCRIBE", b"+switch-master")
        link, _ = self._dialer.open(self._sentinels[0], deadline, subscribe, login=self._login())
        try:
            hear(link)
        finally:
            link.close()

    def is_switch(self, reply: Any) -> bool:
        """Whether a message of the watched channel is about our primary."""
        return (
            isinstance(reply, list)
            and len(reply) == 3
            and reply[0] == b"message"
            and reply[2].split(b" ")[0] == self._url.service.encode()
        )
