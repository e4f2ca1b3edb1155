"""The workflow, the hooks and the update rules name things that exist, and their linters notice what they should."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import images
import plays
import pytest
import yaml

ROOT = plays.ROOT
TOOLS = ROOT / ".venv/bin"
MAKEFILE = (ROOT / "Makefile").read_text()
# The linters of one file each, by the file: what `make lint` and the hooks call.
LINTERS = {
    ".github/workflows/ci.yml": [
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
        ["zizmor", "--offline", "--quiet", "--no-progress"],
    ],
    ".github/dependabot.yml": [
        ["check-jsonschema", "--builtin-schema", "vendor.dependabot"],
        ["zizmor", "--offline", "--quiet", "--no-progress"],
    ],
}


def load(path: str) -> Any:
    """A YAML file of ours with all keys as texts: YAML 1.1 takes `on` for true."""
    return yaml.load((ROOT / path).read_text(), Loader=yaml.BaseLoader)  # noqa: S506 - it makes texts only


WORKFLOW = load(".github/workflows/ci.yml")
JOBS: dict[str, Any] = WORKFLOW["jobs"]


def steps() -> Iterator[dict[str, Any]]:
    for job in JOBS.values():
        yield from job["steps"]


def targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", MAKEFILE, re.MULTILINE))


def called_targets() -> set[str]:
    """The targets that the workflow makes, by a line of its own or by its matrix."""
    rows = [row for job in JOBS.values() for row in job["strategy"]["matrix"].get("include", [])]
    shell = "\n".join(step.get("run", "") for step in steps())
    written = re.findall(r"\bmake ([a-z][a-z -]*)", shell)
    return {target for line in [*(row["targets"] for row in rows), *written] for target in line.split()}


def test_the_workflow_makes_targets_that_exist() -> None:
    assert {"test", "test-full", "images", "site", "harm"} <= called_targets()
    assert called_targets() <= targets()


def test_both_architectures_run_what_ci_runs() -> None:
    matrix = JOBS["test"]["strategy"]["matrix"]
    assert matrix["runner"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert {"suite": images.DEFAULT_SUITE, "targets": "test"} in matrix["include"]
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec make test"


def test_every_system_of_a_virtual_pi_has_a_run() -> None:
    matrix = JOBS["test"]["strategy"]["matrix"]
    assert sorted(matrix["suite"]) == sorted(images.SUITES)
    assert sorted(row["suite"] for row in matrix["include"]) == sorted(images.SUITES)


def test_jobs_end_in_time_and_may_do_nothing_but_read() -> None:
    assert WORKFLOW["permissions"] == {}
    for name, job in JOBS.items():
        assert int(job["timeout-minutes"]) <= 300, name
        assert job["permissions"] == {"contents": "read"}, name


def test_shell_lines_of_the_workflow_are_shell() -> None:
    for step in steps():
        done = subprocess.run(["bash", "-n"], input=step.get("run", ""), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{step['name']}: {done.stderr}"


def test_the_command_that_lists_built_images_finds_them() -> None:
    (saving,) = [step["run"] for step in steps() if "docker save" in step.get("run", "")]
    assert f"--filter label={images.LABEL} " in saving


# The file, what stands there, what it becomes, what a linter says about it.
BROKEN = [
    (".github/workflows/ci.yml", "timeout-minutes: 75", "timeout-minuts: 75", "timeout-minuts"),
    (
        ".github/workflows/ci.yml",
        "      fail-fast: false\n      matrix:\n        runner: [ubuntu-24.04, ubuntu-24.04-arm]\n    steps",
        "      matrix: 5\n    steps",
        "matrix",
    ),
    (
        ".github/workflows/ci.yml",
        "cache@27d5ce7f107fe9357f9df03efb73ab90386fccae # v5.0.5",
        "cache@v5",
        "unpinned-uses",
    ),
    (
        ".github/workflows/ci.yml",
        "permissions:\n      contents: read # check out",
        "permissions: write-all",
        "excessive-permissions",
    ),
    (".github/workflows/ci.yml", "  pull_request:\n", "  pull_request_target:\n", "dangerous-triggers"),
    (".github/workflows/ci.yml", "run: make test-full", "run: make ${{ github.head_ref }}", "template-injection"),
    (".github/dependabot.yml", "interval: monthly", "interval: sometimes", "sometimes"),
    (".github/dependabot.yml", "package-ecosystem: npm", "package-ecosystem: nmp", "nmp"),
]


@pytest.mark.parametrize(("file", "old", "new", "said"), BROKEN, ids=[f"{b[0]}-{b[3]}" for b in BROKEN])
def test_linters_notice_what_is_wrong(tmp_path: Path, file: str, old: str, new: str, said: str) -> None:
    text = (ROOT / file).read_text()
    assert old in text
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text.replace(old, new))
    output = ""
    for tool, *arguments in LINTERS[file]:
        done = subprocess.run([TOOLS / tool, *arguments, path], capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            output += done.stdout + done.stderr
    assert said in output


def test_lint_and_hooks_call_the_same_tools() -> None:
    """Each hook is a program of .venv that `make lint` calls too; the hook `docs` has a unit test of its own."""
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    called = recipe[1].replace("$(PYTHON)", "python").replace(" --check", "")
    config = load(".pre-commit-config.yaml")
    assert [source["repo"] for source in config["repos"]] == ["local"], (
        "hooks are programs of .venv: nothing is downloaded"
    )
    hooks = {hook["id"]: shlex.split(hook["entry"]) for hook in config["repos"][0]["hooks"]}
    for name, (program, *arguments) in hooks.items():
        assert (ROOT / program).exists(), f"{name}: {program} is not there"
        words = [word for word in [Path(program).name, *arguments] if word not in ("--force-exclude",)]
        assert name == "docs" or " ".join(words) in called, f"make lint does not call {' '.join(words)}"
    tools = {line.split()[0] for part in called.splitlines() for line in part.strip().split(" && ")} - {"@git"}
    assert tools <= {Path(program).name for program, *_ in hooks.values()}
    for file, linters in LINTERS.items():
        for tool, *arguments in linters:
            assert " ".join([tool, *arguments]) in called, file


def test_updates_cover_every_lock_file() -> None:
    covered: dict[str, set[str]] = {}
    for rule in load(".github/dependabot.yml")["updates"]:
        covered.setdefault(rule["package-ecosystem"], set()).update(rule.get("directories") or [rule["directory"]])
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for ecosystem, file in {"uv": "requirements.in", "npm": "package-lock.json"}.items():
        folders = {f"/{Path(path).parent}".removesuffix(".") for path in tracked if Path(path).name == file}
        assert covered[ecosystem] == folders


def test_requirements_tell_how_they_are_compiled_again() -> None:
    """Who updates them (Dependabot) reads the options from the header."""
    for path in (ROOT / "requirements.txt", *(ROOT / "files/services").glob("*/requirements.txt")):
        header = path.read_text().splitlines()[1]
        for option in ("--universal", "--generate-hashes", "--python-version 3.11"):
            assert option in header, path
