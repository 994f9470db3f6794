"""`examples/github-webhooks/`: real payloads in, the right people's bells ring, and nobody else's."""

import copy
import gzip
import hashlib
import hmac
import json
import re
import subprocess
import urllib.request
from typing import Any

import pytest
from belfry_client import Event
from flask.testing import FlaskClient
from github_events import to_events
from github_webhooks import create_app, receiver
from mentions import mentioned

from tests import host_network, postgres
from tests.service import Service, answers, free_port, wait_until

SECRET = "It's a Secret to Everybody"
WATCHERS = {name: ["Monalisa"] for name in ("Codertocat/Hello-World", "octo-org/octo-repo", "wolfy1339/pika-pack")}
with gzip.open(postgres.ROOT / "tests/data/github-webhooks.jsonl.gz", "rt") as lines:
    DELIVERIES: list[dict[str, Any]] = [json.loads(line) for line in lines]

# Who hears of each delivery, by its line, worked out by hand. Of those that are not here, nobody does: Codertocat
# does nearly everything in them to things of their own, and nobody hears of their own action.
EXPECTED: dict[int, tuple[str, list[str], str]] = {
    9: ("alert", ["codertocat", "monalisa"], "opened again by a program; the owner and the follower hear"),
    10: ("alert", ["monalisa"], "here the owner is an organisation, and those have no inbox"),
    11: ("alert", ["codertocat", "monalisa"], "as line 9"),
    12: ("comment", ["monalisa"], "on a commit whose author GitHub does not tell; the owner wrote it"),
    13: ("comment", ["monalisa"], "as line 12"),
    14: ("comment", ["monalisa"], "as line 12"),
    15: ("alert", ["monalisa", "wolfy1339"], "GitHub found it; owner and follower hear"),
    16: ("deployment", ["monalisa"], "Codertocat deployed it and hears nothing; the follower does"),
    17: ("deployment", ["monalisa"], "as line 16"),
    52: ("status_change", ["octocat"], "closed by its author, who is its assignee too; octocat was to review it"),
    58: ("status_change", ["octocat"], "no draft any more, and octocat is to review it"),
    59: ("status_change", ["octocat"], "opened again, as line 52"),
    66: ("review", ["octocat"], "its author reviewed it; the other reviewer hears"),
    67: ("comment", ["octocat"], "its author commented on a line; the reviewer hears"),
    69: ("release", ["monalisa"], "published by the owner; the follower hears"),
    74: ("release", ["monalisa"], "as line 69; 70 to 73 and 75 are other faces of the same release"),
}


def by_type(events: list[Event]) -> dict[str, list[str]]:
    return {event.type: list(event.recipients) for event in events}


def changed(line: int, **changes: Any) -> list[Event]:
    """What becomes of a real payload in which one thing is different: `comment__body="@ada"`."""
    delivery = copy.deepcopy(DELIVERIES[line])
    for path, value in changes.items():
        *steps, last = path.split("__")
        place = delivery["payload"]
        for step in steps:
            place = place[step]
        place[last] = value
    return to_events(delivery["event"], delivery["payload"], WATCHERS)


def signature(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def deliver(browser: FlaskClient, line: int, **headers: str) -> Any:
    body = json.dumps(DELIVERIES[line]["payload"]).encode()
    usual = {
        "Content-Type": "application/json",
        "X-GitHub-Event": DELIVERIES[line]["event"],
        "X-GitHub-Delivery": f"delivery-{line}",
        "X-Hub-Signature-256": signature(body),
    }
    return browser.post("/github", data=body, headers={**usual, **headers})


@pytest.fixture
def github(service: Service) -> FlaskClient:
    """GitHub, as the receiver sees it."""
    return receiver(service.url, host_network.new_key(service, "publish"), SECRET, WATCHERS).test_client()


@pytest.fixture
def stranger() -> FlaskClient:
    """Somebody on the internet; whatever reached Belfry through this receiver would be an error."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    return receiver(nowhere, "blf_x", SECRET, WATCHERS, attempts=1).test_client()


@pytest.mark.parametrize("line", range(len(DELIVERIES)))
def test_each_delivery_concerns_whom_it_should(line: int) -> None:
    delivery = DELIVERIES[line]
    events = to_events(delivery["event"], delivery["payload"], WATCHERS)

    if line in EXPECTED:
        type_, recipients, reason = EXPECTED[line]
        assert by_type(events) == {type_: recipients}, reason
    else:
        assert events == []
    sender = (delivery["payload"].get("sender") or {}).get("login", "").lower()
    assert all(sender not in event.recipients for event in events)


def test_all_of_them_ring_the_bells_in_belfry(service: Service, github: FlaskClient) -> None:
    answers = [deliver(github, line) for line in range(len(DELIVERIES))]

    assert {answer.status_code for answer in answers} == {200}
    notified = {line: answer.get_json()["notified"] for line, answer in enumerate(answers)}
    assert notified == {line: EXPECTED[line][1] if line in EXPECTED else [] for line in range(len(DELIVERIES))}
    # Five deliveries about one pull request are one notification, and the latest of them is on top.
    [about_the_pull_request] = host_network.signed_in(service, "octocat").poll()["notifications"]
    assert about_the_pull_request["count"] == 5
    assert about_the_pull_request["title"] == "Codertocat commented on “Update the README with new information.”"
    assert about_the_pull_request["body"] == "Maybe you should use more emoji on this line."
    assert about_the_pull_request["url"].endswith("/pull/2#discussion_r284312630")
    assert about_the_pull_request["actor"]["name"] == "Codertocat"
    counts = [one["count"] for one in host_network.signed_in(service, "monalisa").poll()["notifications"]]
    assert counts == [2, 2, 1, 3, 3]  # release, deployment, dependency, commit, code alert


def test_a_delivery_that_is_sent_again_notifies_nobody_twice(service: Service, github: FlaskClient) -> None:
    for _time in range(3):
        assert deliver(github, 66).get_json()["notified"] == ["octocat"]

    [notification] = host_network.signed_in(service, "octocat").poll()["notifications"]
    assert notification["count"] == 1


@pytest.mark.parametrize("number", ["another", "", "x" * 300, "not only visible"])
def test_what_the_signature_does_not_cover_makes_no_second_notification(
    service: Service, github: FlaskClient, number: str
) -> None:
    assert deliver(github, 66).status_code == 200
    assert deliver(github, 66, **{"X-GitHub-Delivery": number}).status_code == 200

    [notification] = host_network.signed_in(service, "octocat").poll()["notifications"]
    assert notification["count"] == 1


def test_a_wrong_missing_or_other_signature_is_refused(stranger: FlaskClient) -> None:
    body = json.dumps(DELIVERIES[66]["payload"]).encode()
    sha1 = hmac.new(SECRET.encode(), body, hashlib.sha1).hexdigest()
    good = signature(body)
    for said in (
        "",
        "sha256=",
        good.removeprefix("sha256="),
        good.upper(),
        good[:-1],
        good + "0",
        signature(body, "another secret"),
        signature(b"another body"),
        f"sha1={sha1}",
        f"sha256={sha1}",
        "sha512=" + hmac.new(SECRET.encode(), body, hashlib.sha512).hexdigest(),
        "sha256=é" + good[8:],
    ):
        assert deliver(stranger, 66, **{"X-Hub-Signature-256": said}).status_code == 401, said
    without = {"Content-Type": "application/json", "X-GitHub-Event": "issues", "X-Hub-Signature": f"sha1={sha1}"}
    assert stranger.post("/github", data=body, headers=without).status_code == 401


def test_githubs_own_example_of_a_signature_is_good(stranger: FlaskClient) -> None:
    # From GitHub's page "Validating webhook deliveries".
    headers = {"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}

    assert stranger.post("/github", data=b"Hello, World!", headers=headers).status_code == 415


def test_what_is_signed_but_no_delivery_is_refused_or_ignored(stranger: FlaskClient) -> None:
    for body, status in [
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b"{}", 200),
        (b'{"zen": "Speak like a human."}', 200),
    ]:
        headers = {"X-Hub-Signature-256": signature(body), "X-GitHub-Event": "ping"}
        answer = stranger.post("/github", data=body, headers=headers, content_type="application/json")
        assert answer.status_code == status, body


def test_what_belfry_did_not_take_is_answered_503(stranger: FlaskClient) -> None:
    assert deliver(stranger, 66).status_code == 503


def test_without_its_settings_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"BELFRY_URL": "http://127.0.0.1:8000", "BELFRY_KEY": "blf_x", "GITHUB_WEBHOOK_SECRET": SECRET}
    for missing in settings:
        for name, value in settings.items():
            monkeypatch.setenv(name, "" if name == missing else value)
        with pytest.raises(SystemExit, match="Set BELFRY_URL, BELFRY_KEY and GITHUB_WEBHOOK_SECRET"):
            create_app()
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert create_app().test_client().post("/github").status_code == 401


def test_a_mention_counts_more_than_a_comment_and_each_hears_once() -> None:
    events = changed(
        29,
        comment__body="@Monalisa and @codertocat, @octocat: see @octo-org/team, `@hidden`, ada@example.com",
        sender__login="octocat",
    )

    assert by_type(events) == {"mention": ["codertocat", "monalisa"]}  # codertocat opened it, and hears once
    assert [event.title for event in events] == ["octocat mentioned you in “Spelling error in the README file”"]


def test_who_opened_it_and_who_is_assigned_hear_of_a_comment() -> None:
    assignees = [{"login": "hubot", "type": "Bot"}, {"login": "Monalisa", "type": "User"}, {"login": "octocat"}]

    assert by_type(changed(29, sender__login="octocat", issue__assignees=assignees)) == {
        "comment": ["codertocat", "monalisa"]
    }


def test_after_an_edit_only_the_newly_named_hear() -> None:
    edited = {"changes": {"body": {"from": "Ask @ada"}}, "comment__body": "Ask @ada or @grace"}

    assert by_type(changed(33, **edited)) == {"mention": ["grace"]}
    assert changed(33, changes={"title": {"from": "Old"}}, comment__body="Ask @ada") == []


def test_a_deleted_comment_rings_for_nobody() -> None:
    assert changed(32, comment__body="@ada") == []


def test_assignments_and_requests_for_review_go_to_who_is_to_do_it() -> None:
    assert by_type(changed(34, sender__login="octocat")) == {"assignment": ["codertocat"]}
    assert by_type(changed(60, action="review_requested")) == {"review_request": ["octocat"]}


def test_reviews_go_to_the_author_and_a_dismissal_to_the_reviewer() -> None:
    approved = changed(66, sender__login="octocat", review__state="approved")
    assert by_type(approved) == {"review": ["codertocat"]}
    assert approved[0].title == "octocat approved “Update the README with new information.”"
    assert by_type(changed(65, sender__login="octocat")) == {"review": ["codertocat"]}


def test_a_passed_build_is_its_authors_news_and_a_failed_one_the_followers_too() -> None:
    assert by_type(changed(77, sender__login="ci")) == {"status_change": ["codertocat"]}
    failed = changed(77, sender__login="ci", state="failure")
    assert by_type(failed) == {"status_change": ["codertocat", "monalisa"]}
    assert failed[0].priority == "high"
    assert changed(77, sender__login="ci", state="pending") == []
    assert by_type(changed(5, sender__login="ci", check_suite__conclusion="timed_out")) == {
        "status_change": ["codertocat", "monalisa"]
    }
    assert by_type(changed(81, sender__login="ci", workflow_run__conclusion="failure")) == {
        "status_change": ["codertocat", "monalisa"]
    }
    assert by_type(changed(16, deployment_status__state="failure")) == {"deployment": ["monalisa"]}
    assert changed(16, deployment_status__state="in_progress") == []


def test_a_release_names_its_contributors() -> None:
    assert by_type(changed(69, release__body="Thanks to @ada and @monalisa!")) == {"mention": ["ada", "monalisa"]}


def test_a_deleted_account_and_missing_pieces_are_no_error() -> None:
    nobodys = changed(29, issue__user=None, comment__user=None, sender=None, issue__assignees=[None])
    assert by_type(nobodys) == {"comment": ["codertocat", "monalisa"]}  # with nobody involved, owner and follower
    assert nobodys[0].title.startswith("Somebody commented")
    assert changed(29, comment__body=None) == []
    assert to_events("issues", {"repository": {"full_name": "a/b", "html_url": "https://a", "name": "b"}}, {}) == []


def test_markup_in_what_strangers_wrote_is_shown_as_text(service: Service, github: FlaskClient) -> None:
    delivery = copy.deepcopy(DELIVERIES[67])
    delivery["payload"]["pull_request"]["title"] = "Drop <script> & <b>bold</b> " + "x" * 300
    delivery["payload"]["comment"]["body"] = "<img src=x> is `<b>`" + " long" * 20_000
    body = json.dumps(delivery["payload"]).encode()
    headers = {"X-Hub-Signature-256": signature(body), "X-GitHub-Event": delivery["event"]}

    assert github.post("/github", data=body, headers=headers, content_type="application/json").status_code == 200

    [notification] = host_network.signed_in(service, "octocat").poll()["notifications"]
    assert notification["title"].startswith("Codertocat commented on “Drop <script> & <b>bold</b> xxx")
    assert notification["body"].startswith("<img src=x> is `<b>`")
    assert "<img" not in notification["body_html"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@ada", {"ada"}),
        ("Hello @Ada, @grace! (@Bob) .@carol @dave's @x-y", {"ada", "grace", "bob", "carol", "dave", "x-y"}),
        ("ada@example.com, <ada@example.com>, ada+x@example.com, a-@example.com", set()),
        ("@octo-org/team @octo-org/team-two", set()),
        ("@ada@mastodon.example", set()),
        ("@-ada @_ada @ada_b @" + "a" * 40, set()),
        ("https://medium.example/@ada and [@grace](https://medium.example/@ada)", {"grace"}),
        ("see `@ada` and ``@grace ` @bob``", set()),
        ("an open ` and @ada", {"ada"}),
        (r"escaped \`@ada\`", {"ada"}),
        ("one ` tick\n\nand @ada in another ` paragraph", {"ada"}),
        ("```\n@ada\n```\n@grace", {"grace"}),
        ("```python\n@ada\n``\n~~~\n@bob\n````\n@grace", {"grace"}),
        ("~~~\n@ada\n```\n@bob\n~~~\n@grace", {"grace"}),
        ("```\n@ada never closed", set()),
        ("> ```\n> @ada\n> ```\n> @grace", {"grace"}),
        ("- item\n  ```\n  @ada\n  ```\n- @grace", {"grace"}),
        ("Code:\n\n    @ada\n\n\t@bob\n\n@grace", {"grace"}),
        ("Text that goes\n    on with @ada", {"ada"}),
        ("1. item\n\n    goes on with @ada\n\nText\n\n    @bob", {"ada"}),
        ("<!-- @ada\n-->@grace<code>@bob</code><pre>\n@carol</pre>", {"grace"}),
        ("", set()),
    ],
)
def test_mentions_are_counted_as_github_counts_them(text: str, expected: set[str]) -> None:
    assert mentioned(text) == expected
    assert mentioned(text.replace("\n", "\r\n")) == expected


@pytest.mark.parametrize("unit", ["`", "` ", "@", "@a-", "<!--", "<code>", "```\n", "`` ` ", "https://", "    a\n\n"])
def test_the_longest_comment_is_read_in_no_time(unit: str) -> None:
    # GitHub's longest is 65,536 characters. What took quadratic time would run into the limit of the whole test run.
    assert mentioned(unit * (65_536 // len(unit))) <= {"a"}


def test_a_repository_is_followed_however_its_name_is_written() -> None:
    delivery = DELIVERIES[69]
    for name in ("codertocat/hello-world", "Codertocat/Hello-World", "CODERTOCAT/HELLO-WORLD"):
        assert by_type(to_events(delivery["event"], delivery["payload"], {name: ["Ada"]})) == {"release": ["ada"]}


def test_the_readmes_commands_start_a_receiver_that_rings_the_bell(service: Service) -> None:
    readme = (postgres.ROOT / "examples/github-webhooks/README.md").read_text()
    [commands] = re.findall(r"^```sh\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    [secret] = re.findall(r"GITHUB_WEBHOOK_SECRET=(\S+)", commands)
    # Its last command takes the shell's place, so that the test can end it.
    commands = commands.replace("http://127.0.0.1:8000", service.url).replace("\nPYTHONPATH=", "\nexec env PYTHONPATH=")
    port = free_port()
    process = subprocess.Popen(
        ["/bin/sh", "-c", commands],
        cwd=postgres.ROOT,
        env={**service.environment, "FLASK_RUN_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/github"), "the receiver answers")
        body = json.dumps(DELIVERIES[66]["payload"]).encode()
        headers = {"X-GitHub-Event": DELIVERIES[66]["event"], "X-Hub-Signature-256": signature(body, secret)}
        headers["Content-Type"] = "application/json"
        request = urllib.request.Request(f"http://127.0.0.1:{port}/github", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer) == {"notified": ["octocat"]}
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert len(host_network.titles(service, "octocat")) == 1
