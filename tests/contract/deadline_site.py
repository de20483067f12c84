"""Run by ``test_deadline_postgres``: stops a job of a greenlet pool in a query of Django's.

``deadline_site.py DRIVER CASE URL PID``: the driver is psycopg2 or psycopg, PID the server's.  In
a process of its own, patched as a greenlet worker is.  Prints a JSON object: what was seen.
"""

from gevent import monkey

monkey.patch_all()

import itertools  # noqa: E402 - patching comes first
import json  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from urllib.parse import parse_qs, urlsplit  # noqa: E402

import gevent  # noqa: E402

DEADLINE = 10.0
MARK = f"gpulse_{os.getpid()}"

driver, case, url, server = sys.argv[1:]
if driver == "psycopg2":
    sys.modules["psycopg"] = None  # Django would prefer it

from gpulse.worker import psycopg  # noqa: E402

psycopg.install()

import django  # noqa: E402
import psycopg2  # noqa: E402 - the observer's driver in any case
from django.conf import settings  # noqa: E402

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "postgres",
            "HOST": parse_qs(urlsplit(url).query)["host"][0],
            # The hardest case: a connection that is kept, and nobody looks whether it works.  What
            # the application does to its connection itself is for Django's check to find.
            "CONN_MAX_AGE": None,
            "CONN_HEALTH_CHECKS": case == "timeout",
            "OPTIONS": {"application_name": MARK},
        }
    }
)
django.setup()

from django.core.signals import request_finished, request_started  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.db.backends.postgresql.psycopg_any import is_psycopg3  # noqa: E402

from gpulse.worker.application import close_database_connections  # noqa: E402
from gpulse.worker.greenlets import GreenletPool  # noqa: E402

assert is_psycopg3 is (driver == "psycopg")


class Stopped(BaseException):
    """What is raised."""


class Lines(logging.Handler):
    """What was logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


logged = Lines()
logging.getLogger("gpulse").addHandler(logged)
logging.getLogger("gpulse").propagate = False
observer = psycopg2.connect(url)
observer.autocommit = True
hub = gevent.get_hub()


def ask(query, *parameters):
    with observer.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchone()[0]


def queries():
    """Those of ours that the server works at."""
    return ask(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'active'",
        MARK,
    )


def sessions():
    return ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", MARK)


def until(condition):
    """Seconds until it is so."""
    begun = time.monotonic()
    with gevent.Timeout(DEADLINE):
        while not condition():
            gevent.sleep(0.01)
    return time.monotonic() - begun


def on_hub(call, *args):
    done = []
    hub.loop.run_callback(lambda: done.append(call(*args)))
    gevent.sleep(0)
    return done[0]


# -- what is stopped


def sleep(cursor):
    cursor.execute("SELECT pg_sleep(30)")


def autocommit():
    with connection.cursor() as cursor:
        sleep(cursor)


def atomic():
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO marks VALUES (1)")
        sleep(cursor)


def savepoint():
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO marks VALUES (2)")
        with transaction.atomic():
            sleep(cursor)


def iterator():
    """A server-side cursor, stopped in a FETCH."""
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute("SELECT n, pg_sleep(0.01) FROM generate_series(1, 3000) n")
        assert cursor.fetchmany(2)
        while cursor.fetchmany(1000):
            pass


def iterator_in_autocommit():
    with connection.chunked_cursor() as cursor:
        cursor.execute("SELECT n, pg_sleep(0.001) FROM generate_series(1, 5000) n")
        while cursor.fetchmany(1000):
            pass


def cannot_reconnect():
    """At the end of a transaction Django opens a connection in place of the lost one; that may
    fail, and then this is what comes out of the application."""
    atomic()


def swallowed():
    """It catches what it should not, and uses the connection again."""
    try:
        autocommit()
    except BaseException as error:
        came.append(type(error).__name__)
    autocommit()


def timeout():
    """The application's own deadline."""
    with gevent.Timeout(0.3):
        autocommit()


def idle_in_transaction():
    """Stopped beside the database: no query is under way."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO marks VALUES (3)")
        gevent.sleep(DEADLINE)


def listening():
    """A session that listens has no query under way and is left alone."""
    with connection.cursor() as cursor:
        cursor.execute("LISTEN something")
    raw = connection.connection
    try:
        gevent.socket.wait_read(raw.fileno(), timeout=DEADLINE)
    finally:
        came.append("closed" if raw.closed else "open")


def next_request():
    """As Django begins and ends each."""
    request_started.send(sender=None, environ={})
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM marks")
        answers.append(cursor.fetchone()[0])
    with connection.cursor() as cursor:
        cursor.execute("SELECT 7")
        answers.append(cursor.fetchone()[0])
    request_finished.disconnect(django.db.close_old_connections)
    request_finished.send(sender=None)


came, causes, answers = [], [], []


def watched(call):
    def job():
        try:
            call()
            came.append("ended")
        except BaseException as error:
            came.append(type(error).__name__)
            while error.__context__ is not None and not isinstance(error, Stopped):
                error = error.__context__
            causes.append(type(error).__name__)

    return job


def stop(call):
    """One job is stopped, and the next runs."""
    pool = GreenletPool(1, close_database_connections)
    on_hub(pool.submit, next_request)
    until(lambda: len(answers) == 2)
    job = watched(call)
    on_hub(pool.submit, job)
    seen = {}
    if call in (idle_in_transaction, listening):
        gevent.sleep(0.3)
    else:
        until(queries)
    database = settings.DATABASES["default"]
    host = database["HOST"]
    if call is cannot_reconnect:
        database["HOST"] = "/nonexistent"
    if call is not timeout:
        assert on_hub(pool.interrupt, job, Stopped())
    until(lambda: came)
    database["HOST"] = host
    seen["gone after"] = until(lambda: not queries())
    on_hub(pool.submit, next_request)
    until(lambda: len(answers) == 4)
    seen["sessions"] = sessions()
    seen["counts"] = [pool.busy, pool.queued, pool.alive]
    return seen


def many():
    """As many as the pool has, at once."""
    pool = GreenletPool(20, close_database_connections)
    jobs = [watched(atomic) for _ in range(20)]
    for job in jobs:
        on_hub(pool.submit, job)
    until(lambda: queries() == 20)
    on_hub(lambda: [pool.interrupt(job, Stopped()) for job in jobs])
    gone = until(lambda: not queries())
    until(lambda: pool.busy == 0)
    return {"gone after": gone, "sessions": sessions()}


def server_hangs():
    """Cancel requests wait for a server that does not answer; nothing else does."""
    pool = GreenletPool(10, close_database_connections)
    jobs = [watched(autocommit) for _ in range(6)]
    for job in jobs:
        on_hub(pool.submit, job)
    until(lambda: queries() == 6)
    ticks = [time.monotonic()]

    def tick():
        while True:
            gevent.sleep(0.01)
            ticks.append(time.monotonic())

    ticking = gevent.spawn(tick)
    os.kill(int(server), signal.SIGSTOP)
    try:
        for job in jobs:
            on_hub(pool.interrupt, job, Stopped())
        took = until(lambda: pool.busy == 0)
        gevent.sleep(0.2)
        files = hub.threadpool.apply(int, ("7",))
    finally:
        os.kill(int(server), signal.SIGCONT)
    gone = until(lambda: not queries())
    ticking.kill()
    return {
        "stood still": max(after - before for before, after in itertools.pairwise(ticks)),
        "took": took,
        "file thread": files,
        "gone after": gone,
    }


CASES = {
    "autocommit": autocommit,
    "atomic": atomic,
    "savepoint": savepoint,
    "iterator": iterator,
    "iterator in autocommit": iterator_in_autocommit,
    "cannot reconnect": cannot_reconnect,
    "swallowed": swallowed,
    "timeout": timeout,
    "idle in transaction": idle_in_transaction,
    "listening": listening,
}

if __name__ == "__main__":
    ask("CREATE TABLE IF NOT EXISTS marks (n int); SELECT 1")
    if case == "many":
        seen = many()
    elif case == "server hangs":
        seen = server_hangs()
    else:
        seen = stop(CASES[case])
    json.dump(
        seen | {"came": came, "causes": causes, "answers": answers, "log": logged.lines}, sys.stdout
    )
