"""What a machine can do, and how long it would take to have the shop back on it.

`make bench WHAT=pi` measures a virtual Pi of its own (kept and reused with KEEP=1), `make bench WHAT=pi
INVENTORY=inventory/production` the machine of an inventory, in three minutes. It writes bench.json beside the machine's
vault file and prints what the model (plugins/module_utils/rto.py) makes of it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

PLAY = Path(__file__).parent / "pi.yml"
SECONDS = 300


def label(found: dict[str, Any], hardware_root: str) -> tuple[str, str]:
    """How figures of this machine are called, and the name under which its runs are remembered.

    What is no board of its own, or only plays one, never gets a board's name.
    """
    known = found["machine"]
    if known["virtual"] or hardware_root.rstrip("/"):
        return (
            f"measured on a virtual Pi ({known['virtual'] or 'other hardware'}, {known['architecture']})",
            "virtual-pi",
        )
    if not known["model"].startswith("Raspberry Pi"):
        return f"measured on a computer that is no Pi ({known['architecture']})", f"other-{known['architecture']}"
    return f"measured on {known['model']}", re.sub(r"[^a-z0-9]+", "-", known["model"].lower())


def lines(bench: dict[str, Any]) -> list[str]:
    """The measurement for a person."""
    known, throttled, clock = bench["machine"], bench["throttled"], bench["clock"]
    ahead = " to ".join(f"{seconds:.1f}" for seconds in clock["ahead_s"])
    rows = [
        bench["label"],
        f"says it is {known['model']}; {known['cores']} cores, {known['mhz'] or '?'} MHz, kernel {known['kernel']}",
        f"throttle bits {throttled[0]} before, {throttled[1]} after",
        f"clock ahead of this computer's by {ahead} s; synchronised: {clock['synchronised']}",
        f"restic: {bench['restic']['version']}, {bench['restic']['size_mb']} MB",
    ]
    rates = {f"from {place}": rate for place, rate in bench["network"]["places"].items()} or {"network": None}
    for part in ("disk", "crypto", "restic"):
        found = {name: rate for name, rate in bench[part].items() if name.endswith("_mb_s")}
        rates.update({f"{part} {name.removesuffix('_mb_s')}": rate for name, rate in found.items()})
    rows += [f"{name:<24} {'unknown' if rate is None else f'{rate:8.1f} MB/s'}" for name, rate in rates.items()]
    return rows


def measure(inventory: str, environment: dict[str, str]) -> Path:
    """Measure, and write bench.json; where it lies."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        file = Path(folder) / "answer.json"
        command = ["ansible-playbook", "-i", inventory, str(PLAY), "-e", f"bench_file={file}"]
        begun = time.time()
        done = subprocess.run(
            command, cwd=machine.ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        ended = time.time()
        if done.returncode:
            sys.exit(f"{inventory}: cannot be measured:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
        answer = json.loads(file.read_text())
    found = answer["measured"]
    found["clock"]["ahead_s"] = [found["ended"] - ended, found["started"] - begun]
    found["label"], found["board"] = label(found, answer["hardware_root"])
    path = Path(answer["folder"]) / "bench.json"
    path.write_text(json.dumps({**found, "host": answer["host"]}, indent=1) + "\n")
    return path


def main() -> None:
    """Bring up the machine where it is one of our own, measure, print."""
    inventory, environment = os.environ.get("INVENTORY"), dict(os.environ)
    if not inventory:
        inventory, environment = machine.INVENTORY, machine.ENVIRONMENT
        if not (os.environ.get("KEEP") and (machine.STATE / "secrets.vault.yml").exists()):
            machine.make("down")
            machine.make("up")
    begun = time.monotonic()
    path = measure(inventory, environment)
    bench = json.loads(path.read_text())
    print(*lines(bench), f"{path} after {time.monotonic() - begun:.0f} s", "", sep="\n", flush=True)
    subprocess.run([sys.executable, "ops/recovery_time.py", "table", str(path.parent)], cwd=machine.ROOT, check=True)
    if not (os.environ.get("INVENTORY") or os.environ.get("KEEP")):
        machine.make("down")


if __name__ == "__main__":
    main()
