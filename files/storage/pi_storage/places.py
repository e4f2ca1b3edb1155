"""What ought to be mounted by our block of fstab, and how it is."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

# As module_utils/storage/places.py writes them.
BEGIN, END = "# begin pi-commerce (role storage)", "# end pi-commerce (role storage)"
BLOCK = 4096


@dataclass(frozen=True)
class Place:
    """One folder: the device that fstab wants there (empty for a bound folder), and what is there by the kernel."""

    path: str
    wanted: str
    source: str = ""
    read_only: bool = False

    @property
    def mounted(self) -> bool:
        """Whether anything is mounted there."""
        return bool(self.source)

    def answers(self) -> bool:
        """Whether the disk behind it can be read. What the kernel remembers of a disk that is gone does not count."""
        try:
            device = os.open(self.source, os.O_RDONLY | os.O_DIRECT)
            try:
                # Memory of the system's own is aligned, as such a read wants it.
                with mmap.mmap(-1, BLOCK) as buffer:
                    return os.preadv(device, [buffer], 0) > 0
            finally:
                os.close(device)
        except OSError:
            return False


def read(root: Path = Path("/")) -> list[Place]:
    """All places of our block, in its order; without one there are none."""
    lines = (root / "etc/fstab").read_text(encoding="utf-8").splitlines()
    if BEGIN not in lines or END not in lines:
        return []
    mounted = table((root / "proc/self/mountinfo").read_text(encoding="utf-8"))
    found = []
    for line in lines[lines.index(BEGIN) + 1 : lines.index(END)]:
        device, path = line.split()[:2]
        wanted = f"/dev/disk/by-uuid/{device.removeprefix('UUID=')}" if device.startswith("UUID=") else ""
        source, read_only = mounted.get(path, ("", False))
        found.append(Place(path, wanted, source, read_only))
    return found


def table(mountinfo: str) -> dict[str, tuple[str, bool]]:
    """Source, and whether it is read-only, of all that is mounted (proc(5)), by path; of several the uppermost."""
    found = {}
    for line in mountinfo.splitlines():
        first, _, second = line.partition(" - ")
        path, options = first.split()[4:6]
        _, source, more = second.split()[:3]
        found[path.encode().decode("unicode_escape")] = (source, "ro" in f"{options},{more}".split(","))
    return found
