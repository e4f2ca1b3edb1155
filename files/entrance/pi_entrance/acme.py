"""A certificate of a public authority, by dehydrated; the name is proven by DNS, so that no port has to be open."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from pathlib import Path

from . import files, tls
from .errors import EntranceError
from .settings import Settings

RENEW_DAYS = 30
PATIENCE = 900
HOOK = """#!/bin/sh
# Written by pi-commerce-entrance. dehydrated calls it with what is to be proven: HOOK deploy_challenge NAME FILE TEXT.
case $1 in
  deploy_challenge) exec pi-commerce-ddns present --wait -- "_acme-challenge.$2" "$4" ;;
  clean_challenge) exec pi-commerce-ddns absent -- "_acme-challenge.$2" "$4" ;;
esac
"""


def name(known: Settings) -> str:
    """What a public authority is asked to vouch for, as dehydrated writes it; empty where it could not."""
    first = next((one.lower() for one in known.names if not tls.is_address(one)), "")
    return first if "." in first else ""


def made(known: Settings) -> Path:
    """Where dehydrated keeps what was issued for this name by this authority.

    It looks at names and ends only: in a folder for all authorities, that of the one before would do for months.
    """
    authority = hashlib.sha256(known.acme_server.encode()).hexdigest()[:12]
    return known.folder / "acme/certs" / authority / name(known)


def configuration(known: Settings, folder: Path) -> str:
    """dehydrated's settings."""
    values = {
        "CA": known.acme_server,
        "BASEDIR": str(folder),
        "CERTDIR": str(made(known).parent),
        "CHALLENGETYPE": "dns-01",
        "HOOK": str(folder / "hook.sh"),
        "KEY_ALGO": "prime256v1",
        "RENEW_DAYS": str(RENEW_DAYS),
        "CONTACT_EMAIL": known.acme_email,
        # Only where the authority's own TLS is of nobody's whom the system knows.
        "CURL_OPTS": f"--cacert {known.acme_authority}" if known.acme_authority else "",
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items() if value)


def obtain(known: Settings, *, force: bool = False) -> tuple[str, str]:
    """The certificate with its chain and its key, issued where it is due. Raises EntranceError."""
    if not name(known):
        raise EntranceError(f"site_address is {known.names[0]}: a public authority vouches for public names only")
    folder = known.folder / "acme"
    folder.mkdir(mode=0o700, exist_ok=True)
    files.write(folder / "config", configuration(known, folder), 0o600)
    files.write(folder / "hook.sh", HOOK, 0o700)
    config = ("dehydrated", "--config", str(folder / "config"))
    _run([*config, "--register", "--accept-terms"])
    _run([*config, "--cron", "--domain", name(known), *(["--force"] if force else [])])
    return files.read(made(known) / "fullchain.pem"), files.read(made(known) / "privkey.pem")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False
        )
    except OSError as error:
        raise EntranceError(f"dehydrated cannot be run ({error.strerror}): run site.yml") from error
    except subprocess.TimeoutExpired as error:
        raise EntranceError(f"dehydrated has not ended within {PATIENCE} s") from error
    if done.returncode:
        raise EntranceError(f"dehydrated: {done.stdout.strip()[-600:]}")
