"""What one of the doctor's checks says."""

from typing import Literal

from msgspec import Struct

State = Literal["ok", "unknown", "warning", "failure"]


class Check(Struct, frozen=True):
    """Of `what` was looked at: its state, what was seen, and how to mend it; empty where nothing is to be done."""

    what: str
    state: State
    seen: str
    mend: str = ""
