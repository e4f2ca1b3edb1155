"""The firmware's config.txt: one block of ours at its end, everything else left as its owner wrote it.

Sections of the file ([pi4], [all]) reach to the next one, so the block begins with [all], and stands last.
"""

from __future__ import annotations

import os
import re
import tempfile

# Newer systems first: there the old place has a file that only says where the new one is.
PLACES = ("boot/firmware/config.txt", "boot/config.txt")
BEGIN, END = "# BEGIN pi-commerce (do not edit up to END)", "# END pi-commerce"
ALL = "[all]"
# The firmware reads no further in a line, and says nothing of it.
LONGEST_LINE = 98
# What somebody else has set up, and what must not meet it.
FAN = r"dtoverlay=[\w-]*fan\b|dtparam=(cooling_fan|fan_temp)"
SERIAL = r"enable_uart=1\b|dtoverlay=(uart0|disable-bt|miniuart-bt)\b"
SERIAL_PINS = (14, 15)
# Bytes of any encoding come back as they were.
ENCODING, ERRORS = "utf-8", "surrogateescape"


class ConfigTxtError(Exception):
    """The file cannot be changed; the message says why and what to do."""


def find(root: str) -> str | None:
    """Where the file is below the hardware's root; None where there is none."""
    paths = (os.path.join(root, place) for place in PLACES)
    return next((path for path in paths if os.path.isfile(path)), None)


def read(path: str) -> str:
    """The file's text, with its ends of lines as they are."""
    with open(path, newline="", encoding=ENCODING, errors=ERRORS) as source:
        return source.read()


def facts(root: str) -> dict | None:
    """What roles decide by: `path`, the lines of our `block`, and lines of others that `fan` or `serial` are in.

    `overlays` are those of fans that the firmware has (they are hundreds in all), None without a folder of them; None
    where there is no file.
    """
    path = find(root)
    if path is None:
        return None
    try:
        text = read(path)
        before, block, after = split(text)
    except (OSError, ConfigTxtError) as problem:
        return {"path": path, "problem": str(problem), "block": [], "fan": [], "serial": [], "overlays": None}
    others = [line.strip() for line in [*before, *after]]
    folder = os.path.join(os.path.dirname(path), "overlays")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else None
    return {
        "path": path,
        "problem": read_only(path),
        "block": [line.strip() for line in block],
        "fan": [line for line in others if re.match(FAN, re.sub(r"\s+", "", line))],
        "serial": [line for line in others if re.match(SERIAL, re.sub(r"\s+", "", line))],
        "overlays": None if names is None else [name[: -len(".dtbo")] for name in names if name.endswith("fan.dtbo")],
    }


def read_only(path: str) -> str:
    """Why the file cannot be written; empty where it can."""
    if os.statvfs(os.path.dirname(path)).f_flag & os.ST_RDONLY:
        return (
            f"{path}: its file system is read-only; mount -o remount,rw {os.path.dirname(path)}, and where that fails "
            "the card is worn out or locked: take another"
        )
    return ""


def split(text: str) -> tuple[list, list, list]:
    """Lines before our block, in it, and after it, each with its end. Raises ConfigTxtError for broken marks."""
    lines = re.findall(r"[^\n]*\n|[^\n]+$", text)
    begins = [number for number, line in enumerate(lines) if line.strip() == BEGIN]
    ends = [number for number, line in enumerate(lines) if line.strip() == END]
    if not begins and not ends:
        return lines, [], []
    if len(begins) != 1 or len(ends) != 1 or begins[0] > ends[0]:
        shown = ", ".join(str(number + 1) for number in sorted(begins + ends)) or "nowhere"
        raise ConfigTxtError(
            f"config.txt: the marks {BEGIN!r} and {END!r} have to stand in it once each, in this order; they are in "
            f"line {shown}. Take out what is wrong by hand, then run again"
        )
    return lines[: begins[0]], lines[begins[0] + 1 : ends[0]], lines[ends[0] + 1 :]


def block(settings: list) -> list:
    """The lines of our block for these settings; none for none."""
    return [ALL, *settings] if settings else []


def merged(text: str, settings: list) -> str:
    """The text with our block at its end, or without one where there are no settings. Raises ConfigTxtError."""
    too_long = [line for line in settings if len(line) > LONGEST_LINE]
    if too_long:
        raise ConfigTxtError(f"{too_long[0]!r}: the firmware reads {LONGEST_LINE} characters of a line, no more")
    before, _, after = split(text)
    kept = "".join([*before, *after])
    if not settings:
        return kept
    end = "\r\n" if "\r\n" in kept else "\n"
    joint = "" if not kept or kept.endswith("\n") else end
    return kept + joint + "".join(f"{line}{end}" for line in (BEGIN, *block(settings), END))


def write(path: str, text: str) -> None:
    """Replace the file in one step, with the mode and the owner it has."""
    status = os.stat(path)
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".config-")
    try:
        with open(handle, "w", newline="", encoding=ENCODING, errors=ERRORS) as target:
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
        os.chmod(temporary, status.st_mode & 0o7777)
        # A FAT file system has no owners.
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(temporary, status.st_uid, status.st_gid)
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
