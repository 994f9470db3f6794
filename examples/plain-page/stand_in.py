"""Stands in for the service where the bell shows a token, until the service itself takes tokens.

It serves the bell's own files, answers polls that carry the newest token with one notification, everything else with
401, and tells at /heard what it was sent. A token is good for a few polls; then the bell has to fetch another.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

STATIC = Path(__file__).parents[2] / "static"
TYPES = {".js": "text/javascript", ".css": "text/css"}
POLLS_PER_TOKEN = 2

SNAPSHOT = {
    "user": "ada",
    "unread_count": 1,
    "unseen_count": 1,
    "version": 1,
    "more": False,
    "notifications": [
        {
            "id": 1, "type": "comment", "title": "Grace replied to you", "body": "Yes.", "body_html": "Yes.",
            "url": "/notes/7", "actor": {"name": "Grace Hopper", "url": None, "image": None}, "data": {},
            "priority": "normal", "count": 1, "created_at": "2030-01-01T00:00:00Z",
            "expires_at": "2031-01-01T00:00:00Z", "seen_at": None, "read_at": None, "archived_at": None,
        }
    ],
}  # fmt: skip


class StandIn(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.heard: list[dict[str, str | None]] = []
        self.used: dict[str, int] = {}

    def accepts(self, authorization: str | None) -> bool:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme != "Bearer" or not token:
            return False
        self.used[token] = self.used.get(token, 0) + 1
        return self.used[token] <= POLLS_PER_TOKEN


class Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_OPTIONS(self) -> None:
        self.answer(204, b"", "text/plain")

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        file = STATIC / path.removeprefix("/static/")
        if path == "/heard":
            self.answer(200, json.dumps(self.server.heard).encode(), "application/json")
        elif path.startswith("/static/") and file.suffix in TYPES and file.is_file():
            self.answer(200, file.read_bytes(), TYPES[file.suffix])
        else:
            self.answer_call()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer_call()

    def answer_call(self) -> None:
        authorization = self.headers.get("Authorization")
        good = self.server.accepts(authorization)
        self.server.heard.append(
            {"path": self.path, "authorization": authorization, "cookie": self.headers.get("Cookie")}
        )
        content = SNAPSHOT if good else {"status": 401, "title": "Unauthorized"}
        self.answer(200 if good else 401, json.dumps(content).encode(), "application/json")

    def answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Poll-Interval", "1")
        self.send_header("Set-Cookie", "belfry=never-to-be-sent; Path=/")
        self.send_header("Access-Control-Allow-Origin", self.headers.get("Origin", "*"))
        self.send_header("Access-Control-Allow-Credentials", "true")
        self.send_header("Access-Control-Allow-Headers", "Authorization, Content-Type, If-None-Match")
        self.send_header("Access-Control-Expose-Headers", "ETag, X-Poll-Interval, Retry-After")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing; /heard tells."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    StandIn(parser.parse_args().port).serve_forever()


if __name__ == "__main__":
    main()
