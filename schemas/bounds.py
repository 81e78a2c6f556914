"""What a threshold of policy.toml may be: finite, and never a divisor of zero."""

from typing import Annotated

from msgspec import Meta

Positive = Annotated[float, Meta(gt=0, le=1e15)]
NotNegative = Annotated[float, Meta(ge=0, le=1e15)]
Share = Annotated[float, Meta(gt=0, lt=1)]
Some = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
