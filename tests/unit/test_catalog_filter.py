"""The catalog filters in a real Ansible run: its own texts are tagged, lazily templated and rendered late."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from catalog_samples import ENABLED, TEXTS

ROOT = Path(__file__).resolve().parents[2]

PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    files: "{{ names | map('regex_replace', '$', '.yml.j2') }}"
    texts: "{{ dict(names | zip(query('ansible.builtin.template', *files))) }}"
    derived: "{{ texts | catalog_load(enabled, edition, derived_secrets=['db_password']) }}"
    plan: "{{ derived | catalog_plan('2048', 512) }}"
  tasks:
    - ansible.builtin.copy:
        content: "{{ {'derived': derived, 'plan': plan} | to_json }}"
        dest: "{{ playbook_dir }}/result.json"
        mode: "0600"
"""


def run(where: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the playbook in ``where``, its templates taking the memory of the application from a variable."""
    for name, text in TEXTS.items():
        (where / f"{name}.yml.j2").write_text(text.replace("memory: 1.5g", "memory: '{{ app_memory }}'"))
    (where / "play.yml").write_text(PLAYBOOK)
    extra = {
        "names": sorted(TEXTS),
        "enabled": ENABLED,
        "edition": "lean",
        "app_memory": "640M",
        "ansible_python_interpreter": sys.executable,
        **variables,
    }
    settings = {
        "ANSIBLE_FILTER_PLUGINS": str(ROOT / "plugins" / "filter"),
        "ANSIBLE_HOME": str(where / "home"),
        "ANSIBLE_NOCOLOR": "true",
    }
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [program, "-i", "localhost,", "-e", json.dumps(extra), "play.yml"],
        cwd=where,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_filters_derive_and_plan(tmp_path: Path) -> None:
    finished = run(tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["derived"]["services"] == sorted(ENABLED)
    assert result["derived"]["secret_names"] == ["app_db_password", "app_owner_password", "shop_db_password"]
    assert (result["plan"]["services_mib"], result["plan"]["fits"]) == (640 + 512 + 64, True)
    assert result["plan"]["table"].splitlines()[0].split() == ["app", "640", "MiB"]


@pytest.mark.parametrize("verbosity", ["0", "3"])
def test_a_refusal_lists_the_problems_without_a_traceback(
    tmp_path: Path, verbosity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_VERBOSITY", verbosity)
    finished = run(tmp_path, app_memory="lots", enabled=[*ENABLED, "queue"])
    output = finished.stdout + finished.stderr
    assert finished.returncode != 0
    assert "services_enabled: 'queue' has no file templates/services/queue.yml.j2" in output
    assert "app.yml.j2: services.app.deploy.resources.limits.memory: must be a size" in output
    assert "Traceback" not in output
    assert not (tmp_path / "result.json").exists()
