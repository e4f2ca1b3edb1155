"""Upgrades of engine and images: a plan, then one thing after the other, each put back where it does not work.

What is under way is written down before it begins: after a power cut it is put back, for nobody has seen it work.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pi_common import files
from pi_common.errors import PiError, Refused

from . import engine, packages
from .packages import Package
from .settings import Settings

# A name that keeps an image from `docker image prune` until the next upgrade of its service.
BEFORE = "pi-commerce/before"
# What carries no registry in its name is built here by site.yml.
OWN = "pi-commerce/"
ENGINE = "engine"
OVERRIDES = "overrides.yml"
PAUSE = 3

Say = Callable[[str], None]


class Unhealthy(PiError):
    """What is new does not work."""


@dataclass(frozen=True)
class Image:
    """One image that becomes another, and the services made from it."""

    services: tuple[str, ...]
    reference: str
    digest: str
    old_reference: str
    old_image: str

    def line(self) -> str:
        """For a person."""
        change = self.reference if self.reference == self.old_reference else f"{self.old_reference} -> {self.reference}"
        return f"{', '.join(self.services)}: {change}, {short(self.old_image)} -> {short(self.digest)}"


@dataclass(frozen=True)
class Plan:
    """What would be done."""

    packages: tuple[Package, ...] = ()
    images: tuple[Image, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What has to be typed to have exactly this done; empty where there is nothing to do."""
        names = [ENGINE] * bool(self.packages) + sorted(name for image in self.images for name in image.services)
        return f"upgrade {' '.join(names)}" if names else ""

    def lines(self) -> list[str]:
        """For a person."""
        found = [f"  {ENGINE}: {one.name} {one.old} -> {one.new}" for one in self.packages]
        found += [f"  {image.line()}" for image in self.images]
        found += [f"  {note}" for note in self.notes]
        return ["upgrades:", *found] if self.words else ["everything is the newest there is", *found]


@dataclass
class Done:
    """What an upgrade has come to."""

    upgraded: list[str] = field(default_factory=list)
    put_back: list[str] = field(default_factory=list)


def short(digest: str) -> str:
    """Enough of a digest to tell it from others."""
    return digest.removeprefix("sha256:")[:12]


# --- the plan ---------------------------------------------------------------------------------------------


def intend(settings: Settings, staged: Path) -> Plan:
    """What there is newer than what runs. Raises Refused or PiError; fetches nothing and changes nothing."""
    there = engine.running(settings.project)
    wanted = engine.wanted(settings.project, sorted(staged.glob("*.yml"), key=_last))
    if missing := sorted(set(wanted) - set(there)):
        raise Refused(f"{', '.join(missing)}: has no container yet; run site.yml first")
    if away := [f"{name} is {there[name].state}" for name in sorted(wanted) if not there[name].well]:
        raise Refused(f"{'; '.join(away)}: what is not well now could not be judged afterwards; mend it first")
    by_change: dict[tuple[str, str, str], list[str]] = {}
    for name, reference in sorted(wanted.items()):
        by_change.setdefault((reference, there[name].reference, there[name].image), []).append(name)
    images, notes = [], []
    for (reference, old_reference, old_image), services in by_change.items():
        if reference.startswith(OWN):
            notes += [] if reference == old_reference else [f"{', '.join(services)}: is built by site.yml"]
            continue
        try:
            digest = engine.offered(reference)
        except PiError as error:
            notes.append(f"{', '.join(services)}: stays as it is, {error}")
            continue
        if reference != old_reference or digest not in engine.digests(old_image):
            images.append(Image(tuple(services), reference, digest, old_reference, old_image))
    return Plan(tuple(packages.newer(settings.held)), tuple(images), tuple(notes))


# --- doing it ---------------------------------------------------------------------------------------------


def carry_out(settings: Settings, plan: Plan, staged: Path, say: Say) -> Done:
    """Do all of it, the engine first. What does not work is put back, and nothing after it is begun."""
    done = Done()
    work = settings.folder / "upgrade"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700, parents=True)
    if plan.packages and not _engine(settings, plan, done, say):
        return done
    for image in plan.images:
        if not _image(settings, image, staged, done, say):
            break
    return done


def _engine(settings: Settings, plan: Plan, done: Done, say: Say) -> bool:
    """Upgrade the packages; whether they work."""
    say(f"{ENGINE}: keeping what is installed")
    packages.keep(plan.packages, settings.folder / "upgrade" / ENGINE)
    before = {name: one.restarts for name, one in engine.running(settings.project).items()}
    _begin(settings, {"engine": True})
    try:
        say(f"{ENGINE}: installing {', '.join(f'{one.name} {one.new}' for one in plan.packages)}")
        packages.install(plan.packages)
        _wait(settings, tuple(before))
    except PiError as error:
        say(f"{ENGINE}: {error}")
        _put_engine_back(settings, say)
        _end(settings)
        done.put_back.append(ENGINE)
        return False
    _end(settings, {"engine": True})
    done.upgraded.append(ENGINE)
    return True


def _put_engine_back(settings: Settings, say: Say) -> None:
    say(f"{ENGINE}: putting the old packages back")
    packages.put_back(settings.folder / "upgrade" / ENGINE)
    _wait(settings, tuple(engine.running(settings.project)), watched=False)
    say(f"{ENGINE}: as it was")


def _image(settings: Settings, image: Image, staged: Path, done: Done, say: Say) -> bool:
    """Give the services another image; whether they work with it."""
    names = ", ".join(image.services)
    say(f"{names}: fetching {image.reference} ({short(image.digest)})")
    try:
        fetched = engine.pull(image.reference, image.digest)
    except PiError as error:
        # Nothing was touched yet.
        say(f"{names}: {error}")
        done.put_back.append(names)
        return False
    for service in image.services:
        engine.call(image.old_image, f"{BEFORE}:{service}")
        name = f"{service}.yml"
        files.write(settings.folder / "upgrade" / name, (settings.compose / name).read_text(encoding="utf-8"))
    _begin(settings, asdict(image))
    try:
        say(f"{names}: starting it, and watching it for {settings.watched_seconds} s")
        engine.call(fetched, image.reference)
        engine.up(settings.project, _files(settings, image, staged), image.services, settings.healthy_seconds)
        _wait(settings, image.services)
    except PiError as error:
        said = {one: engine.last_words(container) for one, container in _containers(settings, image).items()}
        say(f"{names}: {error}")
        for service, words in said.items():
            say(f"{service} said:\n{words}")
        _put_image_back(settings, asdict(image), say)
        _end(settings)
        done.put_back.append(names)
        return False
    for service in image.services:
        name = f"{service}.yml"
        files.write(settings.compose / name, (staged / name).read_text(encoding="utf-8"), 0o644)
    _end(settings, asdict(image))
    say(f"{names}: well")
    done.upgraded.append(names)
    return True


def _put_image_back(settings: Settings, image: Mapping[str, Any], say: Say) -> None:
    """Make the services' containers from their old image and files again."""
    names = ", ".join(image["services"])
    say(f"{names}: putting {image['old_reference']} back ({short(image['old_image'])})")
    engine.call(image["old_image"], image["old_reference"])
    for service in image["services"]:
        name = f"{service}.yml"
        kept = (settings.folder / "upgrade" / name).read_text(encoding="utf-8")
        files.write(settings.compose / name, kept, 0o644)
    live = sorted(settings.compose.glob("*.yml"), key=_last)
    engine.up(settings.project, live, image["services"], settings.healthy_seconds)
    say(f"{names}: as it was")


def _wait(settings: Settings, services: tuple[str, ...], *, watched: bool = True) -> None:
    """Until the services are well, and then for a while in which they have to stay so. Raises Unhealthy."""
    deadline = time.monotonic() + settings.healthy_seconds
    while problems := _unwell(settings, services):
        if time.monotonic() >= deadline:
            raise Unhealthy(f"not well after {settings.healthy_seconds} s: {'; '.join(problems)}")
        time.sleep(PAUSE)
    known = {name: one.restarts for name, one in engine.running(settings.project).items() if name in services}
    deadline = time.monotonic() + (settings.watched_seconds if watched else 0)
    while time.monotonic() < deadline:
        time.sleep(PAUSE)
        there = engine.running(settings.project)
        for name, restarts in known.items():
            if name not in there or not there[name].well or there[name].restarts != restarts:
                raise Unhealthy(f"{name} was well, and did not stay so")


def _unwell(settings: Settings, services: tuple[str, ...]) -> list[str]:
    try:
        there = engine.running(settings.project)
    except PiError as error:
        return [str(error)]
    return [
        f"{name} is {there[name].state if name in there else 'gone'}"
        for name in services
        if name not in there or not there[name].well
    ]


def _files(settings: Settings, image: Image, staged: Path) -> list[Path]:
    """The Compose files with those of the image's services as they shall be, and all others as they are."""
    live = sorted(settings.compose.glob("*.yml"), key=_last)
    return [staged / path.name if path.stem in image.services else path for path in live]


def _containers(settings: Settings, image: Image) -> dict[str, str]:
    try:
        there = engine.running(settings.project)
    except PiError:
        return {}
    return {name: there[name].container for name in image.services if name in there}


def _last(path: Path) -> tuple[bool, Path]:
    """What follows from the catalog as a whole comes after the services' own files."""
    return path.name == OVERRIDES, path


# --- what is written down ---------------------------------------------------------------------------------


def _journal(settings: Settings) -> Path:
    return settings.folder / "upgrade.json"


def _begin(settings: Settings, step: Mapping[str, Any]) -> None:
    known = files.read_json(_journal(settings))
    files.write_json(_journal(settings), {"done": known.get("done", []), "at": step})


def _end(settings: Settings, *steps: Mapping[str, Any]) -> None:
    """What was under way works (`steps`), or was put back."""
    known = files.read_json(_journal(settings))
    files.write_json(_journal(settings), {"done": [*known.get("done", []), *steps]})


def fresh(settings: Settings) -> None:
    """Forget the last upgrade: a new one begins."""
    _journal(settings).unlink(missing_ok=True)


def unfinished(settings: Settings) -> bool:
    """Whether one was cut off."""
    return "at" in files.read_json(_journal(settings))


def undo(settings: Settings, say: Say, *, all_of_it: bool) -> list[str]:
    """Put back what was under way when it was cut off, or the whole last upgrade. What was put back."""
    known = files.read_json(_journal(settings))
    steps = [known["at"]] if "at" in known else []
    steps += list(reversed(known.get("done", []))) if all_of_it else []
    if not steps:
        raise Refused("there is no upgrade to put back")
    told = []
    for step in steps:
        if "engine" in step:
            _put_engine_back(settings, say)
            told.append(ENGINE)
        else:
            _put_image_back(settings, step, say)
            told += step["services"]
    fresh(settings)
    return told
