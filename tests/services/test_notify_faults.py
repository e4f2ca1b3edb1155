"""The notify program killed, crowded, on a full disk, with a wrong clock and with damaged files."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from notify_host import FOLDER, METRICS, SMALL_DISK, NotifyHost


@pytest.fixture
def host(notify_host: NotifyHost) -> NotifyHost:
    """With one webhook that answers well."""
    notify_host.fresh("hook")
    return notify_host


def killed(host: NotifyHost, what: str) -> list[dict[str, Any]]:
    """What came of killing at each step."""
    printed = host.shell(f"python3 /srv/tests/notify_killed.py {what}").output
    steps = [json.loads(line) for line in printed.splitlines()]
    assert steps[-1]["step"] == "", "there is a step after which it was not killed"
    assert {step["status"] for step in steps[:-1]} == {-9}
    return steps


def test_delivery_killed_at_any_step_loses_nothing_and_repeats_at_most_once(host: NotifyHost) -> None:
    """Twice only where the answer had come and was not on the disk yet."""
    steps = killed(host, "flush")
    assert len(steps) > 15
    assert {step["times"] for step in steps} == {1, 2}
    names = [step["step"] for step in steps]
    asked = next(number for number, name in enumerate(names) if name.startswith("socket.connect"))
    noted = next(number for number, name in enumerate(names) if number > asked and name.startswith("os.remove"))
    twice = [number for number, step in enumerate(steps) if step["times"] == 2]
    assert all(asked < number <= noted for number in twice), steps
    assert steps[-1]["times"] == 1
    assert host.waiting() == []


def test_sender_killed_at_any_step_has_kept_all_or_nothing(host: NotifyHost) -> None:
    """Nothing only before the file has its name; the caller has seen no exit code 0 then."""
    steps = killed(host, "send")
    times = [step["times"] for step in steps]
    named = next(number for number, step in enumerate(steps) if step["step"].startswith("os.rename"))
    assert times == [0] * (named + 1) + [1] * (len(steps) - named - 1), steps
    assert host.shell(f"ls -A {FOLDER}/outbox").output == ""


def test_twenty_at_once_are_all_delivered_once(host: NotifyHost) -> None:
    host.shell("for n in $(seq 20); do echo body | python3 -m pi_notify m$n & pids+=($!); done; wait -f ${pids[@]}")
    host.settled()
    host.flush()
    assert Counter(host.titles()) == Counter(f"m{number}" for number in range(1, 21))
    assert host.waiting() == []
    assert host.state()["counts"] == {"delivered hook": 20}


def test_same_key_from_twenty_at_once_is_sent_once(host: NotifyHost) -> None:
    host.shell(
        "for n in $(seq 20); do echo body | python3 -m pi_notify --key k m$n & pids+=($!); done; wait ${pids[@]}"
    )
    host.arrived(1)
    host.flush()
    assert len(host.received()) == 1


def test_clock_that_leaps_ahead_makes_no_message_vanish_untried(host: NotifyHost) -> None:
    """As on a machine without a clock of its own, which learns the time after a while."""
    host.down()
    host.raised("one")
    host.settled()
    long_ago = "20200101T000000"
    host.shell(
        f"cd {FOLDER}/outbox && python3 - <<'E'\nimport json, pathlib, calendar, time\n"
        f"created = calendar.timegm(time.strptime('{long_ago}', '%Y%m%dT%H%M%S'))\n"
        "for path in pathlib.Path().glob('*.json'):\n"
        "    message = {**json.loads(path.read_text()), 'created': created}\n"
        "    path.unlink()\n"
        "    pathlib.Path(f\"{created * 10**6:017d}-{message['id']}.json\").write_text(json.dumps(message))\nE"
    )
    host.up()
    host.due()
    host.flush()
    assert host.titles() == ["one"]


def test_message_that_cannot_be_delivered_for_days_is_given_up_with_a_note(host: NotifyHost) -> None:
    host.configure("hook", "other", keep_days=0)
    host.answers("other", status=404)
    host.raised("one")
    host.settled()
    assert "given up for other, too old: one" in host.journal()
    # Whoever can be reached is told; that the note is lost, too, is no news.
    assert host.titles("hook") == ["one", "lost"]
    assert "1 messages were given up" in host.received("hook")[1]["body"]
    host.due()
    host.flush()
    assert host.waiting() == []
    assert len(host.received("hook")) == 2
    assert 'pi_notify_dropped_total{reason="old"} 1\n' in host.shell(f"cat {METRICS}").output


def test_clock_that_was_set_back_keeps_no_target_waiting(host: NotifyHost) -> None:
    host.answers("hook", status=500)
    host.raised("one")
    host.arrived(1)
    host.answers("hook")
    host.shell(
        f'cd {FOLDER} && python3 -c \'import json; state = json.load(open("state.json"))\n'
        'state["targets"]["hook"]["until"] += 86400; json.dump(state, open("state.json", "w"))\''
    )
    host.flush()
    assert host.titles() == ["one", "one"]
    assert host.waiting() == []


def test_damaged_files_stop_nobody_and_are_told(host: NotifyHost) -> None:
    host.shell(
        f"mkdir -p {FOLDER}/outbox && cd {FOLDER} && echo '{{' > state.json\nhead -c 300 /dev/urandom > outbox/1.json\n"
        "echo '{\"id\": 5}' > outbox/2.json && echo '[]' > outbox/3.json && touch outbox/.new-4.json"
    )
    host.raised("one")
    host.arrived(2)
    assert sorted(host.titles()) == ["lost", "one"]
    assert "3 messages were unreadable" in "".join(entry["body"] for entry in host.received())
    assert host.shell(f"ls -A {FOLDER}/outbox").output == ""
    assert "state.json: is damaged" in host.journal()


def test_full_disk_is_named_and_the_journal_has_the_message(host: NotifyHost) -> None:
    host.configure("hook", folder=f"{SMALL_DISK}/notify")
    host.shell(f"rm -rf {SMALL_DISK}/*")
    host.raised("before")
    host.arrived(1)
    host.shell(f"cat /dev/zero > {SMALL_DISK}/other", check=False)
    said = host.notify("disk is full", body="all of it")
    assert said.status == 1
    assert f"{SMALL_DISK}/notify/outbox" in said.output
    assert "No space left on device" in said.output
    assert "disk is full | all of it" in host.journal()
    assert host.shell(f"ls -A {SMALL_DISK}/notify/outbox").output == ""
    host.shell(f"rm {SMALL_DISK}/other")
    host.raised("after")
    host.arrived(2)


def test_settings_that_are_missing_or_wrong_are_named(host: NotifyHost) -> None:
    for content, said in (("{", "is not what the role notify writes"), ('{"targets": {}}', "KeyError")):
        (host.shared / "settings").write_text(content)
        wrong = host.notify("--status")
        assert wrong.status == 1
        assert said in wrong.output
        assert "run site.yml" in wrong.output
