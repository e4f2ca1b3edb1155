"""What Lynis thinks of a machine before and after site.yml: `make bench WHAT=lynis`, a virtual machine of its own.

The index is relative to the tests that were run and rewards tools that are installed (CISOfy/lynis#451), so it is
nothing without the number of tests and the version. The same Lynis, Debian's, looks at the same machine twice; what it
still suggests is printed at the end. KEEP=1 keeps the machine, and takes the first figure of an earlier run.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import asdict, dataclass

import machine

GOAL, GAIN = 80, 20
REPORT = "/var/log/lynis-report.dat"
KEPT = machine.STATE / "lynis-before.json"
LOOK = f"rm -f {REPORT}; lynis audit system --quick --quiet --no-colors >/dev/null 2>&1; cat {REPORT}"


@dataclass(frozen=True)
class Audit:
    """What one audit says: index, tests that were run, version, and what it warns of and suggests."""

    index: int
    tests: int
    version: str
    warnings: list[str]
    suggestions: list[str]


def read(report: str) -> Audit:
    """The figures of a report. Raises ValueError where one is missing: half an audit is none."""
    lines = [line.split("=", 1) for line in report.splitlines() if "=" in line and not line.startswith("#")]
    single = dict(lines)
    try:
        index, tests = int(single["hardening_index"]), int(single["lynis_tests_done"])
        version = single["lynis_version"]
    except KeyError as error:
        raise ValueError(f"{REPORT} has no {error}: the audit did not come to its end") from error

    def listed(key: str) -> list[str]:
        return [" ".join(text.split("|")[:2]) for name, text in lines if name == f"{key}[]"]

    return Audit(index, tests, version, listed("warning"), listed("suggestion"))


def table(before: Audit, after: Audit) -> list[str]:
    """Both, what lies between, and whether that is what we want."""
    rows = [
        f"{when:<16} index {one.index:>3}  {one.tests} tests  {len(one.warnings)} warnings  "
        f"{len(one.suggestions)} suggestions  Lynis {one.version}"
        for when, one in (("before site.yml", before), ("after site.yml", after))
    ]
    gain = after.index - before.index
    met = {True: "met", False: "MISSED"}
    rows.append(f"goal: at least {GOAL}: {met[after.index >= GOAL]} ({after.index})")
    rows.append(f"goal: at least +{GAIN}: {met[gain >= GAIN]} ({gain:+d})")
    rows += [f"warns: {text}" for text in after.warnings]
    return rows + [f"suggests: {text}" for text in after.suggestions]


def audit(when: str) -> Audit:
    """Have Lynis look at the machine."""
    print(f"{when}: Lynis looks, which takes minutes", flush=True)
    return read(machine.pi(LOOK))


def main() -> None:
    """Bring up a machine, look, converge it, look again."""
    if machine.KIND != "vm":
        sys.exit("Lynis judges a kernel, too: run `make bench WHAT=lynis`, which takes a virtual machine")
    if os.environ.get("KEEP") and KEPT.exists():
        before = Audit(**json.loads(KEPT.read_text()))
    else:
        machine.make("down")
        # Started, looked at by the preflight, and as it came otherwise.
        started = machine.run("make", "up", "PLAYBOOK=playbooks/preflight.yml")
        if started.status:
            sys.exit(started.output[-4000:])
        machine.pi("apt-get -q -y update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install lynis")
        before = audit("before")
        KEPT.write_text(json.dumps(asdict(before)))
    converged = machine.make("up")
    print(re.findall(r"^shop-pi\s+:.*$", converged.output, flags=re.MULTILINE)[-1], flush=True)
    # What the kernel and systemd take at a start only.
    machine.make("restart")
    after = audit("after")
    print("", *table(before, after), sep="\n")
    if not os.environ.get("KEEP"):
        machine.make("down")


if __name__ == "__main__":
    main()
