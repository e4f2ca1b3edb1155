"""Ansible module: a disk holds the volumes of a layout, and they are mounted where they belong."""

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_volumes
short_description: Have a disk hold the volumes of a layout, mounted in their places
description:
  - Reads the disk, judges it, and refuses before anything is changed. A disk with anything on it is touched only where
    its serial number was typed; one with our volumes is adopted, and they grow with it. Nothing is made smaller.
  - Volumes are mounted by UUID from a block of ours in C(/etc/fstab). The folders that they are mounted on are empty
    and immutable, so that nothing is written there while the disk is missing.
  - Data in those folders is copied to the volumes first, where that is allowed. Cut off, it begins anew.
options:
  disk: {description: The disk below C(/dev/disk/by-id); not needed with C(absent)., type: path}
  layout:
    description: >-
      The volumes, see the role. Each has C(name) and C(shares), and if it is mounted C(path), C(binds), C(least_gib),
      C(mode) and C(mixes) (whether data in its place may be mixed with its own).
    type: list
    elements: dict
    required: true
  erase_serial: {description: Serial number of a disk that may be erased., type: str, default: ""}
  move: {description: Whether data in the places of the volumes may be moved to them., type: bool, default: false}
  state:
    description: With C(absent) nothing is mounted any more; the disk keeps all that is on it.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
author: [pi-commerce]
"""

EXAMPLES = r"""
- name: Keep the data on a disk of its own
  storage_volumes:
    disk: /dev/disk/by-id/usb-Maker_Disk_0123456789AB-0:0
    layout:
      - {name: free, shares: {buffer: 60}}
      - {name: cache, path: /var/lib/docker, shares: {cache: 100}, least_gib: 8}
"""

RETURN = r"""
steps: {description: "What was (or would be) done, in words.", type: list, elements: str, returned: success}
unknown: {description: Whether a check could not tell because lvm2 is missing., type: bool, returned: success}
ansible_facts: {description: After a change what C(pi_facts) told no longer counts., type: dict, returned: changed}
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from ansible.module_utils import host_state
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.storage import disk, layout, places, reading
from ansible.module_utils.storage.layout import GROUP, MOVING, Refused
from ansible.module_utils.storage.places import FSTAB, Mount, Move, Plan

JOURNAL = "/var/log/journal"
# Mounts what is missing, whatever is done here.
WATCH = "pi-commerce-storage.timer"
# What writes where volumes will be. The container engine's socket would start it again.
WRITERS = ("cron.service", "pi-commerce-thermal.service", "docker.socket", "docker.service", "containerd.service")
ASIDE = ".before-ssd"
# One word of a command tells that it has no message in another language.
ENGLISH = {**os.environ, "LC_ALL": "C"}


def run(*command: str, fine: tuple[int, ...] = (0,)) -> str:
    """Output of a command that has to succeed. Raises Refused with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, env=ENGLISH, check=False)
    if done.returncode not in fine:
        told = (done.stderr.strip() or done.stdout.strip() or "it said nothing")[-2000:]
        raise Refused(f"{' '.join(command)}: exit code {done.returncode}: {told}")
    return done.stdout


def tried(*command: str) -> str:
    """Output of a command that may fail, and says nothing then."""
    with contextlib.suppress(Refused, FileNotFoundError):
        return run(*command)
    return ""


# --- the disk ---------------------------------------------------------------------------------------------


def carry_out(command: tuple[str, ...]) -> None:
    """One step of the disk's plan."""
    if command[0] != disk.ERASE:
        run(*command)
        return
    path = os.path.realpath(command[1])
    parts = run("lsblk", "--noheadings", "--raw", "--output", "PATH", path).split()
    for part in (*reversed(parts[1:]), path):
        run("wipefs", "--all", "--quiet", part)
    run("blockdev", "--rereadpt", path)
    tried("udevadm", "settle")


# --- places -----------------------------------------------------------------------------------------------


def write_fstab(text: str) -> None:
    """Put a new fstab in place in one step, on the disk before anything relies on it."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(FSTAB), prefix=".fstab-")
    with os.fdopen(handle, "w", encoding="utf-8") as target:
        target.write(text)
        os.fchmod(target.fileno(), 0o644)
        target.flush()
        os.fsync(target.fileno())
    os.rename(temporary, FSTAB)
    tried("systemctl", "daemon-reload")


def unit(path: str) -> str:
    """The unit that mounts a path; what it needs, a check of the file system among it, comes with it."""
    return run("systemd-escape", "--path", "--suffix=mount", path).strip()


def mount(place: Mount, mode: str) -> None:
    """Mount a place of fstab on a folder that nobody can write to."""
    if place.folder:
        os.makedirs(place.folder, exist_ok=True)
    os.makedirs(place.path, exist_ok=True)
    if names := [name for name in os.listdir(place.path) if name != "lost+found"]:
        shown = ", ".join(sorted(names)[:3])
        raise Refused(f"{place.path}: holds {shown} by now, which would be hidden; move it away and run again")
    run("chattr", "+i", place.path)
    run("systemctl", "start", unit(place.path))
    if not os.path.ismount(place.path):
        raise Refused(
            f"{place.path}: is not mounted, although systemd says so; look at systemctl status {unit(place.path)}"
        )
    if not [name for name in os.listdir(place.path) if name not in ("lost+found", places.BOUND)]:
        os.chmod(place.path, int(mode, 8))


def apply(plan: Plan, rows: list[layout.Row], moving: list[str]) -> None:
    """Bring the places about. `moving` are volumes into which an earlier run was copying."""
    journal = any(place.path == JOURNAL for place in plan.todo)
    with standing_still([move for move in plan.moves if move.mount.path != JOURNAL]):
        if journal:
            # It goes on in memory meanwhile.
            tried("journalctl", "--relinquish-var")
        for name in {move.mount.volume for move in plan.moves}:
            run("lvchange", "--addtag", MOVING, f"{GROUP}/{name}")
            with mounted(name) as folder:
                for move in (move for move in plan.moves if move.mount.volume == name and not move.done):
                    copy(move, folder, rows)
        # From here on the copies count: should the machine start anew now, it finds them in their places.
        if plan.fstab != reading.text(FSTAB):
            write_fstab(plan.fstab)
        for move in plan.moves:
            put_aside(move, rows)
        for name in {*moving, *(move.mount.volume for move in plan.moves)}:
            run("lvchange", "--deltag", MOVING, f"{GROUP}/{name}")
        modes = {row.name: row.mode for row in rows}
        for place in plan.todo:
            mount(place, modes[place.volume])
    if journal:
        tried("systemd-tmpfiles", "--create", "--prefix", JOURNAL)
        tried("journalctl", "--flush")


@contextlib.contextmanager
def standing_still(moves: list[Move]) -> Iterator[None]:
    """Nobody mounts, and nothing writes where data is moved from; whatever comes of it, all runs again afterwards."""
    wanted = (WATCH, *(WRITERS if moves else ()))
    writers = [name for name in wanted if tried("systemctl", "is-active", name).strip() == "active"]
    # The engine leaves its containers running when it is stopped.
    containers = tried("docker", "ps", "--quiet").split() if "docker.service" in writers else []
    try:
        for words in (
            ["docker", "stop", "--time", "120", *containers] if containers else [],
            ["systemctl", "stop", *writers],
        ):
            if words[2:]:
                run(*words)
        for move in moves:
            if holders := open_below(move.mount.path):
                raise Refused(
                    f"{move.mount.path}: is still in use by {', '.join(holders)}; end that first, nothing was moved"
                )
        yield
    finally:
        if writers:
            tried("systemctl", "start", *reversed(writers))
        if containers:
            tried("docker", "start", *containers)


def open_below(folder: str) -> list[str]:
    """Programs that have a file below a folder open, or stand in it."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            links = [f"/proc/{pid}/cwd", *(f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd"))]
            for link in links:
                with contextlib.suppress(OSError):
                    if (os.readlink(link) + "/").startswith(folder + "/"):
                        found.add(f"{reading.text(f'/proc/{pid}/comm').strip()} ({pid})")
    return sorted(found)


@contextlib.contextmanager
def mounted(name: str) -> Iterator[str]:
    """A folder of root's alone in which a volume is mounted for a while."""
    folder = tempfile.mkdtemp(prefix="pi-commerce-storage-", dir="/run")
    try:
        run("mount", "--options", "noatime", f"/dev/{GROUP}/{name}", folder)
        try:
            yield folder
        finally:
            run("umount", folder)
    finally:
        os.rmdir(folder)


def copy(move: Move, folder: str, rows: list[layout.Row]) -> None:
    """Copy data into its volume, which is mounted at `folder`, and compare. Raises Refused."""
    row = next(row for row in rows if row.name == move.mount.volume)
    target = os.path.join(folder, os.path.relpath(move.mount.folder, row.path)) if move.mount.folder else folder
    os.makedirs(target, exist_ok=True)
    kept = {*places.inner(move.mount.path, rows), places.BOUND, "lost+found"}
    if move.begun and not row.mixes:
        for name in set(os.listdir(target)) - kept:
            remove(os.path.join(target, name))
    names = sorted(set(os.listdir(move.mount.path)) - kept)
    sources = [os.path.join(move.mount.path, name) for name in names]
    if not sources:
        return
    run("cp", "--archive", "--one-file-system", "--target-directory", target, "--", *sources)
    shutil.copymode(move.mount.path, target)
    found = os.stat(move.mount.path)
    os.chown(target, found.st_uid, found.st_gid)
    for name in names:
        same(os.path.join(move.mount.path, name), os.path.join(target, name))
    run("sync", "--file-system", target)


def same(source: str, target: str) -> None:
    """Refuse a copy that lacks something, or has another size. Raises Refused."""
    left = [(source, target)]
    while left:
        one, other = left.pop()
        was = os.lstat(one)
        if not os.path.lexists(other) or (os.lstat(other).st_mode, shape(other)) != (was.st_mode, shape(one)):
            raise Refused(
                f"{one}: its copy is not like it; the data stays where it was. Look for errors of the disk (dmesg)"
            )
        if os.path.isdir(one) and not os.path.islink(one):
            left += [(os.path.join(one, name), os.path.join(other, name)) for name in os.listdir(one)]


def shape(path: str) -> object:
    """What a copy has to have alike: size or target; of a folder nothing."""
    if os.path.islink(path):
        return os.readlink(path)
    return None if os.path.isdir(path) else os.path.getsize(path)


def put_aside(move: Move, rows: list[layout.Row]) -> None:
    """Empty the place of data that was copied: it goes beside it, or, where volume and folder were mixed, for good."""
    path = move.mount.path
    if os.path.ismount(path):
        raise Refused(f"{path}: was mounted by somebody just now, nothing was taken away; run again")
    if next(row for row in rows if row.name == move.mount.volume).mixes:
        for name in os.listdir(path):
            remove(os.path.join(path, name))
        return
    outer = [place.path for place in places.mounts(rows) if f"{path}/".startswith(f"{place.path}/")]
    top = min((folder for folder in outer if not os.path.ismount(folder)), key=len, default=path)
    # An inner place has gone with the outer one.
    if not os.path.isdir(path):
        return
    aside = top + ASIDE
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = f"{top}{ASIDE}-{number}"
    tried("chattr", "-i", top)
    os.rename(top, aside)


def remove(path: str) -> None:
    """Take one away, whatever it is."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


# --- the module -------------------------------------------------------------------------------------------


def present(module: AnsibleModule, rows: list[layout.Row]) -> list[str]:
    """Bring disk and places about; what was or would be done, in words. Raises NoTools."""
    given = module.params
    there = reading.read(given["disk"], rows, run)
    steps = disk.steps(there, rows, given["erase_serial"])
    # All that can be refused is, before the first step.
    plan = places.plan(there, rows, given["move"])
    if not module.check_mode and steps:
        for step in steps:
            carry_out(step.command)
        tried("udevadm", "settle")
        there = reading.read(given["disk"], rows, run)
        plan = places.plan(there, rows, given["move"])
    moving = [name for name, volume in there.volumes.items() if MOVING in volume.tags]
    told = [step.text for step in steps]
    told += [
        f"move {move.bytes // layout.MIB} MiB of {move.mount.path} to volume {move.mount.volume}" for move in plan.moves
    ]
    told += [f"write {FSTAB}"] * (plan.fstab != there.fstab)
    told += [f"mount {place.path} ({place.folder or f'volume {place.volume}'})" for place in plan.todo]
    moved = {move.mount.volume for move in plan.moves}
    told += [f"note that the data of {name} was moved" for name in moving if name not in moved]
    if told and not module.check_mode:
        apply(plan, rows, moving)
    return told


def absent(module: AnsibleModule, rows: list[layout.Row]) -> list[str]:
    """Take the places away; what was or would be done, in words."""
    if not module.check_mode:
        tried("systemctl", "disable", "--now", "pi-commerce-storage.timer")
    before = reading.text(FSTAB)
    after = places.fstab(before, [])
    if after == before:
        return []
    table = reading.mount_table(reading.text("/proc/self/mountinfo"))
    paths = [place.path for place in reversed(places.mounts(rows))]
    told = [f"unmount {path}" for path in paths if path in table] + [f"write {FSTAB}"]
    if not module.check_mode:
        tried("journalctl", "--relinquish-var")
        for path in (path for path in paths if path in table):
            if holders := open_below(path):
                raise Refused(f"{path}: is still in use by {', '.join(holders)}; end that first")
            run("systemctl", "stop", unit(path))
        write_fstab(after)
        for path in filter(os.path.isdir, reversed(paths)):
            run("chattr", "-i", path)
        tried("journalctl", "--flush")
    return told


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "disk": {"type": "path"},
            "layout": {"type": "list", "elements": "dict", "required": True},
            "erase_serial": {"type": "str", "default": ""},
            "move": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("disk",))],
        supports_check_mode=True,
    )
    told, unknown = [], False
    try:
        rows = layout.rows(module.params["layout"])
        told = (present if module.params["state"] == "present" else absent)(module, rows)
    except reading.NoTools:
        unknown = True
        if not module.check_mode:
            module.fail_json(
                msg=f"{module.params['disk']}: has volumes, and lvm2 is missing, which reads them; install it"
            )
    except (Refused, OSError) as problem:
        module.fail_json(msg=str(problem))
    answer: dict[str, Any] = {
        "diff": {"before": "", "after": "".join(f"{text}\n" for text in told)},
        "steps": told,
        "unknown": unknown,
    }
    facts = {"ansible_facts": {"pi_state": host_state.UNKNOWN}} if told else {}
    module.exit_json(changed=bool(told), **answer, **facts)


if __name__ == "__main__":
    main()
