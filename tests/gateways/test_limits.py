from hypothesis import given
from hypothesis import strategies as st

from tripswitch_gateway.limits import Bucket


def taken(bucket: Bucket, moments: list[int]) -> int:
    count = 0
    for now in moments:
        if bucket.wait_ms(now) == 0:
            bucket.take(1)
            count += 1
    return count


def test_a_burst_is_ten_seconds_worth() -> None:
    assert taken(Bucket(60, 0), [0] * 100) == 10


def test_then_at_the_rate() -> None:
    bucket = Bucket(60, 0)
    taken(bucket, [0] * 10)
    assert bucket.wait_ms(0) == 1000
    assert taken(bucket, list(range(0, 60_001, 10))) == 60


def test_a_slow_rate_still_lets_one_through() -> None:
    bucket = Bucket(0.5, 0)
    assert taken(bucket, [0, 0]) == 1
    assert bucket.wait_ms(0) == 120_000


def test_no_rate_lets_nothing_through() -> None:
    assert Bucket(0, 0).wait_ms(10**9) == 60_000


def test_debt_is_waited_off() -> None:
    bucket = Bucket(6000, 0)
    bucket.take(1999)
    assert bucket.wait_ms(0) == 10_000


def test_a_new_rate_is_no_fresh_allowance() -> None:
    bucket = Bucket(60, 0)
    taken(bucket, [0] * 10)
    bucket.set_rate(6000)
    assert bucket.wait_ms(0) > 0


@given(st.floats(0.1, 10_000), st.lists(st.integers(-50_000, 300_000), max_size=300))
def test_never_more_than_the_burst_and_the_rate(per_minute: float, moments: list[int]) -> None:
    highest = max([0, *moments])
    allowed = max(1.0, per_minute / 6) + per_minute * highest / 60_000
    assert taken(Bucket(per_minute, 0), moments) <= allowed + 1e-6
