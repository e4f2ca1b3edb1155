"""The engine's own packages: what the archive offers, and a way back that needs no archive."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pi_common.commands import CommandFailed, run

# A package's own questions are answered with what is there.
ANSWERS = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
APT = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", *ANSWERS)
INSTALLED = re.compile(r"^Inst (\S+) \[([^\]]+)\] \((\S+)", flags=re.MULTILINE)


class Package(NamedTuple):
    """One that would be upgraded."""

    name: str
    old: str
    new: str


def newer(held: Sequence[str]) -> list[Package]:
    """What of the packages whose names begin so would become newer, with what has to follow. Raises CommandFailed."""
    there = run("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\\n").splitlines()
    installed = [line.split()[0] for line in there if line.endswith(" installed")]
    names = [name for name in installed if any(re.match(pattern, name) for pattern in held)]
    if not names:
        return []
    run(*APT, "update", seconds=900)
    told = run(*APT, "--simulate", "install", "--only-upgrade", "--no-install-recommends", *names)
    return [Package(*found) for found in INSTALLED.findall(told)]


def keep(packages: Sequence[Package], folder: Path) -> None:
    """Make packages of what is installed now: an archive forgets what it has replaced. Raises CommandFailed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    # Not packed: that would take a Pi minutes, and they are kept for one upgrade.
    names = " ".join(package.name for package in packages)
    run("sh", "-c", f'cd "$1" && dpkg-repack --deb-option=-Znone {names}', "sh", str(folder), seconds=1800)


def install(packages: Sequence[Package]) -> None:
    """Install exactly what the plan has shown. Raises CommandFailed."""
    wanted = [f"{package.name}={package.new}" for package in packages]
    run(*APT, "install", "--only-upgrade", "--no-install-recommends", *wanted, seconds=3600)


def put_back(folder: Path) -> None:
    """Install what was kept. Raises CommandFailed."""
    kept = sorted(str(path) for path in folder.glob("*.deb"))
    # An installation that was cut off has left some of them half-way: that is no reason not to go back.
    with contextlib.suppress(CommandFailed):
        run("dpkg", "--configure", "-a", seconds=1800)
    run("dpkg", "--force-confold", "--force-downgrade", "--install", *kept, seconds=1800)
