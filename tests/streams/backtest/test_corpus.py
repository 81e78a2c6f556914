"""A folder that is no corpus is named with what is wrong with it."""

import json
from pathlib import Path

import pytest

from hand_made import START
from streams.backtest.corpus import CorpusError, read_corpus

LABEL = {
    "identity": "key_1", "attack": "theft", "start": "2026-03-02T00:00:00Z", "end": "2026-03-02T01:00:00Z",
    "response": "revoke", "accept": ["spike"],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "events.jsonl").write_text("")
    (tmp_path / "labels.jsonl").write_text(json.dumps(LABEL) + "\n\n" + json.dumps(LABEL | {"response": "none"}))
    return tmp_path


def test_a_corpus_is_read(folder: Path) -> None:
    corpus = read_corpus(folder)
    assert [label.is_attack for label in corpus.labels] == [True, False]
    assert corpus.labels[0].start == START
    assert corpus.directory.identities == {}
    (folder / "directory.json").write_text('{"identities": {"key_1": {"tenant": "acme"}}}')
    assert read_corpus(folder).directory.tenant_of("key_1") == "acme"
    (folder / "events.jsonl.gz").write_text("")
    assert read_corpus(folder).events == str(folder / "events.jsonl.gz")


@pytest.mark.parametrize("name", ["events.jsonl", "labels.jsonl"])
def test_a_file_that_is_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CorpusError, match=name):
        read_corpus(folder)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("{", "truncated"),
        (json.dumps(LABEL | {"response": "panic"}), "Invalid enum value 'panic'"),
        (json.dumps(LABEL | {"start": "2026-03-02T00:00:00"}), "timezone"),
        (json.dumps({"identity": "key_1"}), "missing required field `attack`"),
        ("\ud800", "labels"),
    ],
)
def test_a_line_that_is_no_label(folder: Path, wrong: str, said: str) -> None:
    raw = (json.dumps(LABEL) + "\n\n" + wrong).encode("utf-8", "surrogatepass")
    (folder / "labels.jsonl").write_bytes(raw)
    with pytest.raises(CorpusError, match=said) as caught:
        read_corpus(folder)
    assert str(caught.value).startswith(f"{folder / 'labels.jsonl'}:3: no label: ")


def test_what_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such folder"):
        read_corpus(tmp_path / "none")
