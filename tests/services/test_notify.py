"""The notify program against Telegram, a webhook and a mail server that answer well, badly or not at all."""

from __future__ import annotations

import email
import json
import re

import pytest
from notify_host import CANARY, FOLDER, METRICS, NotifyHost


@pytest.fixture
def host(notify_host: NotifyHost) -> NotifyHost:
    """With one webhook that answers well."""
    notify_host.fresh("hook")
    return notify_host


def test_message_reaches_telegram_a_webhook_and_a_mailbox(host: NotifyHost) -> None:
    host.configure("phone", "hook", "mail")
    host.raised("n8n is down", "--level", "critical", body="It is <b>down</b>.\nLook & see.")
    host.arrived(3)
    [telegram], [hook], [mail] = (host.received(name) for name in ("telegram", "hook", "mail"))
    assert telegram["path"] == f"/bot123456789:{CANARY}-telegram_token/sendMessage"
    sent = json.loads(telegram["body"])
    assert str(sent["chat_id"]) == "-100200300"
    assert "shop-pi: n8n is down" in sent["text"]
    # What came from outside is shown as it is, and is no markup.
    assert "&lt;b&gt;down&lt;/b&gt;" in sent["text"]
    assert hook["path"] == f"/hook/{CANARY}-hook"
    assert hook["headers"]["X-Token"] == f"{CANARY}-header"
    posted = json.loads(hook["body"])
    assert posted["title"] == "shop-pi: n8n is down"
    assert posted["type"] == "failure"
    assert re.fullmatch(
        r"critical, 20\d\d-[\d :-]+ \w+, [0-9a-f]{8}\n\nIt is <b>down</b>.\nLook & see.", posted["message"]
    )
    assert mail["to"] == ["to:<anna@shop.test>"]
    parsed = email.message_from_string(mail["body"])
    assert parsed["Subject"] == "shop-pi: n8n is down"
    assert "It is" in str([part.get_payload(decode=True) for part in parsed.walk()])
    assert host.waiting() == []


def test_alert_raised_while_the_line_is_down_goes_out_later_once(host: NotifyHost) -> None:
    host.down()
    host.raised("disk full")
    host.settled()
    [message] = host.waiting()
    assert message["waiting"]["hook"]["attempts"] == 1
    said = host.notify("--status")
    assert said.status == 1
    assert "failed 1 times in a row: " in said.output
    host.up()
    host.flush()
    assert host.received() == [], "the wait after a failure is not over"
    host.due()
    host.flush()
    host.flush()
    [got] = host.received()
    assert message["id"] in got["body"]
    assert host.waiting() == []
    assert host.notify("--status").status == 0


def test_of_two_targets_the_one_that_answers_gets_it_once(host: NotifyHost) -> None:
    host.configure("hook", "other")
    host.answers("other", status=503)
    host.raised("one")
    for _ in range(3):
        host.due()
        host.flush()
    assert host.titles("hook") == ["one"]
    assert len(host.received("other")) > 2
    host.answers("other")
    host.due()
    host.flush()
    assert host.titles("hook") == ["one"]
    assert host.waiting() == []


def test_target_takes_its_levels_only(host: NotifyHost) -> None:
    host.configure("hook", "other:critical")
    host.raised("small", "--level", "warning")
    host.arrived(1)
    host.raised("large", "--level", "critical")
    host.arrived(3)
    assert host.titles("other") == ["large"]
    assert host.titles("hook") == ["small", "large"]


@pytest.mark.parametrize(
    ("how", "least"),
    [
        ({"headers": {"Retry-After": "700"}}, 690),
        ({"body": '{"ok": false, "error_code": 429, "parameters": {"retry_after": 800}}'}, 790),
    ],
    ids=["seconds", "Telegram"],
)
def test_service_that_asks_to_wait_is_left_alone(host: NotifyHost, how: dict[str, object], least: int) -> None:
    host.answers("hook", status=429, **how)
    host.raised("one")
    host.arrived(1)
    now = float(host.shell("date +%s.%N").output)
    until = host.state()["targets"]["hook"]["until"]
    assert least <= until - now <= 3600
    host.answers("hook")
    host.raised("two")
    host.flush()
    assert len(host.received()) == 1
    host.due()
    host.flush()
    # What was tried least goes first.
    assert host.titles() == ["one", "two", "one"]


def test_message_that_a_service_refuses_holds_up_no_other(host: NotifyHost) -> None:
    host.answers("hook", status=400, body='{"description": "cannot be parsed"}')
    host.raised("odd", "--level", "critical")
    host.arrived(1)
    assert host.state()["targets"].get("hook", {}).get("failures", 0) == 0
    host.answers("hook")
    host.raised("plain")
    host.arrived(2)
    assert host.titles() == ["odd", "plain"]
    [left] = host.waiting()
    assert "answered 400" in left["waiting"]["hook"]["error"]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"status": 500}, "answered 500"),
        ({"status": 401}, "answered 401"),
        ({"mode": "garbage"}, "error"),
        ({"mode": "hang"}, "error"),
        ({"status": 302, "headers": {"Location": "/login"}}, "redirects elsewhere"),
    ],
    ids=["500", "401", "garbage", "hang", "login page"],
)
def test_what_is_no_yes_is_tried_again(host: NotifyHost, how: dict[str, object], said: str) -> None:
    host.answers("hook", **how)
    host.raised("one")
    host.arrived(1)
    [message] = host.waiting()
    assert said in message["waiting"]["hook"]["error"]
    host.answers("hook")
    host.due()
    host.flush()
    assert host.titles() == ["one", "one"]
    assert host.waiting() == []


def test_answer_that_comes_drop_by_drop_ends_in_time(host: NotifyHost) -> None:
    host.answers("hook", mode="trickle")
    quick = (
        "import pi_notify.services as s, pi_notify.__main__ as m; s.SECONDS = 2; raise SystemExit(m.main(['--test']))"
    )
    said = host.shell(f'exec timeout 30 python3 -c "{quick}"', check=False)
    assert said == (1, "hook: gave no answer within 2 s\n")


def test_key_is_sent_once_until_it_is_cleared(host: NotifyHost) -> None:
    for title in ("first", "again"):
        host.raised(title, "--key", "backup:late")
    host.raised("another", "--key", "backup:failed")
    host.arrived(2)
    assert host.notify("--key", "backup:late", "--clear") == (0, "")
    host.raised("back", "--key", "backup:late")
    host.arrived(3)
    assert host.titles() == ["first", "another", "back"]


def test_key_is_sent_again_after_some_hours_and_after_the_clock_was_set_back(host: NotifyHost) -> None:
    for title, ago in (("first", 0), ("quiet", 23), ("again", 25), ("future", -48)):
        host.shell(
            f'cd {FOLDER} 2>/dev/null && python3 -c \'import json, time; state = json.load(open("state.json"))\n'
            f'state["keys"]["k"] = time.time() - {ago} * 3600\njson.dump(state, open("state.json", "w"))\'',
            check=title != "first",
        )
        host.raised(title, "--key", "k")
        host.settled()
    assert host.titles() == ["first", "again", "future"]


def test_full_outbox_drops_the_oldest_of_the_lowest_level_and_says_so(host: NotifyHost) -> None:
    host.configure("hook", messages=3)
    host.down()
    for level, title in (("critical", "c1"), ("info", "i1"), ("info", "i2"), ("warning", "w1"), ("critical", "c2")):
        host.raised(title, "--level", level)
    assert [m["title"] for m in host.waiting() if not m["count"]] == ["c1", "w1", "c2"]
    said = host.notify("--level", "info", "i3")
    assert said.status == 1
    assert "is full of messages that matter more" in said.output
    host.up()
    host.due()
    host.flush()
    assert sorted(host.titles()) == ["c1", "c2", "lost", "w1"]
    [note] = [entry for entry in host.received() if "were lost" in entry["body"]]
    assert "3 messages were left out" in note["body"]
    assert 'pi_notify_dropped_total{reason="full"} 3\n' in host.shell(f"cat {METRICS}").output
    for title in ("i1", "i2", "i3"):
        assert re.search(rf": left out, the outbox is full: {title}$", host.journal(), re.MULTILINE)


def test_outbox_is_bounded_in_bytes(host: NotifyHost) -> None:
    host.configure("hook", kib=64)
    host.down()
    for number in range(6):
        host.raised(f"n{number}", body="x" * 15000)
    size = int(host.shell(f"cat {FOLDER}/outbox/[0-9]*.json | wc -c").output)
    assert 45000 < size <= 65536
    assert [m["title"] for m in host.waiting() if not m["count"]] == ["n2", "n3", "n4", "n5"]
    host.settled()
    host.up()


@pytest.mark.parametrize(
    ("words", "body", "said"),
    [
        (["title"], "", "standard input is empty"),
        (["title"], " \n\t\n\x00", "standard input is empty"),
        ([""], "body", "the title is empty"),
        ([], "body", "the title is empty"),
        (["t" * 201], "body", "201 characters"),
        (["title"], "x" * 16385, "more than 16384 bytes"),
        (["--level", "panic", "title"], "body", "invalid choice"),
        (["--key", "a b", "title"], "body", "--key"),
        (["--clear"], "", "needs --key"),
    ],
    ids=["empty", "blank", "no title", "nothing", "long title", "large", "level", "key", "clear"],
)
def test_input_that_makes_no_sense_is_refused(host: NotifyHost, words: list[str], body: str, said: str) -> None:
    refused = host.notify(*words, body=body)
    assert refused.status == 2
    assert said in refused.output
    assert host.waiting() == []
    assert host.received() == []


def test_largest_message_passes_and_bytes_that_are_no_text_do_no_harm(host: NotifyHost) -> None:
    host.raised("large", body="x" * 16384)
    host.shell("head -c 4000 /dev/urandom | python3 -m pi_notify 'od\x1bd\nti\ttle'")
    host.arrived(2)
    assert host.titles() == ["large", "tle"]
    assert json.loads(host.received()[1]["body"])["title"] == "shop-pi: odd ti tle"


def test_telegram_gets_as_much_as_it_takes(host: NotifyHost) -> None:
    """In one message: parts of one would be sent twice when a later part fails."""
    host.configure("phone")
    host.raised("long", body="x" * 16000)
    [got] = host.arrived(1)
    assert 3500 < len(json.loads(got["body"])["text"]) <= 4096


def test_without_a_target_the_journal_gets_it_and_nothing_grows(host: NotifyHost) -> None:
    host.configure()
    host.raised("nobody listens", body="but the journal")
    assert "nobody listens | but the journal" in host.journal()
    assert host.waiting() == []
    said = host.notify("--status")
    assert (said.status, "no target is configured" in said.output) == (0, True)
    host.configure("hook:critical")
    host.raised("too small", "--level", "warning")
    assert "too small" in host.journal()
    assert host.waiting() == []


def test_target_that_is_no_more_is_waited_for_no_more(host: NotifyHost) -> None:
    host.configure("hook", "other")
    host.down()
    host.raised("one")
    host.settled()
    host.configure("other")
    host.up()
    host.due()
    host.flush()
    assert host.titles() == ["one"]
    assert host.received("hook") == []
    assert host.waiting() == []


def test_nothing_secret_is_told_anybody(host: NotifyHost) -> None:
    """Not where services repeat it in their answers, not where a URL is wrong, not among the processes."""
    host.configure("phone", "hook", "other", "mail")
    for service, known in (("telegram", ""), ("hook", f"{CANARY}-header"), ("other", f"user:{CANARY}-pass")):
        host.answers(service, status=401, body=f'{{"description": "PATH {known}", "error_code": 401}}')
    host.answers("mail", auth=535)
    look = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null"
    host.container.exec_run(["bash", "-c", f"while [ ! -e /run/enough ]; do {look}; done >> /run/seen"], detach=True)
    host.raised("one")
    host.settled()
    outputs = [host.notify("--status").output]
    host.down()
    host.due()
    host.flush()
    outputs += [host.notify(flag).output for flag in ("--status", "--test", "--check")]
    host.shell("touch /run/enough")
    host.write("/etc/pi-commerce/secrets/notify_extra_url", f"jason://{CANARY}/{CANARY}%2Fcoded")
    host.configure("extra")
    outputs.append(host.notify("--check").output)
    host.up()
    host.write("/etc/pi-commerce/secrets/notify_extra_url", f"json://127.0.0.1:8080/two words/{CANARY}%2Fcoded")
    host.answers("two words", status=500)
    outputs.append(host.notify("--test").output)
    assert outputs[0].count("answered 401") == 6
    assert "none that apprise knows" in outputs[4]
    assert "pi_notify" in host.shell("tr '\\0' ' ' < /run/seen | grep -o 'pi_notify --test' | head -1").output
    found = host.shell(f"grep -rls {CANARY} {FOLDER} {METRICS} /var/log /tmp /var/tmp /root /run/seen", check=False)
    leaks = [line for text in [*outputs, host.journal()] for line in text.splitlines() if CANARY in line]
    assert (leaks, found.output) == ([], "")
    # It was all there to be told.
    assert any(CANARY in entry["path"] for entry in host.received("telegram", "hook"))


def test_wrong_url_or_several_recipients_are_named(host: NotifyHost) -> None:
    host.write("/etc/pi-commerce/secrets/notify_extra_url", f"tgram://123456789:{CANARY}-telegram_token/-1001/-1002")
    host.configure("extra", "hook", "missing")
    said = host.notify("--check")
    assert said.status == 1
    assert "target extra: its URL names 2 recipients" in said.output
    assert "hook: is understood" in said.output
    assert "notify_missing_url: cannot be read" in said.output
    assert host.received() == []


def test_test_message_tells_of_each_target(host: NotifyHost) -> None:
    host.configure("hook", "other")
    host.answers("other", status=404)
    said = host.notify("--test")
    assert said.status == 1
    assert re.search(r"^hook: delivered$", said.output, re.MULTILINE)
    assert re.search(r"^other: answered 404", said.output, re.MULTILINE)


def test_metrics_and_status_are_there_for_others(host: NotifyHost) -> None:
    host.configure("hook", "other")
    host.answers("other", status=500)
    host.raised("one", "--level", "critical")
    host.arrived(2)
    lines = host.shell(f"cat {METRICS}").output.splitlines()
    assert 'pi_notify_waiting{level="critical"} 1' in lines
    assert 'pi_notify_delivered_total{target="hook"} 1' in lines
    assert 'pi_notify_failed_total{target="other"} 1' in lines
    assert any(line.startswith('pi_notify_success_timestamp_seconds{target="hook"} 1') for line in lines)
    assert host.shell(f"stat -c %a {METRICS} {FOLDER} {FOLDER}/outbox {FOLDER}/outbox/*.json").output.split() == [
        *("644", "700", "700", "600")
    ]
    assert json.loads(host.shell(f"cat {FOLDER}/status.json").output)["waiting"]["critical"] == 1


def test_only_root_may(host: NotifyHost) -> None:
    said = host.shell(
        "setpriv --reuid 1000 --regid 1000 --clear-groups python3 -m pi_notify t < /dev/null", check=False
    )
    assert said.status == 2
    assert "for root only" in said.output
