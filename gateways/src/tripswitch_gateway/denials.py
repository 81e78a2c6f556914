"""What a gateway answers when the kill switch says no."""

from datetime import UTC, datetime
from math import ceil

from tripswitch_gateway.revocations import Decision

DENIED = "tripswitch_denied"


def denial_answer(decision: Decision) -> tuple[int, dict[str, str], dict[str, object]]:
    """Status, headers and JSON body for a ``decision`` that is not allowed. Raises ValueError for one that is."""
    command = decision.command
    if decision.allowed or command is None:
        raise ValueError("this call is allowed: there is nothing to deny")
    headers = {"X-Tripswitch-Incident": _printable(command.incident_id)}
    if decision.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, ceil(decision.retry_after_s)))
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
