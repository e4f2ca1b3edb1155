"""A small valid catalog (a database, a web application, its proxy), and a way to break it in one place."""

from __future__ import annotations

import copy

import yaml

REMOVED = object()

_HARDENED = """
    restart: unless-stopped
    read_only: true
    cap_drop: [ALL]
    security_opt: [no-new-privileges:true]
    healthcheck: {test: [CMD, "true"]}
"""

TEXTS = {
    "db": f"""
services:
  db:
    image: localhost:5000/postgres:15.13
    user: "999:999"
    {_HARDENED}
    networks: [db]
    volumes: [db_data:/var/lib/postgresql/data, db_spool:/var/lib/postgresql, /etc/pi-commerce/db:/etc/db:ro]
    secrets: [db_password]
    deploy: {{resources: {{limits: {{memory: 512M, cpus: "2.0", pids: 200}}}}}}
networks:
  db: {{internal: true}}
volumes:
  db_data:
  db_spool:
secrets:
  db_password: {{file: /etc/pi-commerce/secrets/db_password}}
x-pi:
  summary: Databases
  editions: [lean, appwrite]
  tier: edge
  required: true
  exposure: none
  probe: {{exec: [pg_isready]}}
  backup:
    - {{kind: postgres, volume: db_data, spool: db_spool}}
  databases:
    - {{name: shop, owner: shop, password_secret: shop_db_password}}
  secrets: [shop_db_password]
""",
    "app": f"""
services:
  app:
    image: registry.test/app:1.2.3@sha256:0123
    user: "1000:1000"
    {_HARDENED}
    networks: {{db: {{aliases: [application]}}, app: }}
    volumes:
      - {{type: volume, source: app_data, target: /data}}
      - {{type: tmpfs, target: /cache}}
    secrets:
      - {{source: app_db_password, target: password}}
    depends_on: {{db: {{condition: service_healthy}}}}
    deploy: {{resources: {{limits: {{memory: 1.5g, cpus: 0.5, pids: "100"}}}}}}
networks:
  app: {{internal: true}}
volumes:
  app_data: {{}}
secrets:
  app_db_password: {{file: /etc/pi-commerce/secrets/app_db_password}}
x-pi:
  summary: Application
  editions: [lean]
  tier: cloud
  exposure: none
  probe: {{http: {{port: 3000, path: /health}}}}
  metrics: {{port: 3000, path: /metrics}}
  backup:
    - {{kind: volume, volume: app_data}}
  databases:
    - {{name: app, owner: app, password_secret: app_db_password}}
  routes:
    - {{path: /, port: 3000, limit: editor}}
    - {{path: /hook/, port: 3001, limit: webhook, upstream_path: /in/}}
    - {{path: /ok, port: 3000, limit: api, match: exact}}
  secrets: [app_owner_password]
""",
    "proxy": f"""
services:
  proxy:
    image: nginx:1.26.3
    user: "101:101"
    {_HARDENED}
    networks: [edge, app]
    ports:
      - 192.0.2.1:8443:8443
      - "[::1]:8080:8080/udp"
      - {{host_ip: 127.0.0.1, published: "9000", target: 9001, protocol: tcp}}
    deploy: {{resources: {{limits: {{memory: 67108864, cpus: 1, pids: 50}}}}}}
networks:
  edge: {{}}
x-pi:
  summary: Entrance
  editions: [lean, appwrite]
  tier: edge
  exposure: lan
  probe: {{http: {{port: 8443, path: /, status: 204, tls: true}}}}
  backup:
    - {{kind: none, reason: rendered again}}
""",
}

ENABLED = ["proxy", "app", "db"]


def changed(service: str, path: str, value: object) -> dict[str, str]:
    """The catalog with the value at ``path`` (steps divided by /) of one service's file replaced or REMOVED.

    A number counts in a list, one past its end appends; ``@`` stands for ``services/<service>``.
    """
    document = copy.deepcopy(yaml.safe_load(TEXTS[service]))
    *steps, last = path.replace("@", f"services/{service}").split("/")
    parent = document
    for step in steps:
        parent = parent[int(step)] if isinstance(parent, list) else parent[step]
    if value is REMOVED:
        del parent[int(last) if isinstance(parent, list) else last]
    elif isinstance(parent, list):
        parent[int(last) : int(last) + 1] = [value]
    else:
        parent[last] = value
    return {**TEXTS, service: yaml.safe_dump(document, sort_keys=False)}
