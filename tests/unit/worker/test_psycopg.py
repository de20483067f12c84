"""Which queries are cancelled, how, and what is never done, on drivers that are written here."""

import logging
import sys
import threading
from types import SimpleNamespace

import gevent
import psycopg2
import pytest
from psycopg2.extensions import (
    TRANSACTION_STATUS_ACTIVE,
    TRANSACTION_STATUS_IDLE,
    TRANSACTION_STATUS_INTRANS,
    TRANSACTION_STATUS_UNKNOWN,
)

from gpulse.worker import psycopg
from gpulse.worker.psycopg import CANCEL_SECONDS, CANCELS, WaitCallback, cancelling


class Stopped(BaseException):
    pass


class Connection:
    """As much of psycopg2's as is asked for."""

    pgconn_ptr = 4711

    def __init__(self, status=TRANSACTION_STATUS_ACTIVE):
        self.info = SimpleNamespace(transaction_status=status, backend_pid=99)


class Libpq:
    """Remembers the life of each key."""

    def __init__(self, fails=b"", no_key=False):
        self.fails = fails
        self.no_key = no_key
        self.hold = threading.Event()
        self.hold.set()
        self.keys = 0
        self.events = []
        self.threads = set()
        self.sending = 0
        self.most = 0

    def PQgetCancel(self, connection):  # noqa: N802 - libpq's names
        assert connection == Connection.pgconn_ptr
        if self.no_key:
            return None
        self.keys += 1
        return self.keys

    def PQcancel(self, key, message, size):  # noqa: N802
        self.threads.add(threading.get_ident())
        self.events.append(("cancel", key))
        self.sending += 1
        self.most = max(self.most, self.sending)
        assert self.hold.wait(10)
        self.sending -= 1
        message.value = self.fails
        return 0 if self.fails else 1

    def PQfreeCancel(self, key):  # noqa: N802
        self.events.append(("free", key))


def callback(libpq, error=None):
    def wait(connection):
        if error is not None:
            raise error

    return WaitCallback(wait, libpq)


def give_up(callback, connection=None, error=Stopped):
    with pytest.raises(error):
        callback(connection or Connection())


def until(condition):
    with gevent.Timeout(10):
        while not condition():
            gevent.sleep(0.001)


@pytest.fixture(autouse=True)
def loud(caplog):
    caplog.set_level(logging.WARNING, "gpulse")


class TestPsycopg2:
    def test_a_query_that_is_given_up_is_cancelled_in_a_native_thread(self, caplog):
        libpq = Libpq()
        error = Stopped()
        wait = callback(libpq, error)
        with pytest.raises(Stopped) as raised:
            wait(Connection())
        assert raised.value is error
        assert libpq.events == [], "it waited"
        until(lambda: not wait.under_way)
        assert libpq.events == [("cancel", 1), ("free", 1)]
        assert threading.get_ident() not in libpq.threads
        assert caplog.text == ""

    @pytest.mark.parametrize("error", [gevent.Timeout(1), gevent.GreenletExit(), OSError("x")])
    def test_whatever_ends_the_wait(self, error):
        libpq = Libpq()
        wait = callback(libpq, error)
        give_up(wait, error=type(error))
        until(lambda: not wait.under_way)
        assert ("cancel", 1) in libpq.events

    def test_a_query_that_ends_by_itself_is_not(self):
        libpq = Libpq()
        callback(libpq)(Connection())
        assert libpq.keys == 0

    def test_a_query_that_failed_is_not(self):
        libpq = Libpq()
        give_up(callback(libpq, psycopg2.OperationalError("gone")), error=psycopg2.OperationalError)
        assert libpq.keys == 0

    @pytest.mark.parametrize(
        "status",
        [TRANSACTION_STATUS_IDLE, TRANSACTION_STATUS_INTRANS, TRANSACTION_STATUS_UNKNOWN],
    )
    def test_a_session_without_a_query_is_left_alone(self, status):
        libpq = Libpq()
        give_up(callback(libpq, Stopped()), Connection(status))
        assert libpq.keys == 0

    def test_a_session_without_a_key(self):
        wait = callback(Libpq(no_key=True), Stopped())
        give_up(wait)
        assert wait.under_way == 0

    def test_a_request_that_fails_is_logged(self, caplog):
        libpq = Libpq(fails=b"PQcancel() -- connect() failed: Connection refused\n")
        wait = callback(libpq, Stopped())
        give_up(wait)
        until(lambda: not wait.under_way)
        assert libpq.events[-1] == ("free", 1)
        assert "backend 99" in caplog.text
        assert "connect() failed: Connection refused;" in caplog.text
        assert "client_connection_check_interval" in caplog.text

    def test_without_a_thread_it_is_logged(self, caplog, monkeypatch):
        def apply(*_):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(
            psycopg, "get_hub", lambda: SimpleNamespace(threadpool=SimpleNamespace(apply=apply))
        )
        wait = callback(Libpq(), Stopped())
        give_up(wait)
        until(lambda: not wait.under_way)
        assert "can't start new thread" in caplog.text

    def test_few_are_sent_at_once_and_the_others_wait(self):
        libpq = Libpq()
        libpq.hold.clear()
        wait = callback(libpq, Stopped())
        for _ in range(CANCELS * 3):
            give_up(wait)
        until(lambda: libpq.sending == CANCELS)
        assert wait.under_way == CANCELS * 3
        libpq.hold.set()
        until(lambda: not wait.under_way)
        assert libpq.most == CANCELS
        assert sum(event == "free" for event, _ in libpq.events) == CANCELS * 3

    def test_too_many_are_dropped_and_told(self, monkeypatch, caplog):
        monkeypatch.setattr(psycopg, "CANCELS_QUEUED", 2)
        libpq = Libpq()
        libpq.hold.clear()
        wait = callback(libpq, Stopped())
        for _ in range(3):
            give_up(wait)
        assert libpq.keys == 2
        assert "is not cancelled: 2 cancel requests wait" in caplog.text
        libpq.hold.set()
        until(lambda: not wait.under_way)


class TestInstall:
    @pytest.fixture
    def registered(self, monkeypatch):
        calls = []
        monkeypatch.setattr(psycopg2.extensions, "set_wait_callback", calls.append)
        monkeypatch.setitem(sys.modules, "psycopg", None)
        return calls

    def test_psycopg2_gets_the_callback(self, registered):
        psycopg.install()
        (wait,) = registered
        assert isinstance(wait, WaitCallback)

    def test_libpqs_functions_are_found(self):
        from psycopg2 import _psycopg

        libpq = psycopg._libpq(_psycopg.__file__)
        assert libpq.PQgetCancel(None) is None  # there is no connection
        libpq.PQfreeCancel(None)

    def test_without_them_psycopg2_still_cooperates(self, registered, monkeypatch, caplog):
        from psycogreen.gevent import gevent_wait_callback

        def missing(path):
            raise AttributeError(f"{path}: undefined symbol: PQgetCancel")

        monkeypatch.setattr(psycopg, "_libpq", missing)
        psycopg.install()
        assert registered == [gevent_wait_callback]
        assert "undefined symbol" in caplog.text

    def test_without_drivers_there_is_nothing_to_do(self, registered, monkeypatch):
        monkeypatch.setitem(sys.modules, "psycopg2", None)
        psycopg.install()
        assert registered == []

    def test_psycopg_3_is_wrapped_where_it_is_installed(self, registered, monkeypatch):
        module, connection = Psycopg(), Psycopg3Connection()
        module.Connection = SimpleNamespace(wait=lambda *arguments: arguments)
        monkeypatch.setitem(sys.modules, "psycopg", module)
        psycopg.install()
        assert module.Connection.wait(connection, "query", 0.1) == (connection, "query", 0.1)


class Psycopg:
    """As much of the module psycopg as is asked for."""

    pq = SimpleNamespace(TransactionStatus=SimpleNamespace(ACTIVE=1, IDLE=0))

    def __init__(self, safe=True):
        self.capabilities = SimpleNamespace(has_cancel_safe=lambda: safe)


class Psycopg3Connection:
    """As much of psycopg's."""

    def __init__(self, status=1, error=None):
        self.events = []
        self.error = error
        self.pgconn = SimpleNamespace(
            transaction_status=status, backend_pid=99, finish=lambda: self.events.append("finish")
        )

    def cancel_safe(self, *, timeout):
        self.events.append(("cancel", timeout))
        if self.error is not None:
            raise self.error


class TestPsycopg3:
    def wait(self, connection, error, module=None, expected=None):
        def plain_wait(connection, query):
            raise error

        with pytest.raises(expected or type(error)) as raised:
            cancelling(plain_wait, module or Psycopg())(connection, "query")
        return raised.value

    def test_a_query_that_is_given_up_is_cancelled_and_the_session_closed(self, caplog):
        connection, error = Psycopg3Connection(), Stopped()
        assert self.wait(connection, error) is error
        assert connection.events == [("cancel", CANCEL_SECONDS), "finish"]
        assert caplog.text == ""

    def test_a_query_that_failed_is_not(self):
        connection = Psycopg3Connection()
        self.wait(connection, ValueError("SQL"))
        assert connection.events == []

    def test_a_session_without_a_query_is_left_alone(self):
        connection = Psycopg3Connection(status=0)
        self.wait(connection, Stopped())
        assert connection.events == []

    def test_a_cancel_that_fails_is_logged_and_hides_nothing(self, caplog):
        connection, error = Psycopg3Connection(error=OSError("refused")), Stopped()
        assert self.wait(connection, error) is error
        assert connection.events[-1] == "finish"
        assert "backend 99" in caplog.text
        assert "refused" in caplog.text

    def test_an_old_libpq_is_not_asked_for_it_would_block(self, caplog):
        connection = Psycopg3Connection()
        self.wait(connection, Stopped(), Psycopg(safe=False))
        assert connection.events == ["finish"]
        assert "older than 17" in caplog.text

    def test_interrupted_again_while_it_cancels(self):
        connection = Psycopg3Connection(error=gevent.GreenletExit())
        self.wait(connection, Stopped(), expected=gevent.GreenletExit)
        assert connection.events[-1] == "finish"
