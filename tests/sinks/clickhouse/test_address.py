import pytest

from sinks.clickhouse import ClickHouseSink
from sinks.clickhouse.address import Embedded, Server, parse_address


def test_a_server_with_all_its_parts() -> None:
    assert parse_address("https://kim:p%40ss%2Fword@ch.example:9440/llm") == Server(
        host="ch.example", port=9440, secure=True, user="kim", password="p@ss/word", database="llm"
    )


@pytest.mark.parametrize(("url", "port"), [("http://ch", 8123), ("https://ch/", 8443)])
def test_what_is_left_out_has_a_default(url: str, port: int) -> None:
    address = parse_address(url)
    assert isinstance(address, Server)
    assert (address.port, address.user, address.password, address.database) == (port, "default", "", "default")


def test_an_embedded_engine() -> None:
    assert parse_address("chdb:///var/lib/trip%20switch/") == Embedded("/var/lib/trip switch", "default")
    assert parse_address("chdb:///var/lib/x?database=llm") == Embedded("/var/lib/x", "llm")


def test_the_text_of_an_address_has_no_password() -> None:
    address = parse_address("http://kim:hunter2@[::1]:8123/llm")
    assert str(address) == "http://[::1]:8123/llm"
    assert "hunter2" not in repr(address)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "start with http://"),
        ("clickhouse://kim:hunter2@ch:9000/llm", "start with http://"),
        ("kim:hunter2@ch:8123", "start with http://"),
        ("http://kim:hunter2@:8123/llm", "no host"),
        ("http://kim:hunter2/extra@ch:8123/llm", "%2F"),
        ("http://kim:12/hunter2@ch:8123/llm", "letters, digits"),
        ("http://kim:hunter2@ch:port/llm", "%2F"),
        ("http://kim:hunter2@[::1/llm", "%2F"),
        ("http://kim:12#hunter2@ch:8123/llm", "after ? or #"),
        ("http://ch:8123/llm?password=hunter2", "after ? or #"),
        ("http://ch:8123/hunter2;drop", "letters, digits"),
        ("chdb://relative/hunter2", "absolute"),
        ("chdb:///", "absolute"),
        ("chdb:///x?hunter2=1", "?database="),
    ],
)
def test_a_bad_url_is_told_what_is_wrong_and_gives_nothing_away(url: str, says: str) -> None:
    with pytest.raises(ValueError, match="CLICKHOUSE_URL") as caught:
        ClickHouseSink(url)
    assert says in str(caught.value)
    assert "chdb:///" in str(caught.value) or "chdb://" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
