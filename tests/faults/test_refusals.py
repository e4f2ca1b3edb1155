"""Bad input is refused with what, where and the remedy, and nothing on the Pi is touched.

`site.yml` is run as a whole each time: a refusal that comes too late has changed something by then.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import machine
import pytest
import refusal_files
from refusal_cases import CONDITIONS, INPUTS, Case
from refusal_pi import BARE, CONVERGED, Pi


@dataclass(frozen=True)
class Refused:
    """A run that ought to be refused, and what could be seen of the Pi after it."""

    run: machine.Finished
    snapshot: str


@dataclass(frozen=True)
class Bench:
    """A Pi as it was before all runs, and the folder of bad files."""

    pi: Pi
    files: Path
    before: str

    def site(self, name: str, case: Case) -> Refused:
        """Run site.yml as the case has it."""
        project = machine.ROOT
        if case.edit:
            project = refusal_files.project(self.files / name.replace(" ", "-"), case.edit)
        environment = {
            **self.pi.environment,
            "ANSIBLE_CONFIG": str(project / "ansible.cfg"),
            **{key: value and self.filled(value) for key, value in case.environment.items()},
        }
        command = ["python", str(machine.ROOT / ".venv/bin/ansible-playbook")]
        if old := environment.get("PYTHONPATH"):
            command = ["python", f"{old}/bin/ansible-playbook"]
        command += ["-i", str(project / "inventory/virtual"), str(project / "site.yml")]
        command += ["-e", self.filled(json.dumps(case.variables))]
        done = machine.run(*command, environment=environment)
        return Refused(done, self.pi.snapshot())

    def filled(self, text: str) -> str:
        """The text with the folder of bad files and the network of the Pi in it."""
        return text.replace("FOLDER", str(self.files)).replace("NETWORK", self.pi.network)

    def judge(self, case: Case, refused: Refused) -> None:
        """The run failed, said what it must, and left everything as it was."""
        output = refused.run.output
        assert refused.run.status != 0, output[-3000:]
        # Ansible folds long lines; only words count.
        words = " ".join(output.split())
        for said in case.says:
            assert self.filled(said) in words, f"{said!r} is not said:\n{output[-3000:]}"
        assert machine.recap(output)["changed"] == 0
        assert refused.snapshot == self.before


@pytest.fixture(scope="module")
def files(first_run: machine.Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of bad files."""
    folder = tmp_path_factory.mktemp("refusals")
    refusal_files.make(folder)
    return folder


@pytest.fixture(scope="module")
def converged(files: Path) -> Bench:
    """The Pi under test."""
    return Bench(CONVERGED, files, CONVERGED.snapshot())


@pytest.fixture(scope="module")
def runs(converged: Bench, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Refused]]]:
    """The runs of all inputs that are tested, two at a time: they plant nothing, so they may share the Pi."""
    chosen = {item.name.partition("[")[2].rstrip("]") for item in request.session.items}
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {name: pool.submit(converged.site, name, case) for name, case in INPUTS.items() if name in chosen}


@pytest.mark.parametrize("given", INPUTS)
def test_bad_input_is_refused(given: str, converged: Bench, runs: dict[str, Future[Refused]]) -> None:
    converged.judge(INPUTS[given], runs[given].result())


@pytest.fixture(scope="module")
def bare(files: Path) -> Iterator[Bench]:
    """A Pi on which nothing is installed yet."""
    BARE.virtual("down")
    BARE.virtual("up")
    yield Bench(BARE, files, BARE.snapshot())
    BARE.virtual("down")


@pytest.mark.parametrize("condition", CONDITIONS)
def test_bad_condition_of_a_bare_pi_is_refused(condition: str, bare: Bench) -> None:
    case = CONDITIONS[condition]
    plant = bare.filled(case.plant.make)
    if "CLOCK_LIBRARY" in plant:
        plant = plant.replace("CLOCK_LIBRARY", refusal_files.clock_library())
    BARE.shell(plant)
    try:
        run = bare.site(condition, case).run
    finally:
        BARE.shell(bare.filled(case.plant.unmake))
    bare.judge(case, Refused(run, BARE.snapshot()))


def test_password_file_that_is_missing_ends_the_run(converged: Bench) -> None:
    """Ansible itself refuses it, before anything of ours can speak."""
    missing = str(converged.files / "nowhere")
    refused = converged.site("", Case((), environment={"ANSIBLE_VAULT_PASSWORD_FILE": missing}))
    assert refused.run.status != 0
    assert f"password file {missing} was not found" in refused.run.output
    assert refused.snapshot == converged.before


@pytest.mark.parametrize(
    ("client", "words"),
    [
        # It drops the limits, as a kernel does that ignores them.
        (
            'kept=(); while [ $# -gt 0 ]; do case $1 in --memory*) shift ;; *) kept+=("$1") ;; esac; shift; done\n'
            'exec /usr/bin/docker "${kept[@]}"\n',
            "cmdline.txt",
        ),
        ('[ "$1" != version ] || { echo 24.0.7; exit; }\nexec /usr/bin/docker "$@"\n', "24.0.7; the services need 25"),
    ],
    ids=["ignores memory limits", "too old"],
)
def test_engine_that_will_not_do_is_refused(client: str, words: str) -> None:
    """A client of its own stands in for it."""
    machine.pi(
        "rm /run/pi-commerce-memory-limit\n"
        f"cat > /usr/local/bin/docker <<'SHIM'\n#!/bin/bash\n{client}SHIM\n"
        "chmod 0755 /usr/local/bin/docker"
    )
    try:
        refused = machine.playbook("playbooks/stack.yml")
    finally:
        machine.pi("rm /usr/local/bin/docker")
    assert refused.status != 0, refused.output[-3000:]
    assert words in " ".join(refused.output.split()), refused.output[-3000:]
    accepted = machine.playbook("playbooks/stack.yml")
    assert accepted.status == 0, accepted.output[-3000:]
    machine.pi("test -e /run/pi-commerce-memory-limit")


def test_the_snapshot_notices_a_change() -> None:
    before = CONVERGED.snapshot()
    CONVERGED.shell("touch /etc/pi-commerce-probe")
    assert CONVERGED.snapshot() != before
    CONVERGED.shell("rm /etc/pi-commerce-probe")
    assert CONVERGED.snapshot() == before
