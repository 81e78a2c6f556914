"""Detection: state and a batch of events in, findings out. No input or output, no clock, no Faust."""

from detectors.engine import DETECTORS, Config, Counts, Partition, Told, compile_kernels

__all__ = ["DETECTORS", "Config", "Counts", "Partition", "Told", "compile_kernels"]
