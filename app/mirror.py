"""`GET /doctor`: what the service saw of a request, told to `flask doctor` and to nobody else."""

import flask

from app.checkup_way_in import HEADER, PATH, Seen, is_signed
from app.errors import not_found

mirror = flask.Blueprint("mirror", __name__)


@mirror.get(PATH)
def look() -> flask.Response:
    """404, as for any address without a meaning, to whoever cannot sign with our key."""
    request = flask.request
    if not is_signed(flask.current_app.config["SECRET_KEY"], request.headers.get(HEADER, "")):
        raise not_found()
    entries = request.headers.get("X-Forwarded-For", "").split(",")
    seen = Seen(
        request.remote_addr or "",
        request.scheme,
        request.host,
        [entry.strip() for entry in entries if entry.strip()],
        request.headers.get("Belfry-User"),
    )
    return flask.jsonify(seen._asdict())
