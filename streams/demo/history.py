"""The sample of the practice corpus: what its identities did, moved so that it ends now."""

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from schemas.times import format_millis, parse_millis, to_millis
from schemas.usage import UsageEvent, decode_usage

SAMPLE = Path(__file__).parent / "sample" / "events.jsonl.gz"
_MINUTE = 60_000


@dataclass(slots=True)
class Past:
    """What an identity did. `calls` are those that were answered; `busiest` is the most it made within a minute."""

    identity: str
    tenant: str
    credential: str
    kind: str
    workload: str
    calls: list[UsageEvent] = field(default_factory=list)
    busiest: int = 0


class History:
    """The whole sample, in order of time."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = lines
        self.pasts: dict[str, Past] = {}
        times: dict[str, list[int]] = {}
        for event in map(decode_usage, lines):
            said = event.data
            past = self.pasts.get(event.subject)
            if past is None:
                past = self.pasts[event.subject] = Past(
                    event.subject, said.tenant or "-", said.credential_id or "", said.kind or "api_key",
                    said.workload or "interactive",
                )  # fmt: skip
            times.setdefault(event.subject, []).append(to_millis(event.time))
            if said.status == 200:
                past.calls.append(event)
        for identity, moments in times.items():
            self.pasts[identity].busiest = busiest_minute(moments)

    def __len__(self) -> int:
        return len(self._lines)

    def until(self, moment: int) -> Iterator[tuple[bytes, bytes]]:
        """(key, record) of every event, moved so that the last one ends at `moment` (ms)."""
        decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
        text = msgspec.json.Decoder(str).decode
        shift = moment - parse_millis(text(decode(self._lines[-1])["time"]))
        for line in self._lines:
            event = decode(line)
            event["time"] = msgspec.Raw(msgspec.json.encode(format_millis(parse_millis(text(event["time"])) + shift)))
            yield text(event["subject"]).encode(), msgspec.json.encode(event)


def read_history(path: Path = SAMPLE) -> History:
    """The sample that comes with the package."""
    with gzip.open(path) as file:
        return History(file.read().splitlines())


def busiest_minute(moments: Sequence[int]) -> int:
    """The most of `moments` (ms, ascending) that lie within 60 s."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= _MINUTE:
            first += 1
        most = max(most, last - first + 1)
    return most
