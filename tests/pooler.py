"""PgBouncer in front of a test's database, as an operator may have put it there."""

import contextlib
import os
import select
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import sqlalchemy

from tests.programs import find
from tests.service import free_port, wait_until

CONFIGURATION = """
[databases]
belfry = host=127.0.0.1 port={server} dbname={database} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
ignore_startup_parameters = {ignored}
"""


@contextlib.contextmanager
def pooler(database_url: str, mode: str = "transaction", ignored: str = "options") -> Iterator[str]:
    """The address of the database behind PgBouncer, in that mode; it drops the start-up parameters in `ignored`."""
    url = sqlalchemy.make_url(database_url)
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="belfry-pooler-") as name, _on_a_port(url) as server:
        os.chmod(name, 0o755)  # PgBouncer does not run as root, and another user must read this
        configuration = Path(name) / "pgbouncer.ini"
        configuration.write_text(
            CONFIGURATION.format(
                server=server,
                database=url.database,
                user=url.username,
                password=url.password or "none",  # which is all the same to a server that trusts its socket
                port=port,
                mode=mode,
                ignored=ignored,
            )
        )
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [find("pgbouncer"), "--quiet", *as_nobody, str(configuration)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        behind = f"postgresql+psycopg://{url.username}@127.0.0.1:{port}/belfry"
        try:
            wait_until(lambda: _answers(behind), "PgBouncer answers")
            yield behind
        finally:
            process.terminate()
            process.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url.replace("+psycopg", ""), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


@contextlib.contextmanager
def _on_a_port(url: sqlalchemy.URL) -> Iterator[int]:
    """A port that leads to the server: the private one has a socket only, in a folder that is closed to others."""
    folder = url.query.get("host")
    if folder is None:
        yield url.port or 5432
        return
    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=_accept, args=[door, f"{folder}/.s.PGSQL.{url.query['port']}"], daemon=True).start()
        yield door.getsockname()[1]
        door.shutdown(socket.SHUT_RDWR)


def _accept(door: socket.socket, path: str) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = door.accept()
            threading.Thread(target=_pass_on, args=[client, path], daemon=True).start()


def _pass_on(client: socket.socket, path: str) -> None:
    with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
        server.connect(path)
        other = {client: server, server: client}
        while True:
            for side in select.select([client, server], [], [])[0]:
                piece = side.recv(65536)
                if not piece:
                    return
                other[side].sendall(piece)
