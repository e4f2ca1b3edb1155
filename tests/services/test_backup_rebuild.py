"""The steps of rebuild.yml: on a new machine beside the repositories of one that is gone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from backup_shop import FOLDER, SECRETS, Shop
from redis_server import image_of

NEW = "/var/backups/new"
MARK = f"{NEW}/state/rebuild.json"
VAULT = "/etc/pi-commerce/backup/vault.yml"
SEALED = "/etc/wireguard"


@pytest.fixture(scope="module")
def old(saved_shop: Shop) -> Shop:
    """A shop whose near repository was away when it was saved for the last time."""
    shop = saved_shop
    shop.shell(f"rm -f {FOLDER}/state/sizes.json")
    shop.write(VAULT, "older")
    shop.shell(f"mkdir -p {SEALED}/deep && echo key > {SEALED}/deep/wg0.key && chmod 0400 {SEALED}/deep/wg0.key")
    shop.shell(f"chown -R 7:8 {SEALED}/deep")
    shop.write_plan(sealed=[SECRETS, SEALED])
    shop.must("nightly")
    shop.shell(f"mv {FOLDER}/near {FOLDER}/unplugged")
    shop.write(VAULT, "newest")
    shop.order("rebuild-newest")
    shop.cli("SET", "canary", "rebuild-newest")
    shop.shell("echo rebuild-newest > /data/file", shop.files)
    assert shop.backup("ship").status == 1
    shop.shell(f"mv {FOLDER}/unplugged {FOLDER}/near")
    return shop


@pytest.fixture
def new(old: Shop) -> Iterator[Shop]:
    """A new machine as rebuild.yml has it: other volumes, another state, the same repositories."""
    old.write_plan(project=f"{old.project}_new", folder=NEW)
    old.shell(f"rm -rf {NEW}")
    old.write(MARK, json.dumps({"begun": time.time()}))
    yield old
    old.write_plan()
    for volume in old.engine.volumes.list():
        if volume.name.startswith(f"{old.project}_new_"):
            volume.remove(force=True)


def content(shop: Shop, volume: str, path: str) -> str:
    """A file in a volume of the new machine."""
    return shop.shell(f"cat {shop.root}/{shop.project}_new_{volume}/_data/{path}").output.strip()


def words(shop: Shop) -> list[str]:
    """The orders in the new machine's cluster, which no server has opened yet."""
    output: bytes = shop.engine.containers.run(
        image_of(shop.engine, "postgres"),
        ["-c", "echo 'SELECT word FROM orders ORDER BY id' | postgres --single -D /var/lib/postgresql/data shop"],
        entrypoint="bash",
        user="999:999",
        network_mode="none",
        remove=True,
        volumes={f"{shop.project}_new_postgres_data": {"bind": "/var/lib/postgresql/data", "mode": "rw"}},
    )
    return re.findall(r'word = "([^"]*)"', output.decode())


def test_vault_file_is_the_one_of_the_repository_whose_data_is_newest(new: Shop) -> None:
    assert new.must("rebuild", "vault").strip() == "newest"
    assert new.must("rebuild", "vault", "--from", "near").strip() == "older"


def test_vault_file_comes_from_the_other_where_one_is_gone(new: Shop) -> None:
    new.far.stop(timeout=1)
    hurried = "from pi_backup import __main__, engine; engine.ANSWER_SECONDS = 3; __main__.main(['rebuild', 'vault'])"
    try:
        assert new.shell(f'python3 -c "{hurried}"').output.strip() == "older"
    finally:
        new.far.start()


def test_every_repository_that_cannot_be_read_is_named(new: Shop) -> None:
    place = {"password_file": f"{SECRETS}/backup_near_password"}
    new.write_plan(folder=NEW, repositories={name: {"url": f"/{name}", **place} for name in ("near", "far")})
    refused = new.backup("rebuild", "vault")
    assert refused.status == 2
    for text in ("no repository can be read", "repository near (/near)", "repository far (/far)"):
        assert text in refused.output


def test_all_data_comes_back_once_and_nothing_is_saved_meanwhile(new: Shop) -> None:
    for job in ("ship", "nightly"):
        busy = new.backup(job)
        assert (busy.status, "is being rebuilt" in busy.output) == (75, True), busy.output
    said = new.must("rebuild", "data")
    assert "from repository far" in said
    assert content(new, "files_data", "file") == "rebuild-newest"
    assert "rebuild-newest" in content(new, "redis_data", "appendonlydir/*")
    assert words(new)[-1] == "rebuild-newest"
    noted = json.loads(new.shell(f"cat {MARK}").output)
    assert noted["source"]["repository"] == "far"
    assert noted["restored"]["stores"]["files_data"]["files"] > 0
    assert noted["restored"]["seconds"].keys() >= {"preparing redis redis_data", "preparing postgres postgres_data"}
    # What there was to replace: nothing.
    assert not [volume for volume in new.engine.volumes.list() if "_new_" in volume.name and "before" in volume.name]
    new.shell(f"echo later > {new.root}/{new.project}_new_files_data/_data/file")
    assert "back already" in new.must("rebuild", "data")
    assert content(new, "files_data", "file") == "later"
    assert new.backup("ship").status == 75
    new.write(MARK, json.dumps({**noted, "finished": time.time()}))
    assert new.backup("rebuild", "data").status == 2
    # It begins again; to a place that is none, or this would be the newest state for the tests below.
    new.write_plan(folder=NEW, services=[], repositories={"near": {"url": "/none", "password_file": "/none"}})
    begun = new.backup("ship")
    assert (begun.status, "repository near (/none)" in begun.output) == (1, True), begun.output


@pytest.mark.parametrize("where", ["scratch", "journal", "mark"])
def test_data_that_was_cut_off_comes_back(new: Shop, where: str) -> None:
    """Killed while it is prepared, while it changes places, and when all is done but not noted."""
    cut = {
        "scratch": ("redis.prepare", "redis, 'prepare'"),
        "journal": ("volumes.move", "volumes, 'move'"),
        "mark": ("restore.carry_out", "restore, 'carry_out'"),
    }[where]
    script = f"""
import os, signal
from pi_backup import __main__, redis, restore, volumes
whole = {cut[0]}
def killed(*words):
    {"whole(*words)" if where == "mark" else "pass"}
    os.kill(os.getpid(), signal.SIGKILL)
setattr({cut[1]}, killed)
__main__.main(["rebuild", "data"])
"""
    new.write("/tmp/cut.py", script)
    assert new.shell("python3 /tmp/cut.py").status == 137
    assert "restored" not in json.loads(new.shell(f"cat {MARK}").output)
    new.must("rebuild", "data")
    assert content(new, "files_data", "file") == "rebuild-newest"
    assert words(new)[-1] == "rebuild-newest"
    noted = json.loads(new.shell(f"cat {MARK}").output)
    assert "restored" in noted
    assert noted["source"]["repository"] == "far"


def test_store_without_the_canary_that_was_saved_in_it_is_named(new: Shop) -> None:
    """The shop from which it was saved stands for the one that was brought back: what is in both is the same."""
    new.must("rebuild", "data")
    noted = new.shell(f"cat {MARK}").output
    new.write_plan()
    new.write(f"{FOLDER}/state/rebuild.json", noted)
    key, table = "pi-commerce:canary", "pi_commerce.canary"
    token, row = new.cli("GET", key), new.sql(f"SELECT max(written) FROM {table}", "shop").output
    # What a run has saved it takes away; a shop that was brought back has it.
    new.shell(f"echo {token} > /data/.pi-commerce-canary-{token}", new.files)
    try:
        well = new.must("rebuild", "check")
        for store in ("postgres_data", "redis_data", "files_data"):
            assert f"{store}: canary as written" in well
        new.cli("SET", key, "another")
        new.shell(f"rm /data/.pi-commerce-canary-{token}", new.files)
        new.sql(f"UPDATE {table} SET database = 'n8n' WHERE written = '{row}'", "shop")
        said = new.backup("rebuild", "check")
        assert said.status == 1
        assert f"redis_data: the canary is 'another' instead of '{token}'" in said.output
        assert f"files_data: the canary is 'gone' instead of '{token}'" in said.output
        assert "database shop: the canary of the last run is not in it as it was written: n8n" in said.output
        empty = json.loads(noted)
        empty["restored"]["stores"]["files_data"]["files"] = 0
        new.write(f"{FOLDER}/state/rebuild.json", json.dumps(empty))
        assert "files_data: nothing came back" in new.backup("rebuild", "check").output
    finally:
        new.shell(f"rm {FOLDER}/state/rebuild.json")
        new.sql(f"UPDATE {table} SET database = 'shop' WHERE written = '{row}'", "shop")
    refused = new.backup("rebuild", "check")
    assert (refused.status, "no data was brought back" in refused.output) == (2, True), refused.output


def test_damaged_repository_is_passed_over(new: Shop) -> None:
    """The far one has the newest data, and its packs are damaged: what the near one has is better than nothing."""
    packs = "find /data/pi/data -type f -size +2k"
    new.shell(f"mkdir -p /data/whole && cp -a /data/pi/data /data/whole/ && {packs} -exec chmod u+w {{}} +", new.far)
    new.shell(f"{packs} -exec dd if=/dev/zero of={{}} bs=64 seek=4 count=4 conv=notrunc ';'", new.far)
    try:
        said = new.must("rebuild", "data")
    finally:
        new.shell("rm -rf /data/pi/data && mv /data/whole/data /data/pi/data && rmdir /data/whole", new.far)
    assert "not usable: " in said
    assert json.loads(new.shell(f"cat {MARK}").output)["source"]["repository"] == "near"
    assert "rebuild-newest" not in words(new)


def test_machine_with_data_is_left_alone(new: Shop) -> None:
    new.write_plan(folder=NEW)
    refused = new.backup("rebuild", "data")
    assert refused.status == 2
    for text in ("postgres_data", "holds data already", "restore.yml", "uninstall.yml"):
        assert text in refused.output
    assert new.orders()[-1] == "rebuild-newest"


def test_machine_that_is_not_being_rebuilt_is_left_alone(new: Shop) -> None:
    new.shell(f"rm {MARK}")
    refused = new.backup("rebuild", "data")
    assert (refused.status, "rebuild.yml is not at work" in refused.output) == (2, True), refused.output


def test_what_was_sealed_comes_back_where_it_is_asked_for(new: Shop) -> None:
    new.shell(f"rm -r {SEALED}")
    said = new.shell(f"python3 -m pi_backup rebuild sealed --path {SEALED} < /root/operator")
    assert said.output.split() == ["wrote", f"{SEALED}/deep/wg0.key"]
    assert new.shell(f"cat {SEALED}/deep/wg0.key; stat -c '%a %u %g' {SEALED}/deep/wg0.key").output.split() == [
        *("key", "400", "7", "8"),
    ]
    other = new.shell(f"age-keygen 2>/dev/null | python3 -m pi_backup rebuild sealed --path {SEALED}")
    assert other.status == 2
    assert "age ended with 1" in other.output


def test_images_are_saved_when_they_change_and_loaded(new: Shop) -> None:
    image = image_of(new.engine, "rest-server")
    new.write_plan(images=[image], images_in=["near"])
    for _ in range(2):
        new.must("nightly")
        assert len(json.loads(new.restic("snapshots", "--json", "--no-lock", "--tag", "images").output)) == 1
    assert f"Loaded image: {image}" in new.must("rebuild", "images")
    new.write_plan(images=[image, "pi-commerce/none:1"], images_in=["near"])
    said = new.backup("nightly")
    assert said.status == 1
    assert "images in near: image pi-commerce/none:1 is not on this machine" in said.output
    refused = new.backup("rebuild", "images", "--from", "far")
    assert refused.status == 2
    assert "backup_images_in" in refused.output


def test_images_that_cannot_be_printed_are_no_snapshot(new: Shop) -> None:
    code = """
from pathlib import Path
from pi_backup import plan
from pi_backup.engine import Repository
from pi_backup.errors import BackupError
known = plan.load()
before = len(Repository(known, "near").snapshots())
try:
    Repository(known, "near").backup_output("images.tar", ["sh", "-c", "echo half; exit 3"], ["images"])
except BackupError as error:
    print("refused", len(Repository(known, "near").snapshots()) - before)
"""
    new.write("/tmp/half.py", code)
    assert new.shell("python3 /tmp/half.py").output.strip() == "refused 0"
