"""The blocks of one tenant, as a call asks for them."""

from tripswitch_gateway.claims import Command

# Shared by all tenants that have no block of a scope: what is asked on every call stays in the processor's cache.
_NONE: dict[str, Command] = {}


class TenantBlocks:
    """The commands other than restores on one tenant, by scope and subject."""

    __slots__ = ("credential", "end_user", "identity", "session", "tenant")

    def __init__(self) -> None:
        self.identity = self.credential = self.session = self.end_user = self.tenant = _NONE

    def put(self, command: Command) -> None:
        """Block the subject of ``command``."""
        held: dict[str, Command] = getattr(self, command.scope)
        if held is _NONE:
            setattr(self, command.scope, {command.subject: command})
        else:
            held[command.subject] = command

    def remove(self, command: Command) -> None:
        """Block the subject of ``command`` no more."""
        held: dict[str, Command] = getattr(self, command.scope)
        held.pop(command.subject, None)
        if not held:
            setattr(self, command.scope, _NONE)

    def is_empty(self) -> bool:
        """Whether nothing of the tenant is blocked."""
        return not (self.identity or self.credential or self.session or self.end_user or self.tenant)
