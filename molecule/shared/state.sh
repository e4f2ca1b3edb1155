#!/bin/bash
# Prints what a role could have changed on a Pi, a line each: files with content, mode and owner, packages, units, accounts'
# groups, listening ports, and what the engine holds. The outputs of an unchanged Pi are equal.
set -euo pipefail
export LC_ALL=C

# found EXPRESSION...: what lies where roles write, without caches and what the system writes by itself.
found() {
  local places=()
  for place in /etc /usr/local /opt /root /home /var/lib/pi-commerce* /var/backups /var/spool/cron; do
    [ ! -e "$place" ] || places+=("$place")
  done
  find "${places[@]}" -ignore_readdir_race -xdev \( -name .ansible -o -name .cache -o -path /etc/ld.so.cache -o -path /etc/resolv.conf \) -prune -o "$@"
}

# What goes while this looks, as locks of a backup that runs do, has no line; whatever else cannot be read is an error.
unread=$(mktemp)
trap 'cat "$unread" >&2; rm "$unread"' EXIT
found -type f -print0 | sort -z | {
  xargs -0 sha256sum 2> "$unread" || ! grep -qv '^sha256sum: .*: No such file or directory$' "$unread"
} | sed 's/^/content /'
found \( -type f -o -type d \) -printf 'mode %m %U:%G %p\n' | sort
found -type l -printf 'link %p -> %l\n' | sort
dpkg-query --show --showformat 'package ${binary:Package} ${db:Status-Abbrev}\n'
systemctl list-unit-files --no-legend --type=service,timer,mount --state=enabled | awk '{ print "enabled", $1 }'
systemctl list-units --no-legend --plain --type=service,timer,mount --state=active | awk '$1 !~ /^(user|session|systemd-|run-|var-lib-docker)/ { print "active", $1 }'
# 127.0.0.11 is the outer engine's resolver inside a virtual Pi.
ss --no-header --listening --tcp --udp --numeric | awk '$5 !~ /^127\.0\.0\.11:/ { print "listening", $1, $5 }' | sort -u
printf 'name %s %s\n' "$(hostname)" "$(readlink /etc/localtime)"
if command -v docker > /dev/null && docker info > /dev/null 2>&1; then
  docker ps --all --no-trunc --format 'container {{.Names}} {{.ID}} {{.State}}' | sort
  docker image ls --format 'image {{.Repository}}:{{.Tag}} {{.ID}}' | sort
  docker volume ls --format 'volume {{.Name}}' | sort
  docker network ls --format 'network {{.Name}}' | sort
fi

# What n8n holds, where there is one: its tables are made by its first start.
if [ -n "$(docker ps --quiet --filter name='^pi-commerce-n8n-1$' 2> /dev/null)" ]; then
  docker exec pi-commerce-postgres-1 psql -U postgres -XAtF ' ' -d n8n -c "
    SELECT 'workflow', id, CASE WHEN active THEN 'published' ELSE 'unpublished' END FROM workflow_entity ORDER BY id" -c "
    SELECT 'credential', id FROM credentials_entity ORDER BY id"
fi
