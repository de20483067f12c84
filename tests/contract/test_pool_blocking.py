"""What a call that waits for a disk raises is its caller's, and nobody else's."""

import gevent
import pytest

from gpulse.worker.greenlets import GreenletPool
from gpulse.worker.threads import ThreadPool


@pytest.mark.parametrize("kind", [GreenletPool, ThreadPool], ids=["greenlets", "threads"])
def test_an_error_is_raised_where_it_was_asked_for_and_printed_nowhere(kind, capfd):
    pool = kind(1, lambda: None)
    done, caught = pool.waiter(), []

    def job():
        try:
            pool.blocking(open, "/does/not/exist")
        except FileNotFoundError as error:
            caught.append(error)
        pool.call_hub(done.set)

    gevent.get_hub().loop.run_callback(pool.submit, job)
    gevent.sleep(0)
    for _ in range(1000):
        if caught:
            break
        gevent.sleep(0.005)
    assert len(caught) == 1
    assert "Traceback" not in capfd.readouterr().err
