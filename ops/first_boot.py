#!/usr/bin/env python3
"""What a fresh system needs to be found by Ansible: cloud-init's files for the boot partition, from the inventory.

`first_boot.py INVENTORY HOST [--boot FOLDER] [--to FOLDER]` writes `user-data`, `network-config`, `meta-data` and a
page that says what to do with them into a folder of their own (`first-boot/HOST/`), and nothing elsewhere. With
`--boot`, the boot partition of the card or SSD, also its `cmdline.txt` and `config.txt` with what is missing in them.
Ends with 0, or 1 where something in the inventory would lead nowhere.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import ipaddress
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from declared import ROOT, CannotRead, Site

# The module above has told Python where those of the project are.
# isort: split
import variables

WANTED = [
    *("ansible_host", "ansible_port", "ansible_user", "ansible_ssh_private_key_file", "base_hostname"),
    *("first_boot_keys", "first_boot_network", "ssh_port_before"),
]
# Whose public halves are taken where the inventory names none.
USUAL_KEYS = ("id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa")
# The firmware of a Pi hides memory from the control groups; these words bring it back.
KERNEL_WORDS = ("cgroup_enable=memory", "cgroup_memory=1")
HIDES_MEMORY = "cgroup_disable=memory"
CONFIG_BEGIN, CONFIG_END = "# pi-commerce: begin", "# pi-commerce: end"
# USB, then the card, then from the beginning: read from the right.
BOOT_ORDER = "0xf14"
# There while the kernel's line was changed and is not yet that of the running kernel.
MARK = "/run/pi-commerce-first-boot"
# On the machine itself, for whoever has not merged it into cmdline.txt. Newer Ubuntus boot from current/.
KERNEL_LINE = f"""\
for line in /boot/firmware/current/cmdline.txt /boot/firmware/cmdline.txt /boot/cmdline.txt; do
  [ -f "$line" ] || continue
  if ! grep -qw {KERNEL_WORDS[0]} "$line"; then
    sed -i '1 s/$/ {" ".join(KERNEL_WORDS)}/' "$line" && touch {MARK}
  fi
  break
done
"""
# Raspberry Pi OS has the server, switched off; Ubuntu starts it by its socket.
SSH_SERVER = "systemctl --quiet is-enabled ssh.socket || systemctl enable --now ssh"
PAGE = "FIRST-BOOT.txt"
HEADER = "Written by `make first-boot`: change the inventory, and write it again."


@dataclass(frozen=True)
class Machine:
    """A machine of the inventory, as far as its first boot goes; an empty network is one by DHCP."""

    name: str
    hostname: str
    user: str
    host: str
    keys: tuple[str, ...]
    network: Mapping[str, Any]

    @classmethod
    def of(cls, site: Site, name: str) -> Machine:
        """Read it. Raises CannotRead, which names everything that is wrong."""
        if name not in site.hosts():
            raise CannotRead(f"HOST={name}: is no machine of {site.inventory}; there are: {', '.join(site.hosts())}")
        known = site.variables(name, WANTED)
        hostname = known.get("base_hostname", name)
        if wrong := [*problems({**known, "base_hostname": hostname})]:
            raise CannotRead("\n  ".join([f"the inventory {site.inventory} is refused, nothing was done:", *wrong]))
        return cls(
            name,
            hostname,
            known["ansible_user"],
            known.get("ansible_host", name),
            public_keys(known["first_boot_keys"], known.get("ansible_ssh_private_key_file", "")),
            known["first_boot_network"],
        )


def problems(known: Mapping[str, Any]) -> Iterator[str]:
    """What in these variables would lead to a machine that nobody can come into."""
    specs = variables.role_specs(ROOT / "roles")
    asked = [
        {**spec, "options": {name: option for name, option in spec["options"].items() if name in WANTED}}
        for spec in specs
    ]
    values = {name: known[name] for spec in asked for name in spec["options"] if name in known}
    wrong = variables.judge(asked, values, values, [], datetime.datetime.now(datetime.UTC))
    yield from (f"{finding.check}: {finding.found}; {finding.remedy}" for finding in wrong)
    if wrong:
        # What follows takes them as they ought to be.
        return
    user = str(known.get("ansible_user") or "")
    if user == "root" or not re.fullmatch(variables.LOGIN, user):
        yield f"ansible_user: is {user!r}, must be a name of your own such as pi; root never logs in"
    if int(known["ssh_port_before"]) != 22:
        yield f"ssh_port_before: is {known['ssh_port_before']}, and a fresh system listens on 22; set it to 22"
    address = known["first_boot_network"].get("address", "").partition("/")[0]
    host = known.get("ansible_host", "")
    if address and variables.is_address(host) and ipaddress.ip_address(host) != ipaddress.ip_address(address):
        yield f"first_boot_network: its address is {address}, but ansible_host is {host}; correct one of them"


def public_keys(chosen: list[str], private: str) -> tuple[str, ...]:
    """The keys that may log in: those chosen, else the public half of `private`, else of this user's own.

    Raises CannotRead.
    """
    if chosen:
        return tuple(key.strip() for key in chosen)
    named = [private] if private else [f"~/.ssh/{name}" for name in USUAL_KEYS]
    paths = [Path(f"{path}.pub").expanduser() for path in named]
    for path in paths:
        if path.is_file():
            key = path.read_text(encoding="utf-8").strip()
            if not variables.is_public_key(key):
                raise CannotRead(
                    f"{path}: holds no public key; write it anew with ssh-keygen -y -f {path.with_suffix('')}"
                )
            return (key,)
    looked = ", ".join(map(str, paths))
    raise CannotRead(f"no public key: {looked}: none is there; run ssh-keygen -t ed25519, or set first_boot_keys")


# --- cloud-init's files -----------------------------------------------------------------------------------


def user_data(machine: Machine) -> str:
    """Name, one account that takes keys alone, an SSH server that does not ask for passwords, and the kernel's line."""
    document = {
        "hostname": machine.hostname,
        "users": [
            {
                "name": machine.user,
                "groups": ["adm", "sudo"],
                "shell": "/bin/bash",
                "lock_passwd": True,
                # As a list, Debian 12's cloud-init would refuse it.
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": list(machine.keys),
            }
        ],
        "disable_root": True,
        "ssh_pwauth": False,
        "runcmd": [SSH_SERVER, KERNEL_LINE],
        "power_state": {"mode": "reboot", "condition": f"test -e {MARK}"},
    }
    return f"#cloud-config\n# {HEADER}\n{dumped(document)}"


def network_config(machine: Machine) -> str:
    """The one cable, whatever the system calls its socket (eth0, end0)."""
    socket: dict[str, Any] = {"match": {"name": "e*"}}
    if machine.network:
        interface = ipaddress.ip_interface(machine.network["address"])
        everywhere = "0.0.0.0/0" if interface.version == 4 else "::/0"
        socket |= {
            "dhcp4": False,
            "addresses": [str(interface)],
            "routes": [{"to": everywhere, "via": machine.network["gateway"]}],
            "nameservers": {"addresses": list(machine.network["name_servers"])},
        }
    else:
        socket["dhcp4"] = True
    return f"# {HEADER}\n{dumped({'network': {'version': 2, 'ethernets': {'wired': socket}}})}"


def meta_data(machine: Machine, *others: str) -> str:
    """Who it is: cloud-init does its work once for each id, so other files are another machine to it."""
    digest = hashlib.sha256("\0".join(others).encode()).hexdigest()[:12]
    document = {
        "dsmode": "local",
        "instance-id": f"{machine.hostname}-{digest}",
        "local-hostname": machine.hostname,
    }
    return f"# {HEADER}\n{dumped(document)}"


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as people would."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def dumped(document: Any) -> str:
    """YAML in the order it was written in; a key stays on one line."""
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000)
    return str(text)


# --- the boot partition -----------------------------------------------------------------------------------


def merged(boot: Path) -> dict[str, str]:
    """`cmdline.txt` and `config.txt` of a boot partition with what is missing. Raises CannotRead."""
    config, prefix = boot / "config.txt", ""
    if not config.is_file():
        raise CannotRead(f"{boot}: has no config.txt: BOOT is the folder where the small FAT partition is mounted")
    if not (boot / "user-data").is_file():
        raise CannotRead(
            f"{boot}: has no user-data: this system does not know cloud-init, and would not read what is written here; "
            "start it with a password, then run make bootstrap"
        )
    text = config.read_text(encoding="utf-8")
    for found in re.findall(r"^os_prefix=(\S+)$", text, flags=re.MULTILINE):
        prefix = found if (boot / found / "cmdline.txt").is_file() else prefix
    line = boot / prefix / "cmdline.txt"
    if not line.is_file():
        raise CannotRead(f"{line}: is not there; write the system to the card or SSD anew")
    return {
        f"{prefix}cmdline.txt": merged_line(line.read_text(encoding="utf-8"), line),
        "config.txt": merged_config(text),
    }


def merged_line(text: str, path: Path) -> str:
    """The kernel's one line with the words for the memory cgroup. Raises CannotRead."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) != 1 or "root=" not in lines[0]:
        raise CannotRead(f"{path}: has to be one line with root= in it, and has {len(lines)} lines; correct it first")
    words = [word for word in lines[0].split() if word != HIDES_MEMORY]
    return " ".join([*words, *(word for word in KERNEL_WORDS if word not in words)]) + "\n"


def merged_config(text: str) -> str:
    """The firmware's settings as they are, behind them a marked block where they do not ask for a 64-bit kernel."""
    own = re.compile(rf"\n*{CONFIG_BEGIN}\n.*?{CONFIG_END}\n", flags=re.DOTALL)
    rest = own.sub("", text)
    if re.findall(r"^arm_64bit=(\d)", rest, flags=re.MULTILINE)[-1:] == ["1"]:
        return rest
    return f"{rest.rstrip()}\n\n{CONFIG_BEGIN}\n[all]\narm_64bit=1\n{CONFIG_END}\n"


# --- all of it --------------------------------------------------------------------------------------------


def files(machine: Machine, boot: Path | None) -> dict[str, str]:
    """Everything that is written, by path. Raises CannotRead."""
    user, network = user_data(machine), network_config(machine)
    found = {"user-data": user, "network-config": network, "meta-data": meta_data(machine, user, network)}
    if boot:
        found |= merged(boot)
    return found


def page(machine: Machine, folder: Path, boot: Path | None) -> str:
    """What to do with the files."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "ops"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - plain text
    )
    facts = {
        "machine": machine,
        "folder": shlex.quote(str(folder)),
        "boot": shlex.quote(str(boot)) if boot else "",
        "words": " ".join(KERNEL_WORDS),
        "boot_order": BOOT_ORDER,
    }
    return environment.get_template("first_boot.txt.j2").render(facts)


def write(folder: Path, found: Mapping[str, str]) -> None:
    """Have these files and no others in the folder: a kernel's line of another card would not boot.

    Raises CannotRead for a folder that was made for something else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / PAGE).is_file():
        raise CannotRead(f"{folder}: holds other files; name a folder of its own")
    for old in sorted(folder.rglob("*"), reverse=True):
        if old.is_dir():
            old.rmdir()
        else:
            old.unlink()
    for path, text in found.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def main() -> int:
    """Entry point; the exit code."""
    parser = argparse.ArgumentParser(description="Write what a machine's boot partition needs for its first boot.")
    parser.add_argument("inventory")
    parser.add_argument("host")
    parser.add_argument("--boot", type=Path, help="where the boot partition of the card or SSD is mounted")
    parser.add_argument("--to", type=Path, help="a folder of its own")
    given = parser.parse_args()
    folder = given.to or ROOT / "first-boot" / given.host
    try:
        # There may be no vault yet, and nothing here is secret.
        machine = Machine.of(Site(given.inventory, ask=False), given.host)
        found = files(machine, given.boot)
        told = page(machine, folder, given.boot)
        write(folder, {**found, PAGE: told})
    except (CannotRead, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
