"""Generated pages say what the source says; the source describes itself wholly."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import generate
import plays
import pytest
from generator.source import DocsError

# Everything that pages are made from, and the pages.
SOURCE = [
    "docs",
    "files",
    "inventory",
    "molecule/images/virtual-pi",
    "ops",
    "playbooks",
    "roles",
    "templates",
    "site.yml",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source that tests may change for a while."""
    root = tmp_path_factory.mktemp("project")
    for name in SOURCE:
        here, there = plays.ROOT / name, root / name
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(here, there, symlinks=True) if here.is_dir() else shutil.copy(here, there)
    return root


@contextmanager
def changed(path: Path, old: str, new: str) -> Iterator[None]:
    """The file with the one place where `old` stands changed."""
    text = path.read_text()
    assert text.count(old) == 1, f"{path} holds {old!r} {text.count(old)} times"
    path.write_text(text.replace(old, new))
    try:
        yield
    finally:
        path.write_text(text)


def test_every_generated_page_is_up_to_date() -> None:
    outdated = list(generate.outdated(plays.ROOT))
    assert not outdated, f"run `make docs` and commit what it writes; outdated: {', '.join(outdated)}"


def test_every_page_says_in_its_first_line_that_it_is_written_by_a_command() -> None:
    for path, text in generate.pages(plays.ROOT).items():
        assert text.startswith("<!-- Written by `make docs` from "), path
        assert not any(line.endswith(" ") for line in text.splitlines()), path


# The file that is changed, what stands there, what it becomes, the pages that have to follow.
CHANGES = [
    (
        "roles/backup/meta/argument_specs.yml",
        "Minute at which everything is saved.",
        "Nights.",
        ["docs/variables.md", "roles/backup/README.md"],
    ),
    (
        "roles/ssh/meta/argument_specs.yml",
        "Hardens the SSH server",
        "Keeps out",
        ["docs/playbooks.md", "roles/ssh/README.md"],
    ),
    ("templates/services/redis.yml.j2", "default('256M')", "default('300M')", ["docs/services.md"]),
    ("templates/services/n8n.yml.j2", "/webhook/, port", "/hook/, port", ["docs/services.md"]),
    (
        "inventory/group_vars/all.yml",
        "n8n_heap_mib: 512",
        "n8n_heap_mib: 600",
        ["docs/variables.md", "roles/catalog/README.md"],
    ),
    (
        "inventory/production/group_vars/all/images.yml",
        "n8n:2.41.1",
        "n8n:2.42.0",
        ["docs/services.md", "docs/variables.md", "roles/catalog/README.md"],
    ),
    ("site.yml", "Watch the services", "Observe", ["docs/playbooks.md"]),
    ("roles/docker/tasks/engine.yml", "path: daemon.json", "path: engine.json", ["roles/docker/README.md"]),
    ("roles/docker/tasks/uninstall.yml", "The engine goes", "It goes", ["roles/docker/README.md"]),
    ("docs/decisions/0003-memory.md", "# 0003: Memory", "# 0003: All memory", ["docs/decisions/README.md"]),
    ("docs/services.md", "# Services\n", "# Our services\n", ["docs/services.md"]),
]


@pytest.mark.parametrize(("file", "old", "new", "pages"), CHANGES, ids=[f"{c[0]}-{c[2]}" for c in CHANGES])
def test_a_change_in_the_source_makes_its_pages_outdated(
    project: Path, file: str, old: str, new: str, pages: list[str]
) -> None:
    with changed(project / file, old, new):
        assert sorted(generate.outdated(project)) == pages


def test_writing_brings_outdated_and_missing_pages_up_to_date(project: Path) -> None:
    (project / "roles/ssh/README.md").unlink()
    (project / "docs/services.md").write_text("# Services, by hand\n")
    assert sorted(generate.write(project)) == ["docs/services.md", "roles/ssh/README.md"]
    assert generate.write(project) == []


# The file that is changed, what stands there, what it becomes, what the refusal says.
REFUSED = [
    (
        "roles/backup/meta/argument_specs.yml",
        "description: Minute at which everything is saved.",
        'description: ""',
        r"roles/backup/meta/argument_specs\.yml: backup_minute has no description",
    ),
    (
        "roles/base/meta/argument_specs.yml",
        "            description: Login name.\n",
        "",
        r"roles/base/.*: base_users\[\]\.name has no description",
    ),
    (
        "roles/ssh/meta/argument_specs.yml",
        "short_description: Hardens the SSH server",
        'short_description: ""',
        r"roles/ssh/.*: short_description is missing",
    ),
    ("roles/ssh/meta/argument_specs.yml", "argument_specs:", "specs:", r"roles/ssh/.*: 'argument_specs' is missing"),
    ("playbooks/network.yml", "    - role: ssh\n", "    - role: base\n", "no playbook uses role ssh"),
    ("playbooks/network.yml", "role: ssh", "role: sssh", r"playbooks/network\.yml: there is no role sssh"),
    (
        "roles/ssh/defaults/main.yml",
        "ssh_max_auth_tries",
        "ssh_tries",
        r"roles/ssh/defaults/main\.yml: ssh_tries.* is not specified",
    ),
    (
        "roles/ssh/meta/argument_specs.yml",
        "default: 3",
        "default: 5",
        r"roles/ssh/.*: ssh_max_auth_tries has the default 5, but defaults/main\.yml says 3",
    ),
    (
        "roles/ssh/meta/argument_specs.yml",
        "default: 3",
        "choices: [4]",
        r"roles/ssh/.*: ssh_max_auth_tries must have either a default or required",
    ),
    (
        "roles/ssh/templates/sshd.conf.j2",
        "{{ ssh_max_auth_tries }}",
        "4",
        r"roles/ssh/.*: nothing reads ssh_max_auth_tries",
    ),
    (
        "templates/services/n8n.yml.j2",
        "{{ n8n_owner_email }}",
        "{{ n8n_owner }}",
        r"templates/services/n8n\.yml\.j2: .*n8n_owner",
    ),
    (
        "templates/services/redis.yml.j2",
        "read_only: true",
        "read_only: false",
        r"services\.redis\.read_only: must be true",
    ),
    (
        "roles/docker/tasks/engine.yml",
        "  file_tree:",
        '  when: "a =="\n  file_tree:',
        r"roles/docker/tasks/engine\.yml: .*mend",
    ),
    ("docs/decisions/0003-memory.md", "# 0003: ", "# ", r"docs/decisions/0003-memory\.md: its first line must be"),
    (
        "molecule/images/virtual-pi/hardware/pi4-4gb/proc/meminfo",
        "MemTotal:",
        "Total:",
        r"pi4-4gb/proc/meminfo: no line MemTotal",
    ),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"), REFUSED, ids=[f"{r[0]}-{r[1].strip()[:20]}" for r in REFUSED]
)
def test_a_source_that_does_not_describe_itself_is_refused(
    project: Path, file: str, old: str, new: str, message: str
) -> None:
    with changed(project / file, old, new), pytest.raises(DocsError, match=message):
        generate.pages(project)
