"""The bad files that refusals need: keys, certificates, vaults, an old Ansible, a project with a broken file."""

from __future__ import annotations

import datetime
import platform
import shutil
import subprocess
from pathlib import Path

import machine
from cryptography.hazmat.primitives.asymmetric import ec
from refusal_certificates import certificate, pem
from refusal_pi import CONVERGED

# What site.yml is made of.
PROJECT = ("ansible.cfg", "site.yml", "playbooks", "roles", "plugins", "templates", "files", "inventory")


def make(folder: Path) -> None:
    """Write all bad files into an empty folder."""
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    year = datetime.datetime.now(datetime.UTC).year
    (folder / "cert.pem").write_text(certificate(key, year - 1, year + 2))
    (folder / "expired.pem").write_text(certificate(key, 2020, 2021))
    for name, one in (("key.pem", key), ("other-key.pem", other)):
        (folder / name).write_text(pem(one))
    sealed = (machine.STATE / "secrets.vault.yml").read_bytes()
    for name, content, mode in (
        ("wrong-password", b"not the password of this vault\n", 0o600),
        ("damaged.vault.yml", sealed[: len(sealed) // 2] + b"\n", 0o600),
        ("open.vault.yml", sealed, 0o644),
    ):
        (folder / name).write_bytes(content)
        (folder / name).chmod(mode)
    for name in ("wrong-key", "other-host-key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    public = (folder / "other-host-key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"{machine.ADDRESS} {public[0]} {public[1]}\n")
    old = machine.run(
        "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "old-ansible"), "ansible-core==2.18.*"
    )
    assert old.status == 0, old.output


def project(folder: Path, edit: tuple[str, str, str]) -> Path:
    """A copy of the project in a new folder, with the first text in one file replaced by the second."""
    for name in PROJECT:
        source = machine.ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    path, old, new = folder / edit[0], edit[1], edit[2]
    text = path.read_text()
    assert old in text, f"{edit[0]} does not hold {old!r}"
    path.write_text(text.replace(old, new, 1))
    return folder


def clock_library() -> str:
    """The library that moves every program's clock, as base64; the converged Pi gets it from its package mirror."""
    name = f"{platform.machine()}-linux-gnu/faketime/libfaketime.so.1"
    return CONVERGED.shell(
        "cd $(mktemp -d); apt-get -q -o APT::Sandbox::User=root download libfaketime >&2; "
        f"dpkg-deb --fsys-tarfile libfaketime*.deb | tar -xO ./usr/lib/{name} | base64; rm -r $PWD"
    ).strip()
