"""The secrets that follow from who asks the rate limiter."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

_SPEC = importlib.util.spec_from_file_location("callers", Path(__file__).parents[2] / "plugins/filter/rate_limiter.py")
assert _SPEC
assert _SPEC.loader
filters: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(filters)


def test_callers_of_the_rate_limiter_are_known_by_digests() -> None:
    names = ["redis_admin_password", "rate_limiter_token_n8n", *filters.caller_token_names(["owner", "late"])]
    secrets = dict.fromkeys((*names[:-2], "rate_limiter_token_owner", "rate_limiter_token_gone"), "a token")
    digest = hashlib.sha256(b"a token").hexdigest()
    assert filters.caller_digests(names, secrets) == {"callers": {"n8n": digest, "owner": digest}}
