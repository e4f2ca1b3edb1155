"""SCRAM verifiers are those PostgreSQL makes."""

from __future__ import annotations

import base64

import pytest
from scram import make_verifier, matches

# RFC 7677, section 3: user "user", password "pencil".
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
PENCIL = (
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


def test_verifier_is_the_one_of_the_standard() -> None:
    assert make_verifier("pencil", SALT, 4096) == PENCIL


def test_salt_is_random() -> None:
    assert make_verifier("pencil") != make_verifier("pencil")


def test_only_the_right_password_matches() -> None:
    stored = make_verifier("it's \\ me", iterations=5000)
    assert matches("it's \\ me", stored)
    assert not matches("it's \\ you", stored)


@pytest.mark.parametrize("stored", [None, "", "md5" + "0" * 32, "SCRAM-SHA-256$4096:AA==", PENCIL + "x"])
def test_another_scheme_never_matches(stored: str | None) -> None:
    assert not matches("pencil", stored)


@pytest.mark.parametrize("password", ["", "ключ", "tab\t", "café"])
def test_what_clients_would_normalise_differently_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        make_verifier(password)
