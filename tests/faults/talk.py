"""Runs that say all they can, handling secrets that are known, and what processes showed meanwhile."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

import footprint
import leaks
import machine
from episodes import Episode, look


@dataclass(frozen=True)
class Talk:
    """What was said and shown.

    outputs: what runs printed, by kind
    processes: what processes showed meanwhile, by machine
    known: all secrets that were handled, by name
    temporary: where Ansible kept temporary files on the controller
    touched: what the run that had nothing to do, and the check, touched all the same
    """

    outputs: dict[str, str]
    processes: dict[str, str]
    known: dict[str, str]
    temporary: Path
    touched: set[str]


def canary() -> str:
    """A secret nobody has seen, strong enough for every policy."""
    return f"Aa1-{secrets.token_hex(16)}"


def give(folder: Path) -> tuple[Path, dict[str, str]]:
    """A file of variables that passes secrets to a run wherever one can be passed, and these secrets by name."""
    key, certificate, variables = folder / "key.pem", folder / "cert.pem", folder / "variables.json"
    made = machine.run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "90", "-subj", "/CN=canary", "-addext", f"subjectAltName=IP:{machine.ADDRESS}"),
        *("-keyout", str(key), "-out", str(certificate)),
    )
    assert made.status == 0, made.output
    chosen = {name: canary() for name in ("n8n_owner_password", "redis_admin_password", "shop_db_password")}
    hidden = canary()
    credential = {
        "id": "piCanary00000001",
        "name": "Canary",
        "type": "httpHeaderAuth",
        "data": {"name": "x-canary"},
        "secrets": {"value": hidden},
    }
    values = {
        "secrets_values": chosen,
        "workflows_credentials": [credential],
        "proxy_certificate": certificate.read_text(),
        "proxy_certificate_key": key.read_text(),
    }
    variables.write_text(json.dumps(values))
    given = {f"given {name}": value for name, value in chosen.items()}
    given["credential"] = hidden
    given["key of the certificate"] = key.read_text().splitlines()[1]
    return variables, given


def listen(first_run: machine.Finished, episodes: dict[int, Episode], folder: Path) -> Talk:
    """A run that has nothing to do, and a check with other secrets, both without any restraint in what they print."""
    variables, given = give(folder)
    temporary = folder / "temporary"
    temporary.mkdir()
    kept = {"ANSIBLE_LOCAL_TEMP": str(temporary), "TMPDIR": str(temporary)}
    before = look()
    with leaks.watched() as watched:
        run = machine.playbook("site.yml", "--diff", "-vvv", **kept)
        check = machine.playbook("site.yml", "--check", "--diff", "-vvv", "--extra-vars", f"@{variables}", **kept)
    for finished in (run, check):
        assert finished.status == 0, finished.output[-4000:]
    outputs = {"first run": first_run.output, "run": run.output, "check": check.output}
    for batch, episode in episodes.items():
        told = {"audit": episode.audit, "check": episode.check, "mending": episode.mend}
        outputs |= {f"{kind} of batch {batch}": finished.output for kind, finished in told.items()}
    return Talk(outputs, watched.texts, machine.secrets() | given, temporary, footprint.touched(before, look()))
