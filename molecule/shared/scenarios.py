"""Runs Molecule's scenarios, a role's after those of the roles that it builds on: `scenarios.py [ROLE]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
IMPORT = "ansible.builtin.import_role"


def load(path: Path) -> Any:
    """A YAML file's content."""
    return yaml.safe_load(path.read_text())


def site_roles(root: Path = ROOT) -> list[str]:
    """The roles of site.yml in their order; those that only read for others come before the role that needs them."""
    roles: list[str] = []

    def add(role: str) -> None:
        meta = root / "roles" / role / "meta/main.yml"
        for needed in load(meta)["dependencies"] if meta.exists() else []:
            add(needed["role"])
        if role not in roles:
            roles.append(role)

    for stage in load(root / "site.yml"):
        for play in load(root / stage["ansible.builtin.import_playbook"]):
            named = [entry["role"] for entry in play.get("roles", [])]
            named += [task[IMPORT]["name"] for task in play.get("tasks", []) if IMPORT in task]
            for role in named:
                add(role)
    return roles


def ordered_roles(root: Path = ROOT) -> list[str]:
    """The roles of site.yml in its order, but for those that the scenario of an earlier one needs: they come first.

    Once a role is in use, because another one builds on it, it cannot be tested as a new one any more.
    """
    needs = load(root / "molecule/shared/vars/scenario.yml")["scenario_all_needs"]
    order: list[str] = []
    for role in site_roles(root):
        order += [name for name in [*needs.get(role, []), role] if name not in order]
    return order


def scenarios(role: str | None = None, root: Path = ROOT) -> list[str]:
    """Names of the scenarios (folders of molecule/) of one role or of all, in an order in which all can run."""
    named = [role] if role else ordered_roles(root)
    found = [
        folder.parent.name for name in named for folder in sorted((root / "molecule").glob(f"{name}*/molecule.yml"))
    ]
    return [name for name in found if name.split("-")[0] in named]


def main(arguments: list[str]) -> int:
    """Entry point; returns Molecule's exit status."""
    names = scenarios(arguments[0] if arguments else None)
    if not names:
        print(
            f"error: there is no scenario molecule/{arguments[0]}: name a role of {', '.join(site_roles())}",
            file=sys.stderr,
        )
        return 2
    chosen = [word for name in names for word in ("--scenario-name", name)]
    command = ["molecule", "--base-config", "molecule/shared/molecule.yml", "test", "--no-command-borders", *chosen]
    # Molecule remembers what it prepared, also on a machine that is gone since.
    subprocess.run(["molecule", "reset", *chosen], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
