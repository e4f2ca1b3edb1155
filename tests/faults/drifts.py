"""What happens to a machine that people and accidents touch: each drift, how it is seen, how it is known to be mended.

All of the first batch can be planted together; a drift of the second would hide, or be hidden by, one of the first.
"""

from __future__ import annotations

from dataclasses import dataclass

# Stands in a secret's place in the drift `changed secret`; as secret as what it replaced.
PLANTED_SECRET = "planted-1f0d6b94c27e83a5"

_WORKFLOW = "piHealthEcho0001"
_SQL = "docker exec -i pi-commerce-postgres-1 psql -U postgres -XqAt -d"
_COMPOSE = (
    "cd /etc/pi-commerce/compose && docker compose --project-name pi-commerce"
    " $(for file in postgres redis rate_limiter webhook_handler posting_queue n8n proxy overrides;"
    " do echo --file $file.yml; done)"
)


@dataclass(frozen=True)
class Drift:
    """One drift of a converged machine.

    plant: shell, run as root on the Pi, that brings it about
    shown: words that stand in what `--check --diff` tells about changed tasks
    audit: words that stand in the audit's report
    restored: shell, run as root on the Pi, that ends with 0 exactly when it is mended
    touches: what mending it makes, changes or starts again, by the names of `footprint`; a folder stands for all in it
    batch: drifts of one batch can be there together
    ill: the container that it makes unhealthy before long; it is so when the run that mends it begins
    """

    name: str
    plant: str
    shown: tuple[str, ...]
    audit: tuple[str, ...]
    restored: str
    touches: tuple[str, ...]
    batch: int = 1
    ill: str = ""


def _in_file(name: str, path: str, plant: str, restored: str, batch: int = 1) -> Drift:
    """A drift that is seen and mended in one file."""
    return Drift(name, plant, (path,), (path,), restored, (path,), batch)


# What UFW writes anew whenever it loads its rules.
UFW_WRITES = ("/etc/ufw/user.rules", "/etc/ufw/user6.rules", "/etc/ufw/ufw.conf")
DRIFTS = [
    _in_file(
        "edited Compose file",
        "/etc/pi-commerce/compose/n8n.yml",
        'sed -i \'s/memory: "1280M"/memory: "2G"/\' /etc/pi-commerce/compose/n8n.yml',
        restored="grep -q 'memory: \"1280M\"' /etc/pi-commerce/compose/n8n.yml",
    ),
    _in_file(
        "stray Compose file",
        "/etc/pi-commerce/compose/stray.yml",
        "printf 'services: {}\\n' > /etc/pi-commerce/compose/stray.yml",
        restored="[ ! -e /etc/pi-commerce/compose/stray.yml ]",
    ),
    Drift(
        "opened port",
        "sed -i 's/^    ports:$/&\\n      - \"0.0.0.0:8444:8443\"/' /etc/pi-commerce/compose/proxy.yml\n"
        f"{_COMPOSE} up --detach --no-deps --quiet-pull proxy 2>&1",
        shown=("/etc/pi-commerce/compose/proxy.yml", "8444", "pi-commerce-proxy-1"),
        audit=("proxy: port 8444 on 0.0.0.0",),
        restored="docker port pi-commerce-proxy-1 | grep -q 443 && ! docker port pi-commerce-proxy-1 | grep -q 8444",
        touches=("/etc/pi-commerce/compose/proxy.yml", "container pi-commerce-proxy-1"),
    ),
    _in_file(
        "edited proxy configuration",
        "/etc/pi-commerce/proxy/nginx.conf",
        "sed -i 's/server_tokens off/server_tokens on/' /etc/pi-commerce/proxy/nginx.conf\n"
        "docker exec pi-commerce-proxy-1 nginx -c /etc/pi-commerce/nginx.conf -s reload",
        # That nginx runs with what was mended: it names its version to nobody.
        restored="docker exec pi-commerce-proxy-1 wget -S --no-check-certificate -q -O /dev/null"
        " https://127.0.0.1:8443/proxy-health 2>&1 | grep -q 'Server: nginx$'",
        batch=2,
    ),
    Drift(
        "stopped container",
        "docker stop pi-commerce-redis-1",
        shown=("pi-commerce-redis-1",),
        audit=("redis: is exited",),
        restored="[ \"$(docker inspect --format '{{.State.Running}}' pi-commerce-redis-1)\" = true ]",
        touches=("container pi-commerce-redis-1",),
    ),
    Drift(
        "container that is ill because another one is away",
        # Redis is stopped above; three minutes later it would be so by itself.
        "docker exec pi-commerce-posting_queue-1 touch -d '1 hour ago' /tmp/alive",
        shown=(),
        audit=(),
        restored="docker exec pi-commerce-posting_queue-1 sh -c 'find /tmp/alive -mmin -3 | grep -q .'",
        # It becomes well by itself.
        touches=(),
        # Compose would give up at it.
        ill="pi-commerce-posting_queue-1",
    ),
    Drift(
        "removed container",
        "docker rm --force pi-commerce-rate_limiter-1",
        shown=("pi-commerce-rate_limiter-1",),
        audit=("rate_limiter: has no container",),
        restored="[ \"$(docker inspect --format '{{.State.Running}}' pi-commerce-rate_limiter-1)\" = true ]",
        touches=("container pi-commerce-rate_limiter-1",),
    ),
    _in_file(
        "edited rate limits",
        "/etc/pi-commerce/rate_limiter/policies.json",
        'sed -i \'s/"limit": 180/"limit": 99999/\' /etc/pi-commerce/rate_limiter/policies.json',
        restored="! grep -q 99999 /etc/pi-commerce/rate_limiter/policies.json",
    ),
    _in_file(
        "loosened secret",
        "/etc/pi-commerce/secrets/n8n_db_password",
        "chmod 0644 /etc/pi-commerce/secrets/n8n_db_password",
        restored="[ $(stat --format %a /etc/pi-commerce/secrets/n8n_db_password) = 400 ]",
    ),
    _in_file(
        "changed secret",
        "/etc/pi-commerce/secrets/redis_rate_limiter_password",
        f"printf {PLANTED_SECRET} > /etc/pi-commerce/secrets/redis_rate_limiter_password",
        restored=f"! grep -q {PLANTED_SECRET} /etc/pi-commerce/secrets/redis_rate_limiter_password",
    ),
    Drift(
        "opened secrets folder",
        "chmod 0755 /etc/pi-commerce/secrets",
        shown=("/etc/pi-commerce/secrets", "mode 0755"),
        audit=("/etc/pi-commerce/secrets: has mode 0755",),
        restored="[ $(stat --format %a /etc/pi-commerce/secrets) = 700 ]",
        touches=("/etc/pi-commerce/secrets",),
    ),
    _in_file(
        "edited scrape targets",
        "/etc/pi-commerce/monitoring/targets.json",
        "sed -i 's/5678/5679/' /etc/pi-commerce/monitoring/targets.json",
        restored="! grep -q 5679 /etc/pi-commerce/monitoring/targets.json",
    ),
    _in_file(
        "deleted cron line",
        "/etc/cron.d/pi-commerce-backup",
        "sed -i '/pi-commerce-backup ship$/d' /etc/cron.d/pi-commerce-backup",
        restored="grep -q '^\\*/5 .* pi-commerce-backup ship$' /etc/cron.d/pi-commerce-backup",
    ),
    _in_file(
        "backup command that is not executable",
        "/usr/local/sbin/pi-commerce-backup",
        "chmod 0640 /usr/local/sbin/pi-commerce-backup",
        restored="[ -x /usr/local/sbin/pi-commerce-backup ]",
    ),
    _in_file(
        "weakened SSH server",
        "/etc/ssh/sshd_config.d/10-pi-commerce.conf",
        "sed -i 's/^MaxAuthTries .*/MaxAuthTries 100/' /etc/ssh/sshd_config.d/10-pi-commerce.conf\n"
        "echo 'PasswordAuthentication yes' >> /etc/ssh/sshd_config.d/10-pi-commerce.conf\n"
        "systemctl reload ssh",
        restored="sshd -T | grep -qx 'maxauthtries 3'"
        " && ! grep -q 'PasswordAuthentication yes' /etc/ssh/sshd_config.d/10-pi-commerce.conf",
    ),
    Drift(
        "rule by hand",
        "ufw allow 4711/tcp",
        shown=("/etc/ufw/user.rules", "/etc/ufw/user6.rules"),
        audit=("/etc/ufw/user.rules", "iptables: chain ufw-user-input has other rules than UFW's files"),
        restored="! ufw show added | grep -q 4711",
        touches=UFW_WRITES,
    ),
    Drift(
        "emptied chains of the firewall",
        "iptables -w -F DOCKER-USER; ip6tables -w -F pi-refused; iptables -w -t raw -F PREROUTING",
        # Seen by its task alone.
        shown=(),
        audit=(
            "iptables: chain DOCKER-USER has other rules than UFW's files",
            "ip6tables: chain pi-refused has other rules than UFW's files",
            "iptables: lets packets from outside in to 127.0.0.0/8",
        ),
        restored="iptables -w -S DOCKER-USER | grep -qx -- '-A DOCKER-USER -j DROP'"
        " && ip6tables -w -S pi-refused | grep -q REJECT && iptables -w -t raw -S PREROUTING | grep -q 127.0.0.0/8",
        touches=UFW_WRITES,
        batch=3,
    ),
    _in_file(
        "deleted kernel settings",
        "/etc/sysctl.d/90-pi-commerce.conf",
        "rm /etc/sysctl.d/90-pi-commerce.conf; sysctl --quiet --write net.ipv4.tcp_syncookies=0",
        restored="[ -e /etc/sysctl.d/90-pi-commerce.conf ] && [ $(sysctl --values net.ipv4.tcp_syncookies) = 1 ]",
    ),
    _in_file(
        "endless container logs",
        "/etc/docker/daemon.json",
        'sed -i \'s/"10m"/"10g"/\' /etc/docker/daemon.json',
        restored="grep -q '\"10m\"' /etc/docker/daemon.json",
    ),
    Drift(
        "unpublished workflow",
        f"{_SQL} n8n <<'SQL'\n"
        f"UPDATE workflow_entity SET active = false, \"activeVersionId\" = NULL WHERE id = '{_WORKFLOW}';\n"
        f"DELETE FROM webhook_entity WHERE \"workflowId\" = '{_WORKFLOW}';\n"
        "SQL",
        shown=(_WORKFLOW, "not published"),
        audit=(f"health-echo.json: Health echo ({_WORKFLOW}): not published",),
        restored=f'[ "$({_SQL} n8n <<< "SELECT active FROM workflow_entity WHERE id = \'{_WORKFLOW}\'")" = t ]'
        " && docker exec pi-commerce-proxy-1 wget -q -O - 'http://n8n:5678/webhook/health-echo?token=mended'"
        " | grep -q mended",
        touches=(f"workflow {_WORKFLOW}",),
    ),
    Drift(
        "role with more rights",
        f"{_SQL} postgres <<< 'ALTER ROLE shop CREATEDB'",
        shown=("make role shop a plain login role",),
        audit=("make role shop a plain login role",),
        restored=f'[ "$({_SQL} postgres <<< "SELECT rolcreatedb FROM pg_roles WHERE rolname = \'shop\'")" = f ]',
        touches=("role shop",),
    ),
    Drift(
        "database open to every role",
        f"{_SQL} postgres <<< 'GRANT CONNECT ON DATABASE n8n TO PUBLIC'",
        shown=("revoke database n8n from PUBLIC",),
        audit=("revoke database n8n from PUBLIC",),
        restored=f"[ \"$({_SQL} postgres <<< \"SELECT has_database_privilege('shop', 'n8n', 'CONNECT')\")\" = f ]",
        touches=("database n8n",),
    ),
    Drift(
        "other host name",
        "hostnamectl set-hostname somebody-elses-pi",
        shown=("hostname", "somebody-elses-pi"),
        audit=("somebody-elses-pi",),
        restored="[ $(hostname) = shop-pi ] && [ $(cat /etc/hostname) = shop-pi ]",
        touches=("/etc/hostname", "/etc/machine-info"),
    ),
    Drift(
        "other time zone",
        "ln --symbolic --force /usr/share/zoneinfo/Pacific/Auckland /etc/localtime",
        shown=("/etc/localtime",),
        audit=("Pacific/Auckland",),
        restored="[ $(readlink /etc/localtime) = /usr/share/zoneinfo/Europe/Berlin ]",
        touches=("/etc/localtime",),
    ),
    Drift(
        "disabled time synchronisation",
        # By hand: systemctl would change the links of System V, too.
        "rm /etc/systemd/system/chronyd.service /etc/systemd/system/multi-user.target.wants/chrony.service; "
        "systemctl daemon-reload",
        shown=("Enable the clock's synchronisation",),
        audit=("chrony.service: is not enabled",),
        restored="systemctl is-enabled --quiet chrony",
        touches=(
            "/etc/systemd/system/chronyd.service",
            "/etc/systemd/system/multi-user.target.wants/chrony.service",
        ),
    ),
    Drift(
        "removed package",
        "DEBIAN_FRONTEND=noninteractive apt-get remove --yes --quiet cron",
        shown=("Install the packages every machine has", "cron"),
        audit=("cron: is not installed",),
        restored="systemctl is-active --quiet cron",
        # What the package is made of; the folders it shares with others are not named.
        touches=(
            "/etc/init.d/cron",
            "/usr/bin/crontab",
            "/usr/lib/systemd/system/cron.service",
            "/usr/sbin/cron",
            "/usr/share/bug/cron",
            "/usr/share/doc/cron",
        ),
    ),
]
