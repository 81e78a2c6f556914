"""A policy that cannot be used says which key is wrong, and how."""

import re
from pathlib import Path
from typing import Any

import pytest

from streams.policy import Loaded, PolicyError, find_policy, read_policy


@pytest.fixture
def changed(policy_file: Path, tmp_path: Path) -> Any:
    """`changed(old, new)`: the path of the shipped policy with one thing changed."""

    def write(old: str, new: str) -> Path:
        text = policy_file.read_text()
        assert old in text
        path = tmp_path / "policy.toml"
        path.write_text(text.replace(old, new, 1))
        return path

    return write


def value_of(policy_file: Path, name: str) -> str:
    """The line's `name = value` as the file has it."""
    found = re.search(rf"^{name} = [^#\n]*[^#\s]", policy_file.read_text(), re.MULTILINE)
    assert found is not None
    return found.group(0)


def test_the_shipped_policy_is_valid_and_named_by_its_content(policy: Loaded, policy_file: Path, changed: Any) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", policy.version)
    assert read_policy(policy_file).version == policy.version
    assert read_policy(changed("# Every", "# each")).version != policy.version
    assert policy.for_detectors.version == policy.for_responses.version == policy.version


@pytest.mark.parametrize(
    ("name", "misspelt", "key"),
    [
        ("warm_up_hours", "warmup_hours", "spike.warmup_hours"),
        ("block_risk", "blok_risk", "response.blok_risk"),
        ("travel_km ", "travel_kn ", "geo_shift.travel_kn"),
    ],
)
def test_an_unknown_key_is_named_with_its_nearest(changed: Any, name: str, misspelt: str, key: str) -> None:
    path = changed(name, misspelt)
    with pytest.raises(PolicyError) as caught:
        read_policy(path)
    assert str(caught.value) == f"{path}: {key}: no such key; did you mean '{name.strip()}'?"


def test_an_unknown_key_in_a_class_is_named_with_its_path(changed: Any) -> None:
    with pytest.raises(PolicyError, match=r"spike\.interactive\.ratoi: no such key; did you mean 'ratio'\?$"):
        read_policy(changed("[spike.interactive]\nratio", "[spike.interactive]\nratoi"))


def test_an_unknown_table_is_named(changed: Any) -> None:
    with pytest.raises(PolicyError, match=r": lop: no such key; did you mean 'loop'\?$"):
        read_policy(changed("[loop]", "[lop]"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("repeats", 'repeats = "twelve"', r"loop\.repeats: Expected `float`, got `str`"),
        ("warm_up_calls", "warm_up_calls = 40.5", r"geo_shift\.warm_up_calls: Expected `int`"),
        ("mode", 'mode = "loud"', r"response\.mode: Invalid enum value 'loud'"),
        ("cap_tenant", "cap_tenant = 0", r"response\.cap_tenant: Expected `int` >= 1"),
        (
            "permanent_after_blocks",
            "permanent_after_blocks = 1",
            r"response\.permanent_after_blocks: Expected `int` >= 2",
        ),
        ("families_to_block", "families_to_block = 1", r"response\.families_to_block: Expected `int` >= 2"),
        ("suspend_minutes", "suspend_minutes = -5.0", r"response\.suspend_minutes: Expected `float` > 0"),
        ("medium", "medium = 0.0", r"risk\.points\[\.\.\.\]: Expected `float` > 0"),
        ("repeat_share", "repeat_share = 1.5", r"risk\.repeat_share: Expected `float` <= 1"),
    ],
)
def test_a_value_of_the_wrong_sort_is_named(changed: Any, policy_file: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        read_policy(changed(value_of(policy_file, old), new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ratio", "ratio = 0.0"),
        ("floor_tokens", "floor_tokens = -1.0"),
        ("cohort_quantile", "cohort_quantile = 2.0"),
        ("record_half_life_days", "record_half_life_days = 0.0"),
        ("adapt_hours", "adapt_hours = 0.0"),
        ("warm_up_hours", "warm_up_hours = -1"),
        ("half_life_seconds", "half_life_seconds = 0.0"),
        ("growth_steps", "growth_steps = 0"),
        ("travel_kmh", "travel_kmh = nan"),
        ("calls_to_tell", "calls_to_tell = 0"),
        ("accuracy_factor", "accuracy_factor = -1.0"),
        ("extreme_ratio", "extreme_ratio = inf"),
    ],
)
def test_a_threshold_that_cannot_be_is_refused(changed: Any, policy_file: Path, old: str, new: str) -> None:
    """Before a worker divides by it."""
    with pytest.raises(PolicyError, match=old):
        read_policy(changed(value_of(policy_file, old), new))


@pytest.mark.parametrize("table", ["spike", "loop", "geo_shift", "risk", "response"])
def test_a_missing_table_is_named(policy_file: Path, tmp_path: Path, table: str) -> None:
    parts = re.split(r"(?m)^(?=\[)", policy_file.read_text())
    kept = [part for part in parts if not re.match(rf"\[{table}[\].]", part)]
    assert len(kept) < len(parts)
    (tmp_path / "policy.toml").write_text("".join(kept))
    with pytest.raises(PolicyError, match=f"policy: Object missing required field `{table}`"):
        read_policy(tmp_path / "policy.toml")


@pytest.mark.parametrize(("line", "path"), [("contact", "response"), ("repeats", "loop"), ("open", "risk")])
def test_a_missing_key_is_named(changed: Any, policy_file: Path, line: str, path: str) -> None:
    with pytest.raises(PolicyError, match=f"{path}: Object missing required field `{line}`"):
        read_policy(changed(value_of(policy_file, line), ""))


@pytest.mark.parametrize("line", ["high", "sleep"])
def test_every_severity_has_points_and_every_family_a_half_life(changed: Any, policy_file: Path, line: str) -> None:
    """Else the first finding of that sort would stop a worker."""
    with pytest.raises(PolicyError, match=line):
        read_policy(changed(value_of(policy_file, line), ""))


@pytest.mark.parametrize(
    ("raw", "message"),
    [(b"spike = [", "not TOML: "), (b"\xff\xfe", "not UTF-8 at byte 0"), (b"", "policy: Object missing")],
)
def test_what_is_no_policy_is_said_to_be_that(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(raw)
    with pytest.raises(PolicyError, match=message) as caught:
        read_policy(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_policy_that_is_not_there_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(
        PolicyError, match="No such file or directory; name a policy with --policy or TRIPSWITCH_POLICY"
    ):
        read_policy(tmp_path / "none.toml")


def test_the_one_given_comes_first_then_the_environment_then_the_folder(
    tmp_path: Path, policy_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIPSWITCH_POLICY", raising=False)
    assert find_policy().samefile(policy_file)
    Path("policy.toml").write_text("")
    assert find_policy() == Path("policy.toml")
    monkeypatch.setenv("TRIPSWITCH_POLICY", "elsewhere.toml")
    assert find_policy() == Path("elsewhere.toml")
    assert find_policy("given.toml") == Path("given.toml")
