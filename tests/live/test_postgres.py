"""Requests on a real PostgreSQL: cooperative in greenlets, and connections that are used again."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pulse import start_chat
from services import start_postgres


@pytest.fixture(scope="module")
def postgres():
    with start_postgres() as server:
        yield server


def wave(pulse, size: int) -> tuple[float, set[str]]:
    """``size`` requests at once that each sleep 0.2 s in PostgreSQL: the time taken, the
    backends."""
    with ThreadPoolExecutor(size) as threads:
        begun = time.monotonic()
        answers = list(threads.map(pulse.get, ["/pg_sleep"] * size))
        taken = time.monotonic() - begun
    assert {status for status, _ in answers} == {200}, pulse.log
    return taken, {body for _, body in answers}


def test_100_sleeping_queries_run_at_once_and_their_connections_are_kept(start, postgres):
    pulse = start("--greenlet", "100", environ={"TEST_DATABASE_URL": postgres.url}).ready()
    _, seen = wave(pulse, 100)  # opens the connections
    times = []
    for _ in range(3):
        taken, backends = wave(pulse, 100)
        times.append(taken)
        # A wave on a busy machine may have fewer at once, and the next one more; none are lost.
        seen |= backends
        assert len(seen) <= 100, "the number of backends grew"
    assert min(times) < 1.0, times
    assert pulse.stop() == 0


def test_the_first_wave_takes_less_than_a_second_too(start, postgres):
    times = []
    for _ in range(3):
        pulse = start("--greenlet", "100", environ={"TEST_DATABASE_URL": postgres.url}).ready()
        times.append(wave(pulse, 100)[0])
        assert pulse.stop() == 0
    assert min(times) < 1.0, times


def test_five_threads_run_five_queries_at_once(start, postgres):
    pulse = start("--thread-workers", "5", environ={"TEST_DATABASE_URL": postgres.url}).ready()
    taken, backends = wave(pulse, 20)
    assert 0.8 <= taken < 3.5, taken
    assert len(backends) == 5
    _, again = wave(pulse, 20)
    assert again == backends
    assert pulse.stop() == 0


def test_the_chat_runs_on_postgresql(postgres, tmp_path):
    pulse = start_chat(tmp_path, "--greenlet", "20", DATABASE_URL=postgres.url)
    try:
        assert "an_" in pulse.text("/")
        with pulse.socket("/message") as client:
            client.send("hello")
            while json.loads(client.recv(timeout=20))["message"] != "hello":
                pass
        assert pulse.stop() == 0
    finally:
        pulse.close()
