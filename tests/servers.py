"""A PostgreSQL server of a test's own, for all that may happen to one: it is stopped, killed, hung, filled, used up.

It listens on a port of this machine, for what happens to connections over TCP happens to no others. Its database lies
on a small disk of its own, a tmpfs that only the server's processes see: so it can be filled, as root and as anybody
who may make a user namespace. Its log, `server.log()`, is what it says itself.
"""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from app import embedded
from tests import postgres
from tests.service import free_port, wait_until

STOPS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT, "kill": signal.SIGKILL}


class Server:
    """A server that was not started yet. `folder` must be empty and reachable for whoever the server runs as."""

    def __init__(self, folder: Path, disk: int = 64, connections: int = 40) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = self.url_of("belfry")
        self.process: subprocess.Popen[bytes] | None = None
        self.programs = embedded._programs(folder)
        self.disk = SmallDisk(folder / "disk", disk)
        # As root in the disk's namespace, which anybody else becomes there, PostgreSQL does not run.
        mine = "namespace", os.geteuid(), os.getegid()
        self.identity = mine if os.geteuid() else embedded._identity(folder, self.programs)
        self.settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": str(connections),
            "timezone": "UTC",
            "log_timezone": "UTC",
        }

    def url_of(self, database: str) -> str:
        return f"postgresql+psycopg://belfry@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """Makes the cluster, starts it, and makes `belfry`, a migrated database on the small disk."""
        self.disk.mount()
        choices = "--username=belfry --auth=trust --encoding=UTF8 --locale=C --no-sync"
        self._run("initdb", "-D", str(self.folder / "data"), *choices.split())
        self.start()
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE TABLESPACE disk LOCATION '{self.disk.place}'".encode())
            connection.execute("CREATE DATABASE belfry TABLESPACE disk")
        postgres.upgrade(self.url)

    def start(self) -> None:
        """Starts it and comes back when it takes connections."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command("postgres", "-D", str(self.folder / "data"), *embedded._options(self.settings)),
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the test, which stops the server last
            )
        wait_until(self._takes_connections, "PostgreSQL takes connections")

    def stop(self, how: str = "fast") -> None:
        """Ends it: smart, fast or immediate as pg_ctl does, or by kill -9 of every process at once."""
        if self.process is None:
            return
        if how == "kill":
            self.signal(signal.SIGSTOP)  # or the postmaster could say goodbye for a child that dies first
            self.signal(signal.SIGKILL)
        else:
            self.resume()
            self.process.send_signal(STOPS[how])
        self.process.wait(timeout=30)
        self.process = None

    def restart(self, how: str = "fast") -> None:
        self.stop(how)
        self.start()

    def hang(self) -> None:
        """Everything stands still; the kernel goes on to accept connections and to acknowledge what is sent."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        self.hang()
        try:
            yield
        finally:
            self.resume()

    @contextlib.contextmanager
    def full_disk(self) -> Iterator[None]:
        """The disk of the tables has no byte left. That of the write-ahead log is another one."""
        filler = self.disk.seen_from_here() / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (1_000_000, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
        try:
            yield
        finally:
            filler.unlink()

    @contextlib.contextmanager
    def used_up(self, *, evict: bool = True) -> Iterator[None]:
        """Others hold every connection; with `evict` those of the service, too."""
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(self.connect())
            self._take_all(stack)
            if evict:
                mine = "application_name <> 'others' AND backend_type = 'client backend'"
                first.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {mine}".encode())
                self._take_all(stack)
            yield

    def _take_all(self, stack: contextlib.ExitStack) -> None:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(self.connect())

    def connect(self, database: str = "belfry") -> "psycopg.Connection[tuple[object, ...]]":
        """A plain connection for a test's own use."""
        return psycopg.connect(
            self.url_of(database).replace("+psycopg", ""),
            autocommit=True,
            application_name="others",
            connect_timeout=5,
        )

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def signal(self, number: int) -> None:
        """Sends a signal to every process of the server, the postmaster first: it makes no new ones meanwhile."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def processes(self) -> list[int]:
        """The postmaster and its children."""
        if self.process is None or self.process.poll() is not None:
            return []
        parent = self.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [parent, *map(int, children)]

    def _takes_connections(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(self._command(program, *arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = embedded._command(self.identity, self.folder, 0, self.programs / program, *arguments)
        return [*self.disk.inside(), *command]


class SmallDisk:
    """A tmpfs in a mount namespace of its own; a sleeping process keeps it from one start of a server to the next."""

    def __init__(self, place: Path, megabytes: int) -> None:
        self.place = place
        self.megabytes = megabytes
        self.keeper: subprocess.Popen[bytes] | None = None

    def mount(self) -> None:
        self.place.mkdir()
        become_root = [] if os.geteuid() == 0 else ["--map-root-user"]
        mount = f'mount -t tmpfs -o mode=0700,size={self.megabytes}m belfry "$0" && echo mounted && exec sleep infinity'
        self.keeper = subprocess.Popen(
            ["unshare", *become_root, "--mount", "sh", "-c", mount, str(self.place)], stdout=subprocess.PIPE
        )
        assert self.keeper.stdout is not None
        told = self.keeper.stdout.readline()
        assert told == b"mounted\n", (
            "no small disk: these tests need the right to mount (unshare --mount, or as a user)"
        )
        owner = self.place.parent.stat()
        os.chown(self.seen_from_here(), owner.st_uid, owner.st_gid)

    def unmount(self) -> None:
        if self.keeper is not None:
            self.keeper.kill()
            self.keeper.communicate()

    def inside(self) -> list[str]:
        """What runs a command where the disk is."""
        assert self.keeper is not None
        become_root = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={self.keeper.pid}", *become_root, "--mount", "--"]

    def seen_from_here(self) -> Path:
        assert self.keeper is not None
        return Path(f"/proc/{self.keeper.pid}/root{self.place}")


class Relay:
    """A way to a server that can lose connections without a word: they stay open, and nothing comes through.

    Where it `trickles`, what the server says comes byte after byte, `trickles` seconds apart.
    """

    def __init__(self, port: int) -> None:
        self.to = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.lost = self.made = 0  # connections up to this number are lost
        self.ends: list[socket.socket] = []
        self.trickles = 0.0
        self._go(self._accept)

    def lose_all(self) -> None:
        self.lost = self.made

    def close(self) -> None:
        for end in (self.listener, *self.ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while True:
            near, _ = self.listener.accept()
            far = socket.create_connection(("127.0.0.1", self.to))
            self.made += 1
            self.ends += [near, far]
            self._go(self._pass_on, self.made, near, far)
            self._go(self._pass_on, self.made, far, near)

    def _pass_on(self, number: int, source: socket.socket, target: socket.socket) -> None:
        while True:
            received = source.recv(65536)
            while self.trickles and source.getpeername()[1] == self.to and received[1:]:
                target.sendall(received[:1])
                received = received[1:]
                threading.Event().wait(self.trickles)
            if number > self.lost:
                target.sendall(received) if received else target.shutdown(socket.SHUT_WR)
            if not received:
                return

    def _go(self, work: Callable[..., None], *arguments: Any) -> None:
        def until_it_is_closed() -> None:
            with contextlib.suppress(OSError):
                work(*arguments)

        threading.Thread(target=until_it_is_closed, daemon=True).start()


@contextlib.contextmanager
def running_server(disk: int = 64, connections: int = 40) -> Iterator[Server]:
    """A server with a migrated database `belfry` on a disk of so many megabytes, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="belfry-server-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.chmod(folder, 0o711)  # where root runs the server as another user, that user must get through here
        (folder / "server").mkdir(mode=0o700)
        server = Server(folder / "server", disk, connections)
        try:
            server.make()
            yield server
        finally:
            server.stop("immediate")
            server.disk.unmount()
