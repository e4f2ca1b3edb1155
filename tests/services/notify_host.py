"""A machine with the notify program and apprise, in a container, and the services it talks to beside it."""

from __future__ import annotations

import io
import json
import re
import shlex
import tarfile
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from automation_stack import ROOT
from docker import DockerClient
from redis_server import LABELS, image_of
from waiting import wait_until

PROGRAM = (ROOT / "files/notify/pi_notify", ROOT / "files/common/pi_common")
REMOTE = Path(__file__).parent
FOLDER = "/var/lib/pi-commerce/notify"
SETTINGS = "/etc/pi-commerce/notify/settings.json"
SECRETS = "/etc/pi-commerce/secrets"
METRICS = "/var/backups/pi-commerce/notify.prom"
STAND_IN = "/srv/remote"
SMALL_DISK = "/srv/small"
# In every URL, so that one that shows up anywhere is recognised.
CANARY = "canary7f3a91c2"
URLS = {
    "phone": f"tgram://123456789:{CANARY}-telegram_token/-100200300",
    "hook": f"json://127.0.0.1:8080/hook/{CANARY}-hook?+X-Token={CANARY}-header",
    "other": f"json://user:{CANARY}-pass@127.0.0.1:8080/other",
    "mail": f"mailto://owner:{CANARY}-mail@127.0.0.1:2525?from=pi@shop.test&to=anna@shop.test&mode=insecure",
}


class Said(NamedTuple):
    """How a command ended, and everything it printed."""

    status: int
    output: str


class NotifyHost:
    """The container; everything the program touches lies in it."""

    def __init__(self, engine: DockerClient, folder: Path) -> None:
        """Start it, with the services up and each answering well. `folder` is what it shares with this computer."""
        self.shared = folder
        self.container = engine.containers.run(
            image_of(engine, "notify-host"),
            detach=True,
            labels=LABELS,
            network_mode="none",
            tmpfs={SMALL_DISK: "size=64k"},
            extra_hosts={"api.telegram.org": "127.0.0.1"},
            volumes={
                **{
                    str(part): {"bind": f"/usr/local/lib/pi-commerce/notify/{part.name}", "mode": "ro"}
                    for part in PROGRAM
                },
                str(REMOTE): {"bind": "/srv/tests", "mode": "ro"},
                str(folder): {"bind": STAND_IN, "mode": "rw"},
            },
        )
        self.shell(
            f"mkdir -p {SECRETS} {Path(SETTINGS).parent} && ln -s {STAND_IN}/settings {SETTINGS} && cd {STAND_IN}\n"
            "openssl req -x509 -nodes -days 2 -newkey ec "
            "-pkeyopt ec_paramgen_curve:P-256 -keyout key.pem -out cert.pem -subj /CN=api.telegram.org "
            "-addext subjectAltName=DNS:api.telegram.org -addext keyUsage=critical,digitalSignature,keyCertSign "
            "2>/dev/null && cp cert.pem /usr/local/share/ca-certificates/test.crt && update-ca-certificates"
        )
        for name, url in URLS.items():
            self.write(f"{SECRETS}/notify_{name}_url", url + "\n")
        self.container.exec_run(["python3", "/srv/tests/notify_remote.py", STAND_IN, "journal"], detach=True)
        self.up()

    def fresh(self, *targets: str, **changes: Any) -> None:
        """An empty outbox, settings with these targets, and services that answer well and have got nothing."""
        self.settled()
        if not (self.shared / "ready").exists():
            self.up()
        self.shell(f"rm -rf {FOLDER} {METRICS} {STAND_IN}/*.json {STAND_IN}/received {STAND_IN}/journal")
        self.configure(*targets, **changes)

    def configure(self, *targets: str, **changes: Any) -> None:
        """Write the settings; a target may say from which level on: `phone:critical`."""
        pairs = [target.partition(":") for target in targets]
        entries = {
            name: {"url_file": f"{SECRETS}/notify_{name}_url", "level": level or "info"} for name, _, level in pairs
        }
        content = {
            "host": "shop-pi",
            "folder": FOLDER,
            "metrics": METRICS,
            "cadence_minutes": 1,
            "repeat_hours": 24,
            "keep_days": 7,
            "messages": 500,
            "kib": 1024,
            "targets": entries,
            **changes,
        }
        (self.shared / "settings").write_text(json.dumps(content))

    # --- the program -----------------------------------------------------------------------------------------

    def notify(self, *words: str, body: str = "It is down.\nLook at it.") -> Said:
        """Run the program."""
        (self.shared / "body").write_text(body)
        return self.shell(f"exec python3 -m pi_notify {shlex.join(words)} < {STAND_IN}/body", check=False)

    def raised(self, title: str, *words: str, body: str = "It is down.\nLook at it.") -> None:
        """Raise a message; it has to be kept."""
        said = self.notify(*words, title, body=body)
        assert said == (0, ""), said

    def flush(self) -> None:
        """What cron does, with no other one at work."""
        self.settled()
        assert self.notify("--flush") == (0, "")

    def due(self) -> None:
        """Let the time of all waits pass."""
        self.settled()
        self.shell(
            "python3 - <<'E'\nimport json, pathlib\nfolder = pathlib.Path('" + FOLDER + "')\n"
            "state = json.loads((folder / 'state.json').read_text())\n"
            "for entry in state['targets'].values(): entry['until'] = 0\n"
            "(folder / 'state.json').write_text(json.dumps(state))\n"
            "for path in (folder / 'outbox').glob('*.json'):\n"
            "    message = json.loads(path.read_text())\n"
            "    for tries in message['waiting'].values(): tries['until'] = 0\n"
            "    path.write_text(json.dumps(message))\nE"
        )

    def settled(self) -> None:
        """Wait until no process of the program is left."""

        def ended() -> bool:
            table = self.container.top(ps_args="-o pid,args")
            return not any("pi_notify" in " ".join(row) for row in table["Processes"])

        wait_until(ended, 60, "the program ends")

    def waiting(self) -> list[dict[str, Any]]:
        """The messages in the outbox, the oldest first."""
        printed = self.shell(f"cd {FOLDER}/outbox 2>/dev/null && ls *.json | sort | xargs -r cat", check=False).output
        return [json.loads(text) for text in re.findall(r"^\{.*?^\}", printed, re.MULTILINE | re.DOTALL)]

    def state(self) -> dict[str, Any]:
        """What the program knows of keys and targets."""
        found: dict[str, Any] = json.loads(self.shell(f"cat {FOLDER}/state.json").output)
        return found

    # --- the other side --------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start the services."""
        self.container.exec_run(["python3", "/srv/tests/notify_remote.py", STAND_IN, "services"], detach=True)
        wait_until((self.shared / "ready").exists, 30, "the services listen")

    def down(self) -> None:
        """Kill the services: nobody listens any more."""
        self.shell(f"kill -9 $(cat {STAND_IN}/ready) && rm {STAND_IN}/ready")

    def answers(self, service: str, **how: Any) -> None:
        """How a service answers from now on; nothing given: well."""
        path = self.shared / f"{service}.json"
        path.write_text(json.dumps(how)) if how else path.unlink(missing_ok=True)

    def received(self, *services: str) -> list[dict[str, Any]]:
        """What the services, or these, have got."""
        found = [json.loads(line) for line in self._lines("received")]
        return [entry for entry in found if not services or entry["service"] in services]

    def titles(self, *services: str) -> list[str]:
        """Which messages they have got, by the last word of the title."""
        return [json.loads(entry["body"])["title"].split()[-1] for entry in self.received(*services)]

    def arrived(self, count: int, *services: str) -> list[dict[str, Any]]:
        """Wait until the services have got so many messages, and for the program to note it."""
        wait_until(lambda: len(self.received(*services)) >= count, 30, f"{count} messages arrive")
        self.settled()
        found = self.received(*services)
        assert len(found) == count, found
        return found

    def journal(self) -> str:
        """What was logged until now: what comes by the same socket later stands behind it, so a mark is waited for."""
        mark = f"mark {uuid4()}"
        self.shell(f"logger --socket-errors=on '{mark}'")
        wait_until(lambda: any(mark in line for line in self._lines("journal")), 30, "the journal is written")
        return "\n".join(self._lines("journal"))

    def _lines(self, name: str) -> list[str]:
        path = self.shared / name
        # The last line may be half written.
        return path.read_text().split("\n")[:-1] if path.exists() else []

    # --- the container ---------------------------------------------------------------------------------------

    def shell(self, script: str, check: bool = True) -> Said:
        """Run a script as root."""
        code, output = self.container.exec_run(["bash", "-c", script])
        said = Said(int(code), output.decode(errors="replace"))
        assert not check or said.status == 0, f"{script}: {said.output}"
        return said

    def write(self, path: str, content: str) -> None:
        """Write a file for root only."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content.encode()), 0o600
            archive.addfile(entry, io.BytesIO(content.encode()))
        assert self.container.put_archive("/", packed.getvalue())

    def remove(self) -> None:
        """Remove it."""
        self.container.remove(force=True, v=True)
