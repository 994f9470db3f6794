"""Behind nginx nobody sees an error while workers are killed, the service is reloaded, or a new release takes over."""

import contextlib
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.crashes import DEEP, kill_workers, workers
from tests.dying import Dying
from tests.proxy import SITE, Proxy, behind_nginx, changed, nginx
from tests.readers import Caller, crowd
from tests.service import Service, wait_until

ROUNDS = 20 if DEEP else 1


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
    """What systemd holds: the socket through which a service says that it is ready, and which process it is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path_factory.mktemp("systemd") / "notify"))
        listening.settimeout(30)
        yield listening


@pytest.fixture(scope="module")
def epoch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("settings") / "epoch"
    file.write_text("1")
    return file


@pytest.fixture(scope="module")
def behind(supervisor: socket.socket, epoch: Path) -> Iterator[tuple[Service, Proxy]]:
    settings = {"WEB_CONCURRENCY": "2", "POLL_LIMIT": "1000000 per minute", "EPOCH_FILE": str(epoch)}
    with behind_nginx(**settings, NOTIFY_SOCKET=supervisor.getsockname()) as behind:
        assert supervisor.recv(1000).startswith(b"READY=1")
        wait_until(lambda: len(workers(behind[0])) == 2, "both workers are there")
        yield behind


def start_another(service: Service) -> int:
    """Has gunicorn start another one beside itself, as `systemctl reload belfry` does."""
    before = set(workers(service))

    def another() -> set[int]:
        assert service.process is not None
        service.process.send_signal(signal.SIGUSR2)  # ignored for a second by one that has just taken over itself
        return set(workers(service)) - before

    return wait_until(another, "another gunicorn has been started").pop()


def renew(service: Service) -> None:
    """A new release in place of the running one."""
    former, later = service.process, start_another(service)
    assert former is not None
    try:
        former.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.kill(later, signal.SIGKILL)
        raise
    service.process = psutil.Process(later)
    assert len(workers(service)) == 2


# With few kept connections most are new ones, and by one that dies nginx takes the only address for failed.
@pytest.mark.parametrize("kept", ["keepalive 64;", "keepalive 1;"])
def test_a_killed_worker_is_no_readers_business(behind: tuple[Service, Proxy], kept: str) -> None:
    service, _ = behind
    site = changed(SITE.read_text(), ("keepalive 64;", kept))
    with (
        nginx(service.port, site=site) as proxy,
        crowd(service, proxy, readers=8, senders=0, pause=0.001) as readers,
    ):
        for _ in range(ROUNDS * 8):
            before = set(workers(service))
            os.kill(random.choice(sorted(before)), signal.SIGKILL)
            wait_until(lambda before=before: len(set(workers(service)) - before) == 1, "another worker")
            readers.wait_for(GET=random.randint(1, 100))
        kill_workers(service)  # and all at once
        readers.wait_for(GET=100)
    assert readers.failed == []


@pytest.fixture
def dying() -> Iterator[tuple[Dying, Proxy]]:
    with contextlib.closing(Dying()) as dying, nginx(dying.port) as proxy:
        yield dying, proxy


def test_as_many_kept_connections_as_are_dead_are_passed_over(dying: tuple[Dying, Proxy]) -> None:
    upstream, proxy = dying
    upstream.together = 16
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        callers = [stack.enter_context(contextlib.closing(Caller(proxy))) for _ in range(16)]
        ask = lambda caller: caller.call("GET", "/notifications/unread").status  # noqa: E731
        assert list(pool.map(ask, callers)) == [200] * 16
        assert [ask(caller) for caller in callers] == [200] * 16
    assert len(upstream.heard) > 2 * 16  # some were asked in vain


@pytest.mark.parametrize(
    ("method", "deaths", "status", "heard"),
    [("GET", 2, 200, 3), ("HEAD", 2, 200, 3), ("GET", 9, 503, 3), ("POST", 1, 503, 1), ("DELETE", 1, 200, 2)],
)
def test_what_may_be_repeated_is_asked_again_and_a_post_never(
    dying: tuple[Dying, Proxy], method: str, deaths: int, status: int, heard: int
) -> None:
    upstream, proxy = dying
    upstream.new_ones_to_die = deaths
    with contextlib.closing(Caller(proxy)) as caller:
        answer = caller.call(method, "/notifications")
    assert answer.status == status
    assert answer.headers["Retry-After"] == (None if status == 200 else "5")
    assert upstream.heard == [method.encode()] * heard


def test_a_reload_under_load_costs_no_call(behind: tuple[Service, Proxy]) -> None:
    service, proxy = behind
    with crowd(service, proxy) as readers:
        for _ in range(ROUNDS * 2):
            before = set(workers(service))
            assert service.process is not None
            service.process.send_signal(signal.SIGHUP)
            wait_until(lambda before=before: not before & set(workers(service)), "new workers only")
            readers.wait_for(GET=50, POST=3)
    assert readers.failed == []


def test_a_new_release_takes_over_under_load_and_costs_no_call(
    behind: tuple[Service, Proxy], supervisor: socket.socket
) -> None:
    service, proxy = behind
    with crowd(service, proxy) as readers:
        for _ in range(ROUNDS):
            renew(service)
            assert service.process is not None
            while supervisor.recv(1000) != b"MAINPID=%d" % service.process.pid:
                pass
            readers.wait_for(GET=50, POST=3)
    assert readers.failed == []
    assert readers.slowest(1) < 2


def test_a_new_release_that_cannot_start_leaves_the_running_one_alone(
    behind: tuple[Service, Proxy], epoch: Path
) -> None:
    service, proxy = behind
    before = set(workers(service))
    with crowd(service, proxy) as readers:
        epoch.write_text("no epoch at all")
        try:
            start_another(service)
            wait_until(lambda: set(workers(service)) == before, "it has ended")
        finally:
            epoch.write_text("1")
        readers.wait_for(GET=50, POST=3)
    assert readers.failed == []
