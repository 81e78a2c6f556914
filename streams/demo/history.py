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
    """What an identity did. `calls` are those that were answered; `busiest` and `busiest_tokens` are the most calls,
    and the most tokens, of one minute."""

    identity: str
    tenant: str
    credential: str
    kind: str
    workload: str
    calls: list[UsageEvent] = field(default_factory=list)
    busiest: int = 0
    busiest_tokens: int = 0


class History:
    """The whole sample, in order of time."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = lines
        self.pasts: dict[str, Past] = {}
        times: dict[str, list[tuple[int, int]]] = {}
        for event in map(decode_usage, lines):
            said = event.data
            past = self.pasts.get(event.subject)
            if past is None:
                past = self.pasts[event.subject] = Past(
                    event.subject, said.tenant or "-", said.credential_id or "", said.kind or "api_key",
                    said.workload or "interactive",
                )  # fmt: skip
            used = (said.input_tokens or 0) + (said.output_tokens or 0)
            times.setdefault(event.subject, []).append((to_millis(event.time), used))
            if said.status == 200:
                past.calls.append(event)
        for identity, spent in times.items():
            past = self.pasts[identity]
            past.busiest, past.busiest_tokens = busiest_minute(spent)

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


def busiest_minute(used: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The most calls within 60 s, and the most tokens, of (time in ms, tokens) in order of time."""
    calls = tokens = sums = first = 0
    for last, (moment, spent) in enumerate(used):
        sums += spent
        while moment - used[first][0] >= _MINUTE:
            sums -= used[first][1]
            first += 1
        calls, tokens = max(calls, last - first + 1), max(tokens, sums)
    return calls, tokens
