"""`[risk]` and `[response]` of policy.toml."""

from typing import Annotated, Literal, get_args

from msgspec import Meta, Struct

from responses.tenant_spike import Config as TenantSpikeConfig
from schemas.bounds import NotNegative, Positive
from schemas.finding import Kind, Severity

Family = Literal["velocity", "repetition", "place", "sharing", "mix", "failure", "sleep", "evasion"]
Block = Literal["throttle", "suspend", "revoke"]

FAMILY: dict[Kind, Family] = {
    "spike": "velocity", "tenant_spike": "velocity", "drift": "velocity", "quota": "velocity", "loop": "repetition",
    "geo_shift": "place", "shared_credential": "sharing", "model_shift": "mix", "entitlement": "mix",
    "failure_burst": "failure", "dormant": "sleep", "evasion": "evasion",
}  # fmt: skip


class Risk(Struct, frozen=True, forbid_unknown_fields=True):
    """How findings add up."""

    open: Positive
    quiet_minutes: Positive
    raise_again_minutes: Positive
    repeat_share: Annotated[float, Meta(ge=0, le=1)]
    family_bonus: NotNegative
    points: dict[Severity, Positive]
    half_life_minutes: dict[Family, Positive]

    def __post_init__(self) -> None:
        lacking = [name for name in get_args(Severity) if name not in self.points]
        lacking += [name for name in get_args(Family) if name not in self.half_life_minutes]
        if lacking:
            raise ValueError(f"no value for {', '.join(lacking)}")


class Ladder(Struct, frozen=True, forbid_unknown_fields=True):
    """What a workload class gets for each sort of evidence."""

    extreme: Block
    deterministic: Block
    stranger: Block
    families: Block
    theft: Block


class Response(Struct, frozen=True, forbid_unknown_fields=True):
    """When to block, how, for how long, and what forbids it."""

    mode: Literal["enforce", "shadow"]
    contact: str
    grace_minutes: Annotated[float, Meta(ge=0)]
    backlog_seconds: Positive
    families_to_block: Annotated[int, Meta(ge=2)]
    block_risk: Positive
    theft_points: Positive
    together_minutes: Positive
    throttle_minutes: Positive
    suspend_minutes: Positive
    renew_seconds: Positive
    renew_if_active_seconds: Positive
    permanent_after_blocks: Annotated[int, Meta(ge=2)]
    second_person_minutes: Positive
    cap_tenant: Annotated[int, Meta(ge=1)]
    cap_all: Annotated[int, Meta(ge=1)]
    cap_window_minutes: Positive
    throttle_least_rpm: Annotated[int, Meta(ge=1)]
    common_identities: Annotated[int, Meta(ge=2)]
    common_minutes: Positive
    interactive: Ladder
    batch: Ladder
    agent: Ladder

    def __post_init__(self) -> None:
        """Checks what must be in order."""
        shortest = min(self.throttle_minutes, self.suspend_minutes) * 60
        if max(self.renew_seconds, self.renew_if_active_seconds) >= shortest:
            raise ValueError(
                f"`renew_seconds` and `renew_if_active_seconds` must be less than the shortest block ({shortest:g} s)"
            )

    def ladder(self, workload: str | None) -> Ladder:
        """The ladder of a workload class; `interactive` where the class is unknown."""
        return {"batch": self.batch, "agent": self.agent}.get(workload or "", self.interactive)


class Config(Struct, frozen=True):
    """What the responses need of policy.toml; `version` names the file's content."""

    version: str
    risk: Risk
    response: Response
    tenant_spike: TenantSpikeConfig
    warn_share: float
