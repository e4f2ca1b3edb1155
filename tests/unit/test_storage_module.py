"""The module's own work on files: what it copies, compares, puts aside; how it reads disks and what is mounted."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import declared
import pytest
import storage_volumes as module

# isort: split
# What was imported first lets it be found.
from ansible.module_utils.storage import disk, layout, places, reading
from ansible.module_utils.storage.layout import Refused

assert declared.ROOT

# What lsblk, wipefs, pvs and lvs of Debian 12 and 13 have said of a virtual disk.
LSBLK: list[dict[str, Any]] = [
    {
        **{"path": "/dev/vda", "type": "disk", "size": 4294967296, "serial": None, "uuid": "1-1", "ro": False},
        "mountpoints": ["/"],
    },
    {
        **{"path": "/dev/vdb", "type": "disk", "size": 68719476736, "serial": "PI-SSD-0001", "uuid": None, "ro": False},
        "mountpoints": [None],
    },
]
PV = {
    **{"pv_name": "/dev/vdb", "dev_size": "68719476736", "vg_name": "pi_commerce", "vg_tags": "pi-commerce"},
    **{"vg_extent_size": "4194304", "vg_extent_count": "16383", "vg_free_count": "16383", "vg_missing_pv_count": "0"},
}
ROWS = layout.rows(
    [
        {"name": "free", "shares": {"buffer": 10}},
        {"name": "cache", "path": "/mnt/none/docker", "binds": ["/mnt/none/containerd"], "shares": {"cache": 45}},
        {"name": "volumes", "path": "/mnt/none/docker/volumes", "shares": {"volumes": 45}},
    ]
)


class Programs:
    """What the programs answer."""

    def __init__(self) -> None:
        self.devices: list[dict[str, Any]] = json.loads(json.dumps(LSBLK))
        self.signatures: dict[str, list[str]] = {}
        self.groups: list[dict[str, str]] = []

    def run(self, *command: str, fine: tuple[int, ...] = (0,)) -> str:
        if command[0] == "lsblk":
            return json.dumps({"blockdevices": self.devices})
        if command[0] == "wipefs":
            kinds = self.signatures.get(command[-1], [])
            # Of an empty disk it says nothing at all, or an empty list.
            return json.dumps({"signatures": [{"type": kind} for kind in kinds]}) if kinds else ""
        if command[0] == "pvs":
            return json.dumps({"report": [{"pv": self.groups}]})
        assert command[0] == "lvs", command
        return json.dumps({"report": [{"lv": []}]})


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/sbin/{name}")
    return Programs()


def read(programs: Programs) -> layout.Reading:
    return reading.read("/dev/vdb", ROWS, programs.run)


def test_empty_disk_is_read_as_one(programs: Programs) -> None:
    assert read(programs).disk == layout.Disk("/dev/vdb", "disk", 64 * layout.GIB, "PI-SSD-0001")


def test_what_is_on_a_disk_and_what_uses_it_is_read(programs: Programs) -> None:
    part = {"path": "/dev/vdb1", "type": "part", "size": 1, "serial": None, "uuid": None, "ro": False}
    inner = {**part, "path": "/dev/mapper/old-data", "type": "lvm", "mountpoints": ["[SWAP]"]}
    programs.devices[1]["children"] = [{**part, "mountpoints": [None, "/media/old"], "children": [inner]}]
    programs.signatures = {"/dev/vdb": ["gpt", "PMBR"], "/dev/vdb1": ["ext4"]}
    found = read(programs).disk
    assert found is not None
    assert found.signatures == ("gpt on /dev/vdb", "PMBR on /dev/vdb", "ext4 on /dev/vdb1", "partition /dev/vdb1")
    assert found.users == (
        "/dev/vdb1 is mounted on /media/old",
        "/dev/mapper/old-data is used as [SWAP]",
        "/dev/mapper/old-data is open on it",
    )


@pytest.mark.parametrize(("key", "value"), [("serial", "PI-SSD-0001"), ("uuid", "4w63d7")])
def test_second_disk_with_its_number_or_its_volumes_is_seen(programs: Programs, key: str, value: str) -> None:
    programs.devices[1]["uuid"] = "4w63d7"
    programs.devices.append({**LSBLK[0], "path": "/dev/vdc", "mountpoints": [None], key: value})
    found = read(programs).disk
    assert found is not None
    assert found.twins == ("/dev/vdc",)


def test_group_of_ours_is_told_from_others(programs: Programs) -> None:
    programs.groups = [PV, {**PV, "pv_name": "/dev/vdc", "vg_name": "other", "vg_tags": ""}]
    ours, other = read(programs).groups
    assert (ours.ours, ours.here, ours.extents) == (True, True, 16383)
    assert (other.ours, other.here) == (False, False)
    programs.groups = [{**PV, "vg_tags": ""}]
    assert not read(programs).groups[0].ours


def test_label_without_a_group_holds_nothing(programs: Programs) -> None:
    programs.signatures = {"/dev/vdb": ["LVM2_member"]}
    programs.groups = [{**PV, "vg_name": "", "vg_tags": ""}]
    found = read(programs).disk
    assert found is not None
    assert found.signatures == ()


def test_volumes_cannot_be_judged_without_lvm(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert read(programs).groups == ()
    programs.signatures = {"/dev/vdb": ["LVM2_member"]}
    with pytest.raises(reading.NoTools):
        read(programs)


@pytest.mark.skipif(not shutil.which("mkfs.ext4", path="/usr/sbin:/sbin"), reason="needs e2fsprogs")
def test_file_system_is_looked_into_without_being_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the plan makes one: with nothing in it, whole by its own check, and as large as its volume."""
    monkeypatch.setenv("PATH", f"/usr/sbin:/sbin:{os.environ['PATH']}")
    monkeypatch.setattr(module, "ENGLISH", {**os.environ, "LC_ALL": "C"})
    device, size = str(tmp_path / "device"), 8 * layout.UNIT
    with open(device, "wb") as image:
        image.truncate(size)
    for step in disk.volume("cache", layout.Volume(size), size, layout.EXTENT):
        if step.command[0] in ("mkfs.ext4", "debugfs"):
            module.run(*step.command[:-1], device)
    found = reading.file_system(layout.Volume(size), device, module.run)
    assert (found.type, found.file_system, found.entries) == ("ext4", size, ())
    assert len(found.uuid) == 36
    module.run("e2fsck", "-f", "-n", device)
    module.run("debugfs", "-w", "-R", "mkdir image", device)
    assert reading.file_system(layout.Volume(size), device, module.run).entries == ("image",)
    os.truncate(device, size + 2 * layout.UNIT)
    larger = found._replace(bytes=size + 2 * layout.UNIT, tags=(layout.MADE,))
    [step] = disk.volume("cache", larger, larger.bytes, layout.EXTENT)
    module.run(*step.command[:-1], device)
    assert reading.file_system(larger, device, module.run).file_system == larger.bytes


def test_size_of_a_folder_leaves_out_what_is_mounted_in_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_bytes(b"x" * 40960)
    assert reading.measured(str(tmp_path), ["a"]) >= 40960
    assert reading.measured("/", ["proc"]) == 0


# --- moving -----------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with Docker's data, other places of the layout among it."""
    folder = tmp_path / "docker"
    (folder / "image").mkdir(parents=True)
    (folder / "image/layer").write_bytes(b"x" * 1000)
    (folder / "image/link").symlink_to("layer")
    (folder / "volumes/shop").mkdir(parents=True)
    (folder / "volumes/shop/order").write_text("1")
    folder.chmod(0o710)
    return folder


def rows(tmp_path: Path, mixes: bool = False) -> list[layout.Row]:
    return [
        layout.Row("cache", {"cache": 1}, str(tmp_path / "docker"), (str(tmp_path / "containerd"),), mixes=mixes),
        layout.Row("volumes", {"volumes": 1}, str(tmp_path / "docker/volumes")),
    ]


def test_copy_is_whole_and_leaves_other_places_out(old: Path, tmp_path: Path) -> None:
    target = tmp_path / "volume"
    (target / "image").mkdir(parents=True)
    (target / "image/half").write_text("what a run that was cut off had begun")
    move = places.Move(places.Mount(str(old), "cache"), 0, begun=True)
    module.copy(move, str(target), rows(tmp_path))
    assert sorted(os.listdir(target)) == ["image"]
    assert sorted(os.listdir(target / "image")) == ["layer", "link"]
    assert (target / "image/layer").stat().st_size == 1000
    assert target.stat().st_mode & 0o777 == 0o710


def test_folder_that_will_be_bound_is_copied_to_where_it_is_bound_from(old: Path, tmp_path: Path) -> None:
    target = tmp_path / "volume"
    target.mkdir()
    (tmp_path / "containerd").mkdir()
    (tmp_path / "containerd/blob").write_text("1")
    mount = next(mount for mount in places.mounts(rows(tmp_path)) if mount.folder)
    module.copy(places.Move(mount, 0), str(target), rows(tmp_path))
    assert (target / os.path.relpath(mount.folder, old) / "blob").read_text() == "1"


def test_copy_that_is_not_like_what_was_copied_is_refused(old: Path, tmp_path: Path) -> None:
    target = tmp_path / "volume"
    shutil.copytree(old, target, symlinks=True)
    module.same(str(old), str(target))
    (target / "image/layer").write_bytes(b"x" * 999)
    with pytest.raises(Refused, match="layer: its copy is not like it"):
        module.same(str(old), str(target))


def test_old_data_goes_beside_and_never_over_what_is_there(old: Path, tmp_path: Path) -> None:
    (tmp_path / "docker.before-ssd").mkdir()
    found = rows(tmp_path)
    for mount in (mount for mount in places.mounts(found) if not mount.folder):
        module.put_aside(places.Move(mount, 0), found)
    assert not old.exists()
    assert (tmp_path / "docker.before-ssd-2/volumes/shop/order").read_text() == "1"
    assert os.listdir(tmp_path / "docker.before-ssd") == []


def test_what_somebody_has_mounted_meanwhile_is_not_taken_for_what_was_copied(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(old))
    with pytest.raises(Refused, match="nothing was taken away"):
        module.put_aside(places.Move(places.Mount(str(old), "cache"), 0), rows(tmp_path, mixes=True))
    assert sorted(os.listdir(old)) == ["image", "volumes"]


@pytest.mark.parametrize("moves", [True, False])
def test_nobody_mounts_or_writes_meanwhile_and_all_runs_again(
    moves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def tried(*command: str) -> str:
        asked.append(" ".join(command))
        return "c1" if command[:2] == ("docker", "ps") else "active\n"

    monkeypatch.setattr(module, "tried", tried)
    monkeypatch.setattr(module, "run", lambda *command: asked.append(" ".join(command)))
    move = places.Move(places.Mount(str(tmp_path / "nothing"), "cache"), 0)
    stopped = " ".join((module.WATCH, *module.WRITERS)) if moves else module.WATCH
    with contextlib.suppress(Refused), module.standing_still([move] if moves else []):
        assert f"systemctl stop {stopped}" in asked
        assert ("docker stop --time 120 c1" in asked) == moves
        raise Refused("the copy is not like it")
    assert f"systemctl start {' '.join(reversed(stopped.split()))}" in asked
    assert (asked[-1] == "docker start c1") == moves


def test_what_was_mixed_is_taken_away(old: Path, tmp_path: Path) -> None:
    module.put_aside(places.Move(places.Mount(str(old), "cache"), 0), rows(tmp_path, mixes=True))
    assert os.listdir(old) == []


def test_program_that_holds_a_file_open_is_named(tmp_path: Path) -> None:
    with (tmp_path / "held").open("w"):
        assert any(f"({os.getpid()})" in holder for holder in module.open_below(str(tmp_path)))
    assert module.open_below(str(tmp_path)) == []


def test_command_that_fails_says_what_it_said() -> None:
    with pytest.raises(Refused, match=r"ls /nonexistent: exit code 2: .*No such file"):
        module.run("ls", "/nonexistent")
    assert module.tried("ls", "/nonexistent") == ""
