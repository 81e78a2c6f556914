"""LiteLLM obeys the kill switch and tells what its calls used, with one line in the proxy's configuration:

```yaml
litellm_settings:
  callbacks: ["tripswitch_gateway.litellm.tripswitch"]
```

Addresses and keys come from the environment or ``tripswitch.toml``, as everywhere (`load_settings`); TRIPSWITCH_GATEWAY
names the gateway, the machine's name when absent. See docs/gateways/litellm.md.
"""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tripswitch_gateway.litellm.hooks import TripswitchLogger

    tripswitch: TripswitchLogger
    """The hooks, following the kill switch from the moment that somebody asks for them by this name."""

__all__ = ["tripswitch"]


def __getattr__(name: str) -> "TripswitchLogger":
    # Connected when the proxy reads its configuration, in the process that serves, and not by an import.
    if name == "tripswitch":
        return _connected()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _connected() -> "TripswitchLogger":
    from tripswitch_gateway.litellm.hooks import connect

    return connect()
