"""What machines ask about the service itself: /openapi.json."""

import flask
import orjson

from app import auth, openapi, settings

ops = flask.Blueprint("ops", __name__)


@ops.get("/openapi.json")
def openapi_document() -> flask.Response:
    """The API as OpenAPI 3.1, made from the routes and their models."""
    chosen = settings.current()
    content = openapi.document(flask.current_app, chosen.own_url, auth.cookie_name(chosen))
    return flask.Response(orjson.dumps(content), mimetype="application/json")
