"""What the backup program and rebuild.yml are told of the repositories."""

from __future__ import annotations

import plays

FILTERS = plays.filters("backup")
CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
PLACES = {
    "near": {"url": "/near"},
    "far": {
        "url": "rest:https://far.test/pi/",
        "ca": CA,
        "environment": {"RESTIC_REST_USERNAME": "pi"},
        "secrets": {"RESTIC_REST_PASSWORD": "far_access"},
    },
}


def test_order_is_that_of_the_inventory_and_files_lie_where_they_are_written() -> None:
    targets = FILTERS["backup_targets"](PLACES, "/secrets", "/authorities")
    assert list(targets) == ["near", "far"]
    assert targets["near"]["environment"] == {}
    assert targets["far"] == {
        "url": "rest:https://far.test/pi/",
        "password_file": "/secrets/backup_far_password",
        "environment": {"RESTIC_CACERT": "/authorities/far.pem", "RESTIC_REST_USERNAME": "pi"},
        "secrets": {"RESTIC_REST_PASSWORD": "far_access"},
    }
    assert FILTERS["backup_authorities"](PLACES, "authorities") == [
        {"path": "authorities/far.pem", "content": f"{CA}\n"}
    ]


def test_what_only_a_place_can_give_is_never_made_here() -> None:
    bucket = {"url": "s3:x/y", "secrets": {"AWS_ACCESS_KEY_ID": "s3_id", "AWS_SECRET_ACCESS_KEY": "s3_key"}}
    assert FILTERS["backup_given_names"]({**PLACES, "bucket": bucket}) == ["s3_id", "s3_key"]


def test_repository_is_opened_by_all_of_its_secrets_together() -> None:
    assert list(FILTERS["backup_opened"](PLACES, {"backup_far_password": "x"})) == []
    assert list(FILTERS["backup_opened"](PLACES, {"backup_far_password": "x", "far_access": "y"})) == ["far"]
    assert list(FILTERS["backup_opened"](PLACES, dict.fromkeys(FILTERS["backup_secret_names"](PLACES), "x"))) == [
        "near",
        "far",
    ]
