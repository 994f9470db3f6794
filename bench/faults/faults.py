"""Everything that goes wrong: each fault is done, held for a while and healed, as an operator or a supervisor would."""

import contextlib
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import psycopg

from bench.faults.stage import Stage
from tests.crashes import workers
from tests.service import wait_until


class Fault(NamedTuple):
    """`happen` comes back when the fault is over; it is held for so many seconds, where holding it means anything."""

    name: str
    happen: Callable[[Stage, float], None]
    seconds: float = 0.0


def restart_postgres(stage: Stage, seconds: float) -> None:
    stage.postgres.restart("fast")


def kill_postgres(stage: Stage, seconds: float) -> None:
    stage.postgres.restart("kill")


def stop_postgres(stage: Stage, seconds: float) -> None:
    stage.postgres.stop("fast")
    time.sleep(seconds)
    stage.postgres.start()


def hang_postgres(stage: Stage, seconds: float) -> None:
    with stage.postgres.hung():
        time.sleep(seconds)


def fill_disk(stage: Stage, seconds: float) -> None:
    with stage.postgres.full_disk():
        time.sleep(seconds)


def use_up_connections(stage: Stage, seconds: float) -> None:
    """Whatever the service gets hold of is taken from it again."""
    deadline = time.monotonic() + seconds
    with stage.postgres.connect() as first, contextlib.ExitStack() as others:
        while time.monotonic() < deadline:
            first.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name <> 'others' AND backend_type = 'client backend'"
            )
            with contextlib.suppress(psycopg.OperationalError):  # none is left
                while True:
                    others.enter_context(stage.postgres.connect())


def cut_notices(stage: Stage, seconds: float) -> None:
    stage.cut_notices()


def kill_redis(stage: Stage, seconds: float) -> None:
    """Gone for a while; it comes back empty."""
    stage.redis.kill()
    time.sleep(seconds)
    stage.redis.start()


def hang_redis(stage: Stage, seconds: float) -> None:
    stage.redis.signal(signal.SIGSTOP)
    time.sleep(seconds)
    stage.redis.signal(signal.SIGCONT)


def restart_redis(stage: Stage, seconds: float) -> None:
    stage.redis.kill()
    stage.redis.start()


def kill_a_worker(stage: Stage, seconds: float) -> None:
    stage.kill_workers(1)


def kill_workers_in_turn(stage: Stage, seconds: float) -> None:
    """One after the other, twice a second."""
    for _ in range(max(1, int(seconds * 2))):
        stage.kill_workers(1)
        time.sleep(0.5)


def kill_all_workers(stage: Stage, seconds: float) -> None:
    stage.kill_workers()


def reload(stage: Stage, seconds: float) -> None:
    before = set(workers(stage.service))
    stage.signal_gunicorn(signal.SIGHUP)
    wait_until(lambda: not before & set(workers(stage.service)), "every worker is a new one")


def upgrade(stage: Stage, seconds: float) -> None:
    stage.renew_gunicorn()


FAULTS = {
    "postgres-restart": Fault("PostgreSQL restarted", restart_postgres),
    "postgres-kill": Fault("PostgreSQL killed -9, started at once", kill_postgres),
    "postgres-stop": Fault("PostgreSQL gone for 10 s", stop_postgres, 10),
    "postgres-hang": Fault("PostgreSQL hung for 10 s", hang_postgres, 10),
    "disk-full": Fault("disk of the tables full for 5 s", fill_disk, 5),
    "connections": Fault("every connection of PostgreSQL in other hands for 5 s", use_up_connections, 5),
    "notices": Fault("notices cut", cut_notices),
    "redis-kill": Fault("Redis killed -9, gone for 5 s", kill_redis, 5),
    "redis-hang": Fault("Redis hung for 5 s", hang_redis, 5),
    "redis-restart": Fault("Redis restarted, empty", restart_redis),
    "worker-kill": Fault("a worker killed -9, ten times", kill_workers_in_turn, 5),
    "workers-kill": Fault("all workers killed -9 at once", kill_all_workers),
    "reload": Fault("gunicorn reloaded (HUP)", reload),
    "upgrade": Fault("a new release takes over (USR2)", upgrade),
}
