"""How gunicorn runs Belfry: each value with its reason. The numbers an operator may turn are settings."""

from gevent import monkey

monkey.patch_all()  # before anything else is loaded, or it would keep what blocks a whole worker

# ruff: noqa: E402
import contextlib
import fcntl
import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

SHARED = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client looks for it when it is imported, with the rest of the app
MEMORY = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())  # noqa: S108 - mkdtemp's


def fresh_folder() -> str:
    """Where the workers keep their numbers, for whichever of them is asked. Reading this file anew (HUP) keeps it."""
    prefix = "belfry-metrics-"
    mine = f"{prefix}{os.getpid()}-"
    present = os.environ.get(SHARED, "")
    if os.path.basename(present).startswith(mine):
        return present
    for left_over in MEMORY.glob(f"{prefix}*"):
        if (handle := in_hand(left_over)) is not None:
            shutil.rmtree(left_over, ignore_errors=True)
            os.close(handle)
    while True:
        folder = tempfile.mkdtemp(prefix=mine, dir=MEMORY)
        if in_hand(Path(folder)) is not None and os.path.isdir(folder):  # else somebody tidied up at that moment
            return folder


def in_hand(folder: Path) -> int | None:
    """Locks the folder for as long as this process and those that it forks live; None where others have it."""
    try:
        # Anybody may leave a pipe there, whose opening would wait for ever.
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


os.environ[SHARED] = fresh_folder()

from gunicorn import systemd

from app import logs, metrics, server_log, settings, shared_numbers

try:
    chosen = settings.load()
except settings.SettingsError as error:
    sys.exit(error.message)  # one clear line instead of a traceback from every worker

numbers = shared_numbers.Folder(Path(os.environ[SHARED]))
metrics.gather = numbers.gather

# One log for all: gunicorn's own lines have the same shape. No access log: it would hold sign-in links.
logs.start(chosen.log_level)
logger_class = server_log.GunicornLogger
loglevel = chosen.log_level

# Only this machine unless told otherwise: TLS and the world's slowest clients are a proxy's business.
bind = chosen.listens_on

# Workers share nothing but PostgreSQL, so their number is the number of cores that polls may use.
workers = chosen.web_concurrency

# A greenlet for each connection: a slow client, a hung statement or an idle connection costs its own memory and nobody
# else's time. Chosen by figures: docs/decisions.md. No engine exists before the fork, so no connection to PostgreSQL is
# ever shared. The code itself is loaded here, by the settings: HUP brings no new release, USR2 does, as a restart.
worker_class = "app.worker.Worker"
# Connections that a worker keeps open; more wait in the backlog. What asks PostgreSQL at a time is THREADS (app/db.py).
worker_connections = 1000

# A worker whose main loop is silent for this long is killed. Requests are bounded by their statements' own deadlines.
timeout = 30
# Requests in flight may finish when a worker stops; shorter than the 30 s after which supervisors lose patience.
graceful_timeout = 20
# A little longer than the usual 60 s for which proxies keep idle connections, so that the proxy closes first.
keepalive = 75
# Enough for a burst; a longer queue would only make everybody wait for answers that nobody waits for any more.
backlog = 512

# A worker's heartbeat must not wait for a busy disk.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - gunicorn makes a private file in it

# Otherwise gunicorn opens a socket for its own control program.
control_socket_disable = True

# What is loaded by now is the workers' too, and stays shared if no collector looks at it: 46 MB of a worker's own
# become 30.
gc.collect()
gc.freeze()

# No max_requests: recycling workers costs throughput, and nothing here is known to leak.


def post_worker_init(worker: Any) -> None:
    """Lets numbers and what nobody catches go to where they belong, leaves Ctrl-C to the arbiter, and takes over from
    the gunicorn that USR2 has replaced by this one.

    A terminal sends Ctrl-C to every process, and then the arbiter tells its workers to stop, gently: a worker that
    heeded the first signal would cut its requests off.
    """
    metrics.keep_moving()
    server_log.init_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    former = os.environ.get("GUNICORN_PID")  # there from USR2 until the former one has gone
    if former:
        # Both have the same socket, and from here on this one answers on it. A release that does not come so far takes
        # nothing over, and the former one goes on.
        systemd.sd_notify(f"MAINPID={worker.ppid}", worker.log)
        with contextlib.suppress(ProcessLookupError):  # another worker was faster
            os.kill(int(former), signal.SIGTERM)


def worker_exit(_server: Any, _worker: Any) -> None:
    metrics.move()


def child_exit(server: Any, worker: Any) -> None:
    """What a worker said to be so is so no more when it is gone; what it counted stays."""
    try:
        numbers.bury(worker.pid)
    except Exception as error:  # whatever it is: the arbiter would end by it, and with it the service
        server.log.warning("numbers of a worker lost: %s", type(error).__name__)


def on_exit(_server: Any) -> None:
    shutil.rmtree(os.environ[SHARED], ignore_errors=True)
