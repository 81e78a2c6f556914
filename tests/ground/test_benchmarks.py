"""What of the benchmarks can be held to something without measuring: none of this looks at a time."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks import denial, figures, load, page, throughput, traffic
from benchmarks.denial import Denial, Order, tenant
from benchmarks.figures import Figure, Results, Skipped
from benchmarks.picture import picture
from benchmarks.sampled import CHECKPOINT, REST, step_of
from schemas.command import record_key
from schemas.usage import decode_usage

ROOT = Path(__file__).parents[2]
FLOOR = Figure("detect", throughput.FLOOR, 2.5, "CPU µs/event", 2.5, "itself", "Zipf(1.1) over 1 M identities")
OURS = Figure("detect", throughput.OURS, 10.0, "CPU µs/event", 2.5, throughput.FLOOR, FLOOR.conditions, {"events": 7})
PEER = Figure("peers", "<Another>", 40.0, "CPU µs/event", 2.5, throughput.FLOOR, FLOOR.conditions)
STEP = Figure("profile", "decode", 3.0, "CPU µs/event", 10.0, "all of detect, sampled")
PARTS = "detect", "profile", "peers", "replay", "latency", "denial", "memory", "detectors", "restore"
RESULTS = Results({"cores": 2, "cpu": "some"}, [FLOOR, OURS, PEER, STEP], [Skipped("latency", "java not on PATH")])


def test_every_part_is_named_in_the_help_and_none_is_measured_by_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for part in (*PARTS, "page"):
        assert f"\n  {part} " in done.stdout


def test_a_part_that_does_not_exist_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "dectet"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "dectet: there is no such part" in done.stderr


@pytest.mark.parametrize("shape", ["zipf", "uniform", "hot"])
def test_traffic_is_the_same_for_the_same_arguments_and_can_be_read(shape: traffic.Shape) -> None:
    who = traffic.drawn(500, 1_000, shape)
    made = list(traffic.events(who, start=1_772_400_000_000, per_second=100.0))
    assert made == list(traffic.events(traffic.drawn(500, 1_000, shape), start=1_772_400_000_000, per_second=100.0))
    read = [decode_usage(raw) for _, raw in made]
    assert [event.subject for event in read] == [subject for subject, _ in made] == [traffic.subject(k) for k in who]
    assert len({(event.source, event.id) for event in read}) == 500
    assert [event.time for event in read] == sorted(event.time for event in read)


def test_the_shapes_are_what_they_are_called() -> None:
    counts = {shape: np.bincount(traffic.drawn(20_000, 1_000, shape)) for shape in ("zipf", "uniform", "hot")}
    assert counts["hot"][0] > 17_500
    assert counts["zipf"][0] > 2 * counts["zipf"][2] > 4 * counts["zipf"][15]
    assert counts["uniform"].max() < 100


def test_an_attack_is_one_call_repeated_that_says_when_it_was_made() -> None:
    calls = load.attacks(10.0)
    assert calls == sorted(calls)
    assert calls[-1][0] < 10.0
    first = [
        decode_usage(load.attack_call(3, 0, 1_772_400_000_000_000_123 + n)) for n, (_, k) in enumerate(calls) if k == 0
    ]
    assert len(first) == load.CALLS
    assert len({(event.subject, event.data.session_id, event.data.fingerprint) for event in first}) == 1
    assert load.moment_of(first[0].id) == 1_772_400_000_000_000_123


def test_a_denial_counts_from_the_decision_at_each_gateway_and_warm_up_does_not_count() -> None:
    orders = [Order(f"k{k}", k * 1_000_000) for k in range(denial.WARM_UP + 2)]
    slow, fast = denial.WARM_UP, denial.WARM_UP + 1
    one = {order.subject: Denial((k + 7) * 1_000_000, k + 5) for k, order in enumerate(orders)}
    other = one | {f"k{slow}": Denial((slow + 105) * 1_000_000, slow + 5)}
    del other[f"k{fast}"]
    appended = {record_key(tenant(k), "identity", f"k{k}"): k + 6 for k in range(len(orders))}
    told = {figure.what: figure for figure in denial.summed_up(orders, appended, [one, other])}
    assert told["decision to denial, p50"].value == 2.0
    assert told["decision to denial, p99"].value == pytest.approx(2.0 + 0.98 * 98.0)
    assert told["order to denial, p50"].value == 7.0
    extra = told["decision to denial, p50"].extra
    assert (extra["denials"], extra["missing"], extra["decision_to_append_p50_ms"]) == (3, 1, 1.0)
    assert extra["append_to_denial_p50_ms"] == 1.0


def test_results_are_written_with_their_ratios_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "build" / "benchmarks.json"
    figures.write(RESULTS, file)
    assert figures.read(file) == RESULTS
    assert [row["ratio"] for row in json.loads(file.read_text())["figures"]] == [1.0, 4.0, 16.0, 0.3]
    assert figures.read(tmp_path / "absent.json") is None


def test_a_part_measured_again_replaces_its_figures_and_no_others() -> None:
    again = msgspec.structs.replace(PEER, value=50.0)
    merged = figures.merged(RESULTS, Results({}, [again], [Skipped("restore", "no state")]))
    assert merged.of("peers") == [again]
    assert merged.of("detect") == [FLOOR, OURS]
    assert [gap.part for gap in merged.skipped] == ["latency", "restore"]
    assert figures.merged(merged, Results({}, [], [Skipped("peers", "no network")])).of("peers") == []


def test_what_was_skipped_is_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    figures.show(RESULTS.figures, RESULTS.skipped)
    shown = capsys.readouterr().out
    assert "java not on PATH" in shown
    assert throughput.OURS in shown


def test_the_page_takes_the_figures_between_its_markers() -> None:
    text = "a\n<!-- figures: peers -->\nold\n<!-- end -->\nb\n<!-- figures: latency -->\nold\n<!-- end -->\nc\n"
    once = page.filled(text, RESULTS)
    assert "| <Another> | Zipf(1.1) over 1 M identities | 40 CPU µs/event |" in once
    assert "java not on PATH" in once
    assert "old" not in once
    assert page.filled(once, RESULTS) == once


def test_the_page_has_a_place_for_every_part() -> None:
    text = page.PAGE.read_text()
    for part in ("machine", *PARTS):
        assert f"<!-- figures: {part} -->" in text


def test_the_picture_shows_ours_beside_the_peers_cheapest_first() -> None:
    drawn = picture(RESULTS)
    places = [drawn.index(label) for label in (throughput.FLOOR, throughput.OURS, "&lt;Another&gt;", ">decode</text>")]
    assert places == sorted(places)


def test_a_stack_is_in_the_step_of_its_innermost_frame_but_a_checkpoint_owns_all_of_it() -> None:
    code = compile("def see(of):\n    return of(sys._getframe())\n", "/x/detectors/loop.py", "exec")
    inner: dict[str, object] = {"sys": sys}
    exec(code, inner)  # noqa: S102 - a frame that says it is in another file
    assert step_of(sys._getframe()) == REST
    assert inner["see"](step_of) == "loop"  # type: ignore[operator]
    outer: dict[str, object] = {"see": inner["see"], "step_of": step_of}
    exec(compile("def save():\n    return see(step_of)\n", "/x/streams/state.py", "exec"), outer)  # noqa: S102
    assert outer["save"]() == CHECKPOINT  # type: ignore[operator]
