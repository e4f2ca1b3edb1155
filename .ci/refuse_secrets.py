#!/usr/bin/env python3
"""Refuse files that must not enter git: private keys, vault files, secrets in plain text, and what is too large.

Usage: refuse_secrets.py FILE... (pre-commit hands over what is committed, `make lint` every file in git)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import yaml

LARGEST = 1024 * 1024  # bytes; the largest lock file has 0.9 MB
# Key files of every kind begin like this; the pattern is no such line itself.
PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
NAMES = ("*.vault.yml", ".vault-password", "vault-password", "id_rsa", "id_ecdsa", "id_ed25519")
ENCRYPTED = b"$ANSIBLE_VAULT;"
# Variables that hold secrets; of one that names a key, only what stands under that key in its entries.
SECRET_VARIABLES = {"proxy_certificate_key": None, "secrets_values": None, "workflows_credentials": "secrets"}


class _Loader(yaml.SafeLoader):
    """A SafeLoader to which a value with a tag of Ansible (`!vault`) is none: it is encrypted."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def problems(path: Path) -> Iterator[str]:
    """Why the file must not enter git: what is wrong and what to do, one text each."""
    if any(PurePath(path.name).match(name) for name in NAMES):
        yield "is a vault file, a vault password or a private key by its name: leave it out of git"
    if (size := path.stat().st_size) > LARGEST:
        yield f"has {size} bytes, at most {LARGEST} are allowed: leave it out, or say in LARGEST why not"
    content = path.read_bytes()
    if PRIVATE_KEY.search(content):
        yield "holds a private key: take it out and replace the key, it may have been seen"
    if "inventory" in path.parts and path.suffix in (".yml", ".yaml") and not content.startswith(ENCRYPTED):
        document = yaml.load(content, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
        for name in _plain_secrets(document):
            yield f"{name} stands there in plain text: put it into a file that ansible-vault has encrypted"


def _plain_secrets(thing: Any) -> Iterator[str]:
    """Names of the secret variables anywhere below `thing` that have a value of their own."""
    if isinstance(thing, list):
        for item in thing:
            yield from _plain_secrets(item)
    elif isinstance(thing, dict):
        for name, value in thing.items():
            if name not in SECRET_VARIABLES:
                yield from _plain_secrets(value)
            elif _has_plain_text(value, SECRET_VARIABLES[name]):
                yield name


def _has_plain_text(value: Any, below: str | None) -> bool:
    """Whether a text that is no expression stands anywhere in `value`, or else under the key `below` in it."""
    if isinstance(value, list):
        return any(_has_plain_text(item, below) for item in value)
    if isinstance(value, dict):
        items = value.items() if below is None else [(key, item) for key, item in value.items() if key == below]
        return any(_has_plain_text(item, None) for _, item in items)
    return below is None and value not in (None, "") and "{{" not in str(value)


def main(paths: list[str]) -> int:
    """Print every problem; return the exit status. A link is no file of its own: what it leads to is named, too."""
    files = [Path(path) for path in paths if not Path(path).is_symlink()]
    found = [f"error: {path}: {problem}" for path in files for problem in problems(path)]
    for line in found:
        print(line, file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
