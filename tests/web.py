"""A small browser without JavaScript, for the real service: it keeps cookies, follows redirects, fills in forms."""

import http.cookiejar
import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """Somebody's browser at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def open(self, path: str, data: bytes | None = None, **headers: str) -> Answer:
        address = path if path.startswith("http") else self.url + path
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(address, data, named)
        try:
            with self.opener.open(request, timeout=30) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def submit(self, path: str, **fields: str) -> Answer:
        """Sends a form."""
        return self.open(path, urllib.parse.urlencode(fields).encode())

    def post(self, path: str, content: Any = None) -> Answer:
        """Calls the API."""
        return self.open(path, json.dumps(content or {}).encode(), Content_Type="application/json")

    def poll(self) -> Any:
        """The unread snapshot."""
        answer = self.open("/notifications/unread")
        assert answer.status == 200, answer.body
        return answer.json()
