"""What the guard itself counts, in Prometheus' text format."""

from collections.abc import Mapping

from tripswitch_gateway.guard.known_keys import KnownKeys


def render_guard(answered: Mapping[int, int], keys: KnownKeys | None) -> str:
    """``answered`` counts answers by their status. No label holds anything that a caller chose."""
    name = "tripswitch_guard_answers_total"
    lines = [f"# HELP {name} Answers to proxies.", f"# TYPE {name} counter"]
    lines += [f'{name}{{status="{status}"}} {count}' for status, count in sorted(answered.items())]
    if keys is not None:
        name = "tripswitch_guard_known_keys"
        lines += [f"# HELP {name} Entries of the key table.", f"# TYPE {name} gauge", f"{name} {len(keys)}"]
    return "\n".join(lines) + "\n"
