"""Detection: state and a batch of events in, findings out. No input or output, no clock, no Faust."""

from detectors.engine import Counts, Partition, Told
from detectors.kinds import DETECTORS, Config, Sections

__all__ = ["DETECTORS", "Config", "Counts", "Partition", "Sections", "Told"]
