"""A gateway's acknowledgement on `llm.killswitch.acks`: OCSF 7001, Remediation Activity."""

import msgspec
from msgspec import Struct


class Product(Struct, frozen=True):
    """Who acknowledges: the enforcement point's kind, and (`vendor_name`) which one it is."""

    name: str
    vendor_name: str = ""


class Metadata(Struct, frozen=True):
    """OCSF's metadata, as far as we read it."""

    product: Product


class Unmapped(Struct, frozen=True):
    """What OCSF has no field for. `propagation_ms`: from publication to being in force."""

    epoch: int | None = None
    propagation_ms: float | None = None
    streams_aborted: int | None = None


class Acknowledgement(Struct, frozen=True):
    """`time` in ms since 1970; `activity_id` 2 evicts, 3 restores; `status_id` 1 is success, 2 failure."""

    command_uid: str
    time: int
    activity_id: int
    status_id: int
    metadata: Metadata
    status_detail: str = ""
    unmapped: Unmapped = Unmapped()


decode_acknowledgement = msgspec.json.Decoder(Acknowledgement).decode
