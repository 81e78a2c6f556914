"""What a gateway answers when the kill switch says no."""

from datetime import UTC, datetime
from math import ceil

from tripswitch_gateway.decisions import Decision

DENIED = "tripswitch_denied"
_UNAVAILABLE = "Calls cannot be checked at the moment. Please try again."
_NO_COMMAND: dict[str, object] = {
    "type": DENIED,
    "action": None,
    "incident_id": None,
    "command_id": None,
    "contact": None,
    "expires_at": None,
}


def denial_answer(decision: Decision) -> tuple[int, dict[str, str], dict[str, object]]:
    """Status, headers and JSON body for a ``decision`` that is not allowed. Raises ValueError for one that is."""
    command = decision.command
    if decision.allowed:
        raise ValueError("this call is allowed: there is nothing to deny")
    headers = {}
    if decision.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, ceil(decision.retry_after_s)))
    if command is None:
        # No command denies it: the gateway cannot tell whether one does, and was told to deny then.
        return decision.status, headers, {"error": _NO_COMMAND | {"message": _UNAVAILABLE, "reason": decision.reason}}
    headers["X-Tripswitch-Incident"] = _printable(command.incident_id)
    error = {
        "type": DENIED,
        "action": command.action,
        "message": command.reason_user,
        "incident_id": command.incident_id,
        "command_id": command.command_id,
        "reason": command.reason_admin,
        "contact": command.contact,
        "expires_at": None if command.expires_at is None else rfc3339(command.expires_at),
    }
    return decision.status, headers, {"error": error}


def rfc3339(unix_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(unix_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{unix_ms % 1000:03d}Z"


def _printable(text: str) -> str:
    """Header values are visible ASCII: a line break would start a header of its own."""
    return "".join(char for char in text if char.isascii() and char.isprintable())
