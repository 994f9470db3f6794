"""Limits counted in Redis for all workers together, and what holds while Redis does not answer."""

import contextlib
import http.client
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator

import flask
import pytest
from limits import parse_many

from app.counters import Counters
from app.poll_counter import SharedPollCounter
from app.settings import SettingsError, load
from app.shared_counters import SharedCounters
from tests.cast import Person
from tests.redis_server import PASSWORD, RedisServer, redis_server
from tests.servers import Relay
from tests.service import Service, running_service, wait_until
from tests.variants import another_app
from tests.web import Browser

PATIENCE = 3  # seconds, where Redis is to answer: on a busy machine that may take longer than a request would wait
POLLS = 20
CALLS = 300  # of another route, a minute
WORKERS = 2


@pytest.fixture(scope="module")
def _redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def redis(_redis: RedisServer) -> Iterator[RedisServer]:
    """A Redis that answers and holds nothing."""
    _redis.ask("FLUSHALL")
    yield _redis
    if _redis.process is None:
        _redis.start()
    _redis.go_on()
    wait_until(_redis.answers, "Redis answers")


@pytest.fixture(scope="module")
def shared_service(_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(
        log=tmp_path_factory.mktemp("service") / "log",
        WEB_CONCURRENCY=str(WORKERS),
        RATELIMIT_STORAGE_URI=_redis.uri,
        POLL_LIMIT=f"{POLLS} per minute",
    ) as service:
        yield service


def counter_of_a_worker(
    redis: RedisServer, rates: str, settled: float = 0, workers: int = WORKERS
) -> SharedPollCounter:
    """One of several workers: one that has been there for long, where `settled` is 0."""
    shared = SharedCounters(redis.uri, workers, "http://bell.example", settled=settled, patience=PATIENCE)
    assert shared.is_up()
    return SharedPollCounter(parse_many(rates), shared)


def workers_key(redis: RedisServer) -> str:
    """Where Redis keeps who the workers are."""
    keys = redis.ask("KEYS", "*:workers")
    assert isinstance(keys, list)
    [key] = keys
    return str(key.decode())


def signed_in(service: Service, subject: str) -> str:
    """The cookie of a new session."""
    service.add_user(subject)
    browser = Browser(service.url)
    browser.open(service.link(subject))
    assert browser.submit(service.link(subject).removeprefix(service.url)).status == 200
    [cookie] = browser.cookies
    return f"{cookie.name}={cookie.value}"


def ask(service: Service, cookie: str, path: str = "/notifications/unread") -> tuple[int, float]:
    """The status of one request by a connection of its own, and the seconds that it took."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    began = time.monotonic()
    try:
        connection.request("GET", path, headers={"Cookie": cookie})
        return connection.getresponse().status, time.monotonic() - began
    finally:
        connection.close()


def times_unshared(service: Service) -> int | None:
    """How often workers have counted by themselves and ceased to; None while one does."""
    assert service.log
    log = service.log.read_text()
    times = log.count("limits not shared")
    return times if log.count("limits shared again") == times else None


def statuses(service: Service, cookie: str, requests: int, path: str = "/notifications/unread") -> Counter[int]:
    return Counter(ask(service, cookie, path)[0] for _ in range(requests))


@pytest.mark.parametrize("settled", [0, 60])
def test_two_workers_allow_exactly_the_limit_together(redis: RedisServer, settled: float) -> None:
    workers = [counter_of_a_worker(redis, "100 per minute", settled) for _ in range(WORKERS)]

    allowed = sum(workers[number % WORKERS].count("ada") == 0 for number in range(150))

    assert allowed == 100
    assert all(59 <= worker.wait("ada") <= 60 for worker in workers)
    assert workers[0].count("grace") == 0


def test_a_connection_that_always_leads_to_one_worker_gets_nearly_all_and_the_rest_is_for_the_other(
    redis: RedisServer,
) -> None:
    one, other = [counter_of_a_worker(redis, "100 per minute") for _ in range(WORKERS)]

    assert sum(one.count("ada") == 0 for _ in range(150)) == 95
    assert sum(other.count("ada") == 0 for _ in range(150)) == 5


def test_there_is_room_for_what_a_worker_that_has_not_asked_may_give(redis: RedisServer) -> None:
    one, other, third = [counter_of_a_worker(redis, "100 per minute", workers=3) for _ in range(3)]

    assert sum(worker.count("ada") == 0 for _ in range(100) for worker in (one, other)) == 97
    assert sum(third.count("ada") == 0 for _ in range(10)) == 3


def test_what_was_given_without_asking_counts_when_the_other_worker_has_asked_first(redis: RedisServer) -> None:
    one, other = [counter_of_a_worker(redis, "100 per minute") for _ in range(WORKERS)]

    assert [one.count("ada") for _ in range(5)] == [0] * 5
    assert sum(other.count("ada") == 0 for _ in range(150)) == 95
    assert one.count("ada") > 0


def test_polls_at_once_by_two_workers_never_exceed_the_limit(redis: RedisServer) -> None:
    workers = [counter_of_a_worker(redis, "100 per minute") for _ in range(WORKERS)]
    allowed: list[int] = []

    def poll(worker: SharedPollCounter) -> None:
        allowed.append(sum(worker.count("ada") == 0 for _ in range(60)))

    threads = [threading.Thread(target=poll, args=[worker]) for worker in workers * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 90 <= sum(allowed) <= 100


def test_who_polls_as_a_bell_does_asks_redis_nothing(redis: RedisServer) -> None:
    worker = counter_of_a_worker(redis, "100 per minute")

    assert {worker.count(user_id) for user_id in range(50) for _ in range(2)} == {0}

    assert redis.ask("DBSIZE") == 1  # who the workers are


def test_several_limits_hold_each(redis: RedisServer) -> None:
    workers = [counter_of_a_worker(redis, "4 per 1 second; 6 per minute") for _ in range(WORKERS)]
    assert sum(worker.count("ada") == 0 for worker in workers for _ in range(6)) == 4
    wait_until(lambda: not workers[0].wait("ada"), "the second is over", seconds=3)

    assert sum(worker.count("ada") == 0 for worker in workers for _ in range(6)) <= 2
    assert workers[0].wait("ada") > 30 or workers[1].wait("ada") > 30


def test_two_installations_on_one_redis_count_apart(redis: RedisServer) -> None:
    one, other = (
        SharedCounters(redis.uri, 1, name, patience=PATIENCE) for name in ("https://a.example", "https://b.example")
    )

    assert [shared.count("x", 60_000).used for shared in (one, one, other) if shared.is_up()] == [1, 2, 1]  # type: ignore[union-attr]


def test_the_service_counts_polls_and_other_calls_for_both_workers_together(
    redis: RedisServer, shared_service: Service
) -> None:
    def count(names: Iterator[str]) -> list[Counter[int]] | None:
        """What a new person is answered, and None where a worker counted by itself for a while."""
        cookie, before = signed_in(shared_service, next(names)), times_unshared(shared_service)
        answers = [
            statuses(shared_service, cookie, POLLS + 10),
            # Of each worker's part, 150, one may have got all of these.
            statuses(shared_service, cookie, CALLS + 10, "/preferences"),
        ]
        return answers if times_unshared(shared_service) == before is not None else None

    names = (f"ada {number}" for number in itertools.count())
    answers = wait_until(lambda: count(names), "Redis answers all the while", seconds=60)

    assert answers == [{200: POLLS, 429: 10}, {200: CALLS, 429: 10}]


def test_polls_by_the_slow_way_stop_at_the_limit_of_both_workers(redis: RedisServer, app: flask.Flask) -> None:
    """A worker that knows of no refusal yet learns from Redis that there is no room."""
    chosen = {"ratelimit_storage_uri": redis.uri, "web_concurrency": WORKERS, "poll_limit": f"{POLLS} per minute"}
    with another_app(fast_path=False, **chosen) as one, another_app(fast_path=False, **chosen) as other:
        alices = [Person(one, "alice"), Person(other, "alice")]
        answers = Counter(alices[number % WORKERS].poll().status_code for number in range(POLLS + 10))

    assert answers == {200: POLLS, 429: 10}


def test_redis_killed_costs_no_poll_and_the_workers_parts_hold(redis: RedisServer, shared_service: Service) -> None:
    cookie = signed_in(shared_service, "grace")
    assert ask(shared_service, cookie)[0] == 200
    redis.kill()

    answers = [ask(shared_service, cookie) for _ in range(POLLS * 3)]

    assert {status for status, _ in answers} == {200, 429}
    assert POLLS // WORKERS - 1 <= sum(status == 200 for status, _ in answers) <= POLLS
    assert max(seconds for _, seconds in answers) < 1  # 0.1 and what a busy machine adds
    other = statuses(shared_service, cookie, CALLS + 50, "/preferences")
    assert set(other) <= {200, 429}
    assert CALLS // WORKERS <= other[200] <= CALLS


def test_redis_hung_delays_polls_once_and_is_then_left_alone(redis: RedisServer, shared_service: Service) -> None:
    cookies = [signed_in(shared_service, f"colleague {number}") for number in range(10)]
    statuses(shared_service, cookies[0], 3)
    redis.hang()

    answers = [ask(shared_service, cookie) for cookie in cookies for _ in range(6)]

    assert {status for status, _ in answers} == {200}
    slow = sum(seconds > 0.09 for _, seconds in answers)
    assert slow <= len(answers) // 4
    assert max(seconds for _, seconds in answers) < 1


def test_redis_that_answers_by_the_byte_delays_a_poll_no_longer(redis: RedisServer) -> None:
    with contextlib.closing(Relay(redis.port)) as relay:
        uri = redis.uri.replace(f":{redis.port}", f":{relay.port}")
        with running_service(WEB_CONCURRENCY="1", RATELIMIT_STORAGE_URI=uri, POLL_LIMIT="20 per minute") as service:
            cookie = signed_in(service, "ada")
            statuses(service, cookie, 3)
            relay.trickles = 0.05

            answers = [ask(service, cookie) for _ in range(6)]

    assert {status for status, _ in answers} == {200}
    assert max(seconds for _, seconds in answers) < 0.6  # an answer has some twenty bytes


def test_redis_emptied_begins_to_count_anew_and_nothing_else_happens(
    redis: RedisServer, shared_service: Service
) -> None:
    cookie = signed_in(shared_service, "joan")
    assert statuses(shared_service, cookie, 10) == {200: 10}
    redis.ask("FLUSHALL")

    assert set(statuses(shared_service, cookie, POLLS)) <= {200, 429}
    assert set(statuses(shared_service, cookie, 20, "/preferences")) == {200}


def test_sign_in_limits_are_in_the_database_whatever_becomes_of_redis(
    redis: RedisServer, shared_service: Service
) -> None:
    def attempt() -> int:
        return Browser(shared_service.url).submit("/login", username="grace", password="wrong").status

    assert [attempt() for _ in range(4)] == [401] * 4
    redis.ask("FLUSHALL")
    assert [attempt() for _ in range(4)] == [401] * 4
    redis.kill()

    assert [attempt() for _ in range(4)] == [401, 401, 429, 429]


def test_redis_that_comes_back_counts_again(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app")
    shared = SharedCounters(redis.uri, WORKERS, "http://bell.example")
    assert shared.count("x", 60_000)
    redis.kill()
    assert shared.count("x", 60_000) is None
    assert shared.count("x", 60_000) is None
    redis.start()

    wait_until(lambda: shared.count("x", 60_000), "Redis is asked again")

    assert [record.message for record in caplog.records] == [
        "limits not shared, each worker counts its part: ConnectionError",
        "limits shared again",
    ]


def test_redis_hung_costs_one_wait_and_no_look_costs_a_request_anything(redis: RedisServer) -> None:
    shared = SharedCounters(redis.uri, WORKERS, "http://bell.example")
    assert shared.is_up()
    redis.hang()

    began = time.monotonic()
    waits = []
    while time.monotonic() < began + 1.5:
        before = time.monotonic()
        assert shared.count("x", 60_000) is None
        waits.append(time.monotonic() - before)

    assert 0.09 < waits[0] < 1
    assert sum(wait > 0.09 for wait in waits) < 5  # the looks are beside the requests; a busy machine adds its own
    assert len(waits) > 1000


def test_a_wrong_password_is_no_reason_to_refuse_anybody_and_is_not_logged(
    redis: RedisServer, app: flask.Flask, caplog: pytest.LogCaptureFixture
) -> None:
    uri = redis.uri.replace(PASSWORD, "hunter2-the-wrong-one")
    with another_app(ratelimit_storage_uri=uri, web_concurrency=2, poll_limit="6 per minute") as other:
        alice = Person(other, "alice")

        assert [alice.poll().status_code for _ in range(5)] == [200] * 3 + [429] * 2
        assert alice.get("/preferences").status_code == 200

    assert "AuthenticationError" in caplog.text
    assert "hunter2" not in caplog.text
    assert str(redis.port) not in caplog.text


def test_the_addresses_password_may_come_from_a_file_and_redis_by_a_socket(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("secrets") / "uri"
    path.write_text(redis.uri + "\n")
    monkeypatch.setenv("RATELIMIT_STORAGE_URI_FILE", str(path))

    assert load().ratelimit_storage_uri == redis.uri
    assert load(ratelimit_storage_uri="unix:///run/redis.sock?db=1").ratelimit_storage_uri.startswith("unix:")


def test_workers_that_were_killed_take_no_part_of_what_each_allows_while_redis_is_away(redis: RedisServer) -> None:
    killed = [counter_of_a_worker(redis, "100 per minute") for _ in range(20)]
    worker = counter_of_a_worker(redis, "100 per minute")
    assert redis.ask("ZCARD", workers_key(redis)) == len(killed) + 1
    assert worker.count("ada") == 0
    redis.kill()

    assert sum(worker.count("ada") == 0 for _ in range(100)) == (100 - 1) // WORKERS
    assert sum(worker.count("grace") == 0 for _ in range(100)) == 100 // WORKERS


def test_killed_workers_take_no_part_of_other_calls_either(redis: RedisServer) -> None:
    counters = [SharedCounters(redis.uri, WORKERS, "http://bell.example", patience=PATIENCE) for _ in range(20)]
    assert all(shared.is_up() for shared in counters)
    store = Counters(workers=WORKERS, shared=counters[-1])
    redis.kill()

    key = "LIMITER/address/x/300/1/minute"
    assert sum(store.incr(key, 60) <= CALLS for _ in range(CALLS)) == CALLS // WORKERS


@pytest.mark.parametrize(
    ("workers", "given", "allowed"), [(2, 40, 30), (2, 99, 1), (2, 100, 0), (12, 1, 8), (12, 95, 1), (200, 50, 1)]
)
def test_what_redis_last_said_is_left_of_a_limit_is_divided_when_it_goes(
    redis: RedisServer, workers: int, given: int, allowed: int
) -> None:
    one = counter_of_a_worker(redis, "100 per minute", settled=60, workers=workers)
    # All others have counted, and no room is left for what they may have given.
    counter = workers_key(redis).replace(":workers", ":polls/60000/ada")
    redis.ask("HSET", counter, *[word for number in range(workers) for word in (f"other {number}", "1")])
    redis.ask("PEXPIRE", counter, "60000")
    assert [one.count("ada") for _ in range(given)] == [0] * given
    redis.kill()

    assert sum(one.count("ada") == 0 for _ in range(100)) == allowed


@pytest.mark.parametrize(
    "uri", ["redis://", "redis://:hunter2@h:x/0", "http://:hunter2@h", "rediss://:hunter2@h/0?no=1"]
)
def test_an_address_that_makes_no_sense_is_refused_without_showing_it(uri: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        load(ratelimit_storage_uri=uri)

    assert refusal.value.message.startswith("RATELIMIT_STORAGE_URI: must be memory://, or ")
    assert "hunter2" not in refusal.value.message


def test_the_store_of_other_calls_allows_a_workers_part_while_redis_is_away() -> None:
    nowhere = SharedCounters("redis://127.0.0.1:1", 7, "http://bell.example")
    store = Counters(workers=7, shared=nowhere)
    key = "LIMITER/address/x/300/1/minute"

    calls = 0
    while store.get(key) < 300:
        assert store.incr(key, 60) <= 300
        calls += 1

    assert calls == 300 // 7
    assert store.incr(key, 60) > 300
    assert Counters(workers=7, shared=None).incr("x/5/1/minute", 60) == 5  # more workers than calls: one each
