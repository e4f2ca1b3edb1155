"""What wears out by itself: certificates, backups, disks, heat."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import board
from cryptography import x509
from declared import Step
from gather import Answer
from report import FAILING, UNKNOWN, WARNING, Finding

from checks.base import Check, words

DAY = 86400
CERTIFICATE_WARNING_DAYS, CERTIFICATE_FAILING_DAYS = 30, 7
# Minutes until a job of the backup is late, and very late: two that were left out; a night and the time it takes.
BACKUP_MINUTES = {"ship": (15, 60), "nightly": (26 * 60, 50 * 60)}
# A line may well be down for an hour; a message that waits for a day was none.
MESSAGE_WARNING_HOURS, MESSAGE_FAILING_HOURS = 1, 24
DISK_WARNING_PERCENT, DISK_FAILING_PERCENT = 85, 95
# A Pi 4 slows down at 80 degrees.
HEAT_WARNING, HEAT_FAILING = 70.0, 80.0


class Certificates(Check):
    """Certificates in the folders that the roles write to."""

    name = "certificates"

    def __init__(self, steps: list[Step], now: float) -> None:
        """`now` is the controller's clock, seconds since 1970."""
        super().__init__(steps)
        self.now = now
        self.folders: set[str] = set()
        for step in self.of("file_tree"):
            root, directories = step.arguments["root"], step.arguments.get("directories", [])
            self.folders.update(os.path.join(root, folder["path"]) for folder in [{"path": ""}, *directories])
        self.folders.discard("/")
        self.expected = any(probe.get("tls") for probe in self.value("catalog_data")["probes"])

    def question(self) -> str:
        """Every file with a certificate in it, without what else is in it."""
        return (
            f"set -eu\nset -- {words(sorted(self.folders))}\n"
            'for path do shift; if [ -d "$path" ]; then set -- "$@" "$path"; fi; done\n'
            '[ $# -eq 0 ] || find "$@" -maxdepth 1 -type f -size -64k | while read -r path; do\n'
            'awk -v path="$path" \'/^-----BEGIN CERTIFICATE-----/ { if (!seen++) print "file|" path; inside = 1 }\n'
            'inside { print } /^-----END CERTIFICATE-----/ { inside = 0 }\' "$path"; done'
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Certificates that end soon, or none where there should be one."""
        ends = self.ends(answer)
        if self.expected and not ends:
            yield Finding(FAILING, f"there is none in {', '.join(sorted(self.folders))}", "converge, it makes one")
        for path, days in ends.items():
            if days < CERTIFICATE_WARNING_DAYS:
                level = FAILING if days < CERTIFICATE_FAILING_DAYS else WARNING
                text = f"{path}: ended {-days} days ago" if days < 0 else f"{path}: ends in {days} days"
                yield Finding(
                    level, text, "set a new proxy_certificate, or remove it with its key to have one made; converge"
                )

    def summary(self, answer: Answer) -> str:
        """Days left."""
        return ", ".join(f"{path}: {days} days" for path, days in self.ends(answer).items()) or "none in use"

    def ends(self, answer: Answer) -> dict[str, int]:
        """Whole days until the first certificate of each file's chain ends. Raises ValueError for a damaged one."""
        texts = dict(part.split("\n", 1) for part in re.split(r"^file\|", answer.output, flags=re.MULTILINE) if part)
        found = {}
        for path, text in texts.items():
            end = min(entry.not_valid_after_utc for entry in x509.load_pem_x509_certificates(text.encode()))
            found[path] = (end - datetime.fromtimestamp(self.now, UTC)).days
        return found


class Backup(Check):
    """How long ago each job of the backup last did all it had to do, and what went wrong with the last one."""

    name = "backup"
    # Written by the roles: since it is there, backups are due.
    command = "/usr/local/sbin/pi-commerce-backup"

    def question(self) -> str:
        """The Pi's clock, since when backups are due, and what the program says of itself."""
        status = words([f"{self.value('backup_folder')}/status.json"])
        return f"set -eu\ndate +%s\nstat --format %Y {self.command}\n[ ! -e {status} ] || cat {status}"

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Jobs that are late or had problems, and a restore that was cut off."""
        remedy = "pi-commerce-backup status, on the Pi, says what is wrong; is cron running?"
        jobs, status = self.read(answer)
        for job, (warning, failing) in BACKUP_MINUTES.items():
            minutes, text = jobs[job]
            if minutes > warning:
                yield Finding(FAILING if minutes > failing else WARNING, f"{job}: {text}", remedy)
            for problem in status.get("jobs", {}).get(job, {}).get("problems", []):
                yield Finding(WARNING, f"{job}: {problem}", remedy)
        if status.get("unfinished"):
            yield Finding(FAILING, "a restore was cut off", "pi-commerce-backup restore --resume, on the Pi")

    def summary(self, answer: Answer) -> str:
        """How old the last ones are."""
        return ", ".join(f"{job} {text}" for job, (_, text) in self.read(answer)[0].items())

    @staticmethod
    def read(answer: Answer) -> tuple[dict[str, tuple[float, str]], dict[str, Any]]:
        """Minutes since each job's last success, or since the first could have been, in words too; the whole status."""
        now, due, *rest = answer.output.split("\n", 2)
        status: dict[str, Any] = json.loads("".join(rest) or "{}")
        found = {}
        for job in BACKUP_MINUTES:
            made = status.get("jobs", {}).get(job, {}).get("succeeded")
            minutes = (float(now) - float(made or due)) / 60
            found[job] = (minutes, f"{minutes:.0f} min ago" if made else f"none yet, due for {minutes:.0f} min")
        return found, status


class Messages(Check):
    """How many messages to people wait in the outbox of role notify, and how long they do."""

    name = "messages"
    folder = "/var/lib/pi-commerce/notify"

    def question(self) -> str:
        """The Pi's clock, the messages by their files' names, which begin with their time, and what targets said."""
        return (
            f"set -eu\ndate +%s\n[ ! -d {self.folder}/outbox ] || ls {self.folder}/outbox\n"
            f"[ ! -e {self.folder}/state.json ] || cat {self.folder}/state.json"
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Messages that wait for long, and an outbox that will soon drop some."""
        count, hours, errors = self.read(answer)
        remedy = "pi-commerce-notify --status, on the Pi, says why; is cron running?"
        if hours >= MESSAGE_WARNING_HOURS:
            level = FAILING if hours >= MESSAGE_FAILING_HOURS else WARNING
            yield Finding(level, f"{count} wait, the oldest for {hours:.0f} h{errors}", remedy)
        most = self.value("notify_outbox_messages")
        if count > most * 0.8:
            yield Finding(WARNING, f"{count} wait, {most} may{errors}", remedy)

    def summary(self, answer: Answer) -> str:
        """How many wait."""
        targets = ", ".join(self.value("notify_targets"))
        return (
            f"{self.read(answer)[0]} wait; {'they go to ' + targets if targets else 'nobody is told, only the journal'}"
        )

    @staticmethod
    def read(answer: Answer) -> tuple[int, float, str]:
        """Number of messages, hours the oldest has waited, and what the targets that do not take them have said."""
        now, *rest = answer.output.split("\n")
        begin = next((number for number, line in enumerate(rest) if line.startswith("{")), len(rest))
        state: dict[str, Any] = json.loads("\n".join(rest[begin:]) or "{}")
        made = [int(name[1]) / 1e6 for name in map(re.compile(r"(\d+)-").match, rest[:begin]) if name]
        errors = [f"{name}: {entry['error']}" for name, entry in state.get("targets", {}).items() if entry["error"]]
        hours = (float(now) - min(made, default=float(now))) / 3600
        return begin, hours, "".join(f"; {error}" for error in errors)


class Disk(Check):
    """How full the file systems are that hold the system, the containers and the backups."""

    name = "disk"

    def question(self) -> str:
        """One line for each file system."""
        own = ["/var/lib/docker", "/var/lib/docker/volumes", "/var/log/journal"]
        paths = words(["/", *own, self.value("backup_folder")])
        return (
            f"set -eu\nset -- {paths}\n"
            'for path do shift; if [ -d "$path" ]; then set -- "$@" "$path"; fi; done\n'
            'df --output=pcent,ipcent,avail,source,target "$@" | tail -n +2'
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Full ones."""
        for target, (percent, free_kib) in self.rows(answer).items():
            if percent >= DISK_WARNING_PERCENT:
                level = FAILING if percent >= DISK_FAILING_PERCENT else WARNING
                text = f"{target}: {percent} % full, {free_kib >> 10} MiB left"
                yield Finding(level, text, f"du -xh -d 2 {target} | sort -h, on the Pi; docker system df")

    def summary(self, answer: Answer) -> str:
        """How full they are."""
        return ", ".join(f"{target} {percent} % full" for target, (percent, _) in self.rows(answer).items())

    @staticmethod
    def rows(answer: Answer) -> dict[str, tuple[int, int]]:
        """Percent in use (blocks or inodes, whichever is more) and KiB left, by mount point; each device once."""
        found: dict[str, tuple[str, int, int]] = {}
        for line in answer.output.splitlines():
            used, inodes, free, source, target = line.split(maxsplit=4)
            percent = max(int(text.rstrip("%")) for text in (used, inodes) if text != "-")
            found.setdefault(f"{source} {free}", (target, percent, int(free)))
        return {target: (percent, free) for target, percent, free in found.values()}


class Volumes(Check):
    """Whether the volumes of the data's disk are mounted in their places, and can be written."""

    name = "volumes"
    actions = frozenset({"storage_volumes"})

    def __init__(self, steps: list[Step]) -> None:
        """Collect the places from the layout."""
        super().__init__(steps)
        rows = [row for step in self.of(*self.actions) for row in step.arguments["layout"] if row.get("path")]
        self.places = list(dict.fromkeys(path for row in rows for path in (row["path"], *row.get("binds", []))))

    def question(self) -> str:
        """How each is mounted; a line without options is one that is not."""
        shown = 'echo "$path $(findmnt --noheadings --first-only --output OPTIONS --mountpoint "$path")"'
        return f"for path in {words(self.places)}; do {shown}; done" if self.places else ""

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Those that are missing or read-only."""
        for line in answer.output.splitlines():
            path, _, options = line.partition(" ")
            if not options.strip():
                remedy = "look at the disk's cable and power; pi-commerce-storage, on the Pi, says more"
                yield Finding(FAILING, f"{path}: nothing is mounted", remedy)
            elif "ro" in options.strip().split(","):
                yield Finding(FAILING, f"{path}: is read-only", "look at dmesg, on the Pi, then restart it")

    def summary(self, answer: Answer) -> str:
        """How many."""
        return f"{len(self.places)} mounted" if self.places else "no disk of their own (storage_disk)"


class Heat(Check):
    """Temperature, and whether the board slows itself down."""

    name = "temperature"

    def question(self) -> str:
        """Both figures, as the board has them."""
        root = words([self.value("hardware_root").rstrip("/")])
        places = " ".join(f"{root}/{pattern}" for pattern in board.THROTTLED)
        return (
            f'echo "$(cat {root}/{board.TEMPERATURE})"\n'
            f'echo "$({root}/{board.VCGENCMD} get_throttled || cat {places} | head -n 1)"\n'
            "systemctl is-active pi-commerce-thermal.service || :"
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Too hot, slowed down, or not to be read."""
        degrees, bits = self.read(answer)
        watched = [*answer.output.split("\n"), "", "", ""][2].strip()
        if watched not in ("", "active"):
            text = f"pi-commerce-thermal is {watched}: nobody would be told"
            yield Finding(FAILING, text, "systemctl restart pi-commerce-thermal, on the Pi")
        if degrees is None or bits is None:
            what = "temperature" if degrees is None else "throttling"
            yield Finding(UNKNOWN, f"{what} cannot be read", "look at hardware_root: it must hold the board's sys")
        if degrees is not None and degrees >= HEAT_WARNING:
            yield Finding(
                FAILING if degrees >= HEAT_FAILING else WARNING, f"{degrees:.1f} degrees Celsius", board.COOLING
            )
        for bit in board.BITS.values():
            if (bits or 0) & bit.value:
                yield Finding(FAILING, bit.words, bit.remedy)
            elif (bits or 0) >> board.SINCE_START & bit.value:
                yield Finding(WARNING, f"{bit.words} at some time since it was started", bit.remedy)

    def summary(self, answer: Answer) -> str:
        """The temperature."""
        return f"{self.read(answer)[0]:.1f} degrees Celsius, not slowed down"

    @staticmethod
    def read(answer: Answer) -> tuple[float | None, int | None]:
        """Degrees Celsius and the bits of get_throttled; None for what could not be read."""
        temperature, throttled = [*answer.output.split("\n"), "", ""][:2]
        return board.degrees(temperature), board.throttled_bits(throttled)
