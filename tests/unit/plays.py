"""Runs small plays on this machine with the plugins of this project."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def filters(name: str) -> dict[str, Callable[..., Any]]:
    """The Jinja filters in `plugins/filter/<name>.py`, loaded from the file as Ansible does."""
    spec = importlib.util.spec_from_file_location(f"filter_{name}", ROOT / "plugins/filter" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Callable[..., Any]] = module.FilterModule().filters()
    return found


def play(folder: Path, tasks: list[dict[str, Any]], *arguments: str, password: str | None = None) -> tuple[int, str]:
    """Run tasks on localhost from `folder`; returns exit status and everything that was printed."""
    document = [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]
    (folder / "play.yml").write_text(json.dumps(document))
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }
    environment.pop("ANSIBLE_VAULT_PASSWORD_FILE", None)
    if password is not None:
        (folder / "password").write_text(password)
        environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(folder / "password")
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "-i",
            "localhost,",
            str(folder / "play.yml"),
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def module(name: str, path: str | None = None, **options: Any) -> dict[str, Any]:
    """The result of a module of this project, with a diff, in a process of its own; `path` replaces PATH for it."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import ansible.module_utils as shared; "
        f"shared.__path__.append(sys.argv[2]); import {name}; "
        "from ansible.module_utils.testing import patch_module_args; import json\n"
        f"with patch_module_args(json.load(sys.stdin)): {name}.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / "plugins/modules"), str(ROOT / "plugins/module_utils")],
        input=json.dumps({"_ansible_diff": True, **options}),
        env={**os.environ, **({} if path is None else {"PATH": path})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
