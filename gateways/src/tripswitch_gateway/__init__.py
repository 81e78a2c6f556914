"""Obey tripswitch's kill switch in a gateway, and publish the gateway's usage.

```python
settings = load_settings()
verifier = CommandVerifier(KeyFile(settings.jwks), settings.issuer)
with RevocationList(settings.kafka, verifier, gateway="eu-1") as blocks:
    blocks.ready.wait()
    decision = blocks.check("key_7f3a", tenant="acme")
    if not decision.allowed:
        status, headers, body = denial_answer(decision)
```
"""

from tripswitch_gateway.commands import Command, CommandVerifier, Limits, record_key
from tripswitch_gateway.decisions import ALLOWED, STALE, Decision
from tripswitch_gateway.denials import DENIED, denial_answer
from tripswitch_gateway.fields import Refused
from tripswitch_gateway.keys import KeyFile, KeysUnreadable
from tripswitch_gateway.metrics import render_metrics
from tripswitch_gateway.publisher import UsagePublisher
from tripswitch_gateway.revocations import Outcome, RevocationTable
from tripswitch_gateway.settings import Settings, SettingsError, load_settings
from tripswitch_gateway.subscriber import RevocationList

__all__ = [
    "ALLOWED",
    "DENIED",
    "STALE",
    "Command",
    "CommandVerifier",
    "Decision",
    "KeyFile",
    "KeysUnreadable",
    "Limits",
    "Outcome",
    "Refused",
    "RevocationList",
    "RevocationTable",
    "Settings",
    "SettingsError",
    "UsagePublisher",
    "denial_answer",
    "load_settings",
    "record_key",
    "render_metrics",
]
