"""What a policy would have found and cut off in traffic of the past, scored against labels or, without any, counted."""

from streams.backtest.corpus import Corpus, CorpusError, Label, read_corpus
from streams.backtest.run import Result, backtest
from streams.backtest.score import Score, score
from streams.backtest.shadow import Shadow, shadow

__all__ = ["Corpus", "CorpusError", "Label", "Result", "Score", "Shadow", "backtest", "read_corpus", "score", "shadow"]
