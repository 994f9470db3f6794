"""A host's product around the service: examples/plain-page, in one of the three places where a bell can live."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from tests import postgres
from tests.service import Service, answers, free_port, running_service, wait_until

EXAMPLE = postgres.ROOT / "examples/plain-page"


@contextlib.contextmanager
def program(name: str, port: int, *arguments: str) -> Iterator[str]:
    """A program of the example's, for as long as it is needed: its address."""
    command = [sys.executable, str(EXAMPLE / name), *arguments, "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: answers(f"{url}/"), f"{name} answers")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextlib.contextmanager
def same_origin(**settings: str) -> Iterator[tuple[Service, str]]:
    """A running service under /belfry of a product's site; `service.url` leads through the product's proxy."""
    port = free_port()
    with (
        running_service(
            **{"PUBLIC_URL": f"http://127.0.0.1:{port}/belfry", "POLL_INTERVAL": "1", **settings}
        ) as service,
        program("host.py", port, "same-origin", service.url) as host,
    ):
        service.url = f"{host}/belfry"
        yield service, host
