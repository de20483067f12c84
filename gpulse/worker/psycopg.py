"""PostgreSQL drivers in a greenlet worker: they wait on the hub, and their queries can be stopped.

What makes them wait on the hub is psycogreen's callback for psycopg2, and psycopg 3 itself.  This
module adds what neither does.  An exception that is raised where a query is waited for (a request's
deadline, ``gevent.Timeout``, a greenlet that is killed) ends the wait, but in PostgreSQL the query
runs on: a server that computes does not look whether its client is still there.

psycopg2 closes a connection on which the callback raised.  Before that we copy its cancel key, and
then send PostgreSQL's cancel request beside everything else, in a native thread of gevent's.  Not
with ``connection.cancel()``: that is the blocking ``PQcancel`` with the GIL held, so one database
server that does not answer would stop the hub.  ``ctypes`` lets go of the GIL, and the copy of the
key (``PQgetCancel``) lives until the thread is done with it, whatever becomes of the connection.
Nobody waits for the request: if it comes too late, the key fits no session any more.

psycopg 3 sees to KeyboardInterrupt only.  After anything else it leaves the connection as it is,
with a query under way.  Its ``cancel_safe`` waits on the hub, so the member calls it, for
CANCEL_SECONDS at most, and then closes the connection.

A session that has no query under way is left alone: one that is being opened, one that listens.
Runs on the hub's thread and its greenlets, after gevent's patching; not used in thread mode.

Sources: libpq, "Canceling Queries in Progress"; psycopg/green.c and connection_type.c of psycopg2.
"""

import ctypes
import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any

from gevent import get_hub, spawn
from gevent.lock import BoundedSemaphore

log = logging.getLogger("gpulse.worker")

CANCELS = 4
"""Cancel requests to PostgreSQL that are sent at once, in as many of gevent's ten native threads:
where a server does not answer, the others are left for files and names."""
CANCELS_QUEUED = 1000
"""Cancel requests that are under way or wait for a thread, per worker; what is more is dropped, and
the query runs to its end."""
CANCEL_SECONDS = 2.0
"""How long psycopg 3 may take to cancel a query before its connection is closed."""

_MESSAGE = 256  # what libpq recommends for an error's text

_ADVICE = (
    "it runs on in PostgreSQL until it ends or client_connection_check_interval finds it abandoned"
)


def install() -> None:
    """Prepare the drivers that are installed."""
    _install_psycopg2()
    _install_psycopg()


def _install_psycopg2() -> None:
    try:
        from psycopg2 import _psycopg, extensions
    except ImportError:
        return
    from psycogreen.gevent import gevent_wait_callback

    try:
        libpq = _libpq(_psycopg.__file__)
    except (OSError, AttributeError) as error:
        log.warning(
            "psycopg2's libpq has no cancel functions (%s): if a query is given up, %s",
            error,
            _ADVICE,
        )
        extensions.set_wait_callback(gevent_wait_callback)
        return
    extensions.set_wait_callback(WaitCallback(gevent_wait_callback, libpq))


def _libpq(path: str) -> Any:
    """The cancel functions of the libpq that psycopg2 uses, which may lie in its wheel.

    :param path: psycopg2's C module: a look-up in it goes on in what it was linked with.
    :raises OSError: it cannot be opened.
    :raises AttributeError: it has them built in, where no look-up finds them.
    """
    library = ctypes.CDLL(path)
    library.PQgetCancel.argtypes = [ctypes.c_void_p]
    library.PQgetCancel.restype = ctypes.c_void_p
    library.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    library.PQcancel.restype = ctypes.c_int
    library.PQfreeCancel.argtypes = [ctypes.c_void_p]
    library.PQfreeCancel.restype = None
    return library


class WaitCallback:
    """psycopg2's wait callback.

    :param wait: waits until a connection is done with what it does: psycogreen's callback.
    :param libpq: has ``PQgetCancel``, ``PQcancel`` and ``PQfreeCancel``.
    """

    def __init__(self, wait: Callable[[Any], None], libpq: Any) -> None:
        from psycopg2 import Error
        from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE

        self._wait = wait
        self._libpq = libpq
        self._error = Error
        self._active = TRANSACTION_STATUS_ACTIVE
        self._turns = BoundedSemaphore(CANCELS)

        self.under_way = 0

    def __call__(self, connection: Any) -> None:
        try:
            self._wait(connection)
        except self._error:
            raise  # the session's own: the query has failed, or the server is gone
        except BaseException:
            self._cancel(connection)
            raise

    def _cancel(self, connection: Any) -> None:
        """Have the query of the connection cancelled; neither waits nor raises."""
        if connection.info.transaction_status != self._active:
            return
        pid = connection.info.backend_pid
        if self.under_way >= CANCELS_QUEUED:
            log.warning(
                "the query of backend %d was given up and is not cancelled: %d cancel requests "
                "wait for PostgreSQL already; %s",
                pid,
                self.under_way,
                _ADVICE,
            )
            return
        key = self._libpq.PQgetCancel(connection.pgconn_ptr)
        if key:
            self.under_way += 1
            spawn(self._request, key, pid)

    def _request(self, key: int, pid: int) -> None:
        try:
            with self._turns:
                message = get_hub().threadpool.apply(self._send, (key,))
        except Exception as error:  # no thread could be started
            message = str(error)
        finally:
            self.under_way -= 1
        if message:
            log.warning(
                "the query of backend %d was given up and could not be cancelled: %s; %s",
                pid,
                message,
                _ADVICE,
            )

    def _send(self, key: int) -> str:
        """In a native thread: the reason why it failed, or nothing."""
        message = ctypes.create_string_buffer(_MESSAGE)
        try:
            if self._libpq.PQcancel(key, message, _MESSAGE):
                return ""
            return message.value.decode(errors="replace").strip() or "no reason given"
        finally:
            self._libpq.PQfreeCancel(key)


def _install_psycopg() -> None:
    try:
        psycopg = importlib.import_module("psycopg")
    except ImportError:
        return
    psycopg.Connection.wait = cancelling(psycopg.Connection.wait, psycopg)


def cancelling(wait: Callable[..., Any], psycopg: Any) -> Callable[..., Any]:
    """psycopg 3's ``Connection.wait``, which then cancels what it leaves.

    :param psycopg: the module.
    """
    active = psycopg.pq.TransactionStatus.ACTIVE

    @functools.wraps(wait)
    def wait_or_cancel(connection: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return wait(connection, *args, **kwargs)
        except Exception:
            raise  # the session's own: the query has failed, or the server is gone
        except BaseException:
            if connection.pgconn.transaction_status == active:
                give_up(connection)
            raise

    def give_up(connection: Any) -> None:
        pid = connection.pgconn.backend_pid
        try:
            if psycopg.capabilities.has_cancel_safe():
                connection.cancel_safe(timeout=CANCEL_SECONDS)
            else:
                # Its cancel() would stop the hub.
                log.warning(
                    "the query of backend %d was given up and is not cancelled, for the "
                    "libpq of psycopg is older than 17; %s",
                    pid,
                    _ADVICE,
                )
        except Exception as error:
            log.warning(
                "the query of backend %d was given up and could not be cancelled: %s; %s",
                pid,
                error,
                _ADVICE,
            )
        finally:
            # Not close(), which may give it back to a pool.
            connection.pgconn.finish()

    return wait_or_cancel
