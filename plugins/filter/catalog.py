"""Filters that hand the catalog to Ansible."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "module_utils"))

import catalog


def catalog_load(
    texts: Mapping[str, str],
    enabled: Sequence[str],
    edition: str,
    required: Sequence[str] = (),
    derived_secrets: Sequence[str] = (),
) -> dict[str, Any]:
    """Validate the rendered catalog files and return everything that follows from them.

    ``texts`` maps service names to rendered files, ``enabled`` is services_enabled; the result has the keys
    of ``catalog.as_dict``. Raises AnsibleFilterError that lists every problem.
    """
    plain = {_text(name): _text(text) for name, text in texts.items()}
    try:
        loaded = catalog.load(plain, _texts(enabled), _text(edition), _texts(required))
    except catalog.CatalogError as error:
        raise AnsibleFilterError(f"the service catalog is refused\n{error}") from None
    return catalog.as_dict(loaded, _texts(derived_secrets))


def catalog_plan(derived: Mapping[str, Any], ram_mib: int, reserve_mib: int) -> dict[str, Any]:
    """The capacity plan of what ``catalog_load`` returned, and under ``table`` the same for a terminal."""
    plan = catalog.capacity_plan(derived["capacity"], int(ram_mib), int(reserve_mib))
    return {**plan, "table": catalog.render_plan(plan)}


def _text(text: str) -> str:
    """The text without the tags that Ansible puts on its own; they would travel into what is derived."""
    return str.__str__(text)


def _texts(values: Sequence[str]) -> Sequence[str]:
    """A list of texts without tags; a single text given instead is left for the catalog to refuse."""
    return values if isinstance(values, str) else [_text(value) for value in values]


class FilterModule:
    """The filters of this file, as Ansible looks for them."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter names and the functions behind them."""
        return {"catalog_load": catalog_load, "catalog_plan": catalog_plan}
