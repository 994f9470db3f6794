"""One event to one person through the API, again and again: Belfry's endpoint beside the same written with the ORM."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from app import create_app, db, keys
from bench import data, servers
from bench.contestants import THREADS
from bench.rivals import publish_orm
from bench.tables import goal

USERS = 1_000
KEYS = 500
CONNECTIONS = 16
SCRIPT = Path(__file__).with_name("publish.lua")


def goal_line(server: str, rounds: int, seconds: int) -> str:
    """A line of the table of goals."""
    with servers.database(server) as ours, servers.database(server) as theirs:
        our_keys, their_keys = _prepare(ours), publish_orm.prepare(theirs, USERS, KEYS)
        ratios = []
        for _ in range(rounds):
            rates = [
                _rate("wsgi:app", ours, our_keys, seconds),
                _rate("bench.rivals.publish_orm:create_app()", theirs, their_keys, seconds),
            ]
            print(f"publishing: {rates[0]:,.0f}/s, with the ORM {rates[1]:,.0f}/s", file=sys.stderr, flush=True)
            ratios.append(rates[0] / rates[1])
    return goal("single publish through the API ÷ the same endpoint with the ORM", ratios, at_least=2)


def _prepare(database_url: str) -> list[str]:
    environment = {**os.environ, "DATABASE_URL": database_url, "SECRET_KEY": data.SECRET_KEY}
    subprocess.run([sys.executable, "-m", "flask", "db", "upgrade"], cwd=data.ROOT, env=environment, check=True)
    data.fill(database_url, f"INSERT INTO users (subject) SELECT 'user-' || n FROM generate_series(1, {USERS}) AS n")
    app = create_app(database_url=database_url, secret_key=data.SECRET_KEY)
    with app.app_context():
        made = [db.write(keys.make, f"bench {number}", ["publish"]) for number in range(KEYS)]
        db.engine().dispose()
    return made


def _rate(application: str, database_url: str, senders: Sequence[str], seconds: int) -> float:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(servers.gunicorn(application, database_url, THREADS, TRUSTED_PROXIES="1"))
        file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".txt"))
        file.writelines(f"{key}\n" for key in senders)
        file.flush()
        _run(server.port, file.name, 1)
        result = _run(server.port, file.name, seconds)
    if result["failed"]:
        sys.exit(f"bench: {result['failed']} of {result['requests']} events of {application} were not published")
    return float(result["rate"])


def _run(port: int, file: str, seconds: int) -> dict[str, float]:
    command = ["wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s"]
    command += ["--timeout", "10s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}", "--", file, str(USERS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result
