"""Reading what others wrote: whatever is wrong with it is one error."""

from typing import TypeVar

import msgspec

Decoded = TypeVar("Decoded")


class Malformed(ValueError):
    """A record that is not what its topic holds: a dead letter with this reason."""


def decode(decoder: msgspec.json.Decoder[Decoded], raw: bytes) -> Decoded:
    """What `raw` holds.

    Raises:
        Malformed: it is not UTF-8, not JSON, nested too deeply, or not of the decoder's type.
    """
    try:
        return decoder.decode(raw)
    except UnicodeDecodeError as error:
        raise Malformed(f"not UTF-8: {error.reason} at byte {error.start}") from error
    except RecursionError as error:
        raise Malformed("nested too deeply") from error
    except msgspec.MsgspecError as error:
        raise Malformed(str(error)) from error
