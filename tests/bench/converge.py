"""How long a `site.yml` takes that has nothing to do: with this project's settings and with Ansible's own.

`make bench WHAT=converge` brings up a virtual Pi of its own (kept and reused with KEEP=1) and runs the same playbook on
it in several flavours, in turns, so that a computer that slows down slows all of them. No run may change anything.

- file by file: Ansible's own settings, and each tree of files by one `copy` item a file, as stock modules have it
- stock: Ansible's own settings, the very same roles
- project: `ansible.cfg` as it is here
- FAST=1: the same with Mitogen (only where requirements-fast.txt is installed)
"""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import docker
import machine

RUNS = int(os.environ.get("RUNS", "3"))
# Paths, without which Ansible finds neither roles nor plugins; all else in ansible.cfg is a choice of this project.
PATHS = ("roles_path", "library", "module_utils", "filter_plugins", "action_plugins", "callback_plugins")
# `make bench FAST=1` installs Mitogen, and is not to give it to all.
SLOW: machine.Environment = {"ANSIBLE_STRATEGY": None, "ANSIBLE_STRATEGY_PLUGINS": None}
NO_INVENTORY = "[inventory]\nignore_patterns = [.]vault[.]yml$\n"
HEADINGS = ("", "seconds (least)", "(median)", "ratio", "CPU s", "tasks", "remote tasks", "remote calls", "KiB sent")


@dataclass(frozen=True)
class Flavour:
    """One way to run the playbook: its name and the variables that make it."""

    name: str
    environment: machine.Environment


@dataclass(frozen=True)
class Measured:
    """One run: seconds it took and the controller computed, tasks and those that made remote calls, bytes sent."""

    seconds: float
    computing: float
    tasks: int
    remote_tasks: int
    remote_calls: int
    sent: int


def stock_settings(configuration: str, root: Path, callbacks: Path, first_actions: Path | None = None) -> str:
    """An ansible.cfg that keeps of `configuration` only where things lie.

    Callbacks come from the folder `callbacks`, and action plugins in `first_actions` win.
    """
    ours = configparser.ConfigParser(interpolation=None)
    ours.read_string(configuration)
    paths = {name: str(root / ours["defaults"][name]) for name in PATHS}
    paths["callback_plugins"] = str(callbacks)
    if first_actions:
        paths["action_plugins"] = f"{first_actions}:{paths['action_plugins']}"
    return "[defaults]\n" + "".join(f"{name} = {path}\n" for name, path in paths.items()) + NO_INVENTORY


def flavours(folder: Path) -> list[Flavour]:
    """What is compared, the slowest first; configuration files are written to `folder`."""
    configuration = (machine.ROOT / "ansible.cfg").read_text()
    # What counts is for all, what loads ahead is a choice of this project.
    callbacks = folder / "callbacks"
    shutil.copytree(machine.ROOT / "plugins/callback", callbacks, ignore=shutil.ignore_patterns("preload.py"))
    for name, first in (("stock", None), ("file-by-file", Path(__file__).parent / "one_by_one")):
        (folder / f"{name}.cfg").write_text(stock_settings(configuration, machine.ROOT, callbacks, first))
    found = [
        Flavour("file by file", {**SLOW, "ANSIBLE_CONFIG": str(folder / "file-by-file.cfg")}),
        Flavour("stock", {**SLOW, "ANSIBLE_CONFIG": str(folder / "stock.cfg")}),
        Flavour("project", SLOW),
    ]
    mitogen = importlib.util.find_spec("ansible_mitogen")
    if mitogen and mitogen.origin:
        strategies = str(Path(mitogen.origin).parent / "plugins/strategy")
        fast: machine.Environment = {"ANSIBLE_STRATEGY": "mitogen_linear", "ANSIBLE_STRATEGY_PLUGINS": strategies}
        found.append(Flavour("FAST=1", fast))
    return found


def received() -> int:
    """Bytes that have arrived at the Pi's network card."""
    container = docker.from_env().containers.get(f"{machine.ENVIRONMENT['PI_NAME']}-pi")
    return int(container.exec_run(["cat", "/sys/class/net/eth0/statistics/rx_bytes"]).output)


def hang_up(sockets: Path) -> None:
    """End the SSH connections that a run has left open for the next; some have ended by themselves."""
    for socket in sockets.iterdir():
        subprocess.run(["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "pi"], capture_output=True, check=False)


def measure(flavour: Flavour) -> Measured:
    """One run from a new connection on. Ends the program if it failed or changed anything."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "cp").mkdir()
        environment = {
            **flavour.environment,
            "ANSIBLE_CALLBACKS_ENABLED": "remote_calls",
            "REMOTE_CALLS_REPORT": str(folder / "calls.json"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "cp"),
        }
        sent, computed, begun = -received(), -sum(os.times()[2:4]), time.monotonic()
        finished = machine.playbook("site.yml", **environment)
        seconds = time.monotonic() - begun
        sent, computed = sent + received(), computed + sum(os.times()[2:4])
        hang_up(folder / "cp")
        if finished.status or machine.recap(finished.output)["changed"]:
            sys.exit(
                f"{flavour.name}: a run that should change nothing failed or changed something:\n{finished.output}"
            )
        return Measured(seconds, computed, sent=sent, **json.loads((folder / "calls.json").read_text()))


def rows(results: dict[str, list[Measured]]) -> list[tuple[str, ...]]:
    """The table: one row a flavour, ratios to the first one's least time."""
    reference = min(run.seconds for run in next(iter(results.values())))
    table: list[tuple[str, ...]] = [HEADINGS]
    for name, runs in results.items():
        least, median = min(run.seconds for run in runs), statistics.median(run.seconds for run in runs)
        computing = min(run.computing for run in runs)
        last = runs[-1]
        counts = (last.tasks, last.remote_tasks, last.remote_calls, last.sent // 1024)
        times = (f"{least:.1f}", f"{median:.1f}", f"{least / reference:.2f}", f"{computing:.1f}")
        table.append((name, *times, *map(str, counts)))
    return table


def main() -> None:
    """Bring up the machine, measure, print."""
    if not (os.environ.get("KEEP") and (machine.STATE / "secrets.vault.yml").exists()):
        machine.make("down")
        machine.make("up")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        compared = flavours(Path(folder))
        # Once untimed: brings a kept machine up to date and fills the caches of both sides.
        machine.playbook("site.yml", **SLOW)
        results: dict[str, list[Measured]] = {flavour.name: [] for flavour in compared}
        for turn in range(RUNS):
            for flavour in compared:
                results[flavour.name].append(measure(flavour))
                print(f"{turn + 1}/{RUNS} {flavour.name}: {results[flavour.name][-1].seconds:.1f} s", flush=True)
    table = rows(results)
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    for row in table:
        print(
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            sep="  ",
        )
    if not os.environ.get("KEEP"):
        machine.make("down")


if __name__ == "__main__":
    main()
