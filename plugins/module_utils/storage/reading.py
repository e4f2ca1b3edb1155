"""Reads what there is. Changes nothing: file systems are looked into without being mounted."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from typing import Any

from .layout import GROUP, OURS, Disk, Group, Place, Reading, Row, Volume
from .places import BOUND, FSTAB, inner, mounts

BY_ID = "/dev/disk/by-id"
LVM_LABEL = "LVM2_member"
PVS = "pv_name,dev_size,vg_name,vg_tags,vg_extent_size,vg_extent_count,vg_free_count,vg_missing_pv_count"
LVS = "lv_name,lv_size,lv_tags,lv_active"
# What it says of every disk, and of what is on it.
LSBLK = ("lsblk", "--json", "--bytes", "--output", "PATH,TYPE,SIZE,SERIAL,UUID,RO,MOUNTPOINTS")

# Output of a command that has to succeed.
Run = Callable[..., str]
Device = dict[str, Any]


class NoTools(Exception):
    """The disk holds volumes, and nothing is installed that could say which."""


def read(name: str, layout: list[Row], run: Run) -> Reading:
    """Everything that `disk.steps` and `places.plan` judge. Raises NoTools."""
    device = os.path.realpath(name)
    devices: list[Device] = json.loads(run(*LSBLK))["blockdevices"]
    found = next((one for one in walk(devices) if one["path"] == device), None)
    known = by_id([one["path"] for one in devices if one["type"] == "disk" and one["size"]])
    fstab = text(FSTAB)
    if found is None:
        return Reading(None, known, fstab=fstab)
    signatures = dict(written(found, run))
    labelled = LVM_LABEL in signatures.get(device, ())
    if labelled and not shutil.which("pvs"):
        raise NoTools
    groups = read_groups(device, run) if shutil.which("pvs") else ()
    here = [group for group in groups if group.here]
    if labelled and not here:
        # A label without a group, as a run that was cut off leaves it, holds nothing.
        signatures[device] = [kind for kind in signatures[device] if kind != LVM_LABEL]
    ours = any(group.ours for group in here)
    volumes = read_volumes(run) if ours else {}
    words = [f"{kind} on {path}" for path, kinds in signatures.items() for kind in kinds]
    words += [f"partition {one['path']}" for one in found.get("children", []) if one["type"] == "part"]
    disk = Disk(
        name=name,
        type=found["type"],
        bytes=found["size"],
        serial=found["serial"] or "",
        read_only=bool(found["ro"]),
        signatures=tuple(words),
        users=tuple(users(found)),
        twins=tuple(twins(found, devices)),
    )
    return Reading(disk, known, groups, volumes, read_places(layout, volumes), fstab)


def walk(devices: list[Device]) -> Iterator[Device]:
    """All devices and what is on them."""
    for one in devices:
        yield one
        yield from walk(one.get("children", []))


def by_id(disks: list[str]) -> tuple[str, ...]:
    """The stable names of disks."""
    names = sorted(os.listdir(BY_ID)) if os.path.isdir(BY_ID) else []
    paths = [os.path.join(BY_ID, name) for name in names if not name.startswith(("dm-", "lvm-", "wwn-"))]
    return tuple(path for path in paths if os.path.realpath(path) in disks)


def text(path: str) -> str:
    """Content of a file, empty where there is none."""
    try:
        with open(path, encoding="utf-8") as source:
            return source.read()
    except FileNotFoundError:
        return ""


def written(device: Device, run: Run) -> Iterator[tuple[str, list[str]]]:
    """What a disk and its partitions say that they hold, read from themselves."""
    parts = [one for one in device.get("children", []) if one["type"] == "part"]
    for one in (device, *parts):
        answer = run("wipefs", "--no-act", "--json", one["path"]).strip()
        yield one["path"], [entry["type"] for entry in json.loads(answer)["signatures"]] if answer else []


def users(device: Device) -> Iterator[str]:
    """What uses a disk or something on it."""
    for one in walk([device]):
        for point in filter(None, one["mountpoints"]):
            yield f"{one['path']} is used as {point}" if point == "[SWAP]" else f"{one['path']} is mounted on {point}"
        if one is not device and one["type"] != "part":
            yield f"{one['path']} is open on it"


def twins(device: Device, devices: list[Device]) -> Iterator[str]:
    """Other disks with its serial number, or with a copy of its volumes."""
    for other in devices:
        same = [key for key in ("serial", "uuid") if device[key] and device[key] == other[key]]
        if other is not device and other["type"] == "disk" and other["size"] and same:
            yield other["path"]


def report(run: Run, kind: str, *command: str) -> list[dict[str, str]]:
    """Rows of one of LVM's reports."""
    answer = run(*command[:1], "--reportformat", "json", "--units", "b", "--nosuffix", "--options", *command[1:])
    rows: list[dict[str, str]] = json.loads(answer)["report"][0][kind]
    return rows


def read_groups(device: str, run: Run) -> tuple[Group, ...]:
    """All volume groups, one entry for each of their disks."""
    found = []
    for row in report(run, "pv", "pvs", PVS):
        if not row["vg_name"]:
            continue
        here = os.path.realpath(row["pv_name"]) == device
        ours = row["vg_name"] == GROUP and OURS in row["vg_tags"].split(",")
        numbers = (int(row[f"vg_{key}"]) for key in ("extent_size", "extent_count", "free_count", "missing_pv_count"))
        found.append(Group(row["vg_name"], ours, here, row["pv_name"], *numbers))
    return tuple(found)


def read_volumes(run: Run) -> dict[str, Volume]:
    """The volumes of our group, each with its file system."""
    found = {}
    for row in report(run, "lv", "lvs", LVS, GROUP):
        size, tags, active = int(row["lv_size"]), tuple(row["lv_tags"].split(",")), row["lv_active"] == "active"
        path = f"/dev/{GROUP}/{row['lv_name']}"
        volume = Volume(size, tags, active)
        found[row["lv_name"]] = file_system(volume, path, run) if active else volume
    return found


def file_system(volume: Volume, path: str, run: Run) -> Volume:
    """The volume with what its device says of its file system."""
    # 2: nothing is known there.
    told = dict(entry.split("=", 1) for entry in run("blkid", "-p", "-o", "export", path, fine=(0, 2)).splitlines())
    if told.get("TYPE") != "ext4":
        return volume._replace(uuid=told.get("UUID", ""), type=told.get("TYPE", ""))
    head = dict(entry.split(":", 1) for entry in run("dumpe2fs", "-h", path).splitlines() if ":" in entry)
    listed = run("debugfs", "-R", "ls -p /", path).splitlines()
    names = {entry.split("/")[5] for entry in listed if entry.count("/") >= 6}
    return volume._replace(
        uuid=told["UUID"],
        type="ext4",
        file_system=int(head["Block count"]) * int(head["Block size"]),
        entries=tuple(sorted(names - {".", "..", "lost+found", BOUND})),
    )


def read_places(layout: list[Row], volumes: dict[str, Volume]) -> dict[str, Place]:
    """What is mounted at each place of the layout, or lies there."""
    devices: dict[str, str] = {}
    for name in (name for name, volume in volumes.items() if volume.active):
        device = os.stat(f"/dev/{GROUP}/{name}").st_rdev
        devices[f"{os.major(device)}:{os.minor(device)}"] = volumes[name].uuid
    mounted = mount_table(text("/proc/self/mountinfo"))
    found = {}
    for mount in mounts(layout):
        if mount.path in mounted:
            number, source, options = mounted[mount.path]
            found[mount.path] = Place(devices.get(number, source), "ro" in options)
        elif os.path.isdir(mount.path):
            left_out = [*inner(mount.path, layout), "lost+found"]
            names = [name for name in os.listdir(mount.path) if name not in left_out]
            found[mount.path] = Place("", False, measured(mount.path, names), len(names))
    return found


def mount_table(mountinfo: str) -> dict[str, tuple[str, str, list[str]]]:
    """Device number, source and options of what is mounted (proc(5)), by path; the last one there is the one seen."""
    found = {}
    for entry in mountinfo.splitlines():
        first, _, second = entry.partition(" - ")
        number, path, options = (first.split()[column] for column in (2, 4, 5))
        _, source, more = second.split()[:3]
        found[path.encode().decode("unicode_escape")] = (number, source, [*options.split(","), *more.split(",")])
    return found


def measured(folder: str, names: list[str]) -> int:
    """Bytes on the disk of entries of a folder, without what is mounted below it."""
    total, device = 0, os.lstat(folder).st_dev
    left = [os.path.join(folder, name) for name in names]
    while left:
        path = left.pop()
        try:
            status = os.lstat(path)
            if status.st_dev != device:
                continue
            total += status.st_blocks * 512
            if stat.S_ISDIR(status.st_mode):
                left += [os.path.join(path, name) for name in os.listdir(path)]
        except FileNotFoundError:
            # Somebody is at work there.
            continue
    return total
