"""Which secrets are good enough, that those we make are, and what is derived from them."""

from __future__ import annotations

import plays
import pytest
import secrets_policy
from passlib.hash import bcrypt

FILTERS = plays.filters("secret_texts")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("Short-1", "7 characters"),
        ("password1234", "well-known"),
        ("P4ssw0rd!2026", "well-known"),
        ("__Raspberry99__", "well-known"),
        ("n8n_owner_password", "own name"),
        ("abcdefghijkl", "one kind"),
        ("aB1aB1aB1aB1aB1a", "repeats"),
        ("good-Enough-123\nline", "line break"),
        ("passwordpassword", "well-known"),
        ("Postgres-Admin-2026", "well-known"),
        ("n8n-password-n8n", "well-known"),
        ("OwnerAdmin1234", "own name"),
        ("1234567890123456", "counts on"),
        ("abcdefghijklmnop", "counts on"),
        ("aB3xZ9aB3xZ9", "repeats itself"),
    ],
)
def test_weak_value_is_refused_without_being_repeated(value: str, problem: str) -> None:
    answer = secrets_policy.check("n8n_owner_password", value)
    assert answer is not None
    assert problem in answer
    assert value not in answer


@pytest.mark.parametrize("value", ["correct horse battery staple", "Tr0ub4dor&3-and-more", "x7Kq-92mVn-pL3"])
def test_good_value_passes(value: str) -> None:
    assert secrets_policy.check("n8n_owner_password", value) is None


def test_generated_values_pass_their_own_policy_and_differ() -> None:
    made = [secrets_policy.generate(24) for _ in range(500)]
    assert len(set(made)) == 500
    for value in made:
        assert secrets_policy.check("some_secret", value) is None
        assert value[0].isalpha()
        assert any(character.isdigit() for character in value)
        assert any(character.isupper() for character in value)


def test_too_little_entropy_is_refused() -> None:
    with pytest.raises(ValueError, match="128 bits"):
        secrets_policy.generate(15)


def test_bcrypt_hash_is_the_same_every_time_and_opens_with_the_password_alone() -> None:
    one = FILTERS["bcrypt_hash"]("Owner-password-1", "key")
    assert one == FILTERS["bcrypt_hash"]("Owner-password-1", "key")
    assert one != FILTERS["bcrypt_hash"]("Owner-password-1", "another key")
    assert one.startswith("$2b$10$")
    assert len(one) == 60
    assert bcrypt.verify("Owner-password-1", one)
    assert not bcrypt.verify("Owner-password-2", one)


def test_digest_changes_with_each_value_and_the_key() -> None:
    base = FILTERS["digest"](["a", "b"], "key")
    others = [FILTERS["digest"](*given) for given in ((["a", "c"], "key"), (["ab"], "key"), (["a", "b"], "other"))]
    assert len({base, *others}) == 4
