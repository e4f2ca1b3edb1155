"""Where volumes are mounted, and what is done with data that lies there. Pure."""

from __future__ import annotations

import os
from typing import NamedTuple

from .layout import MIB, MOVING, Place, Reading, Refused, Row, Volume, sizes

# nofail: a machine without its disk has to come up and say so. The wait is for USB bridges, which take their time.
OPTIONS = "noatime,errors=remount-ro,nofail,x-systemd.device-timeout=30s"
FSTAB = "/etc/fstab"
BEGIN, END = "# begin pi-commerce (role storage)", "# end pi-commerce (role storage)"
# In the volume, the folder with what is bound out of it.
BOUND = "pi-commerce"


class Mount(NamedTuple):
    """What is mounted at a path: a volume, or a folder of one that is mounted elsewhere."""

    path: str
    volume: str
    folder: str = ""


class Move(NamedTuple):
    """Data that is copied to where it will be mounted. A run was cut off in it (`begun`), or after it (`done`)."""

    mount: Mount
    bytes: int
    begun: bool = False
    done: bool = False


class Plan(NamedTuple):
    """What fstab has to say, what is to be mounted, in that order, and what has to be moved before."""

    fstab: str
    todo: tuple[Mount, ...]
    moves: tuple[Move, ...]


def plan(reading: Reading, layout: list[Row], move: bool) -> Plan:
    """What has to be mounted, and moved there before. Raises Refused."""
    uuids = {name: volume.uuid for name, volume in reading.volumes.items()}
    by_name = {row.name: row for row in layout}
    todo: list[Mount] = []
    moves: list[Move] = []
    hidden: list[str] = []
    for mount in mounts(layout):
        place = reading.places.get(mount.path, Place())
        if place.mounted:
            right(mount, place, uuids)
            continue
        todo.append(mount)
        if place.entries:
            volume = reading.volumes.get(mount.volume, Volume(0))
            mixes = by_name[mount.volume].mixes
            found = moved(mount, place, volume, mixes=mixes)
            if not (mixes or move or found.begun):
                hidden.append(held(mount, place))
            # The new fstab is what makes a copy the one that counts. What is mixed is copied again: there may be more.
            done = found.begun and not mixes and mount.path in declared(reading.fstab)
            moves.append(found._replace(done=done))
    if hidden:
        raise Refused(
            f"{'; '.join(hidden)}, which the disk would hide. Set storage_move: true to have it copied while all "
            "services stand still; the old folders stay beside the new ones and end in .before-ssd"
        )
    room(reading, layout, moves)
    return Plan(
        fstab(reading.fstab, [line(mount, layout, uuids) for mount in mounts(layout)]), tuple(todo), tuple(moves)
    )


def mounts(layout: list[Row]) -> list[Mount]:
    """What is mounted where, in the order in which it has to be: outer places first, then what is bound."""
    volumes = sorted((Mount(row.path, row.name) for row in layout if row.path), key=lambda mount: mount.path.split("/"))
    return [*volumes, *(Mount(path, row.name, f"{row.path}/{BOUND}{path}") for row in layout for path in row.binds)]


def inner(path: str, layout: list[Row]) -> list[str]:
    """Names in a folder that are places of the layout themselves."""
    return [os.path.basename(mount.path) for mount in mounts(layout) if os.path.dirname(mount.path) == path]


def line(mount: Mount, layout: list[Row], uuids: dict[str, str]) -> str:
    """A line of fstab."""
    if mount.folder:
        outer = next(row.path for row in layout if row.name == mount.volume)
        return f"{mount.folder} {mount.path} none bind,nofail,x-systemd.requires-mounts-for={outer} 0 0"
    return f"UUID={uuids.get(mount.volume) or '(new)'} {mount.path} ext4 {OPTIONS} 0 2"


def fstab(text: str, block: list[str]) -> str:
    """The file with our block, at its end at first, and all other lines as they are. Raises Refused."""
    lines = text.splitlines()
    marks = [number for number, entry in enumerate(lines) if entry in (BEGIN, END)]
    if marks and [lines[number] for number in marks] != [BEGIN, END]:
        raise Refused(f"{FSTAB}: '{BEGIN}' and below it '{END}' have to stand there once each; correct it by hand")
    first, rest = (lines[: marks[0]], lines[marks[1] + 1 :]) if marks else (lines, [])
    paths = {entry.split()[1] for entry in block}
    for other in [*first, *rest]:
        if not other.lstrip().startswith("#") and paths.intersection(other.split()[1:2]):
            raise Refused(f"{FSTAB}: has a line of somebody else's for a place of ours, take it out first: {other}")
    ours = [BEGIN, *block, END] if block else []
    return "".join(f"{entry}\n" for entry in [*first, *ours, *rest])


def declared(text: str) -> list[str]:
    """The places that our block of fstab names."""
    lines = text.splitlines()
    block = lines[lines.index(BEGIN) + 1 : lines.index(END)] if BEGIN in lines and END in lines else []
    return [entry.split()[1] for entry in block]


def right(mount: Mount, place: Place, uuids: dict[str, str]) -> None:
    """Refuse what is mounted where something else belongs, or mounted badly."""
    if place.mounted != uuids.get(mount.volume):
        raise Refused(f"{mount.path}: {place.mounted} is mounted there, not volume {mount.volume}; unmount it first")
    if place.read_only:
        raise Refused(
            f"{mount.path}: is mounted read-only, as after an error of the disk. Look at dmesg, then restart the "
            "machine, which checks the file system; where that does not help: e2fsck -f, by hand"
        )


def held(mount: Mount, place: Place) -> str:
    """What lies there, in words."""
    return f"{mount.path}: holds data ({place.entries} entries, {place.bytes // MIB} MiB)"


def moved(mount: Mount, place: Place, volume: Volume, *, mixes: bool) -> Move:
    """Data that would be hidden by what is mounted there. Raises Refused where the volume holds some, too."""
    begun = MOVING in volume.tags
    # What was bound out of a volume is not told apart from the rest of it: it counts as empty where the volume does.
    if volume.entries and not (begun or mixes):
        raise Refused(
            f"{held(mount, place)}, and so does volume {mount.volume}. Which of them counts is yours to say: take the "
            f"folder out of the way (mv {mount.path} {mount.path}.old), or use another disk"
        )
    return Move(mount, place.bytes, begun)


def room(reading: Reading, layout: list[Row], moves: list[Move]) -> None:
    """Refuse data that does not fit into its volume, with the arithmetic."""
    if reading.disk is None or not moves:
        return
    wanted = sizes(reading.disk.bytes, layout)
    for name in {move.mount.volume for move in moves}:
        parts = [move for move in moves if move.mount.volume == name]
        # A tenth is the file system's own and room to work in.
        there = max(wanted[name], reading.volumes[name].bytes if name in reading.volumes else 0) * 9 // 10
        if sum(part.bytes for part in parts) > there:
            told = " + ".join(f"{part.bytes // MIB} MiB of {part.mount.path}" for part in parts)
            raise Refused(
                f"{told} do not fit into volume {name}, which takes {there // MIB} MiB: give it a larger share in "
                "storage_layout, or use a larger disk"
            )
