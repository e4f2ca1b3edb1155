"""Values and Ansible's documentation markup as Markdown that fits into a table cell."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import jinja2
import yaml

TEMPLATES = Path(__file__).resolve().parent / "templates"
# Longer mappings and lists are written one entry a line.
LONGEST_CELL = 60


def code(text: object) -> str:
    """The text as code; a cell border inside it is escaped, as tables ask for it."""
    return "`" + str(text).replace("|", "\\|") + "`"


def codes(texts: list[str]) -> str:
    """Several texts as code, in their order, or a dash."""
    return ", ".join(map(code, texts)) or "-"


def prose(text: str) -> str:
    """Ansible's markup (`C(...)`) as Markdown, on one line."""
    return re.sub(r"\b[CVO]\(([^)]*)\)", r"`\1`", " ".join(text.split())).replace("|", "\\|")


def value(thing: Any) -> str:
    """A variable's value as YAML writes it."""
    flow = _flow(thing)
    if len(flow) <= LONGEST_CELL or not isinstance(thing, dict | list):
        return code(flow)
    if isinstance(thing, dict):
        return "<br>".join(code(f"{key}: {_flow(item)}") for key, item in thing.items())
    return "<br>".join(code(f"- {_flow(item)}") for item in thing)


def _flow(thing: Any) -> str:
    if thing == "":
        return '""'
    if isinstance(thing, str):
        return " ".join(thing.split())
    text: str = yaml.safe_dump(thing, default_flow_style=True, sort_keys=False, width=10_000)
    return text.removesuffix("...\n").strip()


def render(template: str, **variables: Any) -> str:
    """One of `templates/` with `variables`; its name there is the name of the page without `.j2`."""
    environment = jinja2.Environment(  # noqa: S701 - Markdown of our own, nothing here is HTML from outside
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code, "codes": codes, "prose": prose, "value": value, "shell": shlex.join}
    return environment.get_template(f"{template}.j2").render(variables)
