"""Writes `peers.yml` with a new device for every name, and the private keys beside it: `devices.py FOLDER NAME...`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import wireguard


def main(folder: Path, names: list[str]) -> None:
    """Write both."""
    folder.mkdir(exist_ok=True)
    peers = {}
    for number, name in enumerate(names, wireguard.FIRST_DEVICE):
        private = wireguard.new_private_key()
        peers[name] = {"number": number, "public_key": wireguard.public_key(private)}
        with open(os.open(folder / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
            target.write(private)
    # JSON is YAML.
    (folder / "peers.yml").write_text(json.dumps(peers))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
