"""What there is and what there shall be, in words that `disk` and `places` share. Sizes are in bytes. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

MIB, GIB = 1 << 20, 1 << 30
# The volume group, and its tag: what says that a disk is ours.
GROUP = "pi_commerce"
OURS = "pi-commerce"
# Tags of a volume: its file system was made to the end; data is being copied into it.
MADE, MOVING = "made", "moving"
EXTENT = 4 * MIB
# What LVM keeps at the beginning of a disk.
HEADER = MIB
# Volumes are multiples of a block group of ext4. It may leave a shorter last one out, and look too small.
UNIT = 128 * MIB


class Refused(Exception):
    """The disk may not be touched; nothing was changed."""


class Disk(NamedTuple):
    """The disk that was named: in words what is on it, what uses it now, and others that call themselves the same."""

    name: str
    type: str
    bytes: int
    serial: str
    read_only: bool = False
    signatures: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()


class Group(NamedTuple):
    """A volume group of LVM, `here` on the disk or on another: its extents, those free, and how many disks it lacks."""

    name: str
    ours: bool
    here: bool
    disk: str
    extent: int = EXTENT
    extents: int = 0
    free: int = 0
    missing: int = 0


class Volume(NamedTuple):
    """A volume of our group, with the size of the file system in it and what lies at its top."""

    bytes: int
    tags: tuple[str, ...] = ()
    active: bool = True
    uuid: str = ""
    type: str = ""
    file_system: int = 0
    entries: tuple[str, ...] = ()


class Place(NamedTuple):
    """A folder at which a volume belongs: what is mounted there now (a UUID), or what it holds itself."""

    mounted: str = ""
    read_only: bool = False
    bytes: int = 0
    entries: int = 0


class Reading(NamedTuple):
    """Everything there is. No disk: it is not there, but `disks` are."""

    disk: Disk | None
    disks: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    volumes: dict[str, Volume] = {}
    places: dict[str, Place] = {}
    fstab: str = ""


class Row(NamedTuple):
    """One entry of a layout; without a path it stays free. `mixes`: data there may be mixed with that of the volume."""

    name: str
    shares: dict[str, int]
    path: str = ""
    binds: tuple[str, ...] = ()
    least_gib: int = 0
    mixes: bool = False
    mode: str = "0755"

    @property
    def share(self) -> int:
        """All that it is for."""
        return sum(self.shares.values())


def rows(layout: list[dict[str, Any]]) -> list[Row]:
    """A layout as the role writes it."""
    return [Row(**{**entry, "binds": tuple(entry.get("binds", ()))}) for entry in layout]


def extents(size: int, extent: int = EXTENT) -> int:
    """How many extents a disk of that size has."""
    return (size - HEADER) // extent


def sizes(size: int, layout: list[Row], extent: int = EXTENT) -> dict[str, int]:
    """Bytes of each volume on a disk of that size. Raises Refused, with the arithmetic, for one that is too small."""
    total = sum(row.share for row in layout)
    usable = extents(size, extent) * extent
    volumes = [row for row in layout if row.path]
    found = {row.name: usable * row.share // total // UNIT * UNIT for row in volumes}
    if small := [row for row in volumes if found[row.name] < row.least_gib * GIB]:
        told = "; ".join(
            f"{row.name} gets {row.share}/{total} of {size / GIB:.1f} GiB, which is {found[row.name] / GIB:.1f} GiB, "
            f"and needs {row.least_gib} GiB"
            for row in small
        )
        # One more for what LVM keeps and for whole units.
        least = max(-(-(row.least_gib + 1) * total // row.share) for row in volumes if row.least_gib)
        raise Refused(f"the disk is too small: {told}. Use one of {least} GiB or more, or change storage_layout")
    return found
