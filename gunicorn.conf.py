"""How gunicorn runs Belfry: each value with its reason. The numbers an operator may turn are settings."""

import os
import signal
import sys
from typing import Any

from app import settings

try:
    chosen = settings.load()
except settings.SettingsError as error:
    sys.exit(error.message)  # one clear line instead of a traceback from every worker

# Only this machine: a buffering proxy belongs in front, for gthread has no deadline for a slow body.
bind = f"127.0.0.1:{chosen.port}"

# Workers share nothing but PostgreSQL, so their number is the number of cores that polls may use.
workers = chosen.web_concurrency

# Threads wait for PostgreSQL side by side; each has a connection of its own in the worker's pool (app/db.py).
# Not preloaded: every worker makes its own engine, so no connection is ever shared across a fork.
worker_class = "gthread"
threads = chosen.threads

# A worker that is silent for this long is killed. No request takes that long: each statement has its own deadline.
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

# Nobody is believed about scheme or path by a header: app/guard.py does that, by TRUSTED_PROXIES.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

# No max_requests: recycling workers costs throughput, and nothing here is known to leak.


def post_worker_init(worker: Any) -> None:
    """Leaves Ctrl-C to the arbiter.

    A terminal sends it to every process, and then the arbiter tells its workers to stop: gthread's handler of the
    second signal waits for a lock that the first one holds, until the worker is killed 20 seconds later.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
