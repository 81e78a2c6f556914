"""Why a finding was made and what was decided on it: its events, the state before, and the same computed again."""

from streams.explain.again import Again, compute_again
from streams.explain.explanation import ExplainError, Explanation, explain
from streams.explain.sources import Archive, ReplayFolder, Source, SourceError

__all__ = [
    "Again", "Archive", "ExplainError", "Explanation", "ReplayFolder", "Source", "SourceError", "compute_again",
    "explain",
]  # fmt: skip
