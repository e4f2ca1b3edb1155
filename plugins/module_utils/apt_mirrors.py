"""Where a Debian machine gets its packages from, read from its own apt sources."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mirrors:
    """Where this machine gets Debian from."""

    main: str | None = None
    security: str | None = None

    def sources(self, suite: str) -> str:
        """The deb822 source file of an image of that suite."""
        stanzas = [(self.main, f"{suite} {suite}-updates"), (self.security, f"{suite}-security")]
        return "\n".join(
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\n"
            "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
            for uri, suites in stanzas
            if uri
        )


def apt_sources(path: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield (uri, suite) of every binary source in a `.sources` (deb822) or `.list` (one line each) file."""
    text = re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)
    if not path.endswith(".sources"):
        for line in text.splitlines():
            if match := re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)", line.strip()):
                yield match[1], match[2]
        return
    for stanza in re.split(r"\n\s*\n", text):
        unfolded = re.sub(r"\n[ \t]+", " ", stanza)
        fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*)$", unfolded, flags=re.MULTILINE))
        fields = {key.lower(): value.split() for key, value in fields.items()}
        if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"]) != ["no"]:
            for uri in fields.get("uris", []):
                yield from ((uri, suite) for suite in fields.get("suites", []))


def find_mirrors(files: Mapping[str, str], codename: str) -> Mirrors:
    """The first http(s) mirrors of the host's own suite and of its security updates."""
    entries = [(uri.rstrip("/"), suite) for path, text in files.items() for uri, suite in apt_sources(path, text)]
    entries = [(uri, suite) for uri, suite in entries if uri.startswith(("http://", "https://"))]
    main = next((uri for uri, suite in entries if suite == codename), None)
    security = next((uri for uri, suite in entries if suite in (f"{codename}-security", f"{codename}/updates")), None)
    return Mirrors(main, security if main else None)


def host_mirrors(etc: Path = Path("/etc")) -> Mirrors:
    """This machine's mirrors when it runs Debian, else none (then the tools' own defaults apply)."""
    release = platform.freedesktop_os_release() if (etc / "os-release").exists() else {}
    # A testing release has no code name.
    if release.get("ID") != "debian" or "VERSION_CODENAME" not in release:
        return Mirrors()
    paths = [etc / "apt/sources.list", *sorted((etc / "apt/sources.list.d").glob("*"))]
    files = {str(p): p.read_text() for p in paths if p.suffix in (".list", ".sources") and p.is_file()}
    return find_mirrors(files, release["VERSION_CODENAME"])
