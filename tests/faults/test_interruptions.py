"""A run that is cut off anywhere is made good by the next one: same state, no data lost, no secret made anew."""

from __future__ import annotations

from interruptions import Point

INSTALL = "Install the packages every machine has"
ENGINE = "Install the engine"
VAULT = "Open the vault file, make what is missing in it"
SERVICES = "Start all services, take away what is no longer enabled"
WORKFLOWS = "Bring credentials and workflows into n8n"
JOURNAL = "/var/lib/dpkg/updates/0*"

# In the order of the site, so that each task really has its work to do when it is cut off.
FIRST_RUN = [
    Point(INSTALL, "run", process=r"^/usr/lib/apt/methods/http"),
    Point(INSTALL, "session", process=r"^/usr/bin/dpkg .*--unpack", path=JOURNAL),
    Point("Write the kernel settings", "session", step=("subprocess.Popen", "sysctl", 1)),
    Point("Write the SSH server's settings", "controller", step=("os.rename", "10-pi-commerce", 1)),
    Point("Write the engine's configuration", "session", step=("os.rename", "daemon.json", 1)),
    Point(ENGINE, "power", process=r"^/usr/bin/dpkg .*--unpack", path="/var/lib/dpkg/info/containerd.list"),
    Point(ENGINE, "controller", process=r"^/usr/bin/dpkg .*--configure"),
    Point("Let a greedy container run into its limit", "engine", process=r"^docker run"),
    Point(VAULT, "controller", on_controller=("os.rename", "secrets.vault")),
    Point("Write each service's secrets", "session", step=("os.rename", "/etc/pi-commerce/secrets/", 4)),
    Point("Build the image where this version is missing", "engine", process=r"-m pip install"),
    Point("Make a certificate until a real one is given", "session", program="chown"),
    Point("Write the Compose files", "session", step=("os.rename", "/etc/pi-commerce/compose/", 3)),
    Point("Start PostgreSQL", "power", process=r"postgres.* --single"),
    Point("Make the databases and their roles", "session", process=r"^postgres: .* CREATE DATABASE"),
    Point(SERVICES, "line", process=r"^/usr/bin/docker .*compose .* up "),
    Point("Apply the schema files that are missing", "controller", step=("subprocess.Popen", "psql", 2)),
    Point(WORKFLOWS, "run", process=r"^node .*import:workflow"),
    Point(WORKFLOWS, "session", step=("http.client.send", "/publish", 2)),
    Point("Write the backup command and its nightly line", "run", step=("os.rename", "cron.d", 1)),
]

# Settings that change on a machine that has been running.
CHANGES = {
    "docker_log_max_size": "11m",
    "rate_limiter_policies": {"shopify": {"limit": 3, "window_seconds": 1}},
    "services_memory": {"n8n": "1300M"},
    "ssh_max_auth_tries": 3,
}
REPLACING = r"docker ps --all --format '{{.Names}}' | grep -qE '^[0-9a-f]+_pi-commerce-n8n-1$'"
CHANGED_RUN = [
    Point("Write the SSH server's settings", "run", step=("subprocess.Popen", "systemctl reload ssh", 1)),
    Point("Write the engine's configuration", "run", step=("subprocess.Popen", "try-restart docker", 1)),
    Point("Write the policies and the source", "controller", step=("os.rename", "policies.json", 1)),
    Point(SERVICES, "run", shell=REPLACING),
    Point(SERVICES, "engine", shell=REPLACING),
    Point(SERVICES, "power", process=r"^/usr/bin/docker .*compose .* up "),
]
