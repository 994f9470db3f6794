"""What Prometheus sees: the numbers of all workers, for those who may look, whatever becomes of the database."""

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import flask
import psutil
import pytest
from flask.testing import FlaskClient

from app import known, limits, metrics
from tests import postgres, programs, rows, scrape
from tests.cast import Person
from tests.commands import run_json
from tests.hosts import Host, WireHost, make_key, query
from tests.scrape import Numbers, raised
from tests.service import Service, running_service, wait_until
from tests.web import Browser

MakeApp = Callable[..., flask.Flask]

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
TAKES_ITS_TIME = metrics.EVERY * 10


def until_raised(service: Service, before: Numbers, expected: Numbers) -> None:
    """Waits for the workers to have handed on what they counted, and holds that it is that and no more."""

    def has_risen() -> Numbers:
        risen = raised(before, scrape.of(service))
        return {name: risen.get(name, 0) for name in expected}

    wait_until(
        lambda: all(value >= expected[name] for name, value in has_risen().items()), str(expected), TAKES_ITS_TIME
    )
    assert has_risen() == expected


def settled(service: Service) -> Numbers:
    """The numbers once all workers have handed on what they had counted."""
    since, seen = 0.0, Numbers()

    def quiet() -> Numbers | None:
        nonlocal since, seen
        found = scrape.of(service)
        counted = {name: value for name, value in found.items() if name.startswith(("belfry_polls", "belfry_requests"))}
        counted.pop('belfry_requests_total{endpoint="ops.show_metrics",status="2xx"}', None)
        if counted != seen:
            since, seen = time.monotonic(), counted
        return found if time.monotonic() > since + 1.2 * metrics.EVERY else None

    found: Numbers = wait_until(quiet, "all workers have handed on what they counted")
    return found


def signed_in(service: Service, subject: str) -> Browser:
    service.add_user(subject)
    browser = Browser(service.url)
    assert browser.submit(service.link(subject)).status == 200
    return browser


@pytest.fixture
def silent_database() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        yield f"postgresql://belfry@127.0.0.1:{listening.getsockname()[1]}/belfry"


def test_polls_of_all_workers_are_counted_by_what_they_were_answered(service: Service) -> None:
    ada = signed_in(service, "ada")
    tag = ada.open("/notifications/unread").headers["ETag"]
    before = settled(service)

    for _ in range(5):
        assert ada.open("/notifications/unread").status == 200
    for _ in range(7):
        assert ada.open("/notifications/unread", If_None_Match=tag).status == 304
    for _ in range(3):
        assert Browser(service.url).open("/notifications/unread").status == 401

    polls = {f'belfry_polls_total{{outcome="{status}"}}': times for status, times in ((200, 5), (304, 7), (401, 3))}
    until_raised(service, before, polls)


def test_a_poll_is_counted_the_same_on_the_ordinary_way(alice: Person, another_app: MakeApp) -> None:
    slow = another_app(fast_path=False, poll_limit="3 per minute")
    person = Person(slow, "alice")
    before = scrape.of_app(slow.test_client())

    statuses = [person.poll().status_code for _ in range(2)]
    statuses.append(person.poll(person.poll().headers["ETag"]).status_code)

    risen = raised(before, scrape.of_app(slow.test_client()))
    assert statuses == [200, 200, 429]
    assert risen['belfry_polls_total{outcome="200"}'] == 3
    assert risen['belfry_polls_total{outcome="429"}'] == 1
    assert risen['belfry_limit_refusals_total{limit="polls"}'] == 1
    assert 'belfry_requests_total{endpoint="inbox_api.unread",status="2xx"}' not in risen


def test_what_was_published_told_and_heard_is_counted(service: Service) -> None:
    key = make_key(service.database_url)
    before = settled(service)

    answer = WireHost(service.url, key).call(
        "POST", "/events", {"type": "t", "title": "T", "recipients": ["ada", "grace"]}
    )

    assert answer.status == 201
    expected = {
        "belfry_published_events_total": 1.0,
        "belfry_delivered_notifications_total": 2.0,
        "belfry_notices_told_total": 2.0,
        'belfry_requests_total{endpoint="publish_api.publish",status="2xx"}': 1.0,
        'belfry_request_seconds_count{endpoint="publish_api.publish"}': 1.0,
    }
    until_raised(service, before, expected)


def test_each_limit_counts_whom_it_refuses(app: flask.Flask, alice: Person, another_app: MakeApp) -> None:
    before = scrape.of_app(app.test_client())

    for _ in range(11):
        app.test_client().post("/login", data={"username": "nobody at all", "password": "wrong"})
    for _ in range(61):
        alice.post("/notifications/read", {"ids": [1]})
    host = Host(app)
    [key_id] = rows.column("SELECT id FROM api_keys")
    counter = {"key": limits.CALLS_PER_KEY.key_for("key", str(key_id)), "count": limits.CALLS_PER_KEY.amount}
    rows.change("INSERT INTO rate_limits VALUES (:key, :count, now() + interval '1 minute')", **counter)
    assert host.call("GET", "/events/1").status_code == 429

    risen = raised(before, scrape.of_app(app.test_client()))
    refused = {name: times for name, times in risen.items() if name.startswith("belfry_limit_refusals")}
    labels = ("account", "bulk", "key")
    assert refused == {f'belfry_limit_refusals_total{{limit="{limit}"}}': 1 for limit in labels}


def test_statements_and_waiting_for_connections_are_timed(alice: Person, app: flask.Flask) -> None:
    before = scrape.of_app(app.test_client())
    alice.poll()
    risen = raised(before, scrape.of_app(app.test_client()))

    # The poll's, and of the scrape before what came after its own numbers were written down.
    assert 1 <= risen["belfry_statement_seconds_count"] <= 8
    assert risen["belfry_poll_seconds_count"] == 1
    assert 1 <= risen["belfry_connection_wait_seconds_count"] <= 5
    assert 0 < risen["belfry_statement_seconds_sum"] < 1


def test_a_time_stands_in_the_class_that_it_belongs_to() -> None:
    times = metrics.Timed("belfry_tested_seconds", "For this test.", (0.5, 1.0)).of()
    metrics.METRICS.pop()
    for seconds in (0.1, 0.5, 0.6, 7):
        times.note(seconds)
    times.move()
    times.note(0.2)
    times.move()

    shown = scrape.parse(metrics.generate_latest(metrics.OWN).decode())

    assert [shown[f'belfry_tested_seconds_bucket{{le="{bound}"}}'] for bound in ("0.5", "1.0", "+Inf")] == [3, 4, 5]
    assert shown["belfry_tested_seconds_sum"] == pytest.approx(8.4)


def test_the_clean_up_is_seen_though_it_is_another_process(app: flask.Flask, alice: Person, publish: Any) -> None:
    publish("alice")
    assert "belfry_cleanup_done_timestamp_seconds" not in scrape.of_app(app.test_client())
    rows.change("UPDATE events SET created_at = now() - interval '2 hours'")
    publish("alice")
    rows.change("UPDATE notifications SET expires_at = now() - interval '1 hour' WHERE id = 2")

    found = scrape.of_app(app.test_client())
    assert found["belfry_oldest_unread_seconds"] == pytest.approx(7200, abs=60)
    assert found["belfry_oldest_overdue_seconds"] == pytest.approx(3600, abs=60)

    run_json(app, "cleanup")

    found = scrape.of_app(app.test_client())
    assert found['belfry_cleanup_rows_total{chore="notifications"}'] == 1
    assert found["belfry_cleanup_done_timestamp_seconds"] == pytest.approx(time.time(), abs=60)
    assert found["belfry_oldest_overdue_seconds"] == 0
    alice.post("/notifications/read", {"through": 2})
    assert "belfry_oldest_unread_seconds" not in scrape.of_app(app.test_client())


@pytest.mark.parametrize("what", ["silent", "refusing"])
def test_without_a_database_a_scrape_is_answered_in_time_and_says_so(
    another_app: MakeApp, silent_database: str, what: str
) -> None:
    url = silent_database if what == "silent" else "postgresql://belfry@127.0.0.1:1/belfry"
    client = another_app(database_url=url).test_client()

    for _ in range(2):
        started = time.monotonic()
        found = scrape.of_app(client)
        assert time.monotonic() - started < 2
        assert found["belfry_database_up"] == 0
        assert "belfry_oldest_overdue_seconds" not in found
        assert 'belfry_polls_total{outcome="304"}' in found


def test_before_the_migrations_it_shows_what_there_is(another_app: MakeApp) -> None:
    with postgres.database(migrated=False) as url:
        found = scrape.of_app(another_app(database_url=url).test_client())
    assert found["belfry_database_up"] == 1
    assert "belfry_oldest_overdue_seconds" not in found


def test_who_listens_in_vain_is_blind(service: Service) -> None:
    ada = signed_in(service, "ada")
    ada.poll()
    wait_until(lambda: ada.poll() and scrape.of(service)["belfry_blind_workers"] == 0, "a worker listens")
    before = settled(service)

    query(service.database_url, f"SELECT pg_terminate_backend(pid) {OTHERS}")

    name = "belfry_listening_lost_total"
    wait_until(lambda: raised(before, scrape.of(service)).get(name), "it is counted")
    wait_until(lambda: scrape.of(service)["belfry_blind_workers"] == 0, "they listen again")


def test_a_worker_is_blind_from_when_it_wants_to_listen_until_it_does() -> None:
    worker = known.Known(10, lambda: None)
    assert not worker.is_blind()
    worker.begin(1)
    assert worker.is_blind()
    worker.listen(True)
    assert not worker.is_blind()


def workers_of(service: Service) -> list[psutil.Process]:
    assert service.process is not None
    return psutil.Process(service.process.pid).children()


def folder_of(service: Service) -> Path:
    assert service.process is not None
    return next(folder for folder in MEMORY.glob(f"belfry-metrics-{service.process.pid}-*"))


MEMORY = Path("/dev/shm")


def test_a_killed_worker_takes_along_what_it_was_and_not_what_it_counted() -> None:
    with running_service(WEB_CONCURRENCY="2") as service:
        for _ in range(40):
            assert Browser(service.url).open("/notifications/unread").status == 401
        name = 'belfry_polls_total{outcome="401"}'
        wait_until(lambda: scrape.of(service)[name] == 40, "all polls are counted")
        wait_until(lambda: scrape.of(service)["belfry_workers"] == 2, "both workers serve")
        first = {worker.pid for worker in workers_of(service)}

        os.kill(min(first), signal.SIGKILL)

        wait_until(lambda: len({worker.pid for worker in workers_of(service)} - first) == 1, "another worker is there")
        wait_until(lambda: scrape.of(service)["belfry_workers"] == 2, "two workers serve")
        assert scrape.of(service)[name] == 40
        dead = [file for file in folder_of(service).iterdir() if f"_{min(first)}." in file.name]
        assert not dead


def test_without_its_folder_the_service_goes_on_without_numbers() -> None:
    """systemd empties /dev/shm of an ordinary user's files when that user has logged out (RemoveIPC)."""
    with running_service(WEB_CONCURRENCY="1") as service:
        [first] = workers_of(service)
        shutil.rmtree(folder_of(service))

        first.kill()

        wait_until(lambda: [worker.pid for worker in workers_of(service)] not in ([], [first.pid]), "another is there")
        wait_until(lambda: Browser(service.url).open("/readyz").status == 200, "it serves")
        assert Browser(service.url).open("/nowhere").status == 404
        assert Browser(service.url).open("/metrics").status == 500  # rather than numbers that are none


def test_the_numbers_folder_is_fresh_kept_by_a_reload_and_gone_in_the_end() -> None:
    left_over = MEMORY / f"belfry-metrics-{os.getpid()}-left"
    in_use = MEMORY / f"belfry-metrics-{os.getpid()}-used"
    pipe = MEMORY / f"belfry-metrics-{os.getpid()}-pipe"  # of another user's: whoever opens it waits for a writer
    left_over.mkdir()
    in_use.mkdir()
    os.mkfifo(pipe)
    handle = os.open(in_use, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with running_service(WEB_CONCURRENCY="1") as service:
            assert not left_over.exists()
            assert in_use.exists()
            folder = folder_of(service)
            Browser(service.url).open("/nowhere")
            name = 'belfry_requests_total{endpoint="unmatched",status="4xx"}'
            wait_until(lambda: scrape.of(service).get(name) == 1, "it is counted")
            [first] = workers_of(service)
            assert service.process is not None
            service.process.send_signal(signal.SIGHUP)
            wait_until(lambda: first.pid not in [worker.pid for worker in workers_of(service)], "it has reloaded")
            wait_until(lambda: scrape.of(service).get("belfry_workers") == 1, "it serves")
            assert folder_of(service) == folder
            assert scrape.of(service)[name] == 1
        assert not folder.exists()
    finally:
        os.close(handle)
        in_use.rmdir()
        pipe.unlink()


LOCAL, PROXY, STRANGER = "127.0.0.1", "10.0.0.1", "198.51.100.7"


@pytest.mark.parametrize(
    ("allowed", "proxies", "peer", "headers", "status"),
    [
        ("", 0, LOCAL, {}, 200),
        ("", 0, "::1", {}, 200),
        ("", 0, "::ffff:127.0.0.1", {}, 200),
        ("", 0, STRANGER, {}, 404),
        ("", 0, "", {}, 404),
        ("", 0, STRANGER, {"X-Forwarded-For": LOCAL}, 404),
        # A proxy on this machine: whom it names must be allowed too, whether or not it is trusted.
        ("", 0, LOCAL, {"X-Forwarded-For": STRANGER}, 404),
        ("", 0, LOCAL, {"X-Real-IP": STRANGER}, 404),
        ("", 0, LOCAL, {"Forwarded": "for=127.0.0.1"}, 404),
        ("", 1, LOCAL, {}, 200),
        ("", 1, LOCAL, {"X-Forwarded-For": STRANGER}, 404),
        ("", 1, LOCAL, {"X-Forwarded-For": f"{LOCAL}, {STRANGER}"}, 404),
        ("", 1, LOCAL, {"X-Forwarded-For": f"{STRANGER}, {LOCAL}"}, 404),
        ("", 2, LOCAL, {"X-Forwarded-For": f"{LOCAL}, {STRANGER}"}, 404),
        ("", 1, STRANGER, {"X-Forwarded-For": LOCAL}, 404),
        ("", 1, LOCAL, {"X-Forwarded-For": "nonsense"}, 404),
        (f"{STRANGER},{LOCAL}", 1, LOCAL, {"X-Forwarded-For": STRANGER}, 200),
        ("10.0.0.0/24, 198.51.100.0/24", 1, PROXY, {"X-Forwarded-For": STRANGER}, 200),
        ("198.51.100.0/24", 1, PROXY, {"X-Forwarded-For": STRANGER}, 404),
        ("2001:db8::/32", 0, "2001:db8::7", {}, 200),
        ("2001:db8::/32", 0, LOCAL, {}, 404),
    ],
)
def test_only_who_is_allowed_may_look_and_no_header_helps(
    another_app: MakeApp, allowed: str, proxies: int, peer: str, headers: dict[str, str], status: int
) -> None:
    chosen = {"metrics_allow": allowed} if allowed else {}
    client = another_app(trusted_proxies=proxies, **chosen).test_client()

    answer = client.get("/metrics", headers=headers, environ_base={"REMOTE_ADDR": peer})

    assert answer.status_code == status
    assert (b"belfry_" in answer.data) == (status == 200)


def test_a_reader_who_is_signed_in_may_look_no_more_than_others(alice: Person) -> None:
    assert alice.get("/metrics", environ_base={"REMOTE_ADDR": STRANGER}).status_code == 404


def test_livez_asks_nobody_and_knows_no_limit(another_app: MakeApp, silent_database: str) -> None:
    client: FlaskClient = another_app(database_url=silent_database).test_client()
    client.set_cookie("belfry", "not a session of anybody's")

    started = time.monotonic()
    answers = [client.get("/livez", headers={"Authorization": "Bearer x.y.z"}) for _ in range(310)]

    assert {(answer.status_code, answer.data) for answer in answers} == {(200, b"ok\n")}
    assert time.monotonic() - started < 3  # the first connection alone would take as long
    assert answers[0].headers["Cache-Control"] == "private, no-store"


def test_names_and_kinds_are_as_prometheus_wants_them(service: Service) -> None:
    text = Browser(service.url).open("/metrics").body
    done = subprocess.run([programs.find("promtool"), "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    assert len({metric.name for metric in metrics.METRICS}) == len(metrics.METRICS)


def test_the_page_on_monitoring_has_a_line_for_each_of_them() -> None:
    page = (postgres.ROOT / "docs/monitoring.md").read_text()
    expected = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.sentence} |"
        for metric in metrics.METRICS
    ]
    assert re.findall(r"^\| `belfry_.*$", page, re.MULTILINE) == expected


def test_the_release_is_the_projects(app: flask.Flask) -> None:
    project = (postgres.ROOT / "pyproject.toml").read_text()
    assert f'version = "{metrics.VERSION}"' in project
    assert scrape.of_app(app.test_client())[f'belfry_info{{version="{metrics.VERSION}"}}'] == 1
