"""What machines ask about the service itself: /readyz, /openapi.json."""

import flask
import orjson

from app import auth, openapi, readiness, settings
from app.errors import Problem

ops = flask.Blueprint("ops", __name__)


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
