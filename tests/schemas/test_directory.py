from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.directory import Approval, Directory, DirectoryError, Entry, read_directory
from schemas.times import to_millis

JSON = """{"identities": {"key_1": {"tenant": "acme", "owner": "ann", "models": ["m"], "protected": true},
                 "key_2": {"expires": "2026-04-01T00:00:00+02:00"}},
 "approvals": [{"identity": "key_1", "from": "2026-03-02T00:00:00Z", "until": "2026-03-02T06:00:00+01:00",
                "max_multiplier": 3, "approved_by": "bob", "reason": "backfill"}]}"""
TOML = """
[identities.key_1]
tenant = "acme"
owner = "ann"
models = ["m"]
protected = true

[identities.key_2]
expires = 2026-04-01T00:00:00+02:00

[[approvals]]
identity = "key_1"
from = 2026-03-02T00:00:00Z
until = 2026-03-02T06:00:00+01:00
max_multiplier = 3
approved_by = "bob"
reason = "backfill"
"""


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_json_and_toml_say_the_same(tmp_path: Path) -> None:
    directory = read_directory(written(tmp_path, "d.json", JSON))
    assert directory == read_directory(written(tmp_path, "d.toml", TOML))
    assert directory.identities["key_1"] == Entry(tenant="acme", owner="ann", models=["m"], protected=True)
    assert directory.identities["key_2"].models is None
    assert directory.identities["key_2"].expires == datetime(2026, 3, 31, 22, tzinfo=UTC)
    assert directory.approvals[0].max_multiplier == 3


def test_an_approval_covers_from_its_first_to_its_last_moment() -> None:
    until = datetime(2026, 3, 2, 6, tzinfo=UTC)
    approval = Approval("key_1", datetime(2026, 3, 2, tzinfo=UTC), until, 3, "bob", "backfill")
    first, last = to_millis(approval.since), to_millis(until)
    assert [approval.covers(at) for at in (first - 1, first, last, last + 1)] == [False, True, True, False]


def test_an_identity_belongs_to_the_tenant_that_the_directory_says() -> None:
    directory = Directory({"key_1": Entry(tenant="acme"), "key_2": Entry()})
    assert [directory.tenant_of(name) for name in ("key_1", "key_2", "key_3")] == ["acme", "-", "-"]


@pytest.mark.parametrize(
    ("name", "text", "field"),
    [
        ("d.json", '{"identities": {"key_1": {"protected": "yes"}}}', r"\$\.identities\[\.\.\.\]\.protected"),
        ("d.json", '{"identities": {"k": {"expires": "2026-04-01T00:00:00"}}}', r"\$\.identities\[\.\.\.\]\.expires"),
        ("d.json", '{"identities": []}', r"\$\.identities"),
        ("d.json", JSON.replace(": 3", ": 0"), r"\$\.approvals\[0\]\.max_multiplier"),
        ("d.json", JSON.replace('"from"', '"since"'), "missing required field `from`"),
        ("d.json", JSON.replace("00:00:00Z", "00:00:00"), r"\$\.approvals\[0\]\.from"),
        ("d.toml", TOML.replace("= 3", '= "3"'), r"\$\.approvals\[0\]\.max_multiplier"),
        ("d.toml", TOML.replace("= true", "= 1"), r"\$\.identities\[\.\.\.\]\.protected"),
    ],
)
def test_an_error_names_the_file_and_the_field(tmp_path: Path, name: str, text: str, field: str) -> None:
    path = written(tmp_path, name, text)
    with pytest.raises(DirectoryError, match=field) as caught:
        read_directory(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "raw"),
    [("d.json", b"{"), ("d.json", b"\xff"), ("d.toml", b"x ="), ("d.toml", b"x = '\xff'"), ("d.json", b"")],
)
def test_what_is_neither_json_nor_toml_names_the_file(tmp_path: Path, name: str, raw: bytes) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DirectoryError, match=name):
        read_directory(tmp_path / name)


def test_a_file_that_is_not_there_is_that(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_directory(tmp_path / "none.json")
