"""What must be refused: bad inputs as data. FOLDER in a value is the folder of bad files, see `refusal_files`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Plant(NamedTuple):
    """Shell scripts that make and unmake a condition, as root."""

    make: str
    unmake: str


NOTHING = Plant("", "")


@dataclass(frozen=True)
class Case:
    """One bad input, and what the message must say about it.

    `says` names what is wrong, where, and the remedy. `variables` are given on the command line, `environment` to
    the command (None takes a variable away). `edit` is (file, old text, new text) in a copy of the project.
    """

    says: tuple[str, ...]
    variables: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str | None] = field(default_factory=dict)
    edit: tuple[str, str, str] | None = None
    plant: Plant = NOTHING


# A connection that is already open would not be asked for its keys again.
OWN_CONNECTION: dict[str, str | None] = {"ANSIBLE_SSH_CONTROL_PATH_DIR": "FOLDER/connections"}
PORTS = "    networks:\n      - redis\n"
REDIS = "templates/services/redis.yml.j2"

# On the converged Pi; they plant nothing there.
INPUTS: dict[str, Case] = {
    # Variables: types, names, choices
    "wrong type": Case(
        ("docker_log_max_file", "int", "roles/docker/meta/argument_specs.yml", "correct it in the inventory"),
        {"docker_log_max_file": "many"},
    ),
    "wrong list": Case(
        ("preflight_architectures", "list", "roles/preflight/meta/argument_specs.yml"),
        {"preflight_architectures": {"arm": True}},
    ),
    "wrong choice": Case(("edition", "lean", "deluxe", "roles/catalog/meta/argument_specs.yml"), {"edition": "deluxe"}),
    "misspelt variable": Case(("backup_huor", "no role reads it", "did you mean backup_hour?"), {"backup_huor": 3}),
    "variable that cannot be rendered": Case(
        ("site_address", "cannot be rendered", "shop_domain", "correct it in the inventory"),
        {"site_address": "{{ shop_domain }}"},
    ),
    "several at once": Case(
        ("backup_minute", "from 0 to 59", "n8n_heap_mib", "from 384", "ssh_max_auth_tries", "from 1"),
        {"backup_minute": 60, "n8n_heap_mib": 128, "ssh_max_auth_tries": 0},
    ),
    # Variables: what they mean
    "cron hour": Case(("backup_hour", "is 24", "from 0 to 23", "roles/backup/meta"), {"backup_hour": 24}),
    "backup into the root folder": Case(
        ("backup_folder", "below another folder", "roles/backup"), {"backup_folder": "/"}
    ),
    "unknown fan": Case(
        ("thermal_fan", "ice_tower", "typhoon", "roles/thermal/meta/argument_specs.yml"), {"thermal_fan": "typhoon"}
    ),
    "impossible curve": Case(
        ("thermal_fan_curve", "each hotter and no slower", "roles/thermal/meta/argument_specs.yml"),
        {"thermal_fan_curve": [{"celsius": 60, "percent": 50}, {"celsius": 55, "percent": 100}]},
    ),
    "log size": Case(("docker_log_max_size", "ten", "such as 10m", "roles/docker"), {"docker_log_max_size": "ten"}),
    "e-mail address": Case(
        ("n8n_owner_email", "owner.example", "an e-mail address", "roles/catalog"), {"n8n_owner_email": "owner.example"}
    ),
    "time zone": Case(
        ("base_timezone", "Europe/Atlantis", "such as Europe/Berlin", "roles/catalog"),
        {"base_timezone": "Europe/Atlantis"},
    ),
    "site address": Case(
        ("site_address", "https://shop.example", "without https://", "roles/catalog"),
        {"site_address": "https://shop.example/"},
    ),
    "host name": Case(
        ("base_hostname", "shop_pi", "letters, digits and -", "roles/base"), {"base_hostname": "shop_pi"}
    ),
    "account without a key": Case(
        ("base_users", "anna", "public keys", "roles/base"), {"base_users": [{"name": "anna", "authorized_keys": []}]}
    ),
    "half a certificate": Case(
        ("proxy_certificate", "proxy_certificate_key is empty", "set both"),
        {"proxy_certificate": "{{ lookup('file', 'FOLDER/cert.pem') }}"},
    ),
    "certificate with another's key": Case(
        ("proxy_certificate", "does not belong to proxy_certificate_key", "set both"),
        {
            "proxy_certificate": "{{ lookup('file', 'FOLDER/cert.pem') }}",
            "proxy_certificate_key": "{{ lookup('file', 'FOLDER/other-key.pem') }}",
        },
    ),
    "expired certificate": Case(
        ("proxy_certificate", "is valid from 2020-01-01 to 2021-01-01, not today", "set both"),
        {
            "proxy_certificate": "{{ lookup('file', 'FOLDER/expired.pem') }}",
            "proxy_certificate_key": "{{ lookup('file', 'FOLDER/key.pem') }}",
        },
    ),
    "no certificate at all": Case(
        ("proxy_certificate", "no certificate in PEM form", "set both"),
        {"proxy_certificate": "garbage", "proxy_certificate_key": "garbage"},
    ),
    "image without version": Case(
        ("images", "python", "'python' is not pinned", "name:version"),
        {"images": {"postgres": "p:1", "redis": "r:1", "n8n": "n:1", "proxy": "p:1", "python": "python"}},
    ),
    "image that is no reference": Case(
        ("images", "redis", "Registry.test:5000/Valkey:8", "in lower case"),
        {
            "images": {
                "postgres": "p:1",
                "redis": "Registry.test:5000/Valkey:8",
                "n8n": "n:1",
                "proxy": "p:1",
                "python": "p:1",
            }
        },
    ),
    # The catalog and the services
    "services that do not fit": Case(
        ("do not fit", "n8n", "4096", "services_memory", "services_enabled"), {"services_memory": {"n8n": "4G"}}
    ),
    "unreadable memory limit": Case(
        ("redis.yml.j2", "limits.memory", "lots", "such as 256M"), {"services_memory": {"redis": "lots"}}
    ),
    "memory limit without unit": Case(
        ("redis.yml.j2", "limits.memory", "is the unit missing?"), {"services_memory": {"redis": "256"}}
    ),
    "unknown service": Case(
        ("services_enabled", "prosgres", "did you mean 'postgres'?"), {"services_enabled": ["prosgres", "proxy"]}
    ),
    "dependency missing": Case(
        ("n8n.yml.j2", "depends_on", "'rate_limiter' is not enabled", "add it to services_enabled"),
        {"services_enabled": ["postgres", "redis", "n8n", "proxy"]},
    ),
    "required service missing": Case(
        ("services_enabled", "'proxy' is required", "add it"),
        {"services_enabled": ["postgres", "redis", "rate_limiter", "n8n"]},
    ),
    "edition too large for the board": Case(
        ("edition", "appwrite needs 7168 MiB", "has 3793 MiB", "set edition: lean"), {"edition": "appwrite"}
    ),
    "catalog file that is no YAML": Case(
        ("redis.yml.j2", "not valid YAML", "line"), edit=(REDIS, "volumes:\n  redis_data: {}", "volumes: {redis_data")
    ),
    "catalog file that cannot be rendered": Case(
        ("templates/services/redis.yml.j2: cannot be rendered", "Syntax error", "correct that file"),
        edit=(REDIS, "{{ base_timezone }}", "{{ base_timezone"),
    ),
    "catalog file with an unknown key": Case(
        ("redis.yml.j2", "x-pi.bakup", "did you mean 'backup'?"), edit=(REDIS, "  backup:", "  bakup:")
    ),
    "two services on one port": Case(
        ("redis.yml.j2", "0.0.0.0:443/tcp", "of service 'proxy'", "choose another host port"),
        edit=(REDIS, PORTS, '    ports: ["0.0.0.0:443:6379"]\n' + PORTS),
    ),
    "catalog port out of range": Case(
        ("redis.yml.j2", "ports[0]", "from 1 to 65535"),
        edit=(REDIS, PORTS, '    ports: ["0.0.0.0:66000:6379"]\n' + PORTS),
    ),
    # Ports and addresses
    "port out of range": Case(
        ("proxy_https_port", "is 65536", "from 1 to 65535", "roles/catalog"), {"proxy_https_port": 65536}
    ),
    "port of SSH": Case(("port", "0.0.0.0:22/tcp is taken by sshd", "proxy_https_port"), {"proxy_https_port": 22}),
    "address of another machine": Case(
        ("port", "192.0.2.1:443/tcp cannot be bound", "proxy_bind_address"), {"proxy_bind_address": "192.0.2.1"}
    ),
    "two sites with one network": Case(
        ("cellar and office have addresses in common", "192.168.178.0/24", "change wireguard_peers.office.networks"),
        {
            "wireguard_peers": {
                name: {"number": number, "public_key": key * 43 + "=", "networks": ["192.168.178.0/24"]}
                for name, number, key in (("cellar", 100, "A"), ("office", 101, "E"))
            }
        },
    ),
    "rules that keep the owner out": Case(
        ("this run comes from NETWORK.1", "do not let in by SSH", "set ssh_exposure"), {"ssh_exposure": "vpn"}
    ),
    # Secrets and the vault
    "short password": Case(
        ("secrets_values", "n8n_owner_password", "8 characters", "Choose another value"),
        {"secrets_values": {"n8n_owner_password": "changeme"}},
    ),
    "default password": Case(
        ("secrets_values", "postgres_password", "well-known", "Choose another value"),
        {"secrets_values": {"postgres_password": "postgres1234"}},
    ),
    "guessable password": Case(
        ("secrets_values", "n8n_owner_password", "counts on", "Choose another value"),
        {"secrets_values": {"n8n_owner_password": "1234567890abcdef"}},
    ),
    "misspelt secret": Case(
        ("secrets_values", "n8n_owner_pasword", "no secret of this machine", "did you mean n8n_owner_password?"),
        {"secrets_values": {"n8n_owner_pasword": "A-good-enough-Value-77"}},
    ),
    "secret that only a service can give": Case(
        ("secrets.vault.yml", "lacks notify_phone_url", "which cannot be made here", "ansible-vault edit"),
        {"notify_targets": {"phone": {"url_secret": "notify_phone_url"}}},
    ),
    "wrong vault password": Case(
        ("secrets.vault.yml", "does not open this file", "ANSIBLE_VAULT_PASSWORD_FILE"),
        environment={"ANSIBLE_VAULT_PASSWORD_FILE": "FOLDER/wrong-password"},
    ),
    "no vault password": Case(
        ("secrets.vault.yml", "no vault password was given", "ANSIBLE_VAULT_PASSWORD_FILE"),
        environment={"ANSIBLE_VAULT_PASSWORD_FILE": None},
    ),
    "damaged vault file": Case(
        ("FOLDER/damaged.vault.yml", "damaged", "restore both from your backup"),
        {"secrets_file": "FOLDER/damaged.vault.yml"},
    ),
    "vault file open to others": Case(
        ("FOLDER/open.vault.yml", "mode 0644", "chmod 600"), {"secrets_file": "FOLDER/open.vault.yml"}
    ),
    # The controller and the way to the Pi
    "old Ansible": Case(
        ("controller", "is too old", "use ansible-core 2.19 or newer"), environment={"PYTHONPATH": "FOLDER/old-ansible"}
    ),
    "unknown host key": Case(
        ("connection", "host key", "ssh-keygen -lf"),
        {"ansible_ssh_common_args": "-o StrictHostKeyChecking=yes -o UserKnownHostsFile=FOLDER/known_hosts"},
        OWN_CONNECTION,
    ),
    "wrong key": Case(
        ("connection", "does not let this user in", "ansible_ssh_private_key_file"),
        {"ansible_ssh_private_key_file": "FOLDER/wrong-key"},
        OWN_CONNECTION,
    ),
    "wrong user": Case(
        ("connection", "nobody2@", "does not let this user in", "ansible_user"),
        {"ansible_user": "nobody2"},
        OWN_CONNECTION,
    ),
    "no Python": Case(
        ("connection", "Python was not found", "apt install python3"),
        {"ansible_python_interpreter": "/usr/bin/python9"},
    ),
    # The Pi
    "address without a machine": Case(
        ("connection", "pi@NETWORK.99: it does not answer SSH", "ansible_host"), {"ansible_host": "NETWORK.99"}
    ),
    "wrong architecture": Case(
        ("architecture", "preflight_architectures", "install a 64-bit ARM system"),
        {"preflight_architectures": ["riscv64"]},
    ),
    "too little memory": Case(
        ("memory", "3793 MiB, at least 7000", "preflight_ram_min_mib"), {"preflight_ram_min_mib": 7000}
    ),
    "no board": Case(
        ("board", "no device-tree model", "Raspberry Pi 4 or 5", "hardware_root"), {"hardware_root": "/nowhere"}
    ),
    "disk too small": Case(
        ("free disk", "at least 1000000000 MiB", "preflight_disk_min_mib"), {"preflight_disk_min_mib": 10**9}
    ),
    "load of no length": Case(
        ("preflight_soak_minutes", "is -1", "from 0 to 1440", "roles/preflight"), {"preflight_soak_minutes": -1}
    ),
    "SSD missing": Case(
        ("data disk", "nothing is mounted on /mnt/ssd", "preflight_data_mount"), {"preflight_data_mount": "/mnt/ssd"}
    ),
}


def mounted_over(path: str, content: str) -> Plant:
    """A file that says something else, put over the real one; the real one is not touched."""
    return Plant(
        f"{content} > /run/planted; chmod 0644 /run/planted; mount --bind /run/planted {path}",
        f"umount {path}; rm /run/planted",
    )


CGROUPS = "$([ -e /sys/fs/cgroup/cgroup.controllers ] && echo /sys/fs/cgroup/cgroup.controllers || echo /proc/cgroups)"
MIRROR = "$(sed -n 's,^URIs: https*://\\([^/:]*\\).*,\\1,p' /etc/apt/sources.list.d/*.sources | head -1)"


def another_board(change: str) -> Plant:
    """A copy of the recorded board with something changed in it, for hardware_root."""
    return Plant(
        f"cp -a /usr/share/virtual-pi/pi4-4gb /var/tmp/board; cd /var/tmp/board; {change}",
        "rm -rf /var/tmp/board /run/planted-heat",
    )


THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
# Nothing is wrong the first time it is asked; then the load has come.
HOT_UNDER_LOAD = """
mkdir -p usr/bin
cat > usr/bin/vcgencmd <<'TOOL'
#!/bin/sh
if [ -e /run/planted-heat ]; then echo throttled=0x4; else touch /run/planted-heat; echo throttled=0x0; fi
TOOL
chmod 0755 usr/bin/vcgencmd
"""
# On the bare Pi, where nothing is installed yet and everything would have to be fetched.
CONDITIONS: dict[str, Case] = {
    "full disk": Case(
        ("free disk", "at least 6144 MiB", "free some space"),
        plant=Plant(
            "mount -t tmpfs -o size=32m tmpfs /var/lib; fallocate -l 30M /var/lib/large",
            "umount /var/lib",
        ),
    ),
    "read-only file system": Case(
        ("file systems", "read-only: /etc", "mount -o remount,rw"),
        plant=Plant(
            "mount --bind /etc /etc; mount -o remount,bind,ro /etc",
            "umount /etc",
        ),
    ),
    "memory cgroup off": Case(
        ("memory limits", "the memory cgroup is off", "cmdline.txt"),
        plant=mounted_over(CGROUPS, f"sed -E 's/(^| )memory( |$)/ /; s/^memory(.*)1$/memory\\10/' {CGROUPS}"),
    ),
    "release that is too old": Case(
        ("operating system", "Debian GNU/Linux 11", "install one of", "debian 12, 13"),
        plant=mounted_over(
            "/etc/os-release", "printf 'ID=debian\\nVERSION_ID=11\\nPRETTY_NAME=\"Debian GNU/Linux 11\"\\n'"
        ),
    ),
    "distribution that is not supported": Case(
        ("operating system", "Fedora Linux 42", "install one of", "ubuntu 22.04"),
        plant=mounted_over(
            "/etc/os-release", "printf 'ID=fedora\\nVERSION_ID=42\\nPRETTY_NAME=\"Fedora Linux 42\"\\n'"
        ),
    ),
    "kernel that calls itself 32-bit": Case(
        ("architecture", "64-bit ARM system", "preflight_architectures"),
        {"ansible_python_interpreter": "/var/tmp/python32"},
        plant=Plant(
            "printf '#!/bin/sh\\nexec linux32 python3 \"$@\"\\n' > /var/tmp/python32; chmod +x /var/tmp/python32",
            "rm /var/tmp/python32",
        ),
    ),
    "registry that says nothing": Case(
        ("image registry", "registry.test:5000 does not answer within", "default route", "images"),
        plant=Plant(
            "ip neigh replace NETWORK.5 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
            "ip neigh del NETWORK.5 dev eth0",
        ),
    ),
    "registry without a route": Case(
        ("image registry", "registry.test:5000 does not answer", "default route", "images"),
        plant=Plant(
            "ip route add unreachable NETWORK.5/32",
            "ip route del unreachable NETWORK.5/32",
        ),
    ),
    "no package mirror": Case(
        ("package mirror", ":80 does not answer", "default route", "/etc/apt/sources.list.d"),
        plant=Plant(
            f"mirror={MIRROR}; ip route add unreachable 192.0.2.0/24; cp /etc/hosts /run/planted; "
            'echo "192.0.2.1 $mirror" >> /run/planted; mount --bind /run/planted /etc/hosts',
            "umount /etc/hosts; rm /run/planted; ip route del unreachable 192.0.2.0/24",
        ),
    ),
    "no name server": Case(
        ("package mirror", "the name cannot be resolved", "/etc/resolv.conf"),
        plant=mounted_over("/etc/resolv.conf", "echo nameserver 127.0.0.1"),
    ),
    "clock a day ahead": Case(
        ("clock", "ahead of the controller's", "timedatectl set-ntp true"),
        # As root from the start: the library that moves the clock does not follow from one user to the next.
        {"ansible_user": "root"},
        OWN_CONNECTION,
        plant=Plant(
            """
        install -d -m 0700 /root/.ssh
        cp /home/pi/.ssh/authorized_keys /root/.ssh/
        base64 -d > /var/tmp/libfaketime.so <<'LIBRARY'
CLOCK_LIBRARY
LIBRARY
        echo +1d > /etc/faketimerc
        echo /var/tmp/libfaketime.so > /etc/ld.so.preload
        """,
            "rm /etc/ld.so.preload /etc/faketimerc; rm -r /var/tmp/libfaketime.so /root/.ssh",
        ),
    ),
    "port taken by another program": Case(
        ("port", "0.0.0.0:443/tcp is taken by python3", "stop that program", "proxy_https_port"),
        plant=Plant(
            "systemd-run --quiet --unit planted-web python3 -m http.server 443; "
            "for _ in $(seq 100); do ! ss -ltn | grep -q ':443 ' || exit 0; sleep 0.1; done; exit 1",
            "systemctl stop planted-web",
        ),
    ),
    "too little voltage": Case(
        ("power supply", "too little voltage right now", "5.1 V, 3 A", "not ready"),
        {"hardware_root": "/var/tmp/board"},
        plant=another_board(f"echo 50005 > {THROTTLED}"),
    ),
    "fan on a boot partition with broken marks": Case(
        ("have to stand in it once each", "Nothing was changed"),
        {"hardware_root": "/var/tmp/board", "thermal_fan": "gpio"},
        plant=another_board("echo '# END pi-commerce' >> boot/firmware/config.txt"),
    ),
    "board that gives way under load": Case(
        ("under load", "on all cores", "throttled", "see to its fan"),
        {"hardware_root": "/var/tmp/board", "preflight_soak_minutes": 1},
        plant=another_board(HOT_UNDER_LOAD),
    ),
    "board that says nothing under load": Case(
        ("under load", "whether it was slowed down is unknown", "vcgencmd"),
        {"hardware_root": "/var/tmp/board", "preflight_soak_minutes": 1},
        plant=another_board(f"rm -r {THROTTLED} sys/devices/system/cpu"),
    ),
    "no sudo": Case(
        ("connection", "may not become root", "--ask-become-pass"),
        plant=mounted_over("/etc/sudoers.d/010_pi-nopasswd", "printf ''"),
    ),
    "SSH server that would not start again": Case(
        ("the SSH server refuses its own settings", "Colour", "Correct the file that it names"),
        plant=mounted_over("/etc/ssh/sshd_config", "sed '1i Colour blue' /etc/ssh/sshd_config"),
    ),
    "SSH server stopped": Case(
        ("connection", "does not answer SSH", "switch it on"),
        {},
        OWN_CONNECTION,
        plant=Plant(
            "systemctl stop ssh",
            "systemctl start ssh",
        ),
    ),
}
