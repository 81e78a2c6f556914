"""Times on the wire: RFC 3339 in UTC with milliseconds; inside, integers of milliseconds since 1970."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def to_millis(moment: datetime) -> int:
    """Milliseconds since 1970 of an aware `moment`, rounded down.

    Raises:
        TypeError: `moment` has no time zone.
    """
    return (moment - EPOCH) // _MILLISECOND


def format_millis(millis: int) -> str:
    """`2026-03-02T00:01:32.844Z` for milliseconds since 1970 (years 1 to 9999).

    Raises:
        OverflowError: the year would not have four digits.
    """
    return (EPOCH + timedelta(milliseconds=int(millis))).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def parse_millis(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 time.

    Raises:
        ValueError: `text` is no RFC 3339 time, or names no time zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"the time {text!r} has no time zone: write 2026-03-02T00:01:32Z")
    return to_millis(moment)
