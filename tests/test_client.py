"""`clients/python/belfry_client.py`: what it asks of the real service, and what it does when the way there fails."""

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import belfry_client
import pytest
from belfry_client import Client, Event, Refused, Unreachable

from tests import host_network, postgres
from tests.host_network import CUT, CUT_AFTER_DELIVERY, Network, Trouble
from tests.service import Service, free_port

FOLDER = postgres.ROOT / "clients/python"
PUBLISHED = b'{"event_id": 1, "recipients": 1, "created": 1, "muted": 0}'


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def read(self) -> float:
        return self.now


@pytest.fixture
def client(service: Service) -> Client:
    return Client(service.url, host_network.new_key(service))


@pytest.fixture
def network(service: Service) -> Iterator[Network]:
    """The way to the service, which can fail."""
    with host_network.network(service.url) as network:
        yield network


@pytest.fixture
def clock() -> Clock:
    return Clock()


def through(network: Network, clock: Clock, key: str = "blf_x", chance: float = 1.0, **limits: float) -> Client:
    """A client behind the network whose waits take no time and whose luck is always the same."""
    return Client(
        network.url,
        key,
        sleep=clock.sleep,
        clock=clock.read,
        chance=lambda: chance,
        **limits,  # type: ignore[arg-type]
    )


def test_an_event_with_everything_arrives_as_it_was_said(service: Service, client: Client) -> None:
    published = client.notify(
        "alice",
        "Grace replied",
        type="comment",
        body="Look at <b>B1</b>.",
        url="/notes/7",
        actor={"name": "Grace", "url": "https://example.com/grace"},
        data={"note": 7},
        priority="high",
        group_key="note-7",
        expires_at=datetime.now(UTC) + timedelta(hours=1),
    )

    assert published[1:] == (1, 1, 0)
    [notification] = host_network.signed_in(service, "alice").poll()["notifications"]
    said = {name: notification[name] for name in ("type", "title", "body", "body_html", "url", "data", "priority")}
    assert said == {
        "type": "comment",
        "title": "Grace replied",
        "body": "Look at B1.",
        "body_html": "Look at <b>B1</b>.",
        "url": "/notes/7",
        "data": {"note": 7},
        "priority": "high",
    }
    assert notification["actor"] == {"name": "Grace", "url": "https://example.com/grace", "image": None}
    left = datetime.fromisoformat(notification["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


def test_a_list_everyone_and_a_batch_reach_whom_they_name(service: Service, client: Client) -> None:
    assert client.notify(["alice", "bob", "alice"], "For two", type="news", actor="Grace")[1:] == (2, 2, 0)
    assert client.notify_everyone("For all", type="news", expires_in=60)[1:] == (2, 2, 0)
    both = client.batch([Event("alice", "First", "news"), Event(["bob", "carol"], "Second", "news")])

    assert [one.created for one in both] == [1, 2]
    assert host_network.titles(service, "alice") == ["First", "For all", "For two"]
    assert host_network.titles(service, "bob") == ["Second", "For all", "For two"]
    assert host_network.titles(service, "carol") == ["Second"]


def test_an_event_can_be_asked_after_and_taken_back(service: Service, client: Client) -> None:
    event_id = client.notify(["alice", "bob"], "Oops", type="news").event_id
    host_network.signed_in(service, "alice").post("/notifications/1/read")

    state = client.event(event_id)

    assert (state.event_id, state.type, state.received, state.held, state.read) == (event_id, "news", 2, 2, 1)
    assert state.created_at.tzinfo is not None
    assert state.expires_at > state.created_at
    assert state.retracted_at is None
    assert client.retract(event_id) == 2
    assert client.retract(event_id) == 0
    assert host_network.titles(service, "bob") == []
    assert client.event(event_id).retracted_at is not None


def test_people_are_created_changed_exported_signed_out_and_erased(service: Service, client: Client) -> None:
    odd = "al ice+ü@example.com?#%2F"
    assert client.save_user(odd, display_name="Alice") == (odd, "Alice", True)
    assert client.save_user(odd, is_active=False) == (odd, "Alice", False)
    assert client.save_user(odd, is_active=True).is_active
    browser = host_network.signed_in(service, odd)
    assert browser.poll()["user"] == odd

    client.sign_out_user(odd)

    assert browser.open("/notifications/unread").status == 401
    assert client.export_user(odd)["display_name"] == "Alice"
    client.erase_user(odd)
    with pytest.raises(Refused, match="There is no such user") as refused:
        client.erase_user(odd)
    assert refused.value.status == 404


def test_a_ticket_signs_in_and_leads_back(service: Service, client: Client) -> None:
    client.save_user("alice")
    link = client.ticket("alice", return_to=f"{service.url}/somewhere")
    browser = host_network.Browser(service.url)

    assert link.startswith(f"{service.url}/tickets/")
    assert browser.submit(link.removeprefix(service.url)).status == 404  # the page that it leads back to
    assert browser.poll()["user"] == "alice"
    assert client.ticket("alice").startswith(f"{service.url}/tickets/")


def test_a_refusal_carries_the_whole_problem(service: Service, client: Client) -> None:
    with pytest.raises(Refused) as refused:
        client.batch([Event("alice", "Fine", "news"), Event([], "", "No!")])

    problem = refused.value
    assert problem.status == 422
    assert [error.field for error in problem.errors] == ["events[1].type", "events[1].title", "events[1].recipients"]
    assert problem.request_id is not None
    assert str(problem).startswith("422: events[1].type must match")
    assert str(problem).endswith(f"(request {problem.request_id})")
    assert host_network.titles(service, "alice") == []


def test_a_wrong_key_and_a_missing_scope_are_told_apart(service: Service) -> None:
    for key, status in [("blf_wrong", 401), (host_network.new_key(service, "people"), 403)]:
        with pytest.raises(Refused) as refused:
            Client(service.url, key).notify("alice", "Hello", type="news")
        assert refused.value.status == status


def test_what_was_delivered_and_not_answered_arrives_once(service: Service, network: Network, clock: Clock) -> None:
    client = through(network, clock, host_network.new_key(service))
    network.troubles = [CUT_AFTER_DELIVERY, CUT, CUT_AFTER_DELIVERY, CUT_AFTER_DELIVERY, CUT_AFTER_DELIVERY]

    published = client.notify("alice", "Once", type="news")
    client.batch([Event("alice", "Once more", "news")])

    assert published.created == 1
    assert host_network.titles(service, "alice") == ["Once more", "Once"]
    keys = [request.headers["Idempotency-Key"] for request in network.received]
    assert len(keys) == 7
    assert len(set(keys[:6])) == 1
    assert keys[6] != keys[0]


def test_the_same_key_of_the_hosts_own_publishes_once(service: Service, client: Client) -> None:
    first = client.notify("alice", "Once", type="news", idempotency_key="comment-7")

    assert client.notify("alice", "Once", type="news", idempotency_key="comment-7") == first
    assert host_network.titles(service, "alice") == ["Once"]
    with pytest.raises(Refused, match="422: This Idempotency-Key came with another request before"):
        client.notify("alice", "Another", type="news", idempotency_key="comment-7")


def test_an_erasure_whose_answer_was_lost_is_done(service: Service, network: Network, clock: Clock) -> None:
    client = through(network, clock, host_network.new_key(service))
    client.save_user("alice")
    network.troubles = [CUT_AFTER_DELIVERY]

    client.erase_user("alice")

    assert [request.method for request in network.received] == ["PUT", "DELETE", "DELETE"]


def test_waits_grow_with_full_jitter(network: Network, clock: Clock) -> None:
    network.troubles = [CUT] * 20
    with pytest.raises(Unreachable):
        through(network, clock, deadline=1000, attempts=9).notify("alice", "Hello", type="news")

    assert clock.waits == [1, 2, 4, 8, 16, 30, 30, 30]

    clock.waits.clear()
    network.troubles = [CUT] * 20
    with pytest.raises(Unreachable):
        through(network, clock, chance=0.5).notify("alice", "Hello", type="news")
    assert clock.waits == [0.5, 1, 2, 4, 8]
    assert len(network.received) == 9 + 6


@pytest.mark.parametrize("status", [409, 429, 502, 503, 504])
def test_what_passes_is_tried_again(network: Network, clock: Clock, status: int) -> None:
    network.troubles = [Trouble(status), Trouble(201, body=PUBLISHED)]

    assert through(network, clock).notify("alice", "Hello", type="news").created == 1
    assert clock.waits == [1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 422, 500])
def test_what_stays_wrong_is_not_tried_again(network: Network, clock: Clock, status: int) -> None:
    network.troubles = [Trouble(status, body=b"<html>not a problem's JSON</html>")]

    with pytest.raises(Refused) as refused:
        through(network, clock).notify("alice", "Hello", type="news")

    assert (refused.value.status, refused.value.errors, refused.value.request_id) == (status, [], None)
    assert len(network.received) == 1


def test_retry_after_is_obeyed_in_seconds_and_as_a_date(network: Network, clock: Clock) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    for said in ("7", date, "soon"):
        network.troubles += [Trouble(429, {"Retry-After": said})]
    network.troubles += [Trouble(201, body=PUBLISHED)]

    through(network, clock, chance=0.0).notify("alice", "Hello", type="news")

    assert clock.waits[0] == 7
    assert 30 < clock.waits[1] <= 40
    assert clock.waits[2] == 0


def test_a_wait_beyond_the_deadline_is_not_begun(network: Network, clock: Clock) -> None:
    network.troubles = [Trouble(503, {"Retry-After": "3"}), Trouble(503, {"Retry-After": "120"})]

    with pytest.raises(Refused) as refused:
        through(network, clock, chance=0.0).notify("alice", "Hello", type="news")

    assert refused.value.status == 503
    assert clock.waits == [3]


def test_a_wait_that_took_longer_than_asked_ends_with_what_was_said_last(network: Network, clock: Clock) -> None:
    network.troubles = [Trouble(503, {"Retry-After": "9"})]
    client = Client(
        network.url,
        "blf_x",
        deadline=10,
        clock=clock.read,
        chance=lambda: 0.0,
        sleep=lambda seconds: clock.sleep(seconds + 2),  # a busy machine, or a lid that was closed
    )

    with pytest.raises(Refused) as refused:
        client.notify("alice", "Hello", type="news")

    assert refused.value.status == 503
    assert len(network.received) == 1


def test_an_answer_that_is_cut_off_is_asked_for_again(network: Network, clock: Clock) -> None:
    network.troubles = [Trouble(201, body=PUBLISHED, missing=10), Trouble(503, body=b"{", missing=9)]
    network.troubles += [Trouble(201, body=PUBLISHED)]

    assert through(network, clock).notify("alice", "Hello", type="news").event_id == 1
    assert len(network.received) == 3


def test_nobody_at_the_address_is_unreachable_with_the_reason(clock: Clock) -> None:
    client = Client(f"http://127.0.0.1:{free_port()}", "blf_x", attempts=2, sleep=clock.sleep)

    with pytest.raises(Unreachable, match=r"does not answer: .*refused") as unreachable:
        client.event(1)

    assert isinstance(unreachable.value.__cause__, OSError)
    assert len(clock.waits) == 1


def test_the_key_never_follows_a_redirect(network: Network, clock: Clock) -> None:
    for status in (301, 302, 303, 307, 308):
        network.troubles = [Trouble(status, {"Location": f"{network.url}/stolen"})] * 2
        with pytest.raises(Refused, match=f"{status}: redirects to {network.url}/stolen"):
            through(network, clock).event(1)
        with pytest.raises(Refused, match=f"{status}: redirects"):
            through(network, clock).notify("alice", "Hello", type="news")
    assert "/stolen" not in {request.path for request in network.received}


def test_an_answer_of_something_else_is_no_success(network: Network, clock: Clock) -> None:
    for body in (b"<html>It works!</html>", b"[]"):
        network.troubles = [Trouble(200, body=body)]
        with pytest.raises(belfry_client.BelfryError, match="does not answer as Belfry does"):
            through(network, clock).event(1)


@pytest.mark.parametrize("errors", [["title is missing"], {"title": ["is missing"]}, "title", [None]])
def test_a_refusal_of_something_else_is_refused_all_the_same(network: Network, clock: Clock, errors: object) -> None:
    network.troubles = [Trouble(400, body=json.dumps({"title": "Bad Request", "errors": errors}).encode())]

    with pytest.raises(Refused, match="400: Bad Request") as refused:
        through(network, clock).notify("alice", "Hello", type="news")

    assert refused.value.errors == []


def test_an_answer_without_what_was_asked_for_is_no_success(network: Network, clock: Clock) -> None:
    client = through(network, clock)
    for call in (
        lambda: client.notify("alice", "Hello", type="news"),
        lambda: client.batch([Event("alice", "Hello", "news")]),
        lambda: client.event(1),
        lambda: client.retract(1),
        lambda: client.save_user("alice"),
        lambda: client.ticket("alice"),
    ):
        network.troubles = [Trouble(200, body=b'{"status": "ok"}')]
        with pytest.raises(belfry_client.BelfryError, match="does not answer as Belfry does"):
            call()


def test_a_newer_services_answer_may_say_more(network: Network, clock: Clock) -> None:
    network.troubles = [Trouble(201, body=json.dumps({**json.loads(PUBLISHED), "queued": 3}).encode())]

    assert through(network, clock).notify("alice", "Hello", type="news") == (1, 1, 1, 0)


def test_mistakes_are_told_before_anything_is_sent(network: Network, clock: Clock) -> None:
    with pytest.raises(ValueError, match="url must be the service's address"):
        Client("app.example/belfry", "blf_x")
    with pytest.raises(ValueError, match="key must be an API key"):
        Client("https://app.example", "secret")
    with pytest.raises(ValueError, match="must have a time zone"):
        through(network, clock).notify("alice", "Hello", type="news", expires_at=datetime(2030, 1, 1))
    for said in (
        lambda: through(network, clock).notify("everyone", "Hello", type="news"),
        lambda: through(network, clock).batch([Event("everyone", "Hello", "news")]),
    ):
        with pytest.raises(ValueError, match="reached by notify_everyone"):
            said()
    with pytest.raises(ValueError, match="JSON"):
        through(network, clock).notify("alice", "Hello", type="news", data={"ratio": float("nan")})
    assert network.received == []


def test_a_path_of_the_address_is_kept(network: Network, clock: Clock) -> None:
    network.troubles = [Trouble(200, body=b'{"removed": 0}')]
    client = Client(f"{network.url}/belfry/", " blf_x\n")

    client.retract(7)

    [request] = network.received
    assert (request.method, request.path) == ("DELETE", "/belfry/api/v1/events/7")
    assert request.headers["Authorization"] == "Bearer blf_x"
    assert request.headers["User-Agent"] == f"belfry-client/{belfry_client.__version__}"


def test_the_file_alone_runs_on_a_bare_python(tmp_path: Path) -> None:
    (tmp_path / "belfry_client.py").write_bytes((FOLDER / "belfry_client.py").read_bytes())
    # -S leaves out site-packages: what is not in the standard library cannot be imported.
    command = [sys.executable, "-S", "-c", "import belfry_client; print(belfry_client.Client('http://a', 'blf_x').url)"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True)

    assert (done.stdout, done.stderr) == ("http://a\n", "")
    ast.parse((tmp_path / "belfry_client.py").read_text(), feature_version=(3, 9))


def test_what_pip_is_told_is_what_there_is() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())

    assert project["project"]["name"] == "belfry-client"
    assert project["project"]["version"] == belfry_client.__version__
    assert project["project"]["dependencies"] == []
    assert [f"{name}.py" for name in project["tool"]["setuptools"]["py-modules"]] == ["belfry_client.py"]
    assert len((FOLDER / "README.md").read_text().splitlines()) <= 5


def test_many_threads_share_one_client(service: Service, client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: client.notify("alice", f"Number {number}", type="news"), range(24)))

    assert len(set(host_network.titles(service, "alice"))) == 24
