"""A small catalog, a container of it and certificates for the audit's tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CATALOG: dict[str, Any] = {
    "services": ["web"],
    "images": [{"service": "web", "image": "web:1"}],
    "published_ports": [
        {"service": "web", "host_ip": "0.0.0.0", "host_port": 443, "container_port": 8443, "protocol": "tcp"}  # noqa: S104 as a catalog has it
    ],
    "probes": [{"service": "web", "tls": True, "path": "/up"}],
}
# As `docker inspect` prints it for the audit.
CONTAINER = (
    '{"service": "web", "name": "/shop-web-1", "status": "running", "exit": 0, "killed": false, "health": "healthy", '
    '"image": "web:1", "limit": 1, "pid": 1, "hash": "h1", '
    '"ports": {"8443/tcp": [{"HostIp": "0.0.0.0", "HostPort": "443"}]}}'
)


def certificate(end: datetime) -> str:
    """A self-signed certificate that is good until `end`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(end)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
