"""A request that is stopped in a query of Django's, on a real PostgreSQL: the query ends there too,
nothing of its transaction stays, and the next request has a connection that works.

With psycopg2, and with psycopg 3 where it is installed.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from services import Service, start_postgres

ROOT = Path(__file__).resolve().parents[2]
DRIVERS = [name for name in ("psycopg2", "psycopg") if importlib.util.find_spec(name)]
SOON = 1.0
"""Seconds in which a query is gone from the server."""


@pytest.fixture(scope="module")
def postgres():
    with start_postgres() as server:
        yield server


@pytest.fixture(params=DRIVERS)
def driver(request):
    return request.param


def run(driver: str, case: str, postgres: Service) -> dict:
    """What ``deadline_site`` saw."""
    try:
        done = subprocess.run(
            [
                *(sys.executable, Path(__file__).with_name("deadline_site.py")),
                *(driver, case, postgres.url, str(postgres.pid)),
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        postgres.resume()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "case",
    [
        "autocommit",
        "atomic",
        "savepoint",
        "iterator",
        "iterator in autocommit",
        "idle in transaction",
    ],
)
def test_a_job_stopped_in(case, driver, postgres):
    seen = run(driver, case, postgres)
    assert seen["came"] == ["Stopped"]
    assert seen["gone after"] < SOON
    assert seen["answers"] == [0, 7, 0, 7], "the next job did not run as the first did"
    assert seen["sessions"] == 1, "a session was left behind"
    assert seen["counts"] == [0, 0, 1]
    assert seen["log"] == []


def test_an_application_that_catches_everything_finds_its_connection_closed(driver, postgres):
    seen = run(driver, "swallowed", postgres)
    assert seen["came"][0] == "Stopped"
    assert seen["came"][1] in ("InterfaceError", "OperationalError")
    assert seen["gone after"] < SOON
    assert seen["answers"] == [0, 7, 0, 7]
    assert seen["sessions"] == 1


def test_django_may_raise_an_error_of_its_own_on_the_way_out(driver, postgres):
    seen = run(driver, "cannot reconnect", postgres)
    assert (seen["came"], seen["causes"]) == (["OperationalError"], ["Stopped"])
    assert seen["gone after"] < SOON
    assert seen["answers"] == [0, 7, 0, 7]
    assert seen["sessions"] == 1


def test_a_deadline_of_the_applications_own_ends_its_query_too(driver, postgres):
    seen = run(driver, "timeout", postgres)
    assert seen["came"] == ["Timeout"]
    assert seen["gone after"] < SOON
    assert seen["answers"] == [0, 7, 0, 7]
    assert seen["sessions"] == 1


def test_a_session_that_listens_is_left_open(driver, postgres):
    seen = run(driver, "listening", postgres)
    assert seen["came"] == ["open", "Stopped"]
    assert seen["sessions"] == 1  # its member closed it in the end
    assert seen["log"] == []


def test_many_at_once(driver, postgres):
    seen = run(driver, "many", postgres)
    assert seen["came"] == ["Stopped"] * 20
    assert seen["gone after"] < SOON * 2
    assert seen["sessions"] == 0
    assert seen["log"] == []


def test_a_server_that_does_not_answer_holds_up_nothing_else(driver, postgres):
    seen = run(driver, "server hangs", postgres)
    assert seen["came"] == ["Stopped"] * 6
    assert seen["stood still"] < 0.5
    assert seen["took"] < 5.0
    assert seen["file thread"] == 7
    assert seen["gone after"] < SOON
