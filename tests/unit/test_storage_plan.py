"""A disk is split, grown or refused by what is on it; nothing is touched here."""

from __future__ import annotations

from typing import Any

import plays
import pytest
import yaml
from storage import disk as disk_plan
from storage import layout, places
from storage.layout import EXTENT, GIB, MADE, MIB, MOVING, UNIT, Disk, Group, Place, Reading, Refused, Volume

NAME = "/dev/disk/by-id/usb-Maker_Disk_0123-0:0"
GB = 10**9
LAYOUTS = yaml.safe_load((plays.ROOT / "roles/storage/vars/main.yml").read_text())["_storage_layouts"]
LEAN, APPWRITE = (layout.rows(LAYOUTS[edition]) for edition in ("lean", "appwrite"))
# What an SSD of "500 GB" has.
SSD = Disk(NAME, "disk", 500_107_862_016, "S3Z8")
UUIDS = {"cache": "c", "volumes": "v", "logs": "l", "backups": "b"}


def ours(size: int = SSD.bytes, rows: list[layout.Row] = LEAN, **changes: Any) -> Reading:
    """A disk as `steps` has left it, perhaps larger since."""
    sizes = layout.sizes(SSD.bytes, rows)
    volumes = {
        name: Volume(bytes_, (MADE,), True, UUIDS[name], "ext4", file_system=bytes_) for name, bytes_ in sizes.items()
    }
    extents = layout.extents(SSD.bytes)
    group = Group(layout.GROUP, True, True, "/dev/sda", EXTENT, extents, extents - sum(sizes.values()) // EXTENT)
    signatures = ("LVM2_member on /dev/sda",)
    found = Reading(SSD._replace(bytes=size, signatures=signatures), (NAME,), (group,), volumes)
    return found._replace(**changes)


def commands(reading: Reading, rows: list[layout.Row] = LEAN, serial: str = "") -> list[str]:
    """The steps as they would be typed."""
    return [" ".join(step.command) for step in disk_plan.steps(reading, rows, serial)]


def refusal(reading: Reading, rows: list[layout.Row] = LEAN, serial: str = "") -> str:
    """Why the disk may not be touched."""
    with pytest.raises(Refused) as refused:
        disk_plan.steps(reading, rows, serial)
    return str(refused.value)


# --- the layouts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "shares"),
    [
        (LEAN, {"os": 20, "buffer": 60, "cache": 100, "docker_volumes": 50, "redis": 20, "logs": 50, "backups": 200}),
        (
            APPWRITE,
            {
                **{"os": 30, "buffer": 50, "functions": 50, "mariadb": 50, "files": 50},
                **{"n8n": 20, "redis": 10, "logs": 40, "backups": 200},
            },
        ),
    ],
)
def test_layouts_are_the_owners_plan_of_500_gb(rows: list[layout.Row], shares: dict[str, int]) -> None:
    assert {name: share for row in rows for name, share in row.shares.items()} == shares
    assert sum(shares.values()) == 500


def test_sizes_are_shares_of_the_disk() -> None:
    found = layout.sizes(SSD.bytes, LEAN)
    assert {name: round(size / GB) for name, size in found.items()} == {
        **{"cache": 100, "volumes": 70},
        **{"logs": 50, "backups": 200},
    }
    twice = layout.sizes(2 * SSD.bytes, LEAN)
    assert all(abs(twice[name] - 2 * found[name]) <= 2 * UNIT for name in found)


@pytest.mark.parametrize("size", [64 * GIB, SSD.bytes, 2**40, 3 * 10**12 + 12345 * 512])
@pytest.mark.parametrize("rows", [LEAN, APPWRITE])
def test_volumes_fit_and_leave_the_rest_free(size: int, rows: list[layout.Row]) -> None:
    if rows is APPWRITE and size < 100 * GIB:
        size = 100 * GIB
    found = layout.sizes(size, rows)
    total = sum(row.share for row in rows)
    free = sum(row.share for row in rows if not row.path)
    assert all(size_ % UNIT == 0 for size_ in found.values())
    assert sum(found.values()) <= size * (total - free) / total


def test_disk_that_is_too_small_is_refused_with_the_arithmetic() -> None:
    told = refusal(Reading(SSD._replace(bytes=32 * GIB), (NAME,)))
    assert "cache gets 100/500 of 32.0 GiB, which is 6.4 GiB, and needs 8 GiB" in told
    assert "volumes gets 70/500 of 32.0 GiB, which is 4.4 GiB, and needs 6 GiB" in told
    assert "backups" not in told


@pytest.mark.parametrize("rows", [LEAN, APPWRITE])
def test_size_that_a_refusal_names_is_enough(rows: list[layout.Row]) -> None:
    told = refusal(Reading(SSD._replace(bytes=10 * GIB), (NAME,)), rows)
    least = int(told.split("Use one of ")[1].split()[0])
    assert layout.sizes(least * GIB, rows)


# --- a disk that is not ours ------------------------------------------------------------------------------


def test_empty_disk_becomes_ours() -> None:
    found = commands(Reading(SSD, (NAME,)))
    assert found[0] == f"vgcreate --yes --addtag pi-commerce --physicalextentsize 4m pi_commerce {NAME}"
    assert [command.split()[0] for command in found[1:6]] == [
        "lvcreate",
        "mkfs.ext4",
        "debugfs",
        "lvchange",
        "lvcreate",
    ]
    assert found[4] == "lvchange --addtag made pi_commerce/cache"
    made = [command.split() for command in found if command.startswith("lvcreate")]
    sizes = layout.sizes(SSD.bytes, LEAN)
    assert {words[-2]: int(words[words.index("--extents") + 1]) * EXTENT for words in made} == sizes


@pytest.mark.parametrize(
    "signature", ["gpt on /dev/sda", "partition /dev/sda1", "ext4 on /dev/sda", "LVM2_member on /dev/sda"]
)
def test_disk_with_anything_on_it_is_refused_until_its_serial_number_is_typed(signature: str) -> None:
    reading = Reading(SSD._replace(signatures=(signature,)), (NAME,))
    told = refusal(reading)
    assert signature in told
    assert "storage_erase_serial: S3Z8" in told
    assert commands(reading, serial="S3Z8")[0] == f"erase {NAME}"


def test_wrong_serial_number_is_refused_whatever_is_on_the_disk() -> None:
    for reading in (Reading(SSD, (NAME,)), Reading(SSD._replace(signatures=("gpt on /dev/sda",)), (NAME,)), ours()):
        told = refusal(reading, serial="S3Z9")
        assert "storage_erase_serial is S3Z9" in told
        assert "S3Z8" in told


def test_disk_without_a_serial_number_cannot_be_erased() -> None:
    reading = Reading(SSD._replace(serial="", signatures=("gpt on /dev/sda",)), (NAME,))
    assert "no serial number that could be typed" in refusal(reading)
    assert "not to be read" in refusal(reading, serial="S3Z8")


def test_disk_in_use_is_refused_also_with_its_serial_number() -> None:
    reading = Reading(SSD._replace(signatures=("gpt on /dev/sda",), users=("/dev/sda2 is mounted on /",)), (NAME,))
    assert "/dev/sda2 is mounted on /" in refusal(reading, serial="S3Z8")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"type": "part"}, "is a part and no whole disk"),
        ({"twins": ("/dev/sdb",)}, "/dev/sdb call themselves so"),
        ({"read_only": True}, "is read-only"),
    ],
)
def test_disk_that_cannot_be_used_is_refused(changes: dict[str, Any], told: str) -> None:
    assert told in refusal(Reading(SSD._replace(**changes), (NAME,)), serial="S3Z8")


def test_disk_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert refusal(Reading(None, (NAME,))).endswith(NAME)
    assert refusal(Reading(None)).endswith("none")


def test_empty_disk_in_place_of_a_lost_one_is_refused_until_its_serial_number_is_typed() -> None:
    """A bridge that shows zeros looks like a new disk."""
    text = places.fstab("", [places.line(mount, LEAN, UUIDS) for mount in places.mounts(LEAN)])
    assert "/etc/fstab" in refusal(Reading(SSD, (NAME,), fstab=text))
    assert commands(Reading(SSD, (NAME,), fstab=text), serial="S3Z8")[0].startswith("vgcreate")


def test_volumes_on_another_disk_are_not_doubled() -> None:
    other = Group(layout.GROUP, True, False, "/dev/sdb")
    assert "/dev/sdb" in refusal(Reading(SSD, (NAME,), (other,)))


# --- a disk of ours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("serial", ["", "S3Z8"])
def test_disk_of_ours_is_adopted_and_never_erased(serial: str) -> None:
    assert commands(ours(), serial=serial) == []


def test_larger_disk_is_taken_in_and_volumes_grow_with_it() -> None:
    found = commands(ours(2 * SSD.bytes))
    assert found[0] == f"pvresize {NAME}"
    assert [command.split()[0] for command in found[1:]] == ["lvextend", "resize2fs"] * 4
    assert not [command for command in found if "lvreduce" in command or "mkfs" in command]


def test_volume_never_becomes_smaller() -> None:
    reading = ours()
    larger = reading.volumes["logs"]._replace(bytes=60 * GIB, file_system=60 * GIB)
    assert commands(reading._replace(volumes={**reading.volumes, "logs": larger})) == []


def test_volumes_for_which_nothing_is_free_are_refused_with_the_arithmetic() -> None:
    rows = [row._replace(shares={"cache": 300}) if row.name == "cache" else row for row in LEAN]
    told = refusal(ours(), rows)
    assert "MiB for cache" in told
    assert "no volume is ever made smaller" in told


def test_run_that_was_cut_off_is_taken_up() -> None:
    """After a volume was made, in the making of its file system, and between a volume and the file system in it."""
    reading = ours()
    without = {name: volume for name, volume in reading.volumes.items() if name in ("cache", "volumes")}
    half = {**without, "volumes": without["volumes"]._replace(tags=(), type="", file_system=0)}
    group = reading.groups[0]
    free = group.extents - sum(volume.bytes for volume in half.values()) // EXTENT
    found = commands(reading._replace(volumes=half, groups=(group._replace(free=free),)))
    assert [command.split()[-1] for command in found if command.startswith("mkfs")] == [
        f"/dev/pi_commerce/{name}" for name in ("volumes", "logs", "backups")
    ]
    short = reading.volumes["cache"]._replace(file_system=reading.volumes["cache"].bytes - UNIT)
    assert commands(reading._replace(volumes={**reading.volumes, "cache": short})) == [
        "resize2fs /dev/pi_commerce/cache"
    ]


def test_volume_that_is_switched_off_is_switched_on() -> None:
    reading = ours()
    off = Volume(reading.volumes["logs"].bytes, (MADE,), False)
    assert commands(reading._replace(volumes={**reading.volumes, "logs": off})) == [
        "lvchange --activate y pi_commerce/logs"
    ]


def test_damaged_volume_is_refused_and_not_made_anew() -> None:
    reading = ours()
    gone = reading.volumes["volumes"]._replace(type="", uuid="", file_system=0)
    assert "volume volumes held ext4" in refusal(
        reading._replace(volumes={**reading.volumes, "volumes": gone}), serial="S3Z8"
    )


def test_disk_of_another_layout_is_refused() -> None:
    rows = [row for row in LEAN if row.name != "logs"]
    assert "has a volume logs" in refusal(ours(), rows)


def test_half_of_a_group_is_refused() -> None:
    reading = ours()
    assert "one is missing" in refusal(reading._replace(groups=(reading.groups[0]._replace(missing=1),)), serial="S3Z8")


# --- places -----------------------------------------------------------------------------------------------


def test_outer_places_are_mounted_before_inner_ones_and_bound_folders_last() -> None:
    assert [mount.path for mount in places.mounts(LEAN)] == [
        *("/var/backups/pi-commerce", "/var/lib/docker", "/var/lib/docker/volumes", "/var/log/journal"),
        "/var/lib/containerd",
    ]
    assert places.inner("/var/lib/docker", LEAN) == ["volumes"]


def test_fstab_mounts_by_uuid_and_keeps_the_lines_of_others() -> None:
    before = "# mine\nUUID=1 / ext4 defaults 0 1\n"
    plan = places.plan(ours(fstab=before), LEAN, False)
    assert plan.fstab.startswith(before)
    line = next(line for line in plan.fstab.splitlines() if " /var/lib/docker " in line)
    device, _, kind, options, _, check = line.split()
    assert (device, kind, check) == ("UUID=c", "ext4", "2")
    assert {"noatime", "errors=remount-ro", "nofail"} <= set(options.split(","))
    assert places.plan(ours(fstab=plan.fstab), LEAN, False).fstab == plan.fstab
    assert places.fstab(plan.fstab, []) == before


@pytest.mark.parametrize(
    "text",
    [
        f"{places.BEGIN}\n",
        f"{places.END}\n{places.BEGIN}\n",
        f"{places.BEGIN}\n{places.END}\n" * 2,
        "/dev/sdc1 /var/lib/docker ext4 defaults 0 2\n",
    ],
)
def test_fstab_that_somebody_has_edited_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="/etc/fstab"):
        places.plan(ours(fstab=text), LEAN, False)


def mounted(**changes: Place) -> Reading:
    """A disk of ours, mounted in all its places but for some."""
    text = places.fstab("", [places.line(mount, LEAN, UUIDS) for mount in places.mounts(LEAN)])
    found = {mount.path: Place(UUIDS[mount.volume]) for mount in places.mounts(LEAN)}
    return ours(
        fstab=text, places={**found, **{f"/{path.replace('_', '/')}": place for path, place in changes.items()}}
    )


def test_second_run_has_nothing_to_do() -> None:
    reading = mounted()
    assert disk_plan.steps(reading, LEAN, "") == []
    assert places.plan(reading, LEAN, False) == places.Plan(reading.fstab, (), ())


def test_place_that_was_unmounted_is_mounted_again() -> None:
    plan = places.plan(mounted(var_lib_docker_volumes=Place()), LEAN, False)
    assert [mount.path for mount in plan.todo] == ["/var/lib/docker/volumes"]


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (Place("/dev/sdc1"), "/dev/sdc1 is mounted there, not volume cache"),
        (Place("c", read_only=True), "is mounted read-only"),
        (
            Place(bytes=5 * MIB, entries=3),
            r"holds data \(3 entries, 5 MiB\), which the disk would hide.*storage_move: true",
        ),
    ],
)
def test_place_with_something_else_in_it_is_refused(place: Place, told: str) -> None:
    with pytest.raises(Refused, match=told):
        places.plan(mounted(var_lib_docker=place), LEAN, False)


def test_all_places_that_the_disk_would_hide_are_named_at_once() -> None:
    held = Place(bytes=5 * MIB, entries=3)
    reading = mounted(var_lib_docker=held, var_lib_docker_volumes=held._replace(entries=1))
    told = r"/var/lib/docker: holds data \(3 .*; /var/lib/docker/volumes: holds data \(1 .*, which the disk would hide"
    with pytest.raises(Refused, match=told):
        places.plan(reading, LEAN, False)


def test_data_is_moved_where_that_was_said_and_the_journal_always() -> None:
    held = Place(bytes=5 * MIB, entries=3)
    assert places.plan(mounted(var_lib_docker=held), LEAN, True).moves == (
        places.Move(places.Mount("/var/lib/docker", "cache"), 5 * MIB),
    )
    [move] = places.plan(mounted(var_log_journal=held), LEAN, False).moves
    assert move.mount.volume == "logs"


def test_data_on_both_sides_is_refused_except_for_the_journal() -> None:
    held = Place(bytes=5 * MIB, entries=3)
    for path, name in (("var_lib_docker", "cache"), ("var_log_journal", "logs")):
        reading = mounted(**{path: held})
        full = reading._replace(volumes={**reading.volumes, name: reading.volumes[name]._replace(entries=("image",))})
        if name == "logs":
            assert places.plan(full, LEAN, False).moves
        else:
            with pytest.raises(Refused, match="and so does volume cache"):
                places.plan(full, LEAN, True)


def test_move_that_was_cut_off_is_begun_anew_until_fstab_says_that_the_copy_counts() -> None:
    reading = mounted(var_lib_docker=Place(bytes=5 * MIB, entries=3))
    cache = reading.volumes["cache"]._replace(entries=("image",), tags=(MADE, MOVING))
    cut = reading._replace(volumes={**reading.volumes, "cache": cache})
    [done] = places.plan(cut, LEAN, False).moves
    assert (done.begun, done.done) == (True, True)
    [begun] = places.plan(cut._replace(fstab=""), LEAN, False).moves
    assert (begun.begun, begun.done) == (True, False)


def test_data_that_does_not_fit_is_refused_with_the_arithmetic() -> None:
    held = Place(bytes=100 * GIB, entries=3)
    with pytest.raises(
        Refused, match=r"102400 MiB of /var/lib/docker do not fit into volume cache, which takes \d+ MiB"
    ):
        places.plan(mounted(var_lib_docker=held), LEAN, True)
