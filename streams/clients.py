"""How clients other than Faust's own reach the broker."""

import ssl
from typing import Any

from streams.settings import Kafka


def tls(kafka: Kafka) -> ssl.SSLContext | None:
    """The TLS context that the settings ask for; None where they ask for none."""
    if not kafka.security_protocol.endswith("SSL"):
        return None
    context = ssl.create_default_context(cafile=kafka.ssl_ca)
    if kafka.ssl_cert:
        context.load_cert_chain(kafka.ssl_cert, kafka.ssl_key)
    return context


def aiokafka_options(kafka: Kafka) -> dict[str, Any]:
    """The options of an aiokafka client."""
    options: dict[str, Any] = {
        "bootstrap_servers": [address.strip() for address in kafka.bootstrap.split(",")],
        "security_protocol": kafka.security_protocol,
        "ssl_context": tls(kafka),
    }
    if kafka.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.sasl_username,
            "sasl_plain_password": kafka.sasl_password,
        }
    return options
