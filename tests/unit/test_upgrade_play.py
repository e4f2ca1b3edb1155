"""upgrade.yml shows the plan, asks for its words, and says what came of it: played with a program that only answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import plays
import pytest
import yaml

PLAN = 'upgrades:\n  redis: valkey:8, 111 -> 222\nnothing was touched. To go on: --confirm "upgrade redis"\n'
COPIES_KNOW = "the copies know"


def upgrade(folder: Path, ended: int, *words: str, plan: int = 2) -> tuple[int, str, list[str]]:
    """Exit status, output, and how the program was called. It has a plan, and ends with `ended` when told to do it."""
    program = folder / "pi-commerce-updates"
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{folder}/calls\ncase "$*" in\n'
        f"*--confirm*) echo 'redis: done or put back'; exit {ended} ;;\n"
        f"undo) echo 'put back: redis' ;;\n*) printf '{PLAN}'; exit {plan} ;;\nesac\n"
    )
    program.chmod(0o755)
    [play] = yaml.safe_load((plays.ROOT / "playbooks/upgrade.yml").read_text())
    [plan_block] = [task for task in play["tasks"] if "block" in task]
    # What needs the catalog and a shop.
    plan_block["block"] = [
        task for task in plan_block["block"] if task["name"] != "Lay out what the inventory declares"
    ]
    [proof] = [task for task in plan_block["block"] if task["name"] == "Prove that everything answers"]
    proof["block"] = [{"name": "Look", "ansible.builtin.assert": {"that": "not shop_is_away | default(false)"}}]
    [copies] = [
        task for task in plan_block["block"] if task["name"] == "Have the copies know which images there are now"
    ]
    del copies["ansible.builtin.include_role"]
    copies["ansible.builtin.debug"] = {"msg": COPIES_KNOW}
    play |= {"hosts": "localhost", "connection": "local", "gather_facts": False, "become": False}
    (folder / "play.yml").write_text(json.dumps([play]))
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", folder / "play.yml", *words],
        env={
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(plays.ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return done.returncode, done.stdout, calls


STAGED = "upgrade --staged /run/pi-commerce-upgrade"
CONFIRMED = f"{STAGED} --confirm upgrade redis"
YES = ("-e", '{"confirm": "upgrade redis"}')


def test_first_time_shows_the_plan_and_asks_for_its_words(tmp_path: Path) -> None:
    status, output, calls = upgrade(tmp_path, 0)
    assert status != 0
    assert "redis: valkey:8, 111 -> 222" in output
    assert "Give the words that stand after --confirm" in output
    assert calls == [STAGED]


def test_confirmed_plan_is_carried_out(tmp_path: Path) -> None:
    status, output, calls = upgrade(tmp_path, 0, *YES)
    assert status == 0, output
    assert calls == [STAGED, CONFIRMED]
    assert COPIES_KNOW in output


def test_nothing_to_do_is_well(tmp_path: Path) -> None:
    status, output, calls = upgrade(tmp_path, 0, plan=0)
    assert status == 0, output
    assert calls == [STAGED]
    assert COPIES_KNOW not in output


def test_check_shows_the_plan_alone(tmp_path: Path) -> None:
    status, output, calls = upgrade(tmp_path, 0, "--check", *YES)
    assert status == 0, output
    assert "redis: valkey:8" in output
    assert calls == [STAGED]


@pytest.mark.parametrize(("ended", "told"), [(1, "was put back"), (2, "Nothing was touched"), (75, "try again")])
def test_what_was_not_done_is_said(tmp_path: Path, ended: int, told: str) -> None:
    status, output, _ = upgrade(tmp_path, ended, *YES)
    assert status != 0
    assert told in output
    assert "redis: done or put back" in output


def test_what_does_not_answer_is_put_back(tmp_path: Path) -> None:
    status, output, calls = upgrade(tmp_path, 0, *YES, "-e", '{"shop_is_away": true}')
    assert status != 0
    assert calls[-1] == "undo"
    assert "put back: redis" in output


def test_undo_does_that_alone(tmp_path: Path) -> None:
    status, output, calls = upgrade(tmp_path, 0, "-e", "undo=true")
    assert status == 0, output
    assert calls == ["undo"]
