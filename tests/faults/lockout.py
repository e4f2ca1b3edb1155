"""What could lock the owner out: each fault with how it is brought about, and what the run has to say of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

import machine

# Done by the machine itself in the middle of a change, once: after the firewall was loaded, or after the SSH server has
# read its settings, or after the VPN has come up. No hook is part of what the roles write.
FIREWALL, SERVER = "/etc/ufw/after.init", "/run/systemd/system/ssh.service.d/fault.conf"
TUNNEL = "/run/systemd/system/wg-quick@wg0.service.d/fault.conf"
ONCE = "[ ! -e /run/fault ] || { mv /run/fault /run/fault-done; sh /run/fault-done; }"
HOOKS = {
    FIREWALL: f'#!/bin/sh\n[ "$1" = start ] || exit 0\n{ONCE}\n',
    SERVER: f"[Service]\nExecReload=/bin/sh -c '{ONCE}'\n",
    TUNNEL: f"[Service]\nExecStartPost=/bin/sh -c '{ONCE}'\n",
}
BACK = "has put the old ones back by itself"
NOTHING = "Nothing was changed"
# Takes all settings but the new ones.
STUBBORN = """#!/bin/sh
[ "$*" = -t ] && grep --quiet 'MaxAuthTries 6' /etc/ssh/sshd_config.d/10-pi-commerce.conf && exit 1
exec /usr/sbin/sshd "$@"
"""
REFUSED = "the SSH server refused its new settings"
# Who listens for SSH: systemd, which starts the server for whoever knocks; or the server itself.
SOCKET = "systemctl stop ssh.service && systemctl enable --quiet --now ssh.socket"
SERVICE = "systemctl disable --quiet --now ssh.socket; systemctl restart ssh.service"
KNOCK = "timeout 10 bash -c 'exec 3<>/dev/tcp/127.0.0.1/22; read -r line <&3'"
LISTENER = "systemd-run --quiet --unit fault-listener python3 -m http.server 2222"
NOBODY = "echo 'AllowUsers nobody-here' > /etc/ssh/sshd_config.d/05-fault.conf"
GUARDED = "/var/lib/pi-commerce/guard"


@dataclass(frozen=True)
class Fault:
    """One fault.

    `variables` are given to the run, `before` is done on the machine before it, `during` in the middle of the change
    that `hook` belongs to, `after` when the run has ended. It always fails; `says` stands in its output. `stays` where
    the firewall's part of it was proven by itself, and is there until the next run.
    """

    says: str
    variables: dict[str, Any] = field(default_factory=dict)
    before: str = ""
    during: str = ""
    hook: str = FIREWALL
    after: str = ""
    stays: bool = False


# Something to change, so that the firewall or the server is touched at all.
RULE = {"firewall_rules": [{"name": "fault", "port": 4711, "protocol": "tcp", "exposure": "lan"}]}
TRIES = {"ssh_max_auth_tries": 6}
# The judgement before the change believes that the server listens there.
BLIND = {"ssh_listening": [2222]}

FAULTS = {
    # Seen before anything is touched
    "port of another server": Fault(NOTHING, {"firewall_ssh_ports": [2222]}),
    "rule for another network": Fault(NOTHING, {"firewall_sources": {"ssh": ["192.0.2.0/24"]}}),
    "rule for nobody": Fault(NOTHING, {"firewall_sources": {"ssh": []}}),
    "by VPN only, from the house": Fault(NOTHING, {"ssh_exposure": "vpn"}),
    "by VPN only, and its last device is out": Fault(
        NOTHING, {"ssh_exposure": "vpn", "wireguard_peers": {}, "wireguard_network": f"{machine.NETWORK}.0/24"}
    ),
    "no port at all": Fault(NOTHING, {"firewall_ssh_ports": []}),
    "name that is nothing": Fault("has no port here", {"access_vpn": ["ssh", "grafana"]}),
    "another file is nonsense": Fault(
        "Bad configuration option: Nonsense",
        TRIES,
        before="echo 'Nonsense yes' > /etc/ssh/sshd_config.d/05-fault.conf",
    ),
    "guard without room": Fault(
        "No file was touched",
        RULE,
        before="cd /var/lib/pi-commerce && mv guard away && touch guard",
        after="cd /var/lib/pi-commerce && rm guard && mv away guard",
    ),
    "guard without a timer": Fault(
        "nothing may be changed",
        RULE,
        before="printf '#!/bin/sh\\nexit 1\\n' > /usr/local/bin/systemd-run; chmod 755 /usr/local/bin/systemd-run",
        after="rm -f /usr/local/bin/systemd-run",
    ),
    # Put back by the machine
    "wrong port in the rules": Fault(BACK, {"firewall_ssh_ports": [2222], **BLIND}),
    "UFW that fails": Fault(
        "UFW refused the new rules",
        RULE,
        before="printf '#!/bin/sh\\nrm $0; exit 1\\n' > /usr/local/sbin/ufw; chmod 755 /usr/local/sbin/ufw",
        after="rm -f /usr/local/sbin/ufw",
    ),
    "rules that end in the middle": Fault("UFW refused the new rules", RULE, during="exit 1", after="ufw reload"),
    "server that dies of it": Fault(REFUSED, TRIES, during="systemctl stop --no-block ssh.service", hook=SERVER),
    "server that refuses what it was given": Fault(
        REFUSED,
        TRIES,
        before=f"printf %s {shlex.quote(STUBBORN)} > /usr/local/sbin/sshd; chmod 755 /usr/local/sbin/sshd",
        after="rm -f /usr/local/sbin/sshd",
    ),
    "another file lets passwords in": Fault(
        "Passwords still open the SSH server",
        before="echo 'PasswordAuthentication yes' > /etc/ssh/sshd_config.d/05-fault.conf",
    ),
    "another file lets nobody in": Fault(BACK, TRIES, before=NOBODY),
    # The server that runs already is the one by which the run comes in.
    "another file lets nobody in, by socket": Fault(BACK, TRIES, before=f"{SOCKET}\n{KNOCK}\n{NOBODY}", after=SERVICE),
    "keys that are gone": Fault(BACK, TRIES, during="mv /home/pi/.ssh/authorized_keys /home/pi/.ssh/gone", hook=SERVER),
    "keys that everybody may write": Fault(BACK, TRIES, during="chmod 777 /home/pi/.ssh", hook=SERVER),
    "controller that is banned": Fault(BACK, RULE, during="fail2ban-client set sshd banip CONTROLLER"),
    "firewall that closes again": Fault(
        BACK, RULE, during="iptables -w -I ufw-before-input 1 -p tcp --dport 22 -m conntrack --ctstate NEW -j DROP"
    ),
    "not even answers": Fault(BACK, RULE, during="iptables -w -I ufw-before-input 1 -p tcp --dport 22 -j DROP"),
    "new port behind the firewall": Fault(BACK, {"ssh_port": 2222, "firewall_ssh_ports": [22], "ssh_listening": [22]}),
    "new port that is taken": Fault(
        BACK,
        {"ssh_port": 2222},
        before=LISTENER,
        after="systemctl stop fault-listener",
        stays=True,
    ),
    "new port that is taken, by socket": Fault(
        REFUSED,
        {"ssh_port": 2222},
        before=f"{SOCKET}\n{LISTENER}",
        after=f"systemctl stop fault-listener; {SERVICE}",
        stays=True,
    ),
    "disk that is full": Fault(
        BACK,
        RULE,
        before=f"mount -t tmpfs -o size=4m,mode=0700 tmpfs {GUARDED}",
        during=f"""head -c 8M /dev/zero > {GUARDED}/full
        iptables -w -I ufw-before-input 1 -p tcp --dport 22 -m conntrack --ctstate NEW -j DROP""",
        after=f"umount {GUARDED}",
    ),
    "restoring that is ended": Fault(
        BACK,
        {"firewall_ssh_ports": [2222], **BLIND},
        during="""(for i in $(seq 600); do
            pid=$(systemctl show --property MainPID --value pi-commerce-guard.service)
            [ "$pid" = 0 ] || { kill -KILL "$pid"; break; }
            sleep 0.1
        done) >/dev/null 2>&1 &""",
    ),
    # The answers to this computer go into it.
    "tunnel that swallows the house": Fault(
        BACK,
        {"wireguard_peers": {"phone": {"number": 100, "public_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}}},
        during="ip route add CONTROLLER/32 dev wg0",
        hook=TUNNEL,
        after="rm -rf /etc/wireguard /etc/cron.d/pi-commerce-vpn /usr/local/sbin/pi-commerce-vpn",
        stays=True,
    ),
}
# What CI shows of them.
FEW = ("rule for another network", "wrong port in the rules", "controller that is banned")
