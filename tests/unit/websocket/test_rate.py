"""Token buckets, on a clock of their own."""

import pytest

from gpulse.websocket.rate import Buckets, TokenBucket, pace


def test_a_burst_passes_at_once_and_then_the_rate():
    bucket = TokenBucket(0.0, 3)
    assert [bucket.take(0.0, 2.0, 3) for _ in range(3)] == [0.0] * 3
    assert bucket.take(0.0, 2.0, 3) == pytest.approx(0.5)
    assert bucket.take(0.25, 2.0, 3) == pytest.approx(0.25)
    assert bucket.take(0.5, 2.0, 3) == 0.0


def test_who_was_silent_for_long_has_no_more_than_a_burst():
    bucket = TokenBucket(0.0, 2)
    assert [bucket.take(1000.0, 1.0, 2) for _ in range(2)] == [0.0, 0.0]
    assert bucket.take(1000.0, 1.0, 2) > 0


def test_each_has_a_bucket_and_the_stalest_is_forgotten():
    buckets = Buckets(most=2)
    assert buckets.take("a", 0.0, 1.0, 1) == 0.0
    assert buckets.take("a", 0.0, 1.0, 1) > 0
    assert buckets.take("b", 0.0, 1.0, 1) == 0.0
    assert buckets.take("c", 0.0, 1.0, 1) == 0.0
    assert buckets.take("a", 0.0, 1.0, 1) == 0.0  # it had been forgotten
    assert buckets.take("c", 0.0, 1.0, 1) > 0


@pytest.mark.parametrize("now", [0.0, 1000.1, 1e9])
@pytest.mark.parametrize(("rate", "burst"), [(20.0, 100), (3.0, 7), (0.1, 1)])
def test_a_bucket_that_is_a_number_takes_what_a_bucket_takes(now, rate, burst):
    bucket, full_at = TokenBucket(now, burst), 0.0
    taken = [0, 0]
    for step in range(20 * burst):
        at = now + step * 0.3 / rate
        taken[0] += not bucket.take(at, rate, burst)
        after = pace(full_at, at, rate, burst)
        if after is not None:
            taken[1] += 1
            full_at = after
    assert taken[0] == pytest.approx(taken[1], abs=1)
    assert pace(full_at, now + 1000.0 + 100 * burst / rate, rate, burst) is not None
