"""A shop's own workflows and credentials instead of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Ask = Callable[..., Any]


def test_own_workflow_opens_with_its_own_credential_alone(entrance: Ask, variables: dict[str, Any]) -> None:
    [credential] = variables["workflows_credentials"]
    name, value = credential["data"]["name"], credential["secrets"]["value"]
    assert entrance("/webhook/doorbell").status == 403
    assert entrance("/webhook/doorbell", headers={name: "Knock-twice"}).status == 403
    assert entrance("/webhook/doorbell", headers={name: value}) == (200, "rung")


def test_ours_are_out_of_service(entrance: Ask) -> None:
    for path in ("health-echo", "order-intake", "retired"):
        assert entrance(f"/webhook/{path}").status == 404, path
