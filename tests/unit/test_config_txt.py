"""Our block in config.txt: at its end and for all boards; what others wrote stays byte for byte."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import config_txt
import plays
import pytest

FAN = ["dtoverlay=gpio-fan,gpiopin=14,temp=55000"]
BLOCK = "\n".join((config_txt.BEGIN, "[all]", *FAN, config_txt.END, ""))
WRITTEN = "# my board\r\ndtparam=audio=on\n\n[pi4]\narm_boost=1\n[cm5]\ndtoverlay=dwc2"


@pytest.fixture
def boot(tmp_path: Path) -> Path:
    """A boot partition with a file that somebody has edited, without an end of its last line."""
    folder = tmp_path / "boot/firmware"
    folder.mkdir(parents=True)
    (folder / "config.txt").write_bytes(WRITTEN.encode() + b" \xfc")
    return folder


def run(boot: Path, settings: list[str], **options: Any) -> dict[str, Any]:
    """The module's result."""
    return plays.module("config_txt_block", root=str(boot.parents[1]), settings=settings, **options)


def test_block_is_for_all_boards_whatever_section_the_file_ends_in() -> None:
    assert config_txt.merged("[cm5]\nx=1", FAN) == f"[cm5]\nx=1\n{BLOCK}"
    assert config_txt.merged("", FAN) == BLOCK


def test_hand_edits_stay_byte_for_byte_also_below_the_block(boot: Path) -> None:
    path = boot / "config.txt"
    before = path.read_bytes()
    path.chmod(0o755)
    assert run(boot, FAN)["changed"]
    assert not run(boot, FAN)["changed"]
    assert path.read_bytes() == before + b"\r\n" + BLOCK.replace("\n", "\r\n").encode()
    assert path.stat().st_mode & 0o777 == 0o755
    with path.open("ab") as file:
        file.write(b"gpu_mem=16\n")
    assert run(boot, ["dtparam=i2c_arm=on"])["changed"]
    assert path.read_bytes().startswith(before + b"\r\ngpu_mem=16\n# BEGIN")
    assert b"gpio-fan" not in path.read_bytes()
    assert run(boot, [])["changed"]
    assert path.read_bytes() == before + b"\r\ngpu_mem=16\n"
    assert not run(boot, [])["changed"]


def test_check_tells_and_writes_nothing(boot: Path) -> None:
    before = (boot / "config.txt").read_bytes()
    told = run(boot, FAN, _ansible_check_mode=True, _ansible_diff=True)
    assert told["changed"]
    assert "gpio-fan" in told["diff"]["after"]
    assert (boot / "config.txt").read_bytes() == before
    assert os.listdir(boot) == ["config.txt"]


@pytest.mark.parametrize(
    "text",
    [
        f"{config_txt.BEGIN}\n",
        f"{config_txt.END}\n",
        f"{config_txt.END}\n{config_txt.BEGIN}\n",
        BLOCK + BLOCK,
    ],
)
def test_broken_marks_are_refused_with_their_lines(boot: Path, text: str) -> None:
    (boot / "config.txt").write_text(text)
    refused = run(boot, FAN)
    assert refused["failed"]
    assert "in line 1" in refused["msg"]
    assert "Nothing was changed" in refused["msg"]
    assert (boot / "config.txt").read_text() == text
    found = config_txt.facts(str(boot.parents[1]))
    assert found is not None
    assert "in line 1" in found["problem"]


def test_line_that_the_firmware_would_cut_is_refused(boot: Path) -> None:
    assert "98 characters" in run(boot, ["dtoverlay=" + "x" * 89])["msg"]
    assert run(boot, ["dtoverlay=" + "x" * 88])["changed"]


def test_read_only_card_is_refused_in_words(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Locked:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda path: Locked)
    found = config_txt.facts(str(boot.parents[1]))
    assert found is not None
    assert f"{boot}/config.txt: its file system is read-only; mount -o remount,rw {boot}" in found["problem"]


def test_missing_file_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    folder = tmp_path / "boot/firmware"
    assert "is the boot partition mounted?" in run(folder, FAN)["msg"]
    assert not run(folder, [])["changed"]
    assert config_txt.facts(str(tmp_path)) is None


def test_old_place_counts_only_where_the_new_one_is_not(boot: Path) -> None:
    root = boot.parents[1]
    (root / "boot/config.txt").write_text("# it has moved\n")
    assert run(boot, FAN)["path"] == f"{boot}/config.txt"
    (boot / "config.txt").unlink()
    assert run(boot, FAN)["path"] == f"{root}/boot/config.txt"


def test_write_that_fails_leaves_the_old_file(boot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (boot / "config.txt").read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        config_txt.write(str(boot / "config.txt"), BLOCK)
    assert (boot / "config.txt").read_bytes() == before
    assert os.listdir(boot) == ["config.txt"]


def test_without_a_folder_of_overlays_nobody_knows_what_the_firmware_has(boot: Path) -> None:
    found = config_txt.facts(str(boot.parents[1]))
    assert found is not None
    assert found["overlays"] is None


def test_facts_tell_what_others_have_set_up(boot: Path) -> None:
    (boot / "overlays").mkdir()
    (boot / "overlays/gpio-fan.dtbo").touch()
    (boot / "overlays/dwc2.dtbo").touch()
    text = "dtoverlay = gpio-fan,gpiopin=18\n#dtoverlay=pwm-gpio-fan\n enable_uart=1\n" + BLOCK
    (boot / "config.txt").write_text(text)
    assert config_txt.facts(str(boot.parents[1])) == {
        "path": f"{boot}/config.txt",
        "problem": "",
        "block": config_txt.block(FAN),
        "fan": ["dtoverlay = gpio-fan,gpiopin=18"],
        "serial": ["enable_uart=1"],
        "overlays": ["gpio-fan"],
    }
