"""Every role of site.yml is tested by itself, and what it brings can be taken away again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import plays
import pytest
import scenarios
from molecule.interpolation import Interpolator, InvalidInterpolation, TemplateWithDefaults

ROOT = plays.ROOT


def uninstall(root: Path = ROOT) -> tuple[list[str], list[str]]:
    """What playbooks/uninstall.yml takes away, in its order, and the roles of which it says there is nothing."""
    [play] = scenarios.load(root / "playbooks/uninstall.yml")
    [taken] = [task["loop"] for task in play["tasks"] if "ansible.builtin.include_role" in task]
    return taken, play["vars"]["uninstall_nothing"]


def untested(root: Path) -> list[str]:
    """Scenarios that are missing: one for each role, a second one for each role with options."""
    wanted = []
    for role in scenarios.site_roles(root):
        wanted.append(role)
        if (root / "roles" / role / "defaults/main.yml").exists():
            wanted.append(f"{role}-alternative")
    return sorted(set(wanted) - set(scenarios.scenarios(root=root)))


def unchanged(root: Path) -> list[str]:
    """Alternative scenarios that test nothing else than the default one: they set no variable."""
    found = []
    for name in scenarios.scenarios(root=root):
        own = scenarios.load(root / "molecule" / name / "molecule.yml")
        if name.endswith("-alternative") and not own["provisioner"]["inventory"]["group_vars"]["pis"]:
            found.append(name)
    return found


def not_taken_away(root: Path) -> list[str]:
    """Roles that playbooks/uninstall.yml neither takes away nor says there is nothing of."""
    taken, nothing = uninstall(root)
    return sorted(set(scenarios.site_roles(root)) - set(taken) - set(nothing))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project with one more role, which nobody tests or takes away."""
    for name in ("roles", "playbooks", "molecule"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("images", "__pycache__"), symlinks=True
        )
    shutil.copy(ROOT / "site.yml", tmp_path)
    role = tmp_path / "roles/untested"
    (role / "defaults").mkdir(parents=True)
    (role / "defaults/main.yml").write_text("---\nuntested_size: 1\n")
    with (tmp_path / "playbooks/backup.yml").open("a") as play:
        play.write("    - role: untested\n")
    return tmp_path


def test_every_role_has_its_scenarios() -> None:
    assert untested(ROOT) == []
    assert unchanged(ROOT) == []


def test_scenarios_have_tests_and_belong_to_a_role_of_the_site() -> None:
    folders = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")} - {"shared"}
    assert folders == set(scenarios.scenarios())
    for name in folders:
        assert list((ROOT / "molecule" / name / "tests").glob("test_*.py")), name


def test_molecule_can_read_every_scenario() -> None:
    """It takes a dollar sign for the beginning of a variable of its own."""
    read = Interpolator(TemplateWithDefaults, {}).interpolate
    for path in sorted((ROOT / "molecule").glob("*/molecule.yml")):
        if path.parent.name == "shared":
            continue
        text = path.read_text()
        assert read(text) == text.replace("$$", "$"), path
    with pytest.raises(InvalidInterpolation):
        read("server$]")


def test_role_is_tested_before_those_that_build_on_it() -> None:
    order = scenarios.ordered_roles()
    assert sorted(order) == sorted(scenarios.site_roles())
    needs = scenarios.load(ROOT / "molecule/shared/vars/scenario.yml")["scenario_all_needs"]
    assert [role for role, needed in needs.items() if max(map(order.index, needed)) > order.index(role)] == []


def test_role_without_scenario_is_noticed(copy: Path) -> None:
    assert set(untested(copy)) - set(untested(ROOT)) == {"untested", "untested-alternative"}
    shutil.rmtree(copy / "molecule/stack-alternative")
    assert "stack-alternative" in untested(copy)


def test_everything_is_taken_away_in_reverse() -> None:
    taken, nothing = uninstall()
    there = [role for role in scenarios.site_roles() if (ROOT / "roles" / role / "tasks/uninstall.yml").exists()]
    assert taken == list(reversed(there))
    assert not set(there) & set(nothing)
    assert not_taken_away(ROOT) == []


def test_role_that_nobody_takes_away_is_noticed(copy: Path) -> None:
    assert not_taken_away(copy) == ["untested"]


@pytest.mark.parametrize("answer", [[], ["-e", "uninstall_confirm=yes"], ["-e", "uninstall_confirm=SHOP-PI"]])
def test_uninstall_asks_for_the_machines_name(answer: list[str], tmp_path: Path) -> None:
    """Refused before anything is asked of the machine, which is not there."""
    done = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            "-i",
            "inventory/virtual",
            "playbooks/uninstall.yml",
            *answer,
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PI_STATE": str(tmp_path),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "-e uninstall_confirm=shop-pi" in done.stdout
    assert "unreachable=0" in done.stdout
