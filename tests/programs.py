"""Finds the programs that tests put around the service, by Debian's names: `python -m tests.programs` (`--install`).

The proxies, Redis and the checkers of configuration files are real ones.
"""

import os
import shutil
import subprocess
import sys

# The program, and the package of Debian's that brings it.
NEEDED = {
    "nginx": "nginx-light",
    "caddy": "caddy",
    "redis-server": "redis-server",
    "systemd-analyze": "systemd",
    "promtool": "prometheus",
    "faketime": "faketime",
    "pgbouncer": "pgbouncer",
}
# Debian keeps servers where only root's PATH leads.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def find(name: str) -> str:
    """The path of a program; fails with what to do where there is none."""
    path = shutil.which(name, path=PATH)
    assert path, f"{name} is missing. Get it with: .venv/bin/python -m tests.programs --install"
    return path


def missing() -> list[str]:
    return [package for name, package in NEEDED.items() if shutil.which(name, path=PATH) is None]


def install(packages: list[str]) -> None:
    """Debian's packages, for root; anybody else is told what is missing."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"The tests need programs that are not here. On Debian: sudo apt-get install {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    get = ["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", *packages]
    if subprocess.run(get, env=environment, stdout=subprocess.DEVNULL).returncode:
        # Package lists that are missing or old are the usual reason.
        subprocess.run(["apt-get", "update", "--quiet=2"], check=True)
        if status := subprocess.run(get, env=environment, stdout=subprocess.DEVNULL).returncode:
            sys.exit(f"{', '.join(packages)} could not be installed: exit status {status}")


def main(arguments: list[str]) -> None:
    if arguments == ["--install"] and (packages := missing()):
        install(packages)
    for name in NEEDED:
        sys.stdout.write(f"{find(name)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
