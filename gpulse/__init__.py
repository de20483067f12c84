"""gpulse serves a Django site, its WebSockets and its pub/sub from one command.

``import gpulse`` costs nothing and imports neither gevent nor Django nor a store client: the cold
master does it too.  What needs one of them is imported at its first use.
"""

from typing import Any

__version__ = "0.1.0"

__all__ = ["__version__", "presence", "publish"]


def publish(channel: str, message: Any) -> int:
    """Publish ``message`` on ``channel`` to every subscriber of every process of the site.

    Works anywhere: in a view, a signal receiver, a management command, a task queue's worker.

    :param channel: 1 to 200 bytes of UTF-8 without spaces or control characters.
    :param message: str, bytes, or anything that JSON can express.
    :returns: the number of subscriptions (not of sockets) that the store handed it to.
    :raises PublishError: the store does not answer; the message was not delivered or, after a
        timeout, perhaps was.
    """
    from gpulse import store  # stays out of the cold master, which imports this package

    return store.publish(channel, message)


def presence(channel: str) -> list[str]:
    """The members present in ``channel`` now, over all processes of the site, sorted.

    :raises StoreError: the store did not answer.
    """
    from gpulse import store  # stays out of the cold master, which imports this package

    return sorted(store.current().members(channel))
