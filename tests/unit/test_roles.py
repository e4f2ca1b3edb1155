"""What every role must keep to. That it describes itself, `make docs` demands (test_docs.py)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import plays
import pytest
import yaml

ROLES = sorted((plays.ROOT / "roles").iterdir())


def load(path: Path) -> Any:
    """A YAML file, or an empty mapping where there is none."""
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


@pytest.mark.parametrize("role", [role for role in ROLES if role.name != "catalog"], ids=lambda role: role.name)
def test_names_tell_whose_they_are(role: Path) -> None:
    for name in load(role / "defaults/main.yml"):
        assert name.startswith(f"{role.name}_"), name
    for name in load(role / "vars/main.yml"):
        assert name.startswith(f"_{role.name}_"), name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_task_files_stay_short_and_tasks_have_imperative_names(role: Path) -> None:
    for path in role.glob("tasks/*.yml"):
        text = path.read_text()
        assert len(text.splitlines()) <= 120, path
        for name in re.findall(r"- name: (.+)", text):
            assert re.match(r"[A-Z][a-z]+ ", name), f"{path}: {name!r}"


def test_shared_variables_are_specified_once() -> None:
    shared = load(plays.ROOT / "inventory/group_vars/all.yml")
    specified = load(plays.ROOT / "roles/catalog/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    # images differ between inventories, so they stand beside each.
    assert set(shared) | {"images"} == set(specified)


def test_production_pins_every_image_to_a_version() -> None:
    images = load(plays.ROOT / "inventory/production/group_vars/all/images.yml")["images"]
    virtual = load(plays.ROOT / "inventory/virtual/group_vars/all/virtual.yml")["images"]
    assert set(images) == set(virtual)
    for name, image in images.items():
        assert re.search(r":[^:/]*\d[^:/]*$", image), f"{name}: {image} names no version"


def test_both_inventories_share_the_common_variables() -> None:
    for name in ("virtual", "production"):
        link = plays.ROOT / "inventory" / name / "group_vars/all/00-common.yml"
        assert link.resolve() == plays.ROOT / "inventory/group_vars/all.yml"


def test_what_is_changed_under_the_guard_is_put_into_force_and_proven() -> None:
    """Armed alone, it would be put back each time; in force alone, nobody would know whether it lets anybody in."""
    found = []
    for path in sorted(plays.ROOT.glob("roles/*/tasks/*.yml")):
        listed = load(path) or []
        for task in listed:
            tree = task.get("file_tree", {})
            if "arm" not in tree.get("before", ""):
                continue
            found.append(path.parts[-3])
            assert "apply" in tree, f"{path}: {task['name']}"
            proofs = [one for one in listed if one.get("ansible.builtin.include_role", {}).get("tasks_from") == "prove"]
            assert any(task["register"] in str(proof["when"]) for proof in proofs), f"{path}: {task['name']}"
    assert found == ["firewall", "ssh", "wireguard"]


def test_entrance_reads_the_bans_of_every_jail_that_bans_there() -> None:
    """A jail of another name would ban at nginx into a file that nginx does not read."""
    banning = re.findall(
        r"\[(pi-commerce-[a-z]+)\]", (plays.ROOT / "roles/fail2ban/templates/jail.local.j2").read_text()
    )
    assert banning == load(plays.ROOT / "roles/proxy/vars/main.yml")["_proxy_jails"]


def test_every_run_writes_the_storage_units_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever order a set has in the process that renders them."""
    variables = ("-e", f"@{plays.ROOT}/roles/storage/vars/main.yml", "-e", '{"edition": "lean", "storage_layout": []}')
    shown = set()
    for seed in range(4):
        monkeypatch.setenv("PYTHONHASHSEED", str(seed))
        status, output = plays.play(tmp_path, [{"debug": {"msg": "{{ _storage_needs }}"}}], *variables)
        assert status == 0, output
        shown |= set(re.findall(r"RequiresMountsFor=([^\\\n]*)", output))
    assert shown == {"/var/lib/docker /var/lib/docker/volumes /var/lib/containerd"}
