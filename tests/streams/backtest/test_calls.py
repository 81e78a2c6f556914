from codecs import BOM_UTF8
from io import BytesIO

import numpy as np
from made_traffic import START_MS, Traffic, as_lines

from schemas.directory import Directory, Entry
from schemas.usage import DENIED
from streams.backtest.calls import hash_of, read_calls


def test_what_is_delivered_twice_is_one_call_and_what_is_no_event_none() -> None:
    traffic = Traffic(cost_usd=0.5, session_id="s-1")
    traffic.every(1.0, 0, 5000)
    lines = as_lines(traffic.events).splitlines(keepends=True)
    calls = read_calls(BytesIO(BOM_UTF8 + b"".join([lines[0], b"{\n", b"\n", *lines, lines[-1]])), Directory())
    assert len(calls) == 5000
    assert calls.cost.sum() == 2500.0
    assert calls.time.tolist()[:2] == [START_MS / 1000, START_MS / 1000 + 1]
    assert set(calls.session.tolist()) == {int(hash_of("s-1"))}
    assert calls.identities == [("acme", "key_1")]


def test_who_names_no_tenant_has_the_directory_s_and_refused_calls_were_not_served() -> None:
    known, unknown = Traffic("key_1", tenant=None), Traffic("key_2", tenant=None, status=403, error=DENIED)
    events = [known.call(0), unknown.call(1), known.call(2)]
    calls = read_calls(BytesIO(as_lines(events)), Directory({"key_1": Entry(tenant="acme")}))
    assert calls.identities == [("acme", "key_1"), ("-", "key_2")]
    assert calls.who.tolist() == [0, 1, 0]
    assert calls.served.tolist() == [True, False, True]


def test_nothing_is_no_call() -> None:
    calls = read_calls(BytesIO(b""), Directory())
    assert (len(calls), calls.identities, calls.served.dtype) == (0, [], np.dtype(bool))
