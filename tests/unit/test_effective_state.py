"""The table of what has to be true of a machine is complete, and is asked and judged as it says."""

from __future__ import annotations

import re
import subprocess

import effective_state
import pytest
from effective_state import HOST_WAIVERS, ROWS, Row


def row(ask: str = "true", expected: str = "", name: str = "x") -> Row:
    """A row of a test."""
    return Row("what", name, ask, expected, "why", "", "")


def test_there_are_more_than_the_best_known_role_has() -> None:
    assert len(ROWS) >= 250
    assert len([one for one in ROWS if not one.vm]) >= 250, "a container shows too little of it"


def test_each_row_is_asked_once_and_says_where_it_is_from() -> None:
    titles = [one.title for one in ROWS]
    assert len(set(titles)) == len(titles)
    for one in ROWS:
        assert one.source, one.title
        assert "NAME" not in one.ask, one.title
        assert isinstance(one.expected, str), one.title


def test_each_question_is_shell() -> None:
    for one in ROWS:
        done = subprocess.run(["bash", "-n", "-c", one.ask], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{one.title}: {done.stderr}"


def test_what_is_not_met_has_a_reason_and_what_has_a_reason_is_not_met() -> None:
    assert {one.waives for one in ROWS if one.waives} <= set(HOST_WAIVERS)
    numbers = {one.source.removeprefix("CIS ") for one in ROWS if re.match(r"CIS \d", one.source)}
    assert not numbers & set(HOST_WAIVERS), "waived, and asserted all the same"
    for number, reason in HOST_WAIVERS.items():
        assert re.fullmatch(r"\d+(\.\d+)+", number)
        assert len(reason) > 30, number


def test_answers_are_told_apart() -> None:
    """Whatever they print, and however they end."""
    rows = [
        row("echo one"),
        row("exit 3"),
        row("printf 'two\\nlines'"),
        row("echo 'a \"quote\" $HOME `id` %s'"),
        row("cat"),
        row("ls /nowhere-at-all"),
        row("if"),
    ]
    done = subprocess.run(
        ["bash", "-s"], input=effective_state.script(rows), capture_output=True, text=True, check=False
    )
    found = effective_state.answers(rows, done.stdout)
    assert found[:5] == ["one", "", "two\nlines", 'a "quote" $HOME `id` %s', ""]
    assert "/nowhere-at-all" in found[5]
    assert "syntax error" in found[6]
    assert effective_state.answers([row()], "") == ["no answer"]


@pytest.mark.parametrize(
    ("expected", "found", "met"),
    [
        ("0", "0", True),
        ("0", "00", False),
        ("", "", True),
        ("", "x", False),
        ("/[1-9]/", "7", True),
        ("/[1-9]/", "70", False),
        ("/var/cache/apt", "/var/cache/apt", True),
        ("active\nenabled", "active\nenabled", True),
    ],
)
def test_answer_is_judged(expected: str, found: str, met: bool) -> None:
    assert row(expected=expected).met(found) is met
