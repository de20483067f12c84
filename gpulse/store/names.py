"""What channels and their keys are called on the wire.

::

    {APP:DB:CHANNEL}                  a channel
    {APP:DB:CHANNEL}:stream           its history
    {APP:DB:CHANNEL}:position         where its history stands
    {APP:DB:CHANNEL}:key:KEY          what was published with an idempotency key
    {APP}:presence...                 presence, see :mod:`gpulse.store.scripts`
    {APP}:notes                       a cluster's messages of presence

The braces are a cluster's hash tag: a channel and its keys lie in one slot, and different channels
in different ones; all of presence lies in one.  A tag ends at the first ``}``, which a channel may
hold: the tag is shorter then, and the same for its keys.  The database number is in the name for a
server's PUBLISH knows none.

No two names are the same on the wire: APP is percent-encoded where it holds ``%`` or ``:``, and KEY
where it holds anything but letters, digits and ``_.-~``.

Pure.  Source: https://valkey.io/topics/cluster-spec/ (hash tags).
"""

from urllib.parse import quote

from gpulse.store.base import check_channel


class Names:
    """The names of one site on one database number.

    :param app_name: without spaces and braces; see ``--pulse-app-name``.
    """

    __slots__ = ("_prefix", "notes", "presence")

    def __init__(self, app_name: str, db: int) -> None:
        tag = app_name.replace("%", "%25").replace(":", "%3A").encode()
        self._prefix = b"{%s:%d:" % (tag, db)
        self.presence = b"{%s}:presence" % tag
        """The first key of presence; the others begin with it."""
        self.notes = b"{%s}:notes" % tag
        """The channel of a cluster's messages of presence, in the slot of ``presence``."""

    def wire(self, channel: str) -> bytes:
        """The name of a channel on the wire.  :raises ValueError: not a channel name."""
        return b"%s%s}" % (self._prefix, check_channel(channel).encode())

    def channel(self, wire: bytes) -> str:
        """The channel of a name on the wire.

        :raises ValueError: it is none of this site and database.
        """
        if not (wire.startswith(self._prefix) and wire.endswith(b"}")):
            raise ValueError(f"{wire!r:.80} is no channel of this site")
        return wire[len(self._prefix) : -1].decode()

    def glob(self, pattern: str) -> bytes:
        """A pattern in which ``*`` is any run of characters, as the server's PUBSUB takes it."""
        plain = "".join(f"\\{each}" if each in "\\?[]" else each for each in pattern)
        escaped = "".join(f"\\{each}" if each in "\\*?[]" else each for each in self._text())
        return f"{escaped}{plain}}}".encode()

    def _text(self) -> str:
        return self._prefix.decode()


def stream(wire: bytes) -> bytes:
    """The key of a channel's history."""
    return wire + b":stream"


def position(wire: bytes) -> bytes:
    """The key of a channel's newest position."""
    return wire + b":position"


def idempotency(wire: bytes, key: str) -> bytes:
    """The key that remembers a publish with an idempotency key."""
    return b"%s:key:%s" % (wire, quote(key, safe="").encode())


def pair(first: bytes, second: bytes) -> bytes:
    """Two strings in one, whatever they hold: the length of the first, a colon, both."""
    return b"%d:%s%s" % (len(first), first, second)


def unpair(both: bytes) -> tuple[bytes, bytes]:
    """What :func:`pair` put together.  :raises ValueError: it did not make this."""
    written, colon, rest = both.partition(b":")
    size = int(written)
    if not colon or not 0 <= size <= len(rest):
        raise ValueError(f"{both!r:.80} is no pair")
    return rest[:size], rest[size:]
