"""Names of models: which are the same model under another name."""

import re
from fnmatch import fnmatchcase
from functools import lru_cache

_OWNER = re.compile(r"^(?:.*/)?(?:(?:[a-z]+\.)+(?=[a-z]))?")
"""`openai/gpt-5`, `eu.anthropic.claude-sonnet-4-5`: whose it is, and where it runs."""
_ISSUE = re.compile(r"(?:[-@:](?:20\d{6}|20\d\d-\d\d-\d\d|latest|v\d+(?::\d+)?))+$")
"""`-20250929`, `@2025-08-07`, `-latest`, `-v1:0`: which issue of the model it is."""


@lru_cache(1 << 12)
def bare_name(model: str) -> str:
    """A model's name without its owner, its region and its issue: `us.anthropic.claude-opus-4-5-20251101-v1:0` and
    `claude-opus-4-5` are one model. A name that is nothing but these stays as it is."""
    name = model.lower()
    return _ISSUE.sub("", _OWNER.sub("", name)) or name


def is_among(model: str, granted: list[str]) -> bool:
    """Whether a model is one of those granted: by its name, by its bare name, or by a pattern such as `claude-*`."""
    bare = bare_name(model)
    for name in granted:
        if model == name or bare == bare_name(name):
            return True
        if "*" in name and (fnmatchcase(model, name) or fnmatchcase(bare, name.lower())):
            return True
    return False
