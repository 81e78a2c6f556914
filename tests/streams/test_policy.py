"""A policy that cannot be used says which key is wrong, and how."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from streams.policy import Loaded, PolicyError, find_policy, read_policy
from streams.policy_text import Line, read_lines, within

SHIPPED = (Path(__file__).parent.parent.parent / "policy.toml").read_text()
KEYS = [line for line in read_lines(SHIPPED) if line.key]
TABLES = [line for line in read_lines(SHIPPED) if not line.key]
every_key = pytest.mark.parametrize("line", KEYS, ids=lambda line: line.path)


def rewritten(line: Line, new: str, folder: Path) -> Path:
    """The shipped policy with `line`, which may be several, replaced."""
    lines = SHIPPED.splitlines()
    lines[line.number - 1 : line.number + line.raw.count("\n")] = [new]
    path = folder / "policy.toml"
    path.write_text("\n".join(lines))
    return path


def refused(path: Path) -> str:
    with pytest.raises(PolicyError) as caught:
        read_policy(path)
    [said] = str(caught.value).splitlines()
    assert said.startswith(f"{path}: ")
    return said.removeprefix(f"{path}: ")


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
        ("calls_to_tell", "calls_to_tell = 2.5", r"geo_shift\.calls_to_tell: Expected `int`"),
        ("mode", 'mode = "loud"', r"response\.mode: Invalid enum value 'loud'"),
        ("cap_tenant", "cap_tenant = 0", r"response\.cap_tenant: Expected `int` >= 1"),
        (
            "permanent_after_blocks",
            "permanent_after_blocks = 1",
            r"response\.permanent_after_blocks: Expected `int` >= 2",
        ),
        ("families_to_block", "families_to_block = 1", r"response\.families_to_block: Expected `int` >= 2"),
        ("suspend_minutes", "suspend_minutes = -5.0", r"response\.suspend_minutes: Expected `float` > 0"),
        ("medium", "medium = 0.0", r"risk\.points\.medium: Expected `float` > 0"),
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
        ("pause_seconds", "pause_seconds = 0.0"),
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


@pytest.mark.parametrize("table", ["spike", "loop", "geo_shift", "shared_credential", "risk", "response"])
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


@every_key
def test_every_key_that_is_misspelt_is_named_with_its_nearest(line: Line, tmp_path: Path) -> None:
    wrong = f"{line.key}x"
    said = refused(rewritten(line, f"{wrong} = {line.value}", tmp_path))
    assert said == f"{line.section}.{wrong}: no such key; did you mean {line.key!r}?"


@every_key
def test_every_key_with_a_value_of_the_wrong_type_is_named(line: Line, tmp_path: Path) -> None:
    said = refused(rewritten(line, f"{line.key} = 1979-05-27", tmp_path))
    assert said.startswith(f"{line.path}: ")
    assert "datetime.date" in said or "`date`" in said or "got `" in said, said


@every_key
def test_every_key_that_is_missing_is_named_with_its_table(line: Line, tmp_path: Path) -> None:
    said = refused(rewritten(line, "", tmp_path))
    assert said == f"{line.section}: Object missing required field `{line.key}`"


@pytest.mark.parametrize("line", TABLES, ids=lambda line: line.path)
def test_a_table_that_is_a_number_is_named(line: Line, tmp_path: Path) -> None:
    table, _, name = line.section.rpartition(".")
    lines = read_lines(SHIPPED)
    gone = within(lines, line.section)
    rest = "\n".join(one.raw for one in lines if one not in gone)
    path = tmp_path / "policy.toml"
    path.write_text(_with(rest, table, f"{name} = 5") if table else f"{name} = 5\n{rest}")
    assert refused(path) == f"{line.section}: Expected a table, got `int`"


def _with(text: str, table: str, added: str) -> str:
    """`text` with a line added to a table, which it may have to begin."""
    heading = re.search(rf"(?m)^\[{re.escape(table)}\].*$", text)
    return f"{text[: heading.end()]}\n{added}{text[heading.end() :]}" if heading else f"{text}\n[{table}]\n{added}\n"


def test_all_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^(travel_k\w+|open|cap_all|mode) = \S+", r"\1 = true", SHIPPED)
    (tmp_path / "policy.toml").write_text(text)
    said = refused(tmp_path / "policy.toml")
    for key in ("geo_shift.travel_km", "geo_shift.travel_kmh", "risk.open", "response.mode"):
        assert f"{key}: " in said
    assert said.endswith("; and 1 more")


def test_a_policy_of_an_older_version_is_told_what_went_and_what_came(tmp_path: Path) -> None:
    text = re.sub(r"(?m)^least_usd = \S+", "", SHIPPED.replace("[spike]", "[spike]\nformer = 3"), count=1)
    (tmp_path / "policy.toml").write_text(re.sub(r"(?m)^(travel_km) = \S+", r"\1 = true", text))
    said = refused(tmp_path / "policy.toml")
    for part in ("spike.former: no such key", "spike: Object missing required field `least_usd`", "geo_shift.tr"):
        assert part in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"block_risk": "0.5"}, r"risk\.open = \S+ is more than response\.block_risk = 0\.5: "),
        ({"block_risk": "120.0"}, r"response\.block_risk = 120: risk never exceeds 100$"),
        ({"open": "101.0", "block_risk": "102.0"}, r"risk\.open = 101: risk never exceeds 100"),
        ({"raise_again_minutes": "9999.0"}, r"risk\.raise_again_minutes = 9999 is more than risk\.quiet_minutes = "),
        ({"cap_tenant": "9999"}, r"response\.cap_tenant = 9999 is more than response\.cap_all = "),
        ({"families_to_block": "9"}, r"response\.families_to_block = 9: there are only 8 families$"),
        ({"low": "99.0"}, r"risk\.points\.low = 99 is more than risk\.points\.medium = "),
        (
            {"families": '"suspend"', "theft": '"throttle"'},
            r"response\.interactive\.theft = 'throttle' is milder than response\.interactive\.families = 'suspend'",
        ),
    ],
)
def test_what_contradicts_is_refused(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    text = SHIPPED
    for key, value in changes.items():
        text, found = re.subn(rf"(?m)^{key} = [^#\n]*", f"{key} = {value} ", text, count=1)
        assert found
    (tmp_path / "policy.toml").write_text(text)
    assert re.match(said, refused(tmp_path / "policy.toml"))


@pytest.mark.parametrize(("value", "hint"), [("shadwo", "did you mean 'shadow'?"), ("x", "one of 'enforce', 'shadow'")])
def test_a_word_that_is_none_of_those_there_are(changed: Any, policy_file: Path, value: str, hint: str) -> None:
    said = refused(changed(value_of(policy_file, "mode"), f'mode = "{value}"'))
    assert said == f"response.mode: Invalid enum value '{value}'; {hint}"


# -- the text of the file ------------------------------------------------------------------------------------------


def test_every_key_of_the_file_is_found_with_its_value() -> None:
    table = tomllib.loads(SHIPPED)
    for line in KEYS:
        at: Any = table
        for part in line.path.split("."):
            at = at[part]
        assert tomllib.loads(f"x = {line.value}")["x"] == at

    def leaves(value: Any, path: str = "") -> set[str]:
        if not isinstance(value, dict):
            return {path}
        return set().union(*(leaves(inner, f"{path}.{key}".strip(".")) for key, inner in value.items()))

    assert {line.path for line in KEYS} == leaves(table)


def test_comments_beside_and_above_and_values_over_lines() -> None:
    text = """\
# About nothing.

# Above.
[a] # beside
x = "a # b" # one
# two
# three
y = [ # four
  1, # five
  2,
]
z = 'it''s' # six

# Lost.

[a.b]
w = { q = 1 }
"""
    found = [(line.path, line.value, line.comment) for line in read_lines(text.replace("it''s", "#"))]
    assert [(path, comment) for path, _, comment in found] == [
        ("a", "Above. beside"),
        ("a.x", "one"),
        ("a.y", "two three four five"),
        ("a.z", "six"),
        ("a.b", ""),
        ("a.b.w", ""),
    ]
    values = {path: value for path, value, _ in found}
    assert (values["a.x"], values["a.z"], values["a.b.w"]) == ('"a # b"', "'#'", "{ q = 1 }")
    assert tomllib.loads(f"y = {values['a.y']}") == {"y": [1, 2]}


def test_a_part_of_the_file() -> None:
    lines = read_lines(SHIPPED)
    assert {line.section for line in within(lines, "risk")} == {"risk", "risk.points", "risk.half_life_minutes"}
    assert [line.path for line in within(lines, "risk.open")] == ["risk.open"]
    assert within(lines, "ris") == []
