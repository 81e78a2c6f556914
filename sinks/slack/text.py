"""Text for Slack: escaped, bounded, and inert, whatever a tenant or an identity is called."""

import shlex

from schemas.times import format_millis, parse_millis

SECTION_LIMIT = 3000
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_CENT = 0.01
_HUNDRED = 100


def escape(text: str, limit: int = SECTION_LIMIT) -> str:
    """`text` with Slack's three control characters as entities, cut to `limit` characters with an ellipsis.

    Line breaks and other unprintable characters (also those that turn the direction of writing) become `�`, so that
    a name cannot pass for another one. An entity is never cut in two.
    """
    pieces = [_ENTITIES.get(char, char if char.isprintable() else "\N{REPLACEMENT CHARACTER}") for char in text[:limit]]
    if len(text) <= limit and sum(map(len, pieces)) <= limit:
        return "".join(pieces)
    room = limit - 1
    kept = []
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + "…"


def code(text: str, limit: int = 200) -> str:
    """`text` as a mrkdwn code span of at most `limit` + 2 characters: nothing inside is formatted or linked."""
    inner = escape(text.replace("`", "\N{MODIFIER LETTER GRAVE ACCENT}"), limit)
    return f"`{inner or '�'}`"


def shell_word(text: str) -> str:
    """`text` as one word for a POSIX-like shell that can be copied out of a code span.

    Backticks and unprintable characters are written as bash and zsh read them in `$'…'`.
    """
    if text.isprintable() and "`" not in text:
        return shlex.quote(text)
    odd = {"\\", "'", "`"}
    return "$'" + "".join(c if c.isprintable() and c not in odd else f"\\U{ord(c):08x}" for c in text) + "'"


def money(usd: float) -> str:
    """US dollars with the digits that matter: `$1,234`, `$69.12`, `under $0.01`."""
    if 0 < usd < _CENT:
        return "under $0.01"
    return f"${usd:,.0f}" if usd >= _HUNDRED else f"${usd:.2f}"


def local_time(time: str) -> str:
    """A token that Slack shows in the reader's own time zone; elsewhere `2026-03-02 00:01:32 UTC`.

    Raises:
        ValueError: `time` is no RFC 3339 time.
    """
    millis = parse_millis(time)
    utc = format_millis(millis)
    return f"<!date^{millis // 1000}^{{date_short_pretty}} {{time_secs}}|{utc[:10]} {utc[11:19]} UTC>"
