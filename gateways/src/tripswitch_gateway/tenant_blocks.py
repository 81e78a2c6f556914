"""The blocks of one tenant, as a call asks for them."""

from typing import Self

from tripswitch_gateway.claims import ACTIONS, Command
from tripswitch_gateway.decisions import Decision

# Suspend and revoke: no call of the caller goes on.
CUTS_OFF = ACTIONS.index("suspend")


class Standing(float):
    """When a command that is no restore ends, in Unix milliseconds; the command; and what to answer until then.

    A million blocks are in no processor's cache, and each object that is looked at costs a trip to memory. So what is
    asked on every call of a blocked caller is one object, the time itself, and the answer is made once: at the first
    call, because few of those who are blocked call.
    """

    __slots__ = ("answer", "command")

    def __new__(cls, command: Command) -> Self:
        """``command``, as it stands."""
        made = super().__new__(cls, command.ends_at)
        made.command = command
        made.answer = None
        return made

    command: Command
    answer: Decision | None
    """What `denial` gave, once it was asked for."""

    def denial(self) -> Decision | None:
        """The answer, if no other command is on the caller; None where it depends on how much was used."""
        if self.answer is None and self.command.strictness >= CUTS_OFF:
            self.answer = Decision(False, self.command.http_status, self.command, matches=(self.command,))
        return self.answer


# Shared by all tenants that have no block of a scope: what is asked on every call stays in the processor's cache.
_NONE: dict[str, Standing] = {}


class TenantBlocks:
    """The commands other than restores on one tenant, by scope and subject."""

    __slots__ = ("credential", "end_user", "identity", "identity_alone", "session", "tenant")

    def __init__(self) -> None:
        self.identity = self.credential = self.session = self.end_user = self.tenant = _NONE
        self.identity_alone = True
        """Only identities are blocked, as nearly always: nothing else has to be looked up."""

    def put(self, command: Command) -> None:
        """Block the subject of ``command``."""
        held: dict[str, Standing] = getattr(self, command.scope)
        if held is _NONE:
            setattr(self, command.scope, {command.subject: Standing(command)})
        else:
            held[command.subject] = Standing(command)
        self._look_for_others()

    def remove(self, command: Command) -> None:
        """Block the subject of ``command`` no more."""
        held: dict[str, Standing] = getattr(self, command.scope)
        held.pop(command.subject, None)
        if not held:
            setattr(self, command.scope, _NONE)
        self._look_for_others()

    def is_empty(self) -> bool:
        """Whether nothing of the tenant is blocked."""
        return self.identity_alone and not self.identity

    def matching(
        self, identity: str, credential: str | None, session: str | None, tenant: str, end_user: str | None
    ) -> list[Standing]:
        """The commands on a caller."""
        found = [
            self.identity.get(identity),
            None if credential is None else self.credential.get(credential),
            None if session is None else self.session.get(session),
            None if end_user is None else self.end_user.get(end_user),
            self.tenant.get(tenant),
        ]
        return [
            one
            for one in found
            # Session names are made up by callers, and two of them may well use the same one.
            if one is not None and (one.command.scope != "session" or one.command.identity in (None, identity))
        ]

    def _look_for_others(self) -> None:
        self.identity_alone = not (self.credential or self.session or self.end_user or self.tenant)
