"""The pure parts of the image builder: what an image is made from and in which order."""

from __future__ import annotations

from pathlib import Path

import docker
import images
import pytest
import yaml
from apt_mirrors import Mirrors
from images import Image, ImageError, Tree


def test_digest_changes_with_every_input() -> None:
    tree: Tree = {"Dockerfile": (0o644, b"FROM x"), "a": (0o644, b"b")}
    variants: list[tuple[Tree, tuple[str, ...]]] = [
        (tree, ("base", "amd64")),
        ({**tree, "a": (0o644, b"c")}, ("base", "amd64")),
        ({**tree, "a": (0o755, b"b")}, ("base", "amd64")),
        ({"Dockerfile": tree["Dockerfile"], "b": tree["a"]}, ("base", "amd64")),
        (tree, ("other base", "amd64")),
        (tree, ("base", "arm64")),
    ]
    assert len({images.inputs_digest(files, *context) for files, context in variants}) == len(variants)
    assert images.inputs_digest(dict(reversed(tree.items())), "base", "amd64") == images.inputs_digest(
        tree, "base", "amd64"
    )


def folder(root: Path, name: str, **files: str) -> Path:
    for file, text in {"Dockerfile": "FROM x\n", **files}.items():
        path = root / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_change_reaches_the_images_above_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("base", "upper", "alone"):
        folder(tmp_path, name)
    monkeypatch.setattr(images, "IMAGES", tmp_path)
    monkeypatch.setattr(images, "host_trust", lambda suite: {})
    table = images.load_table(
        'base: {version: "{suite}"}\nupper: {version: "1", base: base}\nalone: {version: "1"}\n',
        "trixie",
        "amd64",
    )

    def inputs() -> dict[str, str]:
        return {plan.image.name: plan.inputs for plan in images.plans(images.with_bases(table.values()))}

    before = inputs()
    assert inputs() == before
    folder(tmp_path, "base", extra="new")
    after = inputs()
    assert {name for name in before if before[name] != after[name]} == {"base", "upper"}
    monkeypatch.setattr(images, "host_trust", lambda suite: {"root/ca.crt": (0o644, b"new CA")})
    assert {name for name in after if after[name] != inputs()[name]} == {"base", "upper", "alone"}


def test_a_missing_dockerfile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "IMAGES", tmp_path)
    table = images.load_table('base: {version: "1"}', "trixie", "amd64")
    with pytest.raises(ImageError, match=r"image base: .*Dockerfile is missing"):
        images.plans(table.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a: {version: "1", base: b}\nb: {version: "1"}', "a: its base 'b' must stand above"),
        ('a: {version: "1", base: a}', "a: its base 'a' must stand above"),
        ('a: {version: "1", tools: b}\nb: {version: "1"}', "a: its tools 'b' must stand above"),
        ("a: {version: 1.20}", "a: version must be a quoted text"),
        ('a: {version: "1", colour: red}', "a: unknown key colour"),
    ],
)
def test_a_bad_table_is_refused(text: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        images.load_table(text, "trixie", "amd64")


def test_only_images_named_after_the_suite_follow_it() -> None:
    text = """
        base: {version: "{suite}"}
        pi: {version: "{suite}-{arch}", base: base}
        pg: {version: "17", base: base}
    """
    table = images.load_table(text, "bookworm", "arm64")
    assert table["pi"].version == "bookworm-arm64"
    order = images.with_bases([table["pg"], table["pi"]])
    assert [(image.name, image.suite) for image in order] == [
        ("base", "trixie"),
        ("pg", "trixie"),
        ("base", "bookworm"),
        ("pi", "bookworm"),
    ]


def test_tools_are_of_the_building_computers_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'base: {version: "{suite}"}\nn8n: {version: "2", base: base, tools: base}'
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    foreign = images.load_table(text, "trixie", "arm64")["n8n"]
    assert [image.tag for image in images.with_bases([foreign])] == [
        "pi-commerce/base:trixie-arm64",
        "pi-commerce/base:trixie",
        "pi-commerce/n8n:2-arm64",
    ]
    own = images.load_table(text, "trixie", "amd64")["n8n"]
    assert own.tools == own.base


def test_an_unknown_name_lists_the_known_ones() -> None:
    table = images.load_table('a: {version: "1"}\nb: {version: "1"}', "trixie", "amd64")
    with pytest.raises(ImageError, match=r"no image c in images\.yml; there are: a, b"):
        images.chosen(table, ["c"])
    assert [image.name for image in images.chosen(table, [])] == ["a", "b"]


def test_images_of_another_architecture_have_tags_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert Image("pg", "17", None, "trixie", "arm64").tag == "pi-commerce/pg:17"
    assert Image("pg", "17", None, "trixie", "amd64").tag == "pi-commerce/pg:17-amd64"
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(ImageError, match="riscv64"):
        images.host_arch()


def test_the_last_matching_dpkg_pattern_decides() -> None:
    patterns = images.dpkg_patterns((images.IMAGES / "base" / images.DPKG_CONFIG).read_text())
    assert not images.keeps(patterns, "/usr/share/doc/bash/README")
    assert images.keeps(patterns, "/usr/share/doc/bash/copyright")
    assert not images.keeps(patterns, "/usr/share/man/man1/ls.1.gz")
    assert images.keeps(patterns, "/usr/bin/bash")


def test_bootstrap_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ImageError, match="needs root"):
        images.require_bootstrap("amd64")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImageError, match="apt-get install debootstrap"):
        images.require_bootstrap("amd64")
    program = tmp_path / "debootstrap"
    program.touch(mode=0o755)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(images, "BINFMT", tmp_path)
    images.require_bootstrap("amd64")
    with pytest.raises(ImageError, match=r"host\.sh emulation"):
        images.require_bootstrap("arm64")
    (tmp_path / "pi-commerce-aarch64").write_text("enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\n")
    images.require_bootstrap("arm64")


def test_ubuntu_is_never_bootstrapped_and_takes_no_mirror_of_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    table = images.load_table('base: {version: "{suite}"}', "noble", "amd64")
    with pytest.raises(ImageError, match=r"ubuntu:24\.04 comes from an image registry only.*PI_SUITE=trixie"):
        images.bootstrap_debian(docker.DockerClient(base_url="tcp://127.0.0.1:1", version="1.41"), table["base"])
    monkeypatch.setattr(images, "host_mirrors", lambda: Mirrors("http://mirror.test/debian"))
    sources = "root/etc/apt/sources.list.d/debian.sources"
    assert sources in images.host_trust("bookworm")
    assert sources not in images.host_trust("jammy")


def test_a_failed_build_shows_the_end_of_its_log() -> None:
    events = [{"stream": f"line {number}\n"} for number in range(100)] + [{"error": "it broke"}]
    with pytest.raises(ImageError, match=r"(?s)building pg:17 failed: it broke.*line 99") as caught:
        images.follow_build("pg:17", events)
    assert "line 10\n" not in str(caught.value)
    assert images.follow_build("pg:17", [{"stream": "x"}, {"aux": {"ID": "sha256:1"}}]) == "sha256:1"


def test_every_folder_is_in_the_table_and_every_lock_is_free_of_hosts() -> None:
    rows = yaml.safe_load((images.IMAGES / "images.yml").read_text())
    assert set(rows) == {path.name for path in images.IMAGES.iterdir() if path.is_dir()}
    assert '"resolved"' not in (images.IMAGES / "n8n" / "package-lock.json").read_text()
