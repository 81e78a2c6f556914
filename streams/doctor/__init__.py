"""`tripswitch doctor`: whether what is decided is obeyed, everywhere, and what is to be mended where it is not."""

from streams.doctor.canary import Canary
from streams.doctor.check import Check, State
from streams.doctor.examination import examine

__all__ = ["Canary", "Check", "State", "examine"]
