"""Certificates, by openssl: what they say, and those of an authority of one's own. Keys go through files and pipes."""

from __future__ import annotations

import ipaddress
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .errors import EntranceError

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
# Browsers take no certificate that is valid for longer.
LEAF_DAYS = 397
AUTHORITY_DAYS = 7300
# What an authority of a house may vouch for besides the machine's own names.
SUFFIXES = ("home.arpa", "internal", "lan", "local")
NETWORKS = ("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")
AUTHORITY = """
[req]
distinguished_name = name
x509_extensions = authority
prompt = no
[name]
CN = {name}
[authority]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
nameConstraints = critical,@permitted
[permitted]
{permitted}
"""
LEAF = """
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


def openssl(*arguments: str, text: str = "", check: bool = True) -> str:
    """What openssl prints. Raises EntranceError where it fails and that is not expected."""
    try:
        done = subprocess.run(["openssl", *arguments], input=text, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EntranceError(f"openssl cannot be run ({error.strerror}): install it") from error
    if done.returncode and check:
        raise EntranceError(f"openssl {arguments[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout if done.returncode == 0 else ""


def is_address(name: str) -> bool:
    """Whether a name is an address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def alternative(names: Sequence[str]) -> str:
    """The names as openssl takes them."""
    return ",".join(f"{'IP' if is_address(name) else 'DNS'}:{name}" for name in names)


def permitted(names: Sequence[str]) -> str:
    """Name constraints: these names, names that mean something in a house only, and private addresses."""
    networks = [ipaddress.ip_network(text) for text in NETWORKS]
    networks += [ipaddress.ip_network(name) for name in names if is_address(name)]
    domains = [name for name in names if not is_address(name)]
    lines = [f"permitted;DNS.{index} = {name}" for index, name in enumerate(dict.fromkeys([*domains, *SUFFIXES]))]
    lines += [f"permitted;IP.{index} = {network.with_netmask}" for index, network in enumerate(networks)]
    return "\n".join(lines)


def make_authority(host: str, names: Sequence[str]) -> tuple[str, str]:
    """A new authority: its certificate and its key."""
    with tempfile.TemporaryDirectory() as folder:
        config, key = Path(folder, "config"), Path(folder, "key")
        config.write_text(
            AUTHORITY.format(name=f"pi-commerce {host}"[:64], permitted=permitted(names)), encoding="utf-8"
        )
        arguments = ("-config", str(config), "-days", str(AUTHORITY_DAYS), "-keyout", str(key))
        certificate = openssl("req", "-x509", *KEY, *arguments)
        return certificate, key.read_text(encoding="utf-8")


def issue(authority: Path, authority_key: Path, names: Sequence[str]) -> tuple[str, str]:
    """A certificate for the names with the authority's behind it, and its key. Raises EntranceError."""
    with tempfile.TemporaryDirectory() as folder:
        config, key, request, leaf = (Path(folder, name) for name in ("config", "key", "request", "leaf"))
        config.write_text(LEAF.format(names=alternative(names)), encoding="utf-8")
        # The name is told by subjectAltName; the other field has room for 64 characters.
        openssl("req", "-new", *KEY, "-subj", f"/CN={names[0][:64]}", "-keyout", str(key), "-out", str(request))
        signer = ("-CA", str(authority), "-CAkey", str(authority_key), "-set_serial", f"0x{serial()}")
        extensions = ("-extfile", str(config), "-extensions", "leaf", "-days", str(LEAF_DAYS), "-out", str(leaf))
        openssl("x509", "-req", "-in", str(request), "-sha256", *signer, *extensions)
        openssl("verify", "-CAfile", str(authority), str(leaf))
        chain = leaf.read_text(encoding="utf-8") + authority.read_text(encoding="utf-8")
        return chain, key.read_text(encoding="utf-8")


def serial() -> str:
    """A number that no other certificate has: 127 random bits."""
    text = openssl("rand", "-hex", "16").strip()
    return f"{int(text[0], 16) & 7:x}{text[1:]}"


def covers(certificate: str, names: Sequence[str]) -> bool:
    """Whether a certificate is for these names and for no others."""
    text = openssl("x509", "-noout", "-ext", "subjectAltName", text=certificate, check=False)
    found = re.findall(r"(?:DNS|IP Address):([^\s,]+)", text)
    return {normal(name) for name in found} == {normal(name) for name in names}


def normal(name: str) -> str:
    """A name as it is compared."""
    return str(ipaddress.ip_address(name)) if is_address(name) else name.lower()


def lasts(certificate: str, days: float) -> bool:
    """Whether a certificate is still valid after so many days."""
    if not certificate:
        return False
    command = ["openssl", "x509", "-noout", "-checkend", str(int(days * 86400))]
    return subprocess.run(command, input=certificate, text=True, capture_output=True, check=False).returncode == 0


def ends(certificate: str) -> str:
    """When a certificate ends, for people."""
    return openssl("x509", "-noout", "-enddate", text=certificate, check=False).strip().replace("notAfter=", "")


def belong(certificate: str, key: str) -> bool:
    """Whether a certificate and a key are of one pair."""
    public = openssl("x509", "-noout", "-pubkey", text=certificate, check=False)
    return bool(public) and public == openssl("pkey", "-pubout", text=key, check=False)


def issued_by(certificate: str, authority: Path) -> bool:
    """Whether the certificate is one of the authority's (its validity is another question)."""
    if not authority.exists():
        return False
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as leaf:
        leaf.write(certificate)
        leaf.flush()
        return bool(openssl("verify", "-no_check_time", "-CAfile", str(authority), leaf.name, check=False))
