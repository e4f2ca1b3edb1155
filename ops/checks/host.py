"""The machine below the services: its name, packages, units, kernel settings and people."""

from __future__ import annotations

import re
from collections.abc import Iterator

import config_txt
import preflight
from declared import CannotRead, Step
from gather import Answer
from report import FAILING, WARNING, Finding

from checks.base import Check, drift, words
from checks.files import written

_USER, _KEYS = "ansible.builtin.user", "ansible.posix.authorized_key"


class Identity(Check):
    """Host name, and the links and lines that say who and where the machine is."""

    name = "identity"
    actions = frozenset({"ansible.builtin.hostname", "ansible.builtin.file", "ansible.builtin.lineinfile"})

    def __init__(self, steps: list[Step]) -> None:
        """Collect name, links and lines."""
        super().__init__(steps)
        self.host_name = next((step.arguments["name"] for step in self.of("ansible.builtin.hostname")), None)
        self.lines = [
            (step.arguments["path"], step.arguments["line"]) for step in self.of("ansible.builtin.lineinfile")
        ]
        self.links: dict[str, str] = {}
        for step in self.of("ansible.builtin.file"):
            if step.arguments.get("state") != "link":
                raise CannotRead(f"{step.place}: of ansible.builtin.file the audit knows links only; use file_tree")
            self.links[step.arguments["dest"]] = step.arguments["src"]

    def question(self) -> str:
        """The running and the lasting name, where the links lead, and the files that have lines of ours."""
        files = sorted({path for path, _ in self.lines})
        return (
            "set -eu\n"
            "sed 's/^/running|/' /proc/sys/kernel/hostname; sed 's/^/lasting|/' /etc/hostname\n"
            f'for path in {words(self.links)}; do printf \'link|%s|%s\\n\' "$path" "$(readlink "$path")"; done\n'
            f'for path in {words(files)}; do sed "s|^|line\\|$path\\||" "$path"; done\n'
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Other names, links that lead elsewhere, lines that are gone."""
        found = answer.output.splitlines()
        for kind in ("running", "lasting"):
            names = [line.partition("|")[2] for line in found if line.startswith(f"{kind}|")]
            if self.host_name and names != [self.host_name]:
                yield drift(f"the {kind} host name is {' '.join(names)} instead of {self.host_name}")
        for path, target in self.links.items():
            actual = next((line.split("|", 2)[2] for line in found if line.startswith(f"link|{path}|")), "")
            if actual != target:
                yield drift(f"{path}: leads to {actual or 'nothing'} instead of {target}")
        for path, line in self.lines:
            if f"line|{path}|{line}" not in found:
                yield drift(f"{path}: lacks the line {line!r}")

    def summary(self, answer: Answer) -> str:
        """Name and links."""
        return ", ".join(
            [str(self.host_name), *(target.removeprefix("/usr/share/zoneinfo/") for target in self.links.values())]
        )


class Packages(Check):
    """Packages that are wanted or unwanted."""

    name = "packages"
    actions = frozenset({"apt_packages"})

    def __init__(self, steps: list[Step]) -> None:
        """Collect names with whether each is wanted."""
        super().__init__(steps)
        self.wanted: dict[str, bool] = {}
        for step in self.of("apt_packages"):
            present = step.arguments.get("state", "present") == "present"
            self.wanted.update(dict.fromkeys(step.arguments["names"], present))

    def question(self) -> str:
        """The state of each; of one that was never there dpkg says so by failing."""
        return (
            "set -eu\ndpkg-query --show --showformat 'dpkg ${db:Status-Status}\\n' dpkg\n"
            f"for name in {words(self.wanted)}; do\n"
            "dpkg-query --show --showformat '${Package} ${db:Status-Status}\\n' \"$name\" 2>/dev/null || "
            "printf '%s missing\\n' \"$name\"; done"
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Those that are missing or should be."""
        states = dict(line.split(" ", 1) for line in answer.output.splitlines())
        for name, present in self.wanted.items():
            if (states.get(name) == "installed") != present:
                yield drift(f"{name}: is not installed" if present else f"{name}: is installed, which it should not be")

    def summary(self, answer: Answer) -> str:
        """How many."""
        return f"{sum(self.wanted.values())} installed"


class Units(Check):
    """Reads `systemd_service`."""

    name = "units"
    actions = frozenset({"ansible.builtin.systemd_service"})

    def __init__(self, steps: list[Step]) -> None:
        """Collect units with what is said of them."""
        super().__init__(steps)
        self.wanted = {step.arguments["name"]: step.arguments for step in self.of(*self.actions)}

    def question(self) -> str:
        """Both states of each."""
        return (
            f"set -eu\nfor unit in {words(self.wanted)}; do\n"
            'states=$(systemctl show --property UnitFileState,ActiveState "$unit")\n'
            'echo "$unit" $states\n'
            "done"
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Units that are not enabled or not running as declared."""
        states = {line.split(" ")[0]: line.split(" ")[1:] for line in answer.output.splitlines()}
        for unit, arguments in self.wanted.items():
            enabled = "UnitFileState=enabled" in states.get(unit, [])
            if arguments.get("enabled", enabled) != enabled:
                yield drift(f"{unit}: is {'enabled' if enabled else 'not enabled'}")
            if arguments.get("state") == "started" and "ActiveState=active" not in states.get(unit, []):
                yield drift(f"{unit}: does not run")

    def summary(self, answer: Answer) -> str:
        """Their names."""
        return ", ".join(self.wanted) or "none declared"


class Kernel(Check):
    """The settings in force, against those in the files below /etc/sysctl.d that the roles write."""

    name = "kernel"

    def __init__(self, steps: list[Step]) -> None:
        """Read the settings from the files' contents."""
        super().__init__(steps)
        texts = [text for path, text in written(self.of("file_tree")) if path.startswith("/etc/sysctl.d/")]
        found = re.findall(r"^(-?)([\w.-]+)\s*=\s*(.+?)\s*$", "\n".join(texts), flags=re.MULTILINE)
        self.wanted: dict[str, str] = {name: value for _, name, value in found}
        # A kernel may be built without them.
        self.optional = {name for dash, name, _ in found if dash}

    def question(self) -> str:
        """The value of each."""
        paths = [f"/proc/sys/{name.replace('.', '/')}" for name in self.wanted]
        shown = '[ ! -e "$path" ] || printf "%s %s\\n" "$path" "$(cat "$path")"'
        return f"set -eu\nfor path in {words(paths)}; do {shown}; done"

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Settings with another value."""
        found = dict(line.split(" ", 1) for line in answer.output.splitlines())
        for name, wanted in self.wanted.items():
            actual = found.get(f"/proc/sys/{name.replace('.', '/')}")
            if actual is None and name in self.optional:
                continue
            if actual is None or actual.split() != wanted.split():
                yield drift(f"{name}: is {actual} instead of {wanted}", f"sysctl --write {name}={wanted}, or reboot")

    def summary(self, answer: Answer) -> str:
        """How many."""
        return f"{len(self.wanted)} settings in force"


class People(Check):
    """Accounts and SSH keys that the roles give to people."""

    name = "people"
    actions = frozenset({_USER, _KEYS})

    def question(self) -> str:
        """Account, groups and keys of each."""
        names = words(step.arguments["name"] for step in self.of(_USER))
        return (
            f"set -eu\nfor name in {names}; do\n"
            'line=$(getent passwd "$name") || continue\n'
            'printf "account|%s|%s|%s\\n" "$name" "${line##*:}" "$(id -Gn "$name")"\n'
            "home=${line%:*}; keys=${home##*:}/.ssh/authorized_keys\n"
            '[ ! -e "$keys" ] || sed "s/^/key|$name|/" "$keys"\n'
            "done"
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Missing accounts, shells, groups and keys, and keys that nobody gave."""
        lines = [line.split("|", 2) for line in answer.output.splitlines()]
        accounts = {line[1]: line[2].split("|") for line in lines if line[0] == "account"}
        for step in self.of(_USER):
            name, wanted = step.arguments["name"], step.arguments
            if name not in accounts:
                yield drift(f"{name}: has no account")
                continue
            shell, groups = accounts[name]
            if wanted.get("shell", shell) != shell:
                yield drift(f"{name}: has shell {shell} instead of {wanted['shell']}")
            for group in set(wanted.get("groups", [])) - set(groups.split()):
                yield drift(f"{name}: is not in group {group}")
        for step in self.of(_KEYS):
            name = step.arguments["user"]
            given = {" ".join(key.split()[:2]) for key in step.arguments["key"].splitlines() if key.strip()}
            actual = {" ".join(line[2].split()[:2]) for line in lines if line[:2] == ["key", name] and line[2].strip()}
            if given - actual:
                yield drift(f"{name}: lacks {len(given - actual)} of the declared SSH keys")
            if actual - given:
                yield drift(f"{name}: has {len(actual - given)} SSH keys that are not declared")

    def summary(self, answer: Answer) -> str:
        """Their names."""
        return ", ".join(step.arguments["name"] for step in self.of(_USER)) or "none declared"


class Clock(Check):
    """The Pi's clock against the controller's: certificates and signatures depend on it."""

    name = "clock"

    def __init__(self, steps: list[Step], now: float) -> None:
        """`now` is the controller's clock, seconds since 1970."""
        super().__init__(steps)
        self.now = now

    def question(self) -> str:
        """Seconds since 1970."""
        return "date +%s"

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Too far off."""
        off = int(answer.output) - self.now
        if abs(off) > preflight.CLOCK_TOLERANCE_SECONDS:
            text = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the controller's"
            yield Finding(FAILING, text, "timedatectl set-ntp true, on the Pi")

    def summary(self, answer: Answer) -> str:
        """It agrees."""
        return "agrees with the controller's"


class Firmware(Check):
    """Our block in the firmware's config.txt."""

    name = "firmware"
    actions = frozenset({"config_txt_block"})

    def __init__(self, steps: list[Step]) -> None:
        """Take the lines and where the file may be."""
        super().__init__(steps)
        self.settings: list[str] = [line for step in self.of(*self.actions) for line in step.arguments["settings"]]
        roots = [step.arguments["root"].rstrip("/") for step in self.of(*self.actions)]
        self.places = [f"{root}/{place}" for root in roots[-1:] for place in config_txt.PLACES]

    def question(self) -> str:
        """The first of the files that is there."""
        if not self.settings:
            return ""
        return f'for path in {words(self.places)}; do if [ -f "$path" ]; then cat "$path"; exit; fi; done'

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """A block that is missing, other, or broken."""
        if not self.settings:
            return
        try:
            _, found, _ = config_txt.split(answer.output)
        except config_txt.ConfigTxtError as problem:
            yield Finding(FAILING, str(problem), "correct it by hand, then converge")
            return
        if [line.strip() for line in found] != config_txt.block(self.settings):
            yield drift(f"config.txt: its block of pi-commerce is {'other than written' if found else 'missing'}")

    def summary(self, answer: Answer) -> str:
        """How many lines."""
        return f"{len(self.settings)} lines of config.txt as declared" if self.settings else "none declared"


class Watchdog(Check):
    """The watchdog that systemd feeds. Where the hardware refuses what it is told there is none, and nobody says so."""

    name = "watchdog"
    setting = r"^RuntimeWatchdogSec=(\d+)$"
    units = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600}

    def __init__(self, steps: list[Step]) -> None:
        """Read the seconds from the file that a role writes."""
        super().__init__(steps)
        texts = "\n".join(text for path, text in written(self.of("file_tree")) if path.startswith("/etc/systemd/"))
        self.seconds = sum(map(int, re.findall(self.setting, texts, flags=re.MULTILINE)))

    def question(self) -> str:
        """What systemd means to do, and what the kernel's driver does."""
        if not self.seconds:
            return ""
        return (
            "systemctl show --property RuntimeWatchdogUSec --value\n"
            "for name in state timeout identity; do cat /sys/class/watchdog/watchdog0/$name 2>/dev/null || echo; done"
        )

    def judge(self, answer: Answer) -> Iterator[Finding]:
        """Not active, or with other times."""
        if not self.seconds:
            return
        told, state, timeout, _ = self.read(answer)
        if state != "active":
            text = f"is {state}" if state else "is not there, or its driver is not loaded"
            remedy = "dmesg | grep -i watchdog, on the Pi; lower power_watchdog_seconds where it was refused"
            yield Finding(FAILING, f"watchdog0 {text}: a machine that hangs would do so until somebody comes", remedy)
        if sum(float(number) * self.units[unit] for number, unit in re.findall(r"(\d+)([a-z]+)", told)) != self.seconds:
            yield drift(f"systemd feeds it every {told or '?'} instead of {self.seconds} s", "systemctl daemon-reload")
        elif state == "active" and timeout != str(self.seconds):
            text = f"the hardware waits for {timeout or '?'} s instead of {self.seconds}"
            yield Finding(WARNING, text, "set power_watchdog_seconds to what it takes")

    def summary(self, answer: Answer) -> str:
        """What it is, and how long it waits."""
        return f"{self.read(answer)[3] or 'watchdog0'}, {self.seconds} s" if self.seconds else "none declared"

    @staticmethod
    def read(answer: Answer) -> list[str]:
        """What systemd is told, then state, timeout and identity of the driver; empty where there is none."""
        return [line.strip() for line in [*answer.output.split("\n"), "", "", "", ""][:4]]
