"""Finds the Chromium that the browser tests drive: `python -m tests.browser`, with `--install` where there is none."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Playwright, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")

PATIENCE = 15_000  # milliseconds until something is said not to happen; a busy machine is slow

ARGUMENTS = [
    "--no-sandbox",  # root, as in most containers, cannot have it; the tests open pages of our own only
    "--disable-gpu",
    "--disable-quic",
    # No traffic but the tests' own:
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class NoBrowser(Exception):
    """The browser tests need Chromium. Get it with: .venv/bin/python -m tests.browser --install"""

    def __str__(self) -> str:
        return self.__doc__ or ""


def find(playwright: Playwright) -> str:
    """The path of a Chromium: one on the PATH, else the one that Playwright has downloaded."""
    for name in NAMES:
        if path := shutil.which(name):
            return path
    if Path(playwright.chromium.executable_path).exists():
        return playwright.chromium.executable_path
    raise NoBrowser


@contextmanager
def browser() -> Iterator[Browser]:
    """A running, headless Chromium."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE)
        chromium = playwright.chromium.launch(executable_path=find(playwright), args=ARGUMENTS)
        try:
            yield chromium
        finally:
            chromium.close()


def install() -> None:
    """Debian's package where we may install one, since it brings the libraries along; else Playwright's download."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        get = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium"]
        if subprocess.run(get).returncode:
            # Package lists that are missing or old are the usual reason.
            subprocess.run(["apt-get", "update"], check=True)
            subprocess.run(get, check=True)
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=True)


def main(arguments: list[str]) -> None:
    with sync_playwright() as playwright:
        try:
            sys.stdout.write(f"{find(playwright)}\n")
        except NoBrowser as missing:
            if arguments != ["--install"]:
                sys.exit(str(missing))
            try:
                install()
            except subprocess.CalledProcessError as failed:
                sys.exit(f"Chromium could not be installed ({' '.join(failed.cmd)}): exit status {failed.returncode}")
            sys.stdout.write(f"{find(playwright)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
