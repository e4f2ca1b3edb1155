#!/usr/bin/env python3
"""Everything a stranger needs to bring the shop back, in one encrypted file, and the page that says how.

`rescue_kit.py INVENTORY [FOLDER]` writes both into FOLDER (default: rescue/). The passphrase is asked for, or taken
from the file that RESCUE_PASSPHRASE_FILE names. Ends with 0, or 1 where the kit cannot be made.
"""

from __future__ import annotations

import argparse
import datetime
import getpass
import io
import os
import secrets
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import age_file
import jinja2
from declared import ROOT, CannotRead, Site

# The module above has told Python where those of the project are.
# isort: split
import secrets_policy

TEMPLATES = ROOT / "ops/rescue"
# What of the variables is needed here; the rest is in the inventory, which goes along.
WANTED = [
    *("ansible_host", "backup_images_in", "backup_repositories", "secrets_file", "site_address"),
    *("rescue_environment", "rescue_files"),
]
ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
SSH_KEY = "keys/ssh"
VAULT_PASSWORD = "keys/vault-password"  # noqa: S105 - where it is, not what it is


@dataclass(frozen=True)
class Kit:
    """What goes into it: files by their path in the project's folder, as (content, mode); and what the page tells."""

    files: Mapping[str, tuple[bytes, int]]
    links: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def packed(self, name: str) -> bytes:
        """A packed tar file whose one folder is `name`; it is only ever in memory."""
        whole = io.BytesIO()
        with tarfile.open(fileobj=whole, mode="w:gz") as archive:
            for path, (content, mode) in sorted(self.files.items()):
                entry = tarfile.TarInfo(f"{name}/{path}")
                entry.size, entry.mode, entry.mtime = len(content), mode, int(self.facts["made"].timestamp())
                archive.addfile(entry, io.BytesIO(content))
            for path, target in sorted(self.links.items()):
                entry = tarfile.TarInfo(f"{name}/{path}")
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                archive.addfile(entry)
        return whole.getvalue()


def project() -> list[str]:
    """The files of the project as they are now: those of git, and those that could be added to it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
    )
    if listed.returncode:
        raise CannotRead(f"{ROOT}: git does not list its files ({listed.stderr.strip()}); make the kit from a checkout")
    return [path for path in listed.stdout.split("\0") if path and os.path.lexists(ROOT / path)]


def below(path: str) -> str:
    """A path relative to the project. Raises CannotRead for one elsewhere, which would not be found there again."""
    try:
        return str(Path(os.path.abspath(ROOT / path)).relative_to(ROOT))
    except ValueError as error:
        raise CannotRead(f"{path}: lies outside {ROOT}: only what is below it has its place in the kit") from error


def own_key() -> tuple[bytes, str]:
    """A new SSH key for whoever does the work: its private half, and the line that a machine is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "key")
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rescue-kit", "-f", str(path)]
        subprocess.run(command, check=True)
        return path.read_bytes(), path.with_suffix(".pub").read_text().strip()


def gather(inventory: str) -> Kit:
    """The kit of an inventory. Raises CannotRead, which names what is missing."""
    password = os.environ.get("ANSIBLE_VAULT_PASSWORD_FILE", "")
    if not password:
        raise CannotRead("no vault password was given; set ANSIBLE_VAULT_PASSWORD_FILE")
    site = Site(inventory)
    hosts = {name: site.variables(name, WANTED) for name in site.hosts()}
    private, public = own_key()
    extra = {VAULT_PASSWORD: (Path(password).read_bytes(), 0o600), SSH_KEY: (private, 0o600)}
    for name, known in hosts.items():
        for path in [known["secrets_file"], *known.get("rescue_files", [])]:
            if not Path(path).is_file():
                raise CannotRead(f"{path}: is not there, and {name} cannot be rebuilt without it; run site.yml first")
            extra[below(path)] = (Path(path).read_bytes(), 0o600)
        known["vault_path"] = below(known["secrets_file"])
    there = {path: ROOT / path for path in project()}
    links = {path: os.readlink(file) for path, file in there.items() if file.is_symlink()}
    files = {
        path: (file.read_bytes(), 0o755 if os.access(file, os.X_OK) else 0o644)
        for path, file in there.items()
        if path not in links
    }
    facts = {
        "made": datetime.datetime.now(datetime.UTC),
        "inventory": below(inventory),
        "hosts": hosts,
        "public_key": public,
        "environment": {
            key: text for known in hosts.values() for key, text in known.get("rescue_environment", {}).items()
        },
        "ssh_key": SSH_KEY,
        "vault_password": VAULT_PASSWORD,
    }
    return Kit({**files, **extra}, links, facts)


def rendered(template: str, facts: Mapping[str, Any], name: str) -> str:
    """One of the texts that follow from the inventory."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown and shell
    )
    return environment.get_template(template).render(**facts, name=name)


def passphrase() -> str:
    """What opens the kit. Raises CannotRead for one that could be guessed."""
    file = os.environ.get("RESCUE_PASSPHRASE_FILE", "")
    if file:
        chosen = Path(file).read_text(encoding="utf-8").rstrip("\n")
    elif sys.stdin.isatty():
        chosen = getpass.getpass("Passphrase of the kit (Enter: have one made): ")
        if not chosen:
            chosen = "-".join("".join(secrets.choice(ALPHABET) for _ in range(5)) for _ in range(5))
            print(f"\n    {chosen}\n\nWrite it down now, by hand, and keep it elsewhere than the kit.")
        elif getpass.getpass("Once more: ") != chosen:
            raise CannotRead("the two are different; nothing was written")
    else:
        raise CannotRead("no passphrase: call this in a terminal, or set RESCUE_PASSPHRASE_FILE to a file with one")
    problem = secrets_policy.check("rescue_kit_passphrase", chosen)
    if problem:
        raise CannotRead(f"the passphrase {problem}; nothing was written")
    return chosen


def write(kit: Kit, folder: Path, opens: str) -> tuple[Path, Path]:
    """Write kit and page; their paths."""
    name = f"rescue-kit-{kit.facts['made']:%Y-%m-%d}"
    page = rendered("page.md.j2", kit.facts, name)
    script = rendered("rescue.sh.j2", kit.facts, name)
    whole = Kit(
        {**kit.files, "RESCUE.md": (page.encode(), 0o644), "rescue.sh": (script.encode(), 0o755)}, kit.links, kit.facts
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sealed = folder / f"{name}.tar.gz.age"
    sealed.write_bytes(age_file.seal(whole.packed(name), opens))
    (folder / f"{name}.md").write_text(page, encoding="utf-8")
    return sealed, folder / f"{name}.md"


def main() -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description="Write the rescue kit of an inventory.")
    parser.add_argument("inventory")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "rescue")
    given = parser.parse_args()
    try:
        kit = gather(given.inventory)
        sealed, page = write(kit, given.folder, passphrase())
    except (CannotRead, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{sealed} ({sealed.stat().st_size // 1024} KiB): keep it in two places, none of them the house of the Pi")
    print(f"{page}: print it, and lay it where the passphrase is not")
    return 0


if __name__ == "__main__":
    sys.exit(main())
