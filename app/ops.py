"""What machines ask about the service itself: /livez, /readyz, /metrics, /openapi.json."""

import ipaddress

import flask
import orjson
from sqlalchemy import Connection

from app import auth, metrics, openapi, readiness, retention, settings, vitals
from app.errors import Problem, not_found
from app.settings import Settings

ops = flask.Blueprint("ops", __name__)

# Each may name further stations of a request's way here.
FORWARDED = ("X-Forwarded-For", "X-Real-IP")


def init_app(app: flask.Flask) -> None:
    questions = (_cleaned, vitals.overdue, vitals.oldest_unread)
    app.extensions["vitals"] = vitals.Vitals(app, questions)


@ops.get("/livez")
def livez() -> flask.Response:
    """That this worker answers. It asks nobody: a database that is gone is no reason to restart the service."""
    return flask.Response("ok\n", mimetype="text/plain")


@ops.get("/metrics")
def show_metrics() -> flask.Response:
    """The numbers of all workers for Prometheus; 404 for whoever is not in METRICS_ALLOW."""
    if not _may_look(settings.current()):
        raise not_found()
    asker: vitals.Vitals = flask.current_app.extensions["vitals"]
    return flask.Response(metrics.exposition(asker.ask()), content_type=metrics.CONTENT_TYPE)


def _may_look(chosen: Settings) -> bool:
    """Whether everybody on the request's way here is allowed: who connected, and whoever proxies say to be behind them.

    So it needs no trust in any proxy: a header can only add somebody who is not allowed.
    """
    request = flask.request
    peer = request.environ.get("werkzeug.proxy_fix.orig", request.environ).get("REMOTE_ADDR") or ""
    named = [name for header in FORWARDED for line in request.headers.getlist(header) for name in line.split(",")]
    if "Forwarded" in request.headers:
        return False
    return all(_is_allowed(address.strip(), chosen) for address in [peer, *named])


def _is_allowed(address: str, chosen: Settings) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed in ipaddress.ip_network(network) for network in chosen.metrics_allow)


def _cleaned(connection: Connection) -> vitals.Values:
    progress = retention.progress(connection)
    found: vitals.Values = {metrics.CLEANED: progress.rows}
    return found if progress.done_at is None else {**found, metrics.CLEANUP_DONE: progress.done_at.timestamp()}


@ops.get("/readyz")
def readyz() -> dict[str, str]:
    """Whether this worker can answer readers and senders: 200, or 503 with what is missing. No limit counts it."""
    missing = readiness.current().missing()
    if missing is not None:
        raise Problem(503, missing, retry_after=1)
    return {"status": "ready"}


@ops.get("/openapi.json")
def openapi_document() -> flask.Response:
    """The API as OpenAPI 3.1, made from the routes and their models."""
    made = flask.current_app.extensions
    if "openapi" not in made:  # once: it takes 25 ms of CPU, and anybody may ask
        chosen = settings.current()
        content = openapi.document(flask.current_app, chosen.own_url, auth.cookie_name(chosen))
        made["openapi"] = orjson.dumps(content)
    return flask.Response(made["openapi"], mimetype="application/json")
