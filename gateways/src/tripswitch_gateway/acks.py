"""Acknowledgements: OCSF Remediation Activity records (class 7001), one per command that a gateway acted on."""

from collections.abc import Mapping

from tripswitch_gateway.claims import Command

_EVICT, _RESTORE, _HARDEN, _OTHER = 2, 3, 4, 99
_SUCCESS, _FAILURE = 1, 2
_COUNTERMEASURES = {
    "revoke": ("Evict", "Credential Revocation", "D3-CR"),
    "suspend": ("Evict", "Account Locking", "D3-AL"),
    "restore": ("Restore", "Restore User Account Access", "D3-RUAA"),
}


def applied(
    command: Command, gateway: str, applied_at: int, place: Mapping[str, int], *, expired: bool
) -> dict[str, object]:
    """The record for a command that came in while the gateway ran.

    ``applied_at`` is Unix milliseconds, ``place`` the record's partition and offset. A command that was over when it
    came is a failure: nothing was cut off in time.
    """
    activity = _RESTORE if command.action == "restore" else _EVICT
    record = _record(command.command_id, gateway, applied_at, activity, _FAILURE if expired else _SUCCESS)
    if expired:
        record["status_detail"] = "expired"
    if command.action in _COUNTERMEASURES:
        tactic, technique, uid = _COUNTERMEASURES[command.action]
        record["countermeasures"] = [
            {
                "d3f_tactic": {"name": tactic, "uid": f"d3f:{tactic}"},
                "d3f_technique": {"name": technique, "uid": uid},
            }
        ]
    record["unmapped"] = {
        "action": command.action,
        "epoch": command.epoch,
        "applied_at": applied_at,
        "propagation_ms": applied_at - command.not_before,
        **place,
    }
    return record


def refused(command_uid: str, reason: str, gateway: str, now_ms: int, place: Mapping[str, int]) -> dict[str, object]:
    """The record for something on the topic that is no command to obey."""
    record = _record(command_uid, gateway, now_ms, _EVICT, _FAILURE)
    record["status_detail"] = f"refused: {reason}"
    record["unmapped"] = dict(place)
    return record


def cold_start(command_uid: str, gateway: str, now_ms: int, counts: Mapping[str, object]) -> dict[str, object]:
    """The one record for all commands that a starting gateway read before it was ready."""
    record = _record(command_uid, gateway, now_ms, _OTHER, _SUCCESS)
    record["activity_name"] = "Cold start"
    record["unmapped"] = dict(counts)
    return record


def keys_taken(jwks_sha256: str, gateway: str, now_ms: int) -> dict[str, object]:
    """The record for a set of signing keys that the gateway believes from now on."""
    record = _record(f"jwks/{jwks_sha256}", gateway, now_ms, _HARDEN, _SUCCESS)
    record["unmapped"] = {"jwks_sha256": jwks_sha256}
    return record


def disagrees(partition: int, gateway: str, now_ms: int, counts: Mapping[str, object]) -> dict[str, object]:
    """The record for a table that is not what the heartbeat of a partition says."""
    record = _record(f"heartbeat/{partition}", gateway, now_ms, _OTHER, _FAILURE)
    record["activity_name"] = "Disagrees"
    record["status_detail"] = "the table disagrees with the heartbeat"
    record["unmapped"] = dict(counts)
    return record


def alive(gateway: str, now_ms: int, state: Mapping[str, object]) -> dict[str, object]:
    """The record by which a gateway is heard of while nothing happens."""
    record = _record(f"alive/{gateway}", gateway, now_ms, _OTHER, _SUCCESS)
    record["activity_name"] = "Alive"
    record["unmapped"] = dict(state)
    return record


def _record(command_uid: str, gateway: str, now_ms: int, activity: int, status: int) -> dict[str, object]:
    return {
        "category_uid": 7,
        "class_uid": 7001,
        "activity_id": activity,
        "type_uid": 700100 + activity,
        "time": now_ms,
        "severity_id": 1,
        "status_id": status,
        "command_uid": command_uid,
        "metadata": {"version": "1.8.0", "product": {"name": "tripswitch-gateway", "vendor_name": gateway}},
    }
