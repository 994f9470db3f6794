"""Serves index.html as somebody's product would, in one of the three places where a bell can live.

    python host.py same-origin  http://127.0.0.1:8000    the service is reached under /belfry of this very site
    python host.py other-port   http://127.0.0.1:8000    the service has a host name of its own on the same site
    python host.py foreign-site http://127.0.0.1:8000    the service is elsewhere, and the bell shows a token;
                                                         JWT_KEY is the secret that the service knows too

What the service has to be told in each case is in docs/embedding.md. For trying out and for the tests: a product of
yours has a web server already, and needs of this nothing but two lines of HTML.
"""

import argparse
import http.client
import json
import os
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt

PAGE = (Path(__file__).parent / "index.html").read_text()
PREFIX = "/belfry"
PASSED_ON = ("Accept", "Belfry-User", "Content-Type", "Cookie", "If-None-Match", "Origin", "Referer", "Sec-Fetch-Site")


class Host(ThreadingHTTPServer):
    """The product's web server."""

    daemon_threads = True

    def __init__(self, place: str, service: str, port: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.place = place
        self.service = service.rstrip("/")

    def handle_error(self, *_: object) -> None:
        """A browser that hangs up before it has its answer is no error."""

    @property
    def page(self) -> str:
        if self.place == "same-origin":
            return PAGE
        page = PAGE.replace(f'"{PREFIX}/', f'"{self.service}/')
        if self.place == "foreign-site":
            page = page.replace("<notification-bell>", '<notification-bell token-url="/token">')
        return page

    @property
    def policy(self) -> str:
        """As strict as a product's content security policy gets."""
        service = "" if self.place == "same-origin" else f" {self.service}"
        return (
            f"default-src 'none'; script-src 'self'{service}; style-src 'self'{service};"
            f" connect-src 'self'{service}; img-src 'self'"
        )


class Handler(BaseHTTPRequestHandler):
    server: Host
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.server.place == "same-origin" and self.path.startswith(PREFIX):
            self.pass_on()
        elif self.path == "/token" and self.server.place == "foreign-site":
            # A product says here who is signed in with it, for five minutes; on this page that is always ada.
            claims = {"sub": "ada", "exp": int(time.time()) + 300}
            token = jwt.encode(claims, os.environ["JWT_KEY"], "HS256")
            self.answer(json.dumps({"token": token}).encode(), "application/json")
        else:
            self.answer(self.server.page.encode(), "text/html; charset=utf-8")

    def do_POST(self) -> None:
        self.pass_on()

    def do_PUT(self) -> None:
        self.pass_on()

    def answer(self, body: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", self.server.policy)
        self.end_headers()
        self.wfile.write(body)

    def pass_on(self) -> None:
        """What nginx does with `location /belfry/ { proxy_pass …; }`."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        service = http.client.HTTPConnection(urllib.parse.urlsplit(self.server.service).netloc, timeout=30)
        try:
            service.request(self.command, self.path, body, {**headers, "Host": self.headers["Host"]})
            answer = service.getresponse()
            content = answer.read()
        except OSError:
            self.send_error(502)
            return
        finally:
            service.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Says nothing: the service has a log of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", choices=["same-origin", "other-port", "foreign-site"])
    parser.add_argument("service", help="where Belfry listens, such as http://127.0.0.1:8000")
    parser.add_argument("--port", type=int, default=8080)
    given = parser.parse_args()
    Host(given.place, given.service, given.port).serve_forever()


if __name__ == "__main__":
    main()
