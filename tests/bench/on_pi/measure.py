"""What a machine can do: network, disk, encryption, and its backup engine. Runs there as root, with Python 3.9 alone.

`measure.py HARDWARE_ROOT [IMAGE]...`: prints one JSON object. Takes about a minute, never more than three: each part
has a time of its own. Needs 3 GiB free in the backup's folder, cleans up after itself. What cannot be measured is null.
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import platform
import random
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

PLAN = Path("/etc/pi-commerce/backup/plan.json")
MB = 1000 * 1000
BLOCK = 1024 * 1024
NEEDED_MB = 3000
# Seconds of each part.
NETWORK, WRITE, RANDOM, CRYPTO, ENGINE = 8.0, 12.0, 4.0, 2, 45
MANIFESTS = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
UNKNOWN = "unknown"


def read(path: Path) -> str:
    """A file's text without the end; empty where there is none."""
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def run(*command: str, seconds: float = 30, environment: dict[str, str] | None = None) -> str:
    """What a program printed; empty where it is not there, fails or takes too long."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            timeout=seconds,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


# --- network -------------------------------------------------------------------------------------------------


def stream(addresses: list[str], headers: dict[str, str]) -> float | None:
    """MB/s of what comes from these addresses, one after the other, for some seconds."""
    begun, size = time.monotonic(), 0
    for address in addresses:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            while block := answer.read(BLOCK):
                size += len(block)
                if time.monotonic() - begun > NETWORK:
                    return size / MB / NETWORK
    seconds = time.monotonic() - begun
    # Less says more about the way there than about its width.
    return size / MB / seconds if size > 10 * MB else None


def ask(address: str, headers: dict[str, str]) -> Any:
    """A JSON answer."""
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
        return json.load(answer)


def from_registry(image: str) -> float | None:
    """MB/s of an image's layers, from a registry that asks for no login."""
    host, _, rest = image.partition("/")
    name, _, tag = rest.partition(":")
    root = f"http://{host}/v2/{name}"
    manifest = ask(f"{root}/manifests/{tag}", {"Accept": MANIFESTS})
    layers = sorted(manifest["layers"], key=lambda layer: -int(layer["size"]))
    return stream([f"{root}/blobs/{layer['digest']}" for layer in layers], {})


def from_repository(target: dict[str, Any], folder: Path) -> float | None:
    """MB/s of a rest-server's packs."""
    known = {key: read(folder / name) for key, name in target["secrets"].items()}
    known.update(target["environment"])
    login = f"{known.get('RESTIC_REST_USERNAME', '')}:{known.get('RESTIC_REST_PASSWORD', '')}"
    headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}
    root = target["url"][len("rest:") :].rstrip("/")
    listed = ask(f"{root}/data/", {**headers, "Accept": "application/vnd.x.restic.rest.v2"})
    packs = sorted(listed, key=lambda pack: -int(pack["size"]))
    return stream([f"{root}/data/{pack['name']}" for pack in packs], headers)


def network(plan: dict[str, Any], images: list[str]) -> dict[str, Any]:
    """MB/s by where it comes from; null where that place did not answer. Places of other kinds are not asked."""
    found: dict[str, float | None] = {}

    def measure(place: str, fetch: Callable[[], float | None]) -> None:
        try:
            rate = fetch()
        except (OSError, ValueError, KeyError, TypeError):
            rate = None
        found[place] = fastest([found.get(place), rate])

    folder = Path(plan["secrets_folder"])
    for name, target in plan["repositories"].items():
        if target["url"].startswith("rest:"):
            measure(f"repository {name}", partial(from_repository, target, folder))
    for image in images:
        measure("registry", partial(from_registry, image))
    return {"places": found, "fastest": fastest(found.values())}


def fastest(rates: Iterable[float | None]) -> float | None:
    """The highest of those that are known."""
    return max((rate for rate in rates if rate is not None), default=None)


# --- disk ----------------------------------------------------------------------------------------------------


def written(path: Path, seconds: float) -> tuple[float, float]:
    """MB written one after the other and on the disk for sure, and the seconds that took."""
    block, begun, size = os.urandom(BLOCK), time.monotonic(), 0
    with path.open("wb", buffering=0) as target:
        while size < 1024 * BLOCK and time.monotonic() - begun < seconds:
            size += target.write(block)
            if size % (64 * BLOCK) == 0:
                os.fsync(target.fileno())
        os.fsync(target.fileno())
    return size / MB, time.monotonic() - begun


def opened(path: Path, flags: int) -> tuple[int, bool]:
    """A file past the kernel's memory where its file system can do that, else through it."""
    try:
        return os.open(path, flags | os.O_DIRECT), True
    except OSError:
        return os.open(path, flags), False


def disk(folder: Path) -> dict[str, Any]:
    """MB/s in a row and MB/s of 4 KiB anywhere, written for sure and read."""
    path = folder / "disk"
    size, seconds = written(path, WRITE)
    found: dict[str, Any] = {"write_mb_s": size / seconds}
    length, page = path.stat().st_size, mmap.mmap(-1, BLOCK)
    for name, flags, whole in (
        ("read_mb_s", os.O_RDONLY, True),
        ("read_4k_mb_s", os.O_RDONLY, False),
        ("write_4k_mb_s", os.O_RDWR | os.O_DSYNC, False),
    ):
        handle, direct = opened(path, flags)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            view = memoryview(page)[: BLOCK if whole else 4096]
            begun, moved, position = time.monotonic(), 0, 0
            while time.monotonic() - begun < RANDOM:
                where = position if whole else random.randrange(length // 4096) * 4096  # noqa: S311 - no secret
                moved += os.pwritev(handle, [view], where) if flags & os.O_RDWR else os.preadv(handle, [view], where)
                position = (position + BLOCK) % (length - length % BLOCK)
            view.release()
            found[name] = moved / MB / (time.monotonic() - begun)
            found["past_memory"] = direct
        finally:
            os.close(handle)
    path.unlink()
    return found


# --- processor -----------------------------------------------------------------------------------------------


def crypto() -> dict[str, Any]:
    """MB/s of one core: what encrypts, what hashes, and unpacking (counted as packed)."""
    found: dict[str, Any] = {}
    for name in ("aes-256-ctr", "sha256", "chacha20"):
        printed = run("openssl", "speed", "-mr", "-seconds", str(CRYPTO), "-bytes", "16384", "-evp", name)
        # +F:number:name:bytes a second
        rates = re.findall(r"^\+F:.*:([\d.]+)$", printed, re.MULTILINE)
        found[f"{name.replace('-', '_')}_mb_s"] = float(rates[-1]) / MB if rates else None
    text = b"".join(b"%d orders of %s\n" % (number, secrets.token_hex(6).encode()) for number in range(200_000))
    packed, begun, size = zlib.compress(text, 6), time.monotonic(), 0
    while time.monotonic() - begun < CRYPTO:
        zlib.decompress(packed)
        size += len(packed)
    found["unzip_mb_s"] = size / MB / (time.monotonic() - begun)
    return found


# --- engine --------------------------------------------------------------------------------------------------


def fill(folder: Path, size_mb: int) -> None:
    """Files of 8 MB, every other one of them of text."""
    folder.mkdir()
    text = b"".join(b"%d;shop;%s\n" % (number, secrets.token_hex(8).encode()) for number in range(30_000))
    for number in range(size_mb // 8):
        salt = b"%d\n" % number
        content = os.urandom(8 * MB) if number % 2 else (salt + text) * (8 * MB // len(text))
        (folder / f"{number:04d}").write_bytes(content)


def engine(plan: dict[str, Any], folder: Path, write_mb_s: float) -> dict[str, Any]:
    """MB/s of a backup and a restore by the backup's own program, with a repository beside it, and of a plain copy."""
    # As much as the disk takes in some seconds.
    size = int(min(256, max(64, write_mb_s * 3)))
    fill(folder / "data", size)
    length = sum(path.stat().st_size for path in (folder / "data").iterdir()) / MB
    settings = {
        "RESTIC_REPOSITORY": str(folder / "repository"),
        "RESTIC_PASSWORD": secrets.token_urlsafe(24),
        "RESTIC_CACHE_DIR": str(folder / "cache"),
        "GOMAXPROCS": "2",
        "GOGC": "20",
    }
    found: dict[str, Any] = {"size_mb": round(length), "version": run(plan["engine"], "version").strip() or UNKNOWN}
    run(plan["engine"], "init", "--repository-version", "2", environment=settings)
    steps = {
        "backup": (plan["engine"], "backup", "--json", "data"),
        "restore": (plan["engine"], "restore", "latest", "--target", "restored"),
        "copy": ("cp", "--recursive", "data", "copied"),
    }
    for name, command in steps.items():
        os.sync()
        begun = time.monotonic()
        shell = 'cd "$1" && shift && "$@" && sync && echo done'
        said = run("sh", "-c", shell, "sh", str(folder), *command, seconds=ENGINE, environment=settings)
        found[f"{name}_mb_s"] = length / (time.monotonic() - begun) if said.endswith("done\n") else None
    return found


# --- all of it -----------------------------------------------------------------------------------------------


def throttled(root: Path) -> str:
    """The bits in which the board says that it slows itself down."""
    return read(root / "sys/devices/platform/soc/soc:firmware/get_throttled") or UNKNOWN


def machine(root: Path) -> dict[str, Any]:
    """What it is. `virtual` is empty on a computer of its own."""
    frequencies = [read(path) for path in Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/cpuinfo_max_freq")]
    return {
        "model": read(root / "proc/device-tree/model") or UNKNOWN,
        "virtual": run("systemd-detect-virt").strip().replace("none", ""),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "mhz": max((int(text) // 1000 for text in frequencies if text), default=None),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MB,
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
    }


@contextmanager
def cleared(folder: Path) -> Iterator[Path]:
    """A folder for the measurement, and nothing of it afterwards."""
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=folder))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def main() -> None:
    """Measure and print."""
    begun = time.time()
    root, images = Path(sys.argv[1]), sys.argv[2:]
    try:
        plan = json.loads(PLAN.read_text())
    except (OSError, ValueError) as error:
        sys.exit(f"{PLAN}: cannot be read ({error}); run site.yml on this machine first")
    folder = Path(plan["folder"])
    # Before the first backup it is not there yet.
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free // MB
    if free < NEEDED_MB:
        sys.exit(f"{folder}: {free} MB are free, {NEEDED_MB} are needed for measuring; make room")
    found: dict[str, Any] = {"started": begun, "machine": machine(root), "throttled": [throttled(root)]}
    found["network"] = network(plan, images)
    with cleared(folder) as scratch:
        found["disk"] = disk(scratch)
        found["crypto"] = crypto()
        found["restic"] = engine(plan, scratch, found["disk"]["write_mb_s"])
    found["throttled"].append(throttled(root))
    synchronised = run("timedatectl", "show", "--property=NTPSynchronized", "--value").strip()
    found["clock"] = {"synchronised": synchronised or UNKNOWN}
    found["ended"] = time.time()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
