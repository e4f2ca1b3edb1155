"""What a drill leaves: a report as JSON and Markdown, what the next one has to know, and metrics."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from .. import choose, files
from ..plan import Plan
from .checks import EXIT, FAILED, LEFT, PASSED, UNABLE, VERIFIED, Ladder

OUTCOMES = (PASSED, FAILED, UNABLE, LEFT)


def folder(plan: Plan) -> Path:
    """Where the reports are."""
    return plan.folder / "drills"


def known(plan: Plan) -> dict[str, Any]:
    """What earlier drills have noted: when one was well, which part of the data was read last, sizes of volumes."""
    found = files.read_json(folder(plan) / "state.json")
    return {"since": time.time(), "succeeded": 0.0, "opened": 0.0, "part": 0, "volumes": {}, **found}


def remember(plan: Plan, noted: dict[str, Any]) -> None:
    """Note it for the next one."""
    files.write_json(folder(plan) / "state.json", noted)


def written(
    plan: Plan, ladder: Ladder, repository: str, started: float, notes: dict[str, Any], kept: int, usual: bool
) -> dict[str, Any]:
    """Write the report of a drill that has ended, leave the last `kept` of them, and return it.

    Only a drill of the `usual` repository says that none is overdue.
    """
    ended, verdict = time.time(), ladder.verdict
    size, fetching = sum(entry.size for entry in ladder.done), sum(entry.fetching for entry in ladder.done)
    report = {
        "host": plan.host,
        "repository": repository,
        "usual": usual,
        "started": started,
        "ended": ended,
        "seconds": round(ended - started, 1),
        "verdict": verdict,
        "exit": EXIT[verdict],
        "fetched_mib": round(size / files.MIB, 1),
        "mib_per_second": round(size / files.MIB / fetching, 1) if fetching else 0.0,
        "checks": [vars(entry) for entry in ladder.done],
    }
    if verdict == VERIFIED and usual:
        notes["succeeded"] = ended
    if any(entry.name == "bundle opens" and entry.outcome == PASSED for entry in ladder.done):
        notes["opened"] = ended
    remember(plan, notes)
    report["opened"] = notes["opened"]
    name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(started))
    files.write_json(folder(plan) / f"{name}.json", report)
    files.write(folder(plan) / f"{name}.md", markdown(report))
    for old in sorted(folder(plan).glob("2*.json"))[:-kept]:
        old.unlink()
        old.with_suffix(".md").unlink(missing_ok=True)
    files.write(plan.folder / "drill.prom", metrics(report, notes))
    (plan.folder / "drill.prom").chmod(0o644)
    return report


def summary(report: dict[str, Any]) -> str:
    """The report in a line."""
    return (
        f"{report['verdict']}: {report['host']} from repository {report['repository']} in {report['seconds']:.0f} s, "
        f"{report['fetched_mib']} MiB fetched at {report['mib_per_second']} MiB/s"
    )


def markdown(report: dict[str, Any]) -> str:
    """The report for a person."""
    opened = choose.shown(report["opened"]) if report["opened"] else "never yet"
    lines = [
        f"# Restore drill of {report['host']}: {report['verdict']}",
        "",
        f"{choose.shown(report['started'])}, from repository {report['repository']}, {report['seconds']:.0f} s, "
        f"{report['fetched_mib']} MiB fetched at {report['mib_per_second']} MiB/s. The operator's key last opened the "
        f"secrets bundle: {opened}.",
        "",
        "| check | outcome | seconds | what |",
        "|---|---|---:|---|",
    ]
    for entry in report["checks"]:
        text = " ".join(entry["text"].split()).replace("|", "\\|")
        lines.append(f"| {entry['name']} | {entry['outcome']} | {entry['seconds']:.1f} | {text} |")
    return "\n".join(lines) + "\n"


def metrics(report: dict[str, Any], notes: dict[str, Any]) -> str:
    """The report for Prometheus."""
    rpo = {name: age for entry in report["checks"] for name, age in entry["figures"].get("rpo_seconds", {}).items()}
    checks = report["checks"]
    found = [
        ("success_timestamp_seconds", "When a drill last verified the copies, 0: never.", {"": notes["succeeded"]}),
        (
            "opened_timestamp_seconds",
            "When the operator's key last opened the bundle, 0: never.",
            {"": notes["opened"]},
        ),
        ("timestamp_seconds", "When the last drill ended.", {"": report["ended"]}),
        ("duration_seconds", "How long the last drill took.", {"": report["seconds"]}),
        ("verdict", "0 verified, 1 failed, 2 could not verify.", {"": report["exit"]}),
        ("restore_bytes_per_second", "Rate of the fetching.", {"": report["mib_per_second"] * files.MIB}),
        ("rpo_seconds", "How old what came back was.", {f'{{store="{name}"}}': age for name, age in rpo.items()}),
        (
            "check",
            "0 passed, 1 failed, 2 could not run, 3 not asked for.",
            {f'{{check="{entry["name"]}"}}': OUTCOMES.index(entry["outcome"]) for entry in checks},
        ),
        (
            "check_seconds",
            "How long a check took.",
            {f'{{check="{entry["name"]}"}}': entry["seconds"] for entry in checks},
        ),
    ]
    lines = []
    for name, text, values in found:
        lines += [f"# HELP pi_drill_{name} {text}", f"# TYPE pi_drill_{name} gauge"]
        lines += [
            f"pi_drill_{name}{labels} {value:.6g}" if value < 1e6 else f"pi_drill_{name}{labels} {value:.0f}"
            for labels, value in values.items()
        ]
    return "\n".join(lines) + "\n"
