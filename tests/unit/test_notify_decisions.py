"""What the notify program decides: when to try again, in which order, what a service asked for, what is a secret."""

from __future__ import annotations

import email.utils
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from pi_notify import report, schedule, settings, words
from pi_notify.errors import NotifyError
from pi_notify.outbox import Message, Outbox

NOW = 1_800_000_000.0


def message(number: int, level: str = "info", attempts: int = 0, until: float = 0.0, **more: Any) -> Message:
    tries = {"attempts": attempts, "until": until, "error": ""}
    return Message(f"id{number}", NOW + number, level, f"m{number}", "body", {"phone": tries}, **more)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    """With room for three messages."""
    return Outbox(
        settings.parse(
            {
                "host": "shop-pi",
                "folder": str(tmp_path / "notify"),
                "metrics": str(tmp_path / "notify.prom"),
                "cadence_minutes": 1,
                "repeat_hours": 24,
                "keep_days": 7,
                "messages": 3,
                "kib": 64,
                "targets": {"phone": {"url_file": "/secret", "level": "info"}},
            }
        )
    )


def titles(outbox: Outbox) -> list[str]:
    return [found.title for found in outbox.messages() if not found.count]


def test_waits_double_from_crons_cadence_to_a_bound() -> None:
    waits = [schedule.backoff(failures, 60, jitter=0) for failures in range(1, 60)]
    assert waits[:5] == [60, 120, 240, 480, 900]
    assert set(waits[5:]) == {900}


def test_jitter_spreads_but_never_comes_before_cron() -> None:
    for failures, jitter in itertools.product((1, 2, 5, 1000), (0, 0.3, 1)):
        wait = schedule.backoff(failures, 60, jitter)
        assert 54 <= wait <= 900
        assert wait >= schedule.backoff(failures, 60, 0) / 2
    assert schedule.backoff(5, 60, 0.2) != schedule.backoff(5, 60, 0.9)


def test_what_was_tried_least_goes_first_then_what_matters_most_then_the_oldest() -> None:
    known = [message(1), message(2, "critical", attempts=4), message(3, "critical"), message(4, "critical"), message(0)]
    assert [found.title for found, _ in schedule.due(known, {}, NOW)] == ["m3", "m4", "m0", "m1", "m2"]


def test_who_has_to_wait_is_not_due_unless_the_clock_was_set_back() -> None:
    resting = {"phone": {"until": NOW + 60}}
    assert schedule.due([message(1)], resting, NOW) == []
    assert schedule.due([message(1, until=NOW + 1)], {}, NOW) == []
    assert len(schedule.due([message(1)], resting, NOW + 60)) == 1
    assert len(schedule.due([message(1)], {"phone": {"until": NOW + 86400}}, NOW)) == 1


@pytest.mark.parametrize(
    ("header", "content", "wait"),
    [
        ("12", b"", 12),
        ("0", b"", 0),
        ("-5", b"", 0),
        ("999999", b"", 3600),
        (email.utils.formatdate(NOW + 90, usegmt=True), b"", 90),
        (email.utils.formatdate(NOW - 90, usegmt=True), b"", 0),
        ("a while", b"", 0),
        ("9" * 400, b"", 0),
        ("", b'{"parameters": {"retry_after": 35}}', 35),
        ("", b'{"parameters": {"retry_after": NaN}}', 0),
        ("", b'{"parameters": {"retry_after": "x"}}', 0),
        ("", b'{"parameters": []}', 0),
        ("", b"[" * 100_000, 0),
        ("", b"\xff<html>", 0),
        ("7", b'{"parameters": {"retry_after": 35}}', 7),
    ],
)
def test_time_that_a_service_asks_for(header: str, content: bytes, wait: float) -> None:
    assert words.asked_wait({"Retry-After": header} if header else {}, content, NOW) == wait


@pytest.mark.parametrize(
    ("url", "leak"),
    [
        ("tgram://123456789:AAbb-cc_DD/-100200", "to /bot123456789:AAbb-cc_DD/sendMessage in -100200"),
        (
            "mailtos://me%40shop.test:p%2Fss%20word@mail.test?to=you@home.test",
            "p/ss word p%2Fss%20word p%2Fss+word me@shop.test",
        ),
        ("json://user:hunter22@host/a/path#part-5", "hunter22 part-5"),
        ("discord://webhook_id/webhook_token/?footer=no", "webhook_id webhook_token"),
    ],
)
def test_no_part_of_a_url_is_left_in_a_text(url: str, leak: str) -> None:
    clean = words.scrubbed(f"{url} {leak}", words.secrets_of(url))
    for part in (
        "123456789",
        "AAbb",
        "100200",
        "ss word",
        "ss%20",
        "ss+word",
        "hunter22",
        "part-5",
        "webhook",
        "shop.test",
    ):
        assert part not in clean, clean


def test_oldest_of_the_lowest_level_makes_room(outbox: Outbox) -> None:
    for number, level in enumerate(("critical", "info", "info", "warning", "critical")):
        assert outbox.add(message(number, level, key=f"key{number}"))
    assert titles(outbox) == ["m0", "m3", "m4"]
    with pytest.raises(NotifyError, match="full of messages that matter more"):
        outbox.add(message(9, "info"))
    [note] = [found for found in outbox.messages() if found.count]
    assert (note.count, note.level) == (3, "warning")
    # Who was never told of it is told the next time.
    assert set(outbox.state()["keys"]) == {"key0", "key3", "key4"}
    assert outbox.state()["counts"] == {"dropped full": 3}


def test_note_that_counts_on_while_it_is_sent_is_sent_again(outbox: Outbox) -> None:
    for number in range(4):
        outbox.add(message(number))
    [sent] = [found for found in outbox.messages() if found.count]
    outbox.add(message(5))
    outbox.delivered(sent, "phone")
    [note] = [found for found in outbox.messages() if found.count]
    assert "2 messages" in note.body
    outbox.delivered(note, "phone")
    assert [found for found in outbox.messages() if found.count] == []


def test_message_that_waited_for_the_lock_does_not_repeat_a_later_one(outbox: Outbox) -> None:
    assert outbox.add(message(2, key="k"))
    assert not outbox.add(message(1, key="k"))
    assert titles(outbox) == ["m2"]


def test_remembered_keys_are_bounded(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pi_notify.outbox.KEYS", 5)
    for number in range(20):
        outbox.add(message(number, key=f"key{number}"))
    assert len(outbox.state()["keys"]) <= 6


def test_metrics_can_be_read_by_prometheus(outbox: Outbox) -> None:
    outbox.add(message(1, "critical"))
    outbox.failed(message(1, "critical"), "phone", "away", NOW, about_message=False)
    found = report.collected(outbox, outbox.state())
    lines = report.metrics(found).splitlines()
    assert 'pi_notify_waiting{level="critical"} 1' in lines
    assert 'pi_notify_failed_total{target="phone"} 1' in lines
    assert f"pi_notify_oldest_timestamp_seconds {NOW + 1:.0f}" in lines
    for line in lines:
        assert line.startswith("# ") or len(line.split()) == 2, line


def test_metrics_lie_beside_those_of_the_backup() -> None:
    import plays
    import yaml

    backup = yaml.safe_load((plays.ROOT / "roles/backup/defaults/main.yml").read_text())["backup_folder"]
    own = (plays.ROOT / "roles/notify/defaults/main.yml").read_text()
    assert f"backup_folder | default('{backup}')" in own


def test_settings_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    for content in (
        "{",
        "[]",
        "{}",
        json.dumps({"host": "h", "targets": {"phone": {"level": "panic", "url_file": "/x"}}}),
    ):
        path.write_text(content)
        with pytest.raises(NotifyError, match=r"settings\.json: .*run site\.yml"):
            settings.load(path)
    with pytest.raises(NotifyError, match="cannot be read"):
        settings.load(tmp_path / "none")
