"""`CLICKHOUSE_URL`: a server's address, or the directory of an embedded engine."""

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

_GOOD = "write http://user:password@host:8123/database, https://… or chdb:///absolute/directory"
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Server:
    """A ClickHouse server's HTTP port. Its text never has the password in it."""

    host: str
    port: int
    secure: bool
    user: str
    password: str = field(repr=False)
    database: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True)
class Embedded:
    """A directory that an engine inside this process works on; one process at a time."""

    directory: str
    database: str

    def __str__(self) -> str:
        return f"chdb://{self.directory}?database={self.database}"


Address = Server | Embedded


def parse_address(url: str) -> Address:
    """The address that `url` names: `http[s]://[user[:password]@]host[:port][/database]`, `chdb:///dir[?database=name]`.

    Raises:
        ValueError: what is wrong with it and what a good one looks like; never any of its secrets.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in ("http", "https", "chdb"):
        raise ValueError(f"CLICKHOUSE_URL has to start with http://, https:// or chdb://; {_GOOD}")
    # Python's own messages on a bad URL quote the part that they stumble over, which may be of a password.
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(
            "CLICKHOUSE_URL has no readable host and port (in a password, write / ? # @ : as %2F %3F %23 %40 %3A); "
            + _GOOD
        ) from None
    if scheme == "chdb":
        return _embedded(parts.netloc, unquote(parts.path), parts.query)
    if not host:
        raise ValueError(f"CLICKHOUSE_URL names no host; {_GOOD}")
    if parts.query or parts.fragment:
        raise ValueError(
            f"CLICKHOUSE_URL takes nothing after ? or # (in a password, write them as %3F and %23); {_GOOD}"
        )
    secure = scheme == "https"
    return Server(
        host=host,
        port=port or (8443 if secure else 8123),
        secure=secure,
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        database=_database(unquote(parts.path).strip("/")),
    )


def _embedded(netloc: str, path: str, query: str) -> Embedded:
    if netloc or not path.strip("/"):
        raise ValueError(f"CLICKHOUSE_URL chdb:// needs an absolute directory after three slashes; {_GOOD}")
    options = parse_qs(query, keep_blank_values=True)
    if options.keys() - {"database"}:
        raise ValueError("CLICKHOUSE_URL chdb:// takes no option but ?database=name")
    return Embedded(directory=path.rstrip("/"), database=_database(options.get("database", [""])[-1]))


def _database(name: str) -> str:
    if name and not _DATABASE.fullmatch(name):
        raise ValueError(f"CLICKHOUSE_URL's database may have letters, digits, _ and - only; {_GOOD}")
    return name or "default"
