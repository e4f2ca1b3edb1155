"""What the far repository's server needs: who may write, and a certificate. Pure."""

from __future__ import annotations

import datetime
import io
import ipaddress
import tarfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from passlib.hash import bcrypt

NAME = "far.test"
USER = "pi"
# Below the folder of the repositories, where no user's repository is.
FOLDER = "/data/.server"
# Nobody who may only add can take back what is there.
COMMAND = [
    *("--append-only", "--private-repos", "--htpasswd-file", f"{FOLDER}/users"),
    *("--tls", "--tls-cert", f"{FOLDER}/cert.pem", "--tls-key", f"{FOLDER}/key.pem"),
]
_UID = 1000


def server_files(access: str, address: str, now: datetime.datetime) -> bytes:
    """A tar file of FOLDER's content: the user with the password `access`, and a certificate for `address`."""
    certificate, key = certified(address, now)
    users = f"{USER}:{bcrypt.using(rounds=10, ident='2y').hash(access)}\n"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in (("", b""), ("users", users.encode()), ("cert.pem", certificate), ("key.pem", key)):
            entry = tarfile.TarInfo(f"{FOLDER.rpartition('/')[2]}/{name}".rstrip("/"))
            entry.type = tarfile.REGTYPE if name else tarfile.DIRTYPE
            entry.mode = 0o400 if name else 0o700
            entry.uid = entry.gid = _UID
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def certified(address: str, now: datetime.datetime) -> tuple[bytes, bytes]:
    """A certificate that is its own authority, valid for NAME and `address` for ten years, and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    names = x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address(address))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(*plain)
