"""Every detector, in the order in which they speak where one event triggers several, and what the policy tells each."""

from msgspec import Struct

from detectors import (
    dormant,
    drift,
    entitlement,
    evasion,
    failure_burst,
    geo_shift,
    loop,
    model_shift,
    quota,
    shared_credential,
    spike,
)
from detectors.view import Detector
from schemas.directory import Directory

DETECTORS: tuple[type[Detector], ...] = (
    spike.Spike,
    drift.Drift,
    loop.Loop,
    geo_shift.GeoShift,
    shared_credential.SharedCredential,
    model_shift.ModelShift,
    failure_burst.FailureBurst,
    dormant.Dormant,
    entitlement.Entitlement,
    quota.Quota,
    evasion.Evasion,
)


class Sections(Struct, frozen=True):
    """The sections of policy.toml that speak of detectors."""

    spike: spike.Config
    drift: drift.Config
    loop: loop.Config
    geo_shift: geo_shift.Config
    shared_credential: shared_credential.Config
    model_shift: model_shift.Config
    failure_burst: failure_burst.Config
    dormant: dormant.Config
    entitlement: entitlement.Config
    quota: quota.Config
    evasion: evasion.Config


class Config(Sections, frozen=True):
    """What the detectors need of policy.toml; `version` names the file's content."""

    version: str


def make_detectors(config: Config, directory: Directory) -> tuple[Detector, ...]:
    """One of each, without any state."""
    return (
        spike.Spike(config.spike),
        drift.Drift(config.drift),
        loop.Loop(config.loop),
        geo_shift.GeoShift(config.geo_shift),
        shared_credential.SharedCredential(config.shared_credential),
        model_shift.ModelShift(config.model_shift),
        failure_burst.FailureBurst(config.failure_burst),
        dormant.Dormant(config.dormant),
        entitlement.Entitlement(config.entitlement, directory),
        quota.Quota(config.quota, directory),
        evasion.Evasion(config.evasion),
    )
