"""The pages of docs/kinds are complete, and say what the code and the policy say."""

from pathlib import Path
from typing import get_args

import pytest

from detectors import DETECTORS
from schemas.finding import Kind
from streams.kinds import FOLDER, SECTIONS, Page, pages, rendered
from streams.policy_text import read_lines, within

PAGES = pages()
each = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.kind)


def test_every_detector_has_a_page() -> None:
    assert {detector.kind for detector in DETECTORS} | {"tenant_spike"} == {page.kind for page in PAGES}
    assert {page.kind for page in PAGES} <= set(get_args(Kind))


@each
def test_every_page_has_all_sections(page: Page) -> None:
    assert page.title.endswith(".")
    assert page.sections.keys() == set(SECTIONS)
    assert all(len(text) > 30 for text in page.sections.values())


@each
def test_every_page_has_every_key_of_its_policy(page: Page, policy_file: Path) -> None:
    text = rendered()[f"{page.kind}.md"]
    lines = [line for line in within(read_lines(policy_file.read_text()), page.kind) if line.key]
    assert lines
    for line in lines:
        assert f"`[{line.section}]`" in text
        rows = [row for row in text.splitlines() if row.startswith(f"| `{line.key}` |")]
        assert any(f"| `{line.value}` |" in row and line.comment.replace("|", "\\|") in row for row in rows)


def test_the_pages_are_up_to_date() -> None:
    files = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert files == rendered(), "`make docs` renders them"


def test_the_index_leads_to_every_page() -> None:
    index = rendered()["README.md"]
    assert all(f"| [{page.kind}]({page.kind}.md) | " in index for page in PAGES)
