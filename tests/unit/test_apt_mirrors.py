"""Mirrors are found in both formats of apt sources, and written down for another suite."""

from __future__ import annotations

from apt_mirrors import Mirrors, find_mirrors

DEB822 = """\
# The machine's own Debian.
Types: deb deb-src
URIs: http://mirror.test/debian/
Suites: bookworm
  bookworm-updates
# not the last line of the stanza
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: https://mirror.test/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: https://other.test/apt
Suites: nodistro
Components: main
"""
ONE_LINE = """\
# deb http://commented.test/debian bookworm main
deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb-src http://source.test/debian bookworm main
deb [arch=amd64 signed-by=/etc/apt/k.gpg] http://mirror.test/debian bookworm main contrib # ours
deb http://mirror.test/debian-security bookworm-security main
"""
OURS = Mirrors("http://mirror.test/debian", "https://mirror.test/debian-security")


def test_mirrors_are_read_from_both_formats() -> None:
    assert find_mirrors({"debian.sources": DEB822}, "bookworm") == OURS
    one_line = find_mirrors({"sources.list": ONE_LINE}, "bookworm")
    assert one_line == Mirrors("http://mirror.test/debian", "http://mirror.test/debian-security")


def test_sources_of_another_suite_or_switched_off_do_not_count() -> None:
    assert find_mirrors({"debian.sources": DEB822}, "trixie") == Mirrors()
    off = DEB822.replace("Types: deb deb-src", "Enabled: no\nTypes: deb deb-src")
    assert find_mirrors({"debian.sources": off}, "bookworm") == Mirrors()
    assert find_mirrors({"debian.sources": DEB822.replace("deb deb-src", "deb-src")}, "bookworm") == Mirrors()


def test_an_image_gets_the_same_mirrors_for_its_own_suite() -> None:
    text = OURS.sources("trixie")
    assert find_mirrors({"debian.sources": text}, "trixie") == OURS
    assert "Suites: trixie trixie-updates\n" in text
    assert "bookworm" not in text
    assert Mirrors().sources("trixie") == ""
