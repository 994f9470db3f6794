"""What doctor sees on this machine: what the settings say, who may read which files, and whether Redis answers."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import limits

from app import shared_counters
from app.findings import Finding, broken, look, ok
from app.settings import IN_MEMORY, Settings

OTHERS = 0o077  # what the owner's group and everybody else may do with a file


def check_settings(settings: Settings) -> Iterator[Finding]:
    """What the settings say about an installation that others can reach."""
    yield _public_address(settings)
    yield _proxies(settings)
    yield _database(settings)
    yield check_workers(settings, os.cpu_count() or 1)
    yield _polls(settings)
    yield _fast_path(settings)
    yield _origins(settings)


def _public_address(settings: Settings) -> Finding:
    if settings.public_url is None:
        advice = "set PUBLIC_URL to the address that readers use"
        return look("public address", f"unset: links lead to {settings.own_url}", advice)
    if not settings.is_https:
        advice = "put TLS in front and set PUBLIC_URL to https://…"
        return look("public address", f"{settings.public_url} is not encrypted", advice)
    return ok("public address", settings.public_url)


def _proxies(settings: Settings) -> Finding:
    if settings.public_url and not settings.trusted_proxies:
        advice = "set TRUSTED_PROXIES to the number of proxies in front"
        return look("proxies", "none is trusted: every address is the proxy's", advice)
    return ok("proxies", f"{settings.trusted_proxies} trusted")


def _database(settings: Settings) -> Finding:
    if settings.database_url is not None:
        return ok("database", "DATABASE_URL names it")
    if settings.public_url is None:
        return ok("database", "the private one in instance/postgres")
    advice = "set DATABASE_URL, and move to that server with pg_dump (docs/operations.md)"
    return look("database", "the private one, which is for trying out", advice)


def check_workers(settings: Settings, cores: int) -> Finding:
    """Whether each worker has a core to itself: one more answers no more polls."""
    detail = f"{settings.web_concurrency} of {settings.threads} threads, {cores} cores"
    if settings.web_concurrency > cores:
        advice = f"set WEB_CONCURRENCY to {cores}: more workers only take memory and connections"
        return look("workers", detail, advice)
    return ok("workers", detail)


def _polls(settings: Settings) -> Finding:
    """A bell asks every POLL_INTERVAL, often of one worker alone, which allows its part of the limit only."""
    for rate in limits.parse_many(settings.poll_limit):
        part = rate.amount // settings.web_concurrency
        needed = rate.get_expiry() / settings.poll_interval
        if part < 2 * needed:
            detail = f"{part} in {rate.get_expiry()} s for a reader at one worker, whose bell needs {needed:.0f}"
            return look("polls", detail, "raise POLL_LIMIT or POLL_INTERVAL")
    return ok("polls", f"every {settings.poll_interval} s, {settings.poll_limit}")


def _fast_path(settings: Settings) -> Finding:
    if settings.fast_path:
        return ok("fast path", "on")
    return look("fast path", "off: polls cost many times more", "unset FAST_PATH")


def _origins(settings: Settings) -> Finding:
    """A cookie that is Secure never reaches a page without TLS, and such a page can be changed on its way."""
    plain = [origin for origin in settings.cors_origins if origin.startswith("http://")]
    if plain and settings.is_https:
        return look("origins", f"{', '.join(plain)} not encrypted", "put TLS in front of those pages")
    return ok("origins", f"{len(settings.cors_origins)} besides our own")


def check_secrets(settings: Settings, folder: Path) -> Iterator[Finding]:
    """Whether the keys on disk are out of other users' sight. One that can be guessed lets nothing start."""
    path = folder / "secret_key"
    if settings.secret_key:
        yield ok("secret key", "set")
    elif path.exists() and path.stat().st_mode & OTHERS:
        yield broken("secret key", f"other users can read {path}", f"chmod 600 {path}, and make a new one")
    else:
        yield ok("secret key", f"kept in {path}")
    if folder.exists() and folder.stat().st_mode & OTHERS:
        yield look("instance", f"other users can look into {folder}", f"chmod 700 {folder}")


def check_files(named: Mapping[str, str], shown: list[Path]) -> Iterator[Finding]:
    """Files that hold settings (`SECRET_KEY_FILE`: its path) against other users; files that are `shown`, for ours."""
    for name, path in named.items():
        if Path(path).stat().st_mode & OTHERS:
            yield look(name, f"other users of this machine can read {path}", f"chmod 400 {path}")
        else:
            yield ok(name, path)
    closed = [path for folder in shown for path in [folder, *folder.rglob("*")] if not os.access(path, os.R_OK)]
    if closed:
        advice = f"chmod -R u+rX {' '.join(str(folder) for folder in shown)}"
        yield broken("files", f"{closed[0]} cannot be read, nor {len(closed) - 1} more", advice)
    else:
        yield ok("files", "all that is served can be read")


def check_limit_store(settings: Settings) -> Finding:
    """Whether the counters that all workers share answer within a tenth of a second, as long as any request waits."""
    uri = settings.ratelimit_storage_uri
    if uri == IN_MEMORY:
        return ok("limits", "counted in each worker's memory, its part of the limit")
    began = time.monotonic()
    try:
        client = shared_counters.connect(uri)
        try:
            client.ping()
        finally:
            client.close()
    except Exception as error:  # whichever it is, workers do the same: each counts by itself
        advice = "start Redis, or correct RATELIMIT_STORAGE_URI; until then each worker allows its part of the limit"
        return look("limits", f"Redis does not answer: {type(error).__name__}", advice)
    return ok("limits", f"Redis answered after {(time.monotonic() - began) * 1000:.0f} ms")
