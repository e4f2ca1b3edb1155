"""A version that is written in several places is the same in all of them."""

from __future__ import annotations

import json
import re

import plays
import yaml


def production() -> dict[str, str]:
    """The tags of the production inventory's images, by name."""
    text = (plays.ROOT / "inventory/production/group_vars/all/images.yml").read_text()
    return {name: image.rpartition(":")[2] for name, image in yaml.safe_load(text)["images"].items()}


def test_n8n_is_the_same_everywhere() -> None:
    folder = plays.ROOT / "molecule/images"
    virtual = yaml.safe_load((plays.ROOT / "inventory/virtual/group_vars/all/virtual.yml").read_text())["images"]
    versions = {
        "molecule/images/n8n/package.json": json.loads((folder / "n8n/package.json").read_text())["dependencies"][
            "n8n"
        ],
        "molecule/images/images.yml": yaml.safe_load((folder / "images.yml").read_text())["n8n"]["version"],
        "inventory/virtual/group_vars/all/virtual.yml": virtual["n8n"].rpartition(":")[2],
        "inventory/production/group_vars/all/images.yml": production()["n8n"],
    }
    assert len(set(versions.values())) == 1, f"name the same version of n8n in all of them: {versions}"


def test_the_backup_engine_is_the_same_everywhere() -> None:
    virtual = yaml.safe_load((plays.ROOT / "inventory/virtual/group_vars/all/virtual.yml").read_text())["images"]
    built = yaml.safe_load((plays.ROOT / "molecule/images/images.yml").read_text())["restic"]["version"]
    assert virtual["restic"].rpartition(":")[2] == built == production()["restic"]


def test_our_services_are_built_on_the_python_that_production_has() -> None:
    for dockerfile in (plays.ROOT / "files/services").glob("*/Dockerfile"):
        base = re.search(r"^ARG BASE=.*:(.+)$", dockerfile.read_text(), re.MULTILINE)
        assert base is not None, dockerfile
        assert base[1] == production()["python"], f"{dockerfile}: name the version of images.yml"
