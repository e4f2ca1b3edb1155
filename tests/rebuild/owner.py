"""What an owner has done by hand on a shop, and everything that has to be the same on the machine that replaces it."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from typing import Any

import machine

POSTGRES = "docker exec -i pi-commerce-postgres-1 psql -U postgres -XAtq -v ON_ERROR_STOP=1"
BROWSER = {"browser-id": "rebuild-test"}
UPLOAD = "/home/node/.n8n/binaryData/by-hand/photo.bin"
PATH = "by-hand"
# What a busy shop answers; whoever sent the order sends it again.
LATER = (429, 503)
SALE_SECONDS = 120
# Rows of tables that n8n itself does not touch again once they are written.
N8N = {
    "workflows": "SELECT id, name, active, nodes, connections FROM workflow_entity ORDER BY id",
    "credentials": "SELECT id, name, type, data FROM credentials_entity ORDER BY id",
    "webhooks": 'SELECT "webhookPath", method, node FROM webhook_entity ORDER BY 1, 2',
    "people": 'SELECT id, email, password FROM "user" ORDER BY id',
}


class Owner:
    """Logged in to n8n, through the entrance like a browser."""

    def __init__(self) -> None:
        login = {"emailOrLdapLoginId": "owner@example.com", "password": machine.secrets()["n8n_owner_password"]}
        answer = machine.request("/rest/login", login, BROWSER)
        assert answer.status == 200, answer
        self._headers = {**BROWSER, "cookie": answer.headers["Set-Cookie"].partition(";")[0]}

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """The data in n8n's answer."""
        answer = machine.request(path, body, self._headers, method)
        assert answer.status == 200, answer
        return answer.json()["data"]


def sell(count: int) -> None:
    """Orders that came in."""
    for _ in range(count):
        order = {
            "order_id": f"R-{uuid.uuid4().hex[:12]}",
            "source": "instagram",
            "total_cents": 4990,
            "currency": "EUR",
            "items": [{"sku": "MUG-1", "quantity": 2, "price_cents": 2495}],
        }
        deadline = time.monotonic() + SALE_SECONDS
        while (answer := machine.order(order)).status in LATER:
            assert time.monotonic() < deadline, answer
            time.sleep(answer.json()["retry_after"])
        # 200: what was put off had been saved.
        assert answer.status in (200, 201), answer


def build_by_hand() -> None:
    """A credential, a workflow that needs it, a file, and what is in a queue."""
    owner = Owner()
    password = machine.secrets()["shop_db_password"]
    data = {
        "host": "postgres",
        "port": 5432,
        "database": "shop",
        "user": "shop",
        "password": password,
        "ssl": "disable",
    }
    credential = owner.ask("/rest/credentials", {"name": "By hand", "type": "postgres", "data": data})
    nodes = [
        {
            **{"id": str(uuid.uuid4()), "name": "Call", "type": "n8n-nodes-base.webhook", "typeVersion": 2.1},
            **{"position": [0, 0], "webhookId": str(uuid.uuid4())},
            "parameters": {"httpMethod": "GET", "path": PATH, "responseMode": "lastNode", "options": {}},
        },
        {
            **{"id": str(uuid.uuid4()), "name": "Count", "type": "n8n-nodes-base.postgres", "typeVersion": 2.7},
            **{"position": [240, 0], "credentials": {"postgres": {"id": credential["id"], "name": "By hand"}}},
            "parameters": {
                "operation": "executeQuery",
                "query": "SELECT count(*) AS orders FROM orders",
                "options": {},
            },
        },
    ]
    connections = {"Call": {"main": [[{"node": "Count", "type": "main", "index": 0}]]}}
    workflow = owner.ask(
        "/rest/workflows",
        {"name": "By hand", "nodes": nodes, "connections": connections, "settings": {"executionOrder": "v1"}},
    )
    owner.ask(f"/rest/workflows/{workflow['id']}/activate", {"versionId": workflow["versionId"]})
    upload = f"docker exec -i pi-commerce-n8n-1 sh -c 'mkdir -p {UPLOAD.rpartition('/')[0]} && cat > {UPLOAD}'"
    machine.pi(f"head -c 3000000 /dev/urandom | {upload}")
    redis("SET token canary", "RPUSH queue first second third", "HSET stock MUG-1 7", "SADD sources shopify instagram")


def redis(*commands: str) -> str:
    """Answers of Valkey to its admin; the password goes through standard input."""
    script = "\n".join([f"AUTH {machine.secrets()['redis_admin_password']}", *commands])
    return machine.pi(f"docker exec -i pi-commerce-redis-1 valkey-cli <<'END'\n{script}\nEND")


def by_hand() -> Any:
    """What the owner's own workflow answers, which takes a credential that n8n has to decrypt."""
    answer = machine.request(f"/webhook/{PATH}")
    assert answer.status == 200, answer
    return json.loads(answer.body)


def sum_of(text: str) -> str:
    """A digest, so that a difference does not print a shop's data."""
    return hashlib.sha256(text.encode()).hexdigest()


def rows(database: str, query: str) -> str:
    """Digest of a query's rows."""
    return sum_of(machine.pi(f"{POSTGRES} -d {database} <<'SQL'\n{query};\nSQL"))


def everything() -> dict[str, Any]:
    """All that has to come back, as digests."""
    found: dict[str, Any] = {
        name: rows("shop", f"SELECT * FROM shop.{name} ORDER BY 1, 2") for name in ("orders", "order_items")
    }
    found |= {name: rows("n8n", query) for name, query in N8N.items()}
    keys = ("GET token", "LRANGE queue 0 -1", "HGETALL stock", "SORT sources ALPHA")
    found["redis"] = sum_of(redis(*keys))
    found["upload"] = machine.pi(f"docker exec pi-commerce-n8n-1 sha256sum {UPLOAD}").split()[0]
    found["upload of"] = machine.pi(f"docker exec pi-commerce-n8n-1 stat -c '%u %g %a %s' {UPLOAD}").strip()
    found["certificates"] = machine.pi("cd /etc/pi-commerce/proxy/tls && stat -c '%n %u %g %a' * && sha256sum *")
    found["secrets on the machine"] = machine.pi("cd /etc/pi-commerce/secrets && stat -c '%n %u %a' * && sha256sum *")
    found["secrets"] = sum_of(json.dumps(machine.secrets(), sort_keys=True))
    found["orders counted by hand"] = by_hand()
    return found
