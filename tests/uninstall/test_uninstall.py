"""Everything is taken off the machine in the end, and what the shop has earned on it stays."""

from __future__ import annotations

import machine

SAY_SO = ("-e", "uninstall_confirm=shop-pi")
DATA = "/var/lib/docker/volumes/pi-commerce_postgres_data/_data/PG_VERSION"
# What a run leaves that was cut off before it had put files into force.
CUT_OFF = (
    "/var/lib/pi-commerce.unapplied-{base-root,etc-docker,etc-fail2ban,etc-pi-commerce,firewall-etc,guard-root,root,ssh-etc,"
    "storage-root,thermal-root,updates-root,power-etc-systemd-system.conf.d,power-clock-etc,power-program-root,power-nut-etc-nut}"
)
# What somebody would still meet of the shop: its files, its ports, its nightly line, its engine, its firewall.
# The authority that devices trust stays, what another package has told UFW, and people with what they may.
TRACES = """
find /etc/pi-commerce -type f ! -path '*/entrance/authority.*'
ls -d /var/lib/pi-commerce* /etc/cron.d/pi-commerce-* /usr/local/sbin/pi-commerce-*
ls -d /etc/docker/daemon.json /etc/ssh/sshd_config.d/10-pi-commerce.conf /etc/sysctl.d/90-pi-commerce*
ls -d /etc/*.d/90-pi-commerce* /etc/*/*.d/90-pi-commerce* /etc/systemd/system/*.timer.d | grep -v /etc/sudoers.d/
findmnt --noheadings --mountpoint /var/tmp
ls -d /etc/ufw/*.conf /etc/ufw/*.rules /etc/ufw/*.init /etc/default/ufw
ls -d /etc/systemd/*.conf.d/*pi-commerce* /etc/systemd/system/*/*pi-commerce* /etc/chrony/*pi-commerce* /etc/nut
ls -d /etc/fail2ban /var/lib/fail2ban /etc/systemd/system/pi-commerce-*
pgrep --exact 'dockerd|containerd|fail2ban-server'
{ iptables -w -S; ip6tables -w -S; iptables -w -t raw -S; } | grep --extended-regexp 'DROP|pi-|ufw'
nft list tables | grep pi-commerce
ss --no-header --listening --tcp --numeric 'sport = 443'
"""


def test_uninstall_takes_all_but_the_data_and_nothing_the_second_time(first_run: machine.Finished) -> None:
    machine.pi(f"touch {CUT_OFF}")
    before = machine.pi(TRACES, check=False)
    assert "/etc/pi-commerce" in before
    assert ":443" in before
    told = machine.playbook("playbooks/uninstall.yml", *SAY_SO, "--check")
    assert told.status == 0, told.output[-3000:]
    assert machine.recap(told.output)["changed"] > 0
    assert machine.pi(TRACES, check=False) == before

    done = machine.playbook("playbooks/uninstall.yml", *SAY_SO)
    assert done.status == 0, done.output[-3000:]
    assert machine.pi(TRACES, check=False) == ""
    assert machine.pi(f"cat {DATA}").strip() == "17"
    assert "pi-commerce_*" in done.output

    again = machine.playbook("playbooks/uninstall.yml", *SAY_SO)
    assert again.status == 0, again.output[-3000:]
    assert machine.recap(again.output)["changed"] == 0, again.output[-3000:]
