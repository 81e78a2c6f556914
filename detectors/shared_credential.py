"""Finds credentials that several parties use."""

from typing import NamedTuple

import numpy as np
from msgspec import Struct

from detectors.compiled import Row, State, compiled
from detectors.identities import Rows
from detectors.places import count_bits, mixed
from detectors.view import Detector, Raised, View, digest, short
from schemas.batch import Codes, Flags, Floats, Hashes, Ints
from schemas.bounds import NotNegative, Positive, Some
from schemas.finding import Kind, Severity

_NEW = 4
_ROW = np.dtype([
    ("known", "u8"), ("older", "u8"), ("learning", "u8"),
    ("place", "u4", (_NEW,)), ("seen", "u4", (_NEW,)),
    ("epoch", "u4"), ("last", "u4"), ("told", "u4"), ("agent", "u1"), ("land", "u1"),
    ("jumps", "u1"), ("was", "u1"), ("theirs", "u4"), ("ours", "u4"),
], align=True)  # fmt: skip
"""Bitmaps of places: two bits per country in the lower half, two per network in the upper one. `place` and `seen` (s)
are the new ones of the last minutes, of 16 bits of the country's hash and 16 of the network's. Of the last call,
`agent` and `land` are 8 bits of hashes of its client and its country, and `was` says whether it came from a new
network (bit 0), how gravely was told last (bits 1 and 2), how many calls each side made since the first jump, three
at the most (bits 3 and 4: from new networks; bits 5 and 6: from known ones), and whether two jumps were told since
the places were taken over (bit 7). `theirs` and `ours` are the clients of each side since then, a bit for each."""
_KEPT = 16 * 86_400
"""Seconds in which a place must be seen again to stay known, at the least."""
_EVERYWHERE = 40
"""Of the bitmap's 64 bits. An identity that calls from so many places is at home everywhere: nothing fans out."""
_COUNTRIES, _NETWORKS, _CLIENTS, _HINT = 1, 2, 3, 4
_PATTERN = {_COUNTRIES: "countries", _NETWORKS: "networks", _CLIENTS: "clients", _HINT: "clients"}
_SEVERITY: dict[int, Severity] = {_COUNTRIES: "high", _NETWORKS: "medium", _CLIENTS: "medium", _HINT: "low"}
_HINTED = 128
_BOTH_WORK = 2
"""Calls of each side after which one jump less tells: neither just had a look."""


class _Calls(NamedTuple):
    row: Ints
    time: Ints
    first: Ints
    returned: Flags
    duplicate: Flags
    excluded: Flags
    country: Hashes
    asn: Ints
    agent: Hashes
    identity: Hashes


class _Told(NamedTuple):
    """What the kernel tells: where, by which pattern, (new countries, new networks, jumps), and the state then."""

    at: Ints
    how: Codes
    value: Floats
    state: State


class _Limits(NamedTuple):
    window: float
    countries: float
    networks: float
    alternations: float
    least_trust: float
    trust: float
    again: float


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """`[shared_credential]` of policy.toml."""

    window_minutes: Positive
    countries: Some
    networks: Some
    alternations: Some
    high_alternations: Some
    least_trust_minutes: Positive
    trust_hours: Positive
    repeat_finding_seconds: NotNegative

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        if max(self.countries, self.networks) > _NEW:
            raise ValueError(f"no more than {_NEW} new places are followed: `countries`, `networks`")
        if self.high_alternations < self.alternations:
            raise ValueError("what is graver must not be less than what is told: `high_alternations`")
        if self.trust_hours * 60 < self.least_trust_minutes:
            raise ValueError("`trust_hours` must be no less than `least_trust_minutes`")


class SharedCredential(Detector):
    """One credential that many customers or two clients use.

    What it detects:
        *Fan-out*: within `window_minutes` calls come from `countries` countries that the identity never called from
        before, or from `networks` such networks. *Two clients at once*: without a pause as long as that, calls
        alternate, `alternations` times, between a new network and one in another country, and each side has its own
        user agent. One time less is enough once each side made two calls and has clients that the other has not;
        before that it is weak evidence, as is the first jump back to where the identity always was.
        `high_alternations` are graver.

        What is new is what was not seen before the last time that the identity's places were taken over as known:
        after `least_trust_minutes`, then whenever its age has doubled, at last every `trust_hours`. Nothing is taken
        over within `trust_hours` of a finding. An identity that is everywhere has no new places.

    Why it matters:
        Stolen access is resold for some dollars a month to people all over the world, and a key that is passed
        around can't be taken back from one of them.

    False positives:
        A person who tries several VPN exits within minutes. Several regions of one service, and a phone that changes
        networks, stay below the threshold.

    Runbook:
        Ask the owner who else has the credential; rotate it and give each client its own.
    """

    name = "shared_credential"
    kind: Kind = "shared_credential"
    version = 3

    def __init__(self, config: Config) -> None:
        self._config = config
        self.rows = Rows(_ROW)

    @property
    def components(self) -> dict[str, Rows]:
        """One row per identity."""
        return {"rows": self.rows}

    def judge(self, view: View) -> list[Raised]:
        """One finding when sharing is first told, one when it gets graver, then one a minute."""
        batch, c, n = view.batch, self._config, len(view.batch)
        calls = _Calls(
            view.row, view.ticked.time, view.velocities.first, view.velocities.returned, view.ticked.duplicate,
            batch.excluded, batch.country, batch.asn, batch.agent, batch.identity,
        )  # fmt: skip
        limits = _Limits(
            c.window_minutes * 60, float(c.countries), float(c.networks), float(c.alternations),
            c.least_trust_minutes * 60, c.trust_hours * 3600, c.repeat_finding_seconds,
        )  # fmt: skip
        told = _Told(np.empty(n, np.int64), np.empty(n, np.int8), np.empty((n, 3)), np.empty(n, _ROW))
        count = _judge(self.rows.reach(view.identities), calls, limits, told)
        return [self._raised(view, told, k) for k in range(count)]

    def _raised(self, view: View, told: _Told, k: int) -> Raised:
        c, at, how = self._config, int(told.at[k]), int(told.how[k])
        countries, networks, jumps = (int(value) for value in told.value[k])
        event = view.batch.events[at].data
        where = f"AS{event.asn} in {short(event.country)}"
        span = f"within {c.window_minutes:g} min"
        if how in (_CLIENTS, _HINT):
            reason = (
                f"{jumps} jump{'s' * (jumps > 1)} with no pause of {c.window_minutes:g} min between {where} and "
                f"another country and network, each side with a client of its own (here {short(event.user_agent)}): "
                f"two parties use this credential at once"
            )
        else:
            reason = (
                f"calls from {countries} countries and {networks} networks {span} that it never called from before, "
                f"the last of them {where}: many use this credential at once"
            )
        observed, usual = {
            _COUNTRIES: (countries, c.countries),
            _NETWORKS: (networks, c.networks),
            _CLIENTS: (jumps, c.alternations),
            _HINT: (jumps, c.alternations),
        }[how]
        return Raised(
            at=at,
            closing=-1,
            row=int(view.row[at]),
            since=int(view.batch.offset[at]),
            severity="high" if how == _CLIENTS and jumps >= c.high_alternations else _SEVERITY[how],
            score=round(min(1.0, observed / (2 * usual)), 4),
            window=f"{c.window_minutes:g}min",
            observed=float(observed),
            baseline=float(usual),
            reason=reason,
            digest=digest(told.state[k : k + 1]),
            span_seconds=c.window_minutes * 60,
            usd_per_minute=round(float(view.velocities.minute[at, 2]), 6),
            details={"pattern": _PATTERN[how], "countries": countries, "networks": networks, "jumps": jumps},
        )


@compiled
def _two_bits(name: np.uint64, first: int) -> np.uint64:
    """The bits of a country or a network in a bitmap whose half begins at `first`."""
    one, low, at = np.uint64(1), np.uint64(31), np.uint64(first)
    return np.uint64((one << (at + (name & low))) | (one << (at + ((name >> np.uint64(5)) & low))))


@compiled
def _take_over(row: Row, t: int, first: int, limits: _Limits) -> None:
    """Makes known what was learnt, when it is time; forgets what was not seen since long."""
    if row.epoch == 0:
        row.epoch = t
        return
    if t - row.epoch < min(max(row.epoch - first, limits.least_trust), limits.trust):
        return
    if t // _KEPT != row.epoch // _KEPT:
        row.older = row.known
        row.known = 0
    row.known |= row.learning
    row.learning = 0
    row.epoch = t
    row.was &= _HINTED - 1


@compiled
def _followed(row: Row, place: int, t: int, window: float) -> bool:
    """Whether a new place was seen in the last minutes."""
    seen = 0
    for k in range(_NEW):
        if row.place[k] == place:
            seen = row.seen[k]
    return bool(t - seen <= window)


@compiled
def _follow(row: Row, place: int, t: int) -> None:
    """Keeps a new place in mind, in the place of the one seen longest ago."""
    oldest = 0
    for k in range(_NEW):
        if row.place[k] == place:
            row.seen[k] = max(row.seen[k], t)
            return
        if row.seen[k] < row.seen[oldest]:
            oldest = k
    row.place[oldest] = place
    row.seen[oldest] = t


@compiled
def _count(row: Row, known: np.uint64, t: int, window: float) -> tuple[int, int]:
    """The new countries and the new networks of the last minutes."""
    countries, networks = 0, 0
    for k in range(_NEW):
        if row.seen[k] == 0 or t - row.seen[k] > window:
            continue
        land, network = np.uint64(row.place[k] >> 16), np.uint64(row.place[k] & 0xFFFF)
        new_land = _two_bits(land, 0) & ~known != 0
        new_network = _two_bits(network, 32) & ~known != 0
        for j in range(k):
            if row.seen[j] == 0 or t - row.seen[j] > window:
                continue
            new_land = new_land and np.uint64(row.place[j] >> 16) != land
            new_network = new_network and np.uint64(row.place[j] & 0xFFFF) != network
        countries += 1 if new_land else 0
        networks += 1 if new_network else 0
    return countries, networks


@compiled
def _judge(rows: State, calls: _Calls, limits: _Limits, told: _Told) -> int:
    count = 0
    blank = np.zeros(1, _ROW)
    for i in range(len(calls.row)):
        if calls.returned[i]:
            rows[calls.row[i]] = blank[0]
        if calls.duplicate[i] or calls.excluded[i] or calls.country[i] == 0 or calls.asn[i] < 0:
            continue
        row = rows[calls.row[i]]
        t = max(calls.time[i] // 1000, 1)
        _take_over(row, t, calls.first[i] // 1000, limits)
        land = calls.country[i] >> np.uint64(48)
        network = mixed(np.uint64(calls.asn[i]), np.uint64(1)) >> np.uint64(48)
        known = row.known | row.older
        land_bits, network_bits = _two_bits(land, 0), _two_bits(network, 32)
        new_land, new_network = land_bits & ~known != 0, network_bits & ~known != 0
        # The places of one under suspicion are not learnt; those that it always had stay known.
        bits = land_bits | network_bits
        row.learning |= bits & known if row.told != 0 and t - row.told < limits.trust else bits
        # While nothing is known, nothing is new.
        was, grade, now = row.was & 1, row.was >> 1 & 3, 1 if new_network and known != 0 else 0
        theirs, ours = row.was >> 3 & 3, row.was >> 5 & 3
        # Which two clients or countries are taken for one is another matter for each identity: none are throughout.
        salt = calls.identity[i]
        agent = 0 if calls.agent[i] == 0 else max(1, int(np.int64(mixed(calls.agent[i], salt) >> np.uint64(56))))
        here = int(np.int64(mixed(calls.country[i], salt) >> np.uint64(56)))
        place = (land << np.uint64(16)) | network
        # From one new place to another it is a jump if it leads back: whoever tries them one after the other is one.
        jumped = was != now or (now == 1 and _followed(row, place, t, limits.window))
        jumped = jumped and row.land != here and agent != row.agent and min(agent, row.agent) > 0
        if t - row.last > limits.window:
            jumped = False
            row.jumps = 0
            theirs, ours = 0, 0
            row.theirs, row.ours = 0, 0
        elif jumped:
            # Whoever looks in now and then, while the owner is always at work, begins anew each time.
            before = 0 if now == 1 and t - np.int64(row.seen.max()) > limits.window else row.jumps
            row.jumps = min(before + 1, 255)
            if before == 0:
                theirs, ours = 0 if now == 1 else theirs, 0
                row.theirs, row.ours = 0 if now == 1 else row.theirs, 0
        both_work = min(theirs, ours) >= _BOTH_WORK
        theirs, ours = min(theirs + now, 3), min(ours + 1 - now, 3)
        if now == 1:
            row.theirs |= 1 << (agent & 31)
        else:
            row.ours |= 1 << (agent & 31)
        # The owner's call may be the one that shows that there are two.
        shows = jumped or (row.jumps > 0 and not both_work and min(theirs, ours) >= _BOTH_WORK)
        # Whoever changes places takes his clients along.
        both_work = min(theirs, ours) >= _BOTH_WORK and row.theirs & row.ours == 0
        row.last = max(row.last, t)
        row.agent = agent
        row.land = here
        how, countries, networks = 0, 0, 0
        if known != 0 and (new_land or new_network or shows) and count_bits(known) < _EVERYWHERE:
            if new_land or new_network:
                _follow(row, place, t)
            countries, networks = _count(row, known, t, limits.window)
            if countries >= limits.countries and (new_land or new_network):
                how = _COUNTRIES
            elif row.jumps >= max(limits.alternations - both_work, 1) and (now == 1 or shows):
                how = _CLIENTS
            elif networks >= limits.networks and new_network:
                how = _NETWORKS
            elif jumped and row.was < _HINTED and row.jumps in (limits.alternations - 1, 1.0 - now):
                # Whoever is back at once has not moved.
                how = _HINT
        graver = 0 if how in (0, _HINT) else (2 if how == _COUNTRIES else 1)
        quiet = row.told != 0 and t - row.told < limits.again and graver <= grade
        hinted = _HINTED if how == _HINT else row.was & _HINTED
        row.was = hinted | ours << 5 | theirs << 3 | (grade if how in (0, _HINT) or quiet else graver) << 1 | now
        if how == 0 or quiet:
            continue
        if how != _HINT:
            row.told = t
            row.learning &= known
        told.at[count] = i
        told.how[count] = how
        told.value[count, 0] = countries
        told.value[count, 1] = networks
        told.value[count, 2] = row.jumps
        told.state[count] = row
        count += 1
    return count
