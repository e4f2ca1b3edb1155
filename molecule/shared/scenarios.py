"""Runs Molecule's scenarios in the order in which site.yml applies the roles: `scenarios.py [ROLE]`."""

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


def scenarios(role: str | None = None, root: Path = ROOT) -> list[str]:
    """Names of the scenarios (folders of molecule/) of one role or of all, in the order of site.yml."""
    named = [role] if role else site_roles(root)
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
