"""Receives GitHub's webhooks and rings the bells of those whom they concern.

BELFRY_URL=http://127.0.0.1:8000 BELFRY_KEY=blf_… GITHUB_WEBHOOK_SECRET=… flask --app github_webhooks run
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from typing import Any

import flask
from belfry_client import BelfryError, Client
from github_events import to_events

LARGEST_DELIVERY = 25 * 1024 * 1024  # GitHub sends nothing larger


def receiver(url: str, key: str, secret: str, watchers: dict[str, list[str]], **limits: Any) -> flask.Flask:
    """The receiver. `watchers`: who follows a repository, by its full name; `limits` are the client's."""
    # GitHub waits 10 seconds for an answer, and a delivery that failed can be sent again.
    client = Client(url, key, **{"deadline": 8.0, "timeout": 4.0, **limits})
    app = flask.Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_DELIVERY

    @app.post("/github")
    def receive() -> tuple[dict[str, Any], int]:
        request = flask.request
        body = request.get_data()
        if not is_signed(body, request.headers.get("X-Hub-Signature-256", ""), secret):
            return {"error": "X-Hub-Signature-256 does not fit the body and the secret."}, 401
        if request.mimetype != "application/json":
            return {"error": "Choose the content type application/json in the webhook's settings."}, 415
        try:
            payload = json.loads(body)
        except ValueError:
            payload = None
        if not isinstance(payload, dict):
            return {"error": "The body is not a JSON object."}, 400
        events = to_events(request.headers.get("X-GitHub-Event", ""), payload, watchers)
        if not events:
            return {"notified": []}, 200
        # Nobody hears twice of a delivery that is sent again. Its number would say so too, but no signature covers it:
        # whoever got hold of one delivery could send it under a thousand numbers.
        delivery = hashlib.sha256(body).hexdigest()
        try:
            client.batch(events, idempotency_key=f"github-{delivery}")
        except BelfryError as error:
            app.logger.error("delivery %s: %s", request.headers.get("X-GitHub-Delivery"), error)
            return {"error": "Belfry did not take it. Send the delivery again."}, 503
        return {"notified": [login for event in events for login in event.recipients]}, 200

    return app


def is_signed(body: bytes, signature: str, secret: str) -> bool:
    """Whether the signature is that of the body. Compared in constant time: how long it takes tells nothing of it."""
    expected = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))


def create_app() -> flask.Flask:
    """The receiver as its environment has it; an empty secret would let everybody in."""
    url, key, secret = (os.environ.get(name, "") for name in ("BELFRY_URL", "BELFRY_KEY", "GITHUB_WEBHOOK_SECRET"))
    if not (url and key and secret):
        raise SystemExit("Set BELFRY_URL, BELFRY_KEY and GITHUB_WEBHOOK_SECRET.")
    return receiver(url, key, secret, json.loads(os.environ.get("WATCHERS", "{}")))
