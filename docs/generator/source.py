"""What the project's files say: YAML, and the variables that Jinja expressions in it read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2 import nodes

# libyaml's, where PyYAML has it: pages are read from a hundred files.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Keys whose value Ansible reads as an expression without braces.
_BARE = {"when", "that", "changed_when", "failed_when", "until"}
_JINJA = jinja2.Environment(extensions=["jinja2.ext.do"], undefined=jinja2.StrictUndefined)  # noqa: S701 - no HTML


class DocsError(Exception):
    """The source cannot be documented; the text says which file and key, and what to do."""


def load(path: Path) -> Any:
    """A YAML file, or an empty mapping where there is none."""
    if not path.exists():
        return {}
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER) or {}  # noqa: S506 - either is a SafeLoader


def shared_variables(root: Path) -> dict[str, Any]:
    """The variables of every machine (`inventory/group_vars/all.yml`) and the images of the production inventory.

    Images are named without their registry: pages do not depend on where they are pulled from.
    """
    images = load(root / "inventory/production/group_vars/all/images.yml")["images"]
    short = {name: re.sub(r"^[^/]*[.:][^/]*/", "", image) for name, image in images.items()}
    return {**load(root / "inventory/group_vars/all.yml"), "images": short}


def fill(text: str, variables: Mapping[str, Any]) -> str:
    """The text with its expressions filled in, or as it stands where that takes more than `variables`."""
    try:
        filled = _JINJA.from_string(text).render(variables)
    except jinja2.TemplateError:
        return text
    return text if "{{" in filled else filled


def read_names(path: Path) -> set[str]:
    """Names that the expressions of a YAML file, or a template, read and do not set. Raises DocsError."""
    texts = _expressions(load(path)) if path.suffix == ".yml" else iter([path.read_text(encoding="utf-8")])
    read: set[str] = set()
    for text in texts:
        try:
            names = list(_JINJA.parse(text).find_all(nodes.Name))
        except jinja2.TemplateSyntaxError as error:
            raise DocsError(f"{path}: {error.message}: mend the expression") from error
        read |= {name.name for name in names} - {name.name for name in names if name.ctx == "store"}
    return read


def _expressions(thing: Any, key: str = "") -> Iterator[str]:
    if isinstance(thing, dict):
        for name, item in thing.items():
            yield from _expressions(item, name)
    elif isinstance(thing, list):
        for item in thing:
            yield from _expressions(item, key)
    elif isinstance(thing, str):
        yield f"{{{{ {thing} }}}}" if key in _BARE else thing
