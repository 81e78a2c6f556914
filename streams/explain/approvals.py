"""People's approvals as the archive keeps them: signed orders, of which those count that decide took."""

from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from responses.approved import Ordered, ordered_by
from schemas.request import decode_request
from sinks.keys import retired_file
from sinks.killswitch import REQUEST_TYPE, Verifier
from streams.settings import Signing


def approvals_in(tokens: Iterable[bytes], signing: Signing) -> list[Ordered]:
    """The approvals in `tokens`, in their order, that somebody who may had signed: today, or before the key was
    retired. decide took no others.

    Raises:
        BadKey: there are some, and the file with the public keys can't be used.
    """
    held = list(tokens)
    if not held:
        return []
    public = Path(signing.operators or signing.jwks)
    verifiers = [Verifier.read(file) for file in (public, retired_file(public)) if file == public or file.exists()]
    return [one for token in held if (one := _approval(token, verifiers)) is not None]


def _approval(token: bytes, verifiers: Iterable[Verifier]) -> Ordered | None:
    for verifier in verifiers:
        try:
            payload, key = verifier.signed(token, REQUEST_TYPE)
            request = decode_request(payload)
        except ValueError:
            continue
        if request.action == "approve":
            return ordered_by(replace(request, by=key.person or request.by))
    return None
