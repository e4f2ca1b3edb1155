#!/usr/bin/env python3
"""Write every page that follows from the source (`make docs`): README of each role, docs/*.md, the decisions' index."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from generator import roles, services, source
from generator.markdown import render

ROOT = Path(__file__).resolve().parent.parent


def pages(root: Path) -> dict[str, str]:
    """Every generated page by its path below `root`. Raises DocsError where the source does not describe itself."""
    found = roles.roles(root)
    books = roles.playbooks(root, found)
    owners = {variable.name: role.name for role in found for variable in role.variables}
    read_by = roles.readers(root, found)
    catalog = services.derived(root)
    shared = source.shared_variables(root)
    tables = {
        "variables.md": render("variables.md", roles=found, read_by=read_by, shared=shared),
        "playbooks.md": render("playbooks.md", playbooks=books, roles=found),
        "services.md": render(
            "services.md",
            catalog=catalog,
            enabled=shared["services_enabled"],
            plans=services.plans(root, catalog["capacity"]),
            rows_of=services.rows_of,
        ),
        "decisions/README.md": render("decisions.md", decisions=decisions(root)),
    }
    readmes = {
        f"roles/{role.name}/README.md": render(
            "role.md",
            role=role,
            owners=owners,
            shared=shared,
            used_in=[book.name for book in books if role.name in book.roles],
        )
        for role in found
    }
    return {**{f"docs/{name}": text for name, text in tables.items()}, **readmes}


def decisions(root: Path) -> dict[str, str]:
    """File name and title of each decision. Raises DocsError for a page without `# <number>: <title>`."""
    found = {}
    for path in sorted((root / "docs/decisions").glob("[0-9]*.md")):
        title = re.match(r"# \d{4}: (.+)\n", path.read_text(encoding="utf-8"))
        if title is None:
            raise source.DocsError(f"docs/decisions/{path.name}: its first line must be '# {path.name[:4]}: <title>'")
        found[path.name] = title[1]
    return found


def outdated(root: Path) -> dict[str, str]:
    """The pages whose file differs from what the source says."""
    return {
        path: text
        for path, text in pages(root).items()
        if not (root / path).exists() or (root / path).read_text(encoding="utf-8") != text
    }


def write(root: Path) -> list[str]:
    """Write the pages that differ; return their paths."""
    texts = outdated(root)
    for path, text in texts.items():
        (root / path).write_text(text, encoding="utf-8")
    return list(texts)


if __name__ == "__main__":
    try:
        print("\n".join(f"wrote {path}" for path in write(ROOT)) or "every page is up to date")
    except source.DocsError as error:
        sys.exit(f"error: {error}")
