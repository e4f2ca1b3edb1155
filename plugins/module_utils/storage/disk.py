"""What makes a disk hold the volumes of a layout, or why it may not be touched. Pure."""

from __future__ import annotations

from typing import NamedTuple

from .layout import EXTENT, GROUP, MADE, MIB, OURS, UNIT, Disk, Group, Reading, Refused, Row, Volume, extents, sizes
from .places import BEGIN

# A step that is no command of its own, see the module.
ERASE = "erase"


class Step(NamedTuple):
    """One thing to do, in words and as a command."""

    text: str
    command: tuple[str, ...]


def steps(reading: Reading, layout: list[Row], erase_serial: str) -> list[Step]:
    """What makes the disk hold the layout's volumes. Raises Refused, where it may not be touched."""
    disk = judged(reading, layout, erase_serial)
    group = next((group for group in reading.groups if group.here and group.ours), None)
    extent = group.extent if group else EXTENT
    wanted = sizes(disk.bytes, layout, extent)
    enough(disk, group, wanted, reading.volumes)
    found = grown(disk, group) if group else made(disk)
    for name, size in wanted.items():
        found += volume(name, reading.volumes.get(name), size, extent)
    return found


def judged(reading: Reading, layout: list[Row], erase_serial: str) -> Disk:
    """The disk, if it may be used. Raises Refused."""
    disk, there = reading.disk, ", ".join(reading.disks) or "none"
    if disk is None:
        raise Refused(f"there is no such disk. Plug it in, or name one of those that are there: {there}")
    if disk.type != "disk":
        raise Refused(f"{disk.name}: is a {disk.type} and no whole disk; name one of those that are there: {there}")
    if disk.twins:
        raise Refused(
            f"{disk.name}: {' and '.join(disk.twins)} call themselves so (a copy of a disk, or a bridge that gives "
            "every disk one number): which is meant cannot be told. Unplug all but one"
        )
    if disk.read_only:
        raise Refused(f"{disk.name}: is read-only; look for a switch on it, and for errors (dmesg)")
    if erase_serial and erase_serial != disk.serial:
        raise Refused(
            f"storage_erase_serial is {erase_serial}, but the serial number of {disk.name} is "
            f"{disk.serial or 'not to be read'}: nothing was erased. Correct it, or take it out"
        )
    for group in reading.groups:
        if group.name == GROUP and not group.here:
            raise Refused(f"{group.disk}: holds a volume group {GROUP}, and is not {disk.name}; unplug one of the two")
    sizes(disk.bytes, layout)
    ours = [group for group in reading.groups if group.here and group.ours]
    if not ours:
        foreign(disk, reading.fstab, erase_serial)
    elif ours[0].missing:
        raise Refused(
            f"{disk.name}: its volume group was spread over several disks, of which one is missing; plug it in"
        )
    else:
        kept(disk, reading, layout)
    return disk


def foreign(disk: Disk, fstab: str, erase_serial: str) -> None:
    """Refuse a disk that may hold somebody's data, unless its serial number was typed."""
    if disk.users:
        raise Refused(
            f"{disk.name}: is in use ({', '.join(disk.users)}), so nothing on it is touched. Name another disk, "
            "or have it let go first (umount, swapoff, vgchange --activate n)"
        )
    reasons = list(disk.signatures)
    if not reasons and BEGIN in fstab.splitlines():
        reasons = ["it is empty, and by /etc/fstab the data of this machine lies on another: is it the right one?"]
    if reasons and not erase_serial:
        remedy = (
            f"type its serial number: storage_erase_serial: {disk.serial}"
            if disk.serial
            else "empty it yourself (wipefs --all), because it has no serial number that could be typed"
        )
        raise Refused(f"{disk.name}: is not ours ({', '.join(reasons)}). If all that is on it may be lost, {remedy}")


def kept(disk: Disk, reading: Reading, layout: list[Row]) -> None:
    """Refuse a disk of ours with volumes of another layout, or without the file systems that were on it."""
    wanted = sorted(row.name for row in layout if row.path)
    for name, found in reading.volumes.items():
        if MADE in found.tags and name not in wanted:
            raise Refused(
                f"{disk.name}: has a volume {name}, and the layout has {', '.join(wanted)}: was it made for another "
                "edition? Volumes are not turned into others: set edition or storage_layout to what it was"
            )
        if MADE in found.tags and found.active and found.type != "ext4":
            raise Refused(
                f"{disk.name}: volume {name} held ext4, and now {found.type or 'nothing that is known'}: it is broken. "
                f"Look at dmesg and at e2fsck -n /dev/{GROUP}/{name}; if it is lost, see 'The bad day' in the README"
            )


def enough(disk: Disk, group: Group | None, wanted: dict[str, int], there: dict[str, Volume]) -> None:
    """Refuse volumes for which the free space is not enough, with the arithmetic."""
    extent, taken = (group.extent, group.extents - group.free) if group else (EXTENT, 0)
    free = (extents(disk.bytes, extent) - taken) * extent
    more = {name: size - (there[name].bytes if name in there else 0) for name, size in wanted.items()}
    more = {name: size for name, size in more.items() if size > 0}
    if sum(more.values()) > free:
        told = " + ".join(f"{size // MIB} MiB for {name}" for name, size in more.items())
        raise Refused(
            f"{disk.name}: {told} are {sum(more.values()) // MIB} MiB more, and {free // MIB} MiB are free; no volume "
            "is ever made smaller. Lower their shares in storage_layout, or use a larger disk"
        )


def made(disk: Disk) -> list[Step]:
    """How an empty disk, or one that may be erased, becomes ours."""
    erase = [Step(f"erase {disk.name} ({', '.join(disk.signatures)})", (ERASE, disk.name))] if disk.signatures else []
    size = f"{EXTENT // MIB}m"
    create = ("vgcreate", "--yes", "--addtag", OURS, "--physicalextentsize", size, GROUP, disk.name)
    return [*erase, Step(f"make volume group {GROUP} on {disk.name}", create)]


def grown(disk: Disk, group: Group) -> list[Step]:
    """How LVM gets to know that a disk of ours has become larger."""
    more = extents(disk.bytes, group.extent) - group.extents
    text = f"take in {more * group.extent // MIB} MiB more of {disk.name}"
    return [Step(text, ("pvresize", disk.name))] if more > 0 else []


def volume(name: str, there: Volume | None, size: int, extent: int) -> list[Step]:
    """What makes one volume, or makes it larger; it never becomes smaller."""
    full, path, count = f"{GROUP}/{name}", f"/dev/{GROUP}/{name}", str(size // extent)
    found = []
    if there is None:
        create = ("lvcreate", "--yes", "--wipesignatures", "y", "--extents", count, "--name", name, GROUP)
        found.append(Step(f"make volume {name}, {size // MIB} MiB", create))
    elif not there.active:
        found.append(Step(f"switch on volume {name}", ("lvchange", "--activate", "y", full)))
    larger = there is not None and there.bytes < size
    if there is not None and larger:
        text = f"make volume {name} larger, from {there.bytes // MIB} to {size // MIB} MiB"
        found.append(Step(text, ("lvextend", "--extents", count, full)))
    if there is None or MADE not in there.tags:
        return [
            *found,
            Step(f"make a file system in {name}", ("mkfs.ext4", "-q", "-F", "-L", name, "-m", "1", path)),
            # Docker takes every folder beside its volumes for one of them.
            Step(f"take lost+found out of {name}", ("debugfs", "-w", "-R", "rmdir lost+found", path)),
            Step(f"note that {name} is whole", ("lvchange", "--addtag", MADE, full)),
        ]
    # A run that was cut off may have made the volume larger, and not what is in it.
    if larger or (there.active and there.file_system <= there.bytes - UNIT):
        found.append(Step(f"let the file system fill {name}", ("resize2fs", path)))
    return found
