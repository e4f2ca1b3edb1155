"""What the far repository's server is given."""

from __future__ import annotations

import datetime
import io
import ipaddress
import tarfile

import far
from cryptography import x509
from passlib.hash import bcrypt

NOW = datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC)


def test_server_lets_its_user_in_and_nobody_else_reads_its_key() -> None:
    with tarfile.open(fileobj=io.BytesIO(far.server_files("the access", "192.0.2.6", NOW))) as archive:
        entries = {entry.name: entry for entry in archive}
        users = archive.extractfile(".server/users")
        assert users is not None
        name, digest = users.read().decode().strip().split(":", 1)
    assert name == far.USER
    assert digest.startswith("$2y$")
    assert bcrypt.verify("the access", digest)
    assert {entry.uid for entry in entries.values()} == {1000}
    assert {entry.mode & 0o077 for entry in entries.values()} == {0}


def test_certificate_is_for_its_name_and_its_address() -> None:
    pem, key = far.certified("192.0.2.6", NOW)
    certificate = x509.load_pem_x509_certificate(pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [far.NAME]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("192.0.2.6")]
    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc
    assert b"PRIVATE KEY" in key


def test_who_may_write_may_not_delete_and_sees_only_what_is_theirs() -> None:
    assert {"--append-only", "--private-repos", "--tls"} <= set(far.COMMAND)
