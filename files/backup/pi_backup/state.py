"""What happened: for people (`status`), for the audit (status.json) and for Prometheus (metrics.prom)."""

from __future__ import annotations

import time
from typing import Any

from . import files
from .engine import Repository
from .locks import locked
from .plan import Plan

JOBS = ("nightly", "ship")


def record(plan: Plan, job: str, problems: list[str], started: float, **more: Any) -> None:
    """Note how a job ended, and what `more` is to be known of it."""
    now = time.time()
    news = {"started": started, "ended": now, "problems": problems, **more}
    _note(plan, job, **news, **({} if problems else {"succeeded": now}))


def skipped(plan: Plan, job: str) -> None:
    """Count a run that was left out, wholly or for one repository, because an earlier one was still at work."""
    _note(plan, job, skipped=files.read_json(plan.folder / "state/jobs.json").get(job, {}).get("skipped", 0) + 1)


def _note(plan: Plan, job: str, **news: Any) -> None:
    path = plan.folder / "state/jobs.json"
    with locked(plan.folder, "state", 60):
        jobs = files.read_json(path)
        files.write_json(path, {**jobs, job: {"first": time.time(), **jobs.get(job, {}), **news}})
    publish(plan)


def collected(plan: Plan) -> dict[str, Any]:
    """Jobs, repositories, and for each store how old (seconds) what could be restored is; None: nothing could."""
    now = time.time()
    repositories = {name: Repository(plan, name).state for name in plan.targets}
    points = {
        name: {store.name: state.get("points", {}).get(store.name) for store in plan.stores}
        for name, state in repositories.items()
    }
    jobs = files.read_json(plan.folder / "state/jobs.json")
    return {
        "jobs": jobs,
        # For how long (seconds) something should have been saved.
        "age": now - min((entry["first"] for entry in jobs.values()), default=now),
        "repositories": repositories,
        "rpo": {
            name: {store: None if point is None else now - point for store, point in stores.items()}
            for name, stores in points.items()
        },
        "chain": files.read_json(plan.folder / "state/chain.json"),
        "unfinished": files.read_json(plan.folder / "state/restore.json"),
    }


def publish(plan: Plan) -> None:
    """Write status.json and metrics.prom."""
    found = collected(plan)
    files.write_json(plan.folder / "status.json", found)
    lines = [
        "# HELP pi_backup_point_timestamp_seconds Moment up to which a store can be restored, 0 where it cannot.",
        "# TYPE pi_backup_point_timestamp_seconds gauge",
    ]
    lines += [
        f'pi_backup_point_timestamp_seconds{{repository="{name}",store="{store.name}"}} '
        f"{state.get('points', {}).get(store.name, 0):.0f}"
        for name, state in found["repositories"].items()
        for store in plan.stores
    ]
    for metric, key, text in (
        ("pi_backup_success_timestamp_seconds", "succeeded", "When a job last did all it had to do."),
        (
            "pi_backup_skipped_total",
            "skipped",
            "Runs left out, wholly or for a place, as an earlier one was at work.",
        ),
    ):
        kind = "counter" if key == "skipped" else "gauge"
        lines += [f"# HELP {metric} {text}", f"# TYPE {metric} {kind}"]
        lines += [f'{metric}{{job="{job}"}} {entry[key]:.0f}' for job, entry in found["jobs"].items() if key in entry]
    lines += [
        "# HELP pi_backup_pruned_timestamp_seconds When a repository was last thinned out.",
        "# TYPE pi_backup_pruned_timestamp_seconds gauge",
    ]
    lines += [
        f'pi_backup_pruned_timestamp_seconds{{repository="{name}"}} {state.get("pruned", 0):.0f}'
        for name, state in found["repositories"].items()
    ]
    files.write(plan.folder / "metrics.prom", "\n".join(lines) + "\n")
    (plan.folder / "metrics.prom").chmod(0o644)


def table(plan: Plan) -> tuple[list[str], bool]:
    """Lines for a person, and whether all is well: nothing older than 15 minutes, no problem, no restore cut off."""
    found = collected(plan)
    lines, well = [], not found["unfinished"]
    for name, stores in found["rpo"].items():
        for store, age in stores.items():
            good = age is not None and age <= 15 * 60
            well = well and good
            lines.append(f"{name:<8} {store:<20} {'nothing yet' if age is None else f'{age:.0f} s old'}")
    for name, state in found["repositories"].items():
        lines.append(f"{name:<8} pruned {_shown(state.get('pruned'))}")
    for job in JOBS:
        entry = found["jobs"].get(job, {})
        lines.append(f"{job:<8} ended {_shown(entry.get('ended'))}, left out {entry.get('skipped', 0)} times")
        for problem in entry.get("problems", []):
            well = False
            lines.append(f"         {problem}")
    if found["unfinished"]:
        lines.append("a restore was cut off: `pi-commerce-backup restore --resume` completes it")
    return lines, well


def _shown(moment: float | None) -> str:
    return "never" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
