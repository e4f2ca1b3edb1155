"""The bench reads Lynis's report to its end, and says what is met and what is not."""

from __future__ import annotations

import pytest
from bench import lynis

REPORT = """\
# Lynis Report
report_version_major=1
lynis_version=3.0.8
warning[]=PKGS-7392|Found one or more vulnerable packages.|-|-|
suggestion[]=SSH-7408|Consider hardening SSH configuration|AllowTcpForwarding (set YES to NO)|-|
suggestion[]=BOOT-5122|Set a password on GRUB|-|-|
lynis_tests_done=262
hardening_index=83
tests_executed=A|B
"""


def test_report_is_read() -> None:
    found = lynis.read(REPORT)
    assert (found.index, found.tests, found.version) == (83, 262, "3.0.8")
    assert found.warnings == ["PKGS-7392 Found one or more vulnerable packages."]
    assert found.suggestions == ["SSH-7408 Consider hardening SSH configuration", "BOOT-5122 Set a password on GRUB"]


@pytest.mark.parametrize("missing", ["hardening_index", "lynis_tests_done", "lynis_version"])
def test_audit_that_was_cut_off_is_none(missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        lynis.read("\n".join(line for line in REPORT.splitlines() if not line.startswith(missing)))


@pytest.mark.parametrize(
    ("before", "after", "verdicts"), [(58, 83, "met met"), (64, 83, "met MISSED"), (40, 79, "MISSED met")]
)
def test_goals_are_judged(before: int, after: int, verdicts: str) -> None:
    one, two = (lynis.Audit(index, 250, "3.0.8", [], []) for index in (before, after))
    shown = "\n".join(lynis.table(one, two))
    assert (
        " ".join(line.split(": ")[2].split()[0] for line in shown.splitlines() if line.startswith("goal")) == verdicts
    )
    assert shown.count("250 tests") == 2
    assert f"({after - before:+d})" in shown
