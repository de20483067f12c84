"""gpulse serves a Django site, its WebSockets and its pub/sub from one command.

``import gpulse`` costs nothing and imports neither gevent nor Django nor a store client: the cold
master does it too.  What needs one of them is imported at its first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpulse.store.base import Receipt

__version__ = "0.1.0"

__all__ = ["__version__", "presence", "publish", "roster"]


def publish(
    channel: str,
    message: Any,
    *,
    key: str = "",
    on_commit: bool = False,
    using: str | None = None,
) -> "Receipt | None":
    """Publish ``message`` on ``channel`` to every subscriber of every process of the site.

    Works anywhere: in a view, a signal receiver, a management command, a task queue's worker.

    :param channel: 1 to 200 bytes of UTF-8 without spaces or control characters.
    :param message: str, bytes, or anything that JSON can express.
    :param key: an idempotency key of 1 to 100 printable ASCII characters: repeated with the same
        key the message is published once.  For channels with a history.
    :param on_commit: publish when the transaction of ``using`` commits, at once if there is none,
        and never if it is rolled back.  The message is encoded now.  As the data are saved by then,
        a store that is away is logged and raises nothing.
    :param using: the database's alias; the default one if it is None.
    :returns: a :class:`~gpulse.store.base.Receipt`: how many workers were subscribed, and the
        message's position; None with ``on_commit``.
    :raises PublishError: the store does not answer; the message was not delivered or, after a
        timeout, perhaps was.
    :raises ValueError: a bad channel or key, or a message that is too long.
    :raises TypeError: a message that JSON cannot hold.
    """
    from gpulse import store  # stays out of the cold master, which imports this package

    if not on_commit:
        return store.publish(channel, message, key=key)
    store.publish_on_commit(channel, message, key=key, using=using)
    return None


def presence(channel: str) -> list[str]:
    """The members present in ``channel`` now, over all processes of the site, sorted.

    :raises StoreError: the store did not answer.
    """
    return sorted(roster(channel))


def roster(channel: str) -> dict[str, int]:
    """The members present in ``channel`` now, each with its number of open connections.

    The numbers are exact within about a tenth of a second.

    :raises StoreError: the store did not answer.
    """
    from gpulse import store  # stays out of the cold master, which imports this package

    return store.current().members(channel)
