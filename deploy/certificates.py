"""Makes the certificates with which the containers and Kafka know each other, where there are none yet.

    python certificates.py FOLDER --broker kafka:kafka,localhost,127.0.0.1 --client tripswitch-detect …

A name that a broker is reached by is a host name or an address. FOLDER gets, for each NAME, a folder NAME with
`certificate.pem` and `key.pem`, for the broker `keystore.pem` (both in one file, as Kafka wants them), and in each
folder `ca.pem`. The authority's own key lies in FOLDER/authority and is needed only here. Other keys can be read by
the group, of which Kafka's container is. Certificates hold for two years: delete a folder and run this again to renew
one.
"""

import argparse
import ipaddress
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAYS = 730
AUTHORITY_DAYS = 3650


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _write(path: Path, *parts: bytes, mode: int = 0o644) -> None:
    path.touch(mode=0o600)
    path.chmod(mode)
    path.write_bytes(b"".join(parts))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


class Authority:
    """Signs certificates with a key of its own, which is made at first."""

    def __init__(self, folder: Path) -> None:
        certificate, key = folder / "ca.pem", folder / "key.pem"
        if not key.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            made = ec.generate_private_key(ec.SECP256R1())
            name = _name("tripswitch authority")
            signed = (
                _begin(name, name, made, AUTHORITY_DAYS)
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(_usage(signs=True), critical=True)
                .sign(made, hashes.SHA256())
            )
            _write(certificate, signed.public_bytes(Encoding.PEM))
            _write(key, _pem(made), mode=0o600)
        self.pem = certificate.read_bytes()
        self._certificate = x509.load_pem_x509_certificate(self.pem)
        loaded = load_pem_private_key(key.read_bytes(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise SystemExit(f"{key}: not a key that this made")
        self._key = loaded

    def issue(self, folder: Path, common: str, hosts: list[str]) -> None:
        """Certificate and key of `common` in `folder`, for a server at `hosts` or, without any, a client."""
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        # A broker is also a client: of itself, and of its controller.
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
        unsigned = (
            _begin(_name(common), self._certificate.subject, key, DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._certificate.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        if hosts:
            unsigned = unsigned.add_extension(x509.SubjectAlternativeName(list(map(_host, hosts))), critical=False)
        certificate = unsigned.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        _write(folder / "ca.pem", self.pem)
        _write(folder / "certificate.pem", certificate)
        if hosts:
            _write(folder / "keystore.pem", _pem(key), certificate, mode=0o640)
        # The key last: a folder that has one is complete.
        _write(folder / "key.pem", _pem(key), mode=0o640)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def main(words: list[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--broker", required=True, metavar="NAME:HOST,…", help="the broker and what it is reached by")
    parser.add_argument("--client", action="append", default=[], metavar="NAME")
    given = parser.parse_args(words)
    authority = Authority(given.folder / "authority")
    broker, _, hosts = given.broker.partition(":")
    for name in (broker, *given.client):
        if (given.folder / name / "key.pem").exists():
            continue
        authority.issue(given.folder / name, name, hosts.split(",") if name == broker else [])
        print(f"certificate of {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
