"""What a sink answers when it cannot write: each error names the cure. Anything else that is raised is a crash.

Exception
├── Retry         wait `after` seconds, then write the same again
├── Reject        never: a dead letter, with `reason`
└── Unreachable   the address or the credentials do not work: an operator has to see to it
"""


class Retry(Exception):
    """The other side cannot take it now. `after` is how long to wait, in seconds."""

    def __init__(self, after: float, message: str = "") -> None:
        super().__init__(message or f"try again after {after:g} s")
        self.after = after


class Reject(Exception):
    """The other side will never take it. `reason` says why, in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unreachable(Exception):
    """The other side cannot be used as configured; the message says what to change, in one line."""
