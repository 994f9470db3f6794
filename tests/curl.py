"""Stands for curl where the docs use it: the options that they use, spoken by urllib. Any other option is an error."""

import argparse
import http.cookiejar
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-S", "--show-error", action="store_true")
    parser.add_argument("-i", "--include", action="store_true")
    parser.add_argument("-X", "--request")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data")
    parser.add_argument("-o", "--output")
    parser.add_argument("-w", "--write-out", default="")
    parser.add_argument("-b", "--cookie")
    parser.add_argument("-c", "--cookie-jar")
    parser.add_argument("--retry", type=int)
    parser.add_argument("--retry-connrefused", action="store_true")
    asked = parser.parse_args()

    jar = http.cookiejar.MozillaCookieJar()
    if asked.cookie:
        jar.load(asked.cookie, ignore_discard=True)
    data = asked.data
    if data and data.startswith("@"):
        data = Path(data[1:]).read_text().replace("\n", "")
    headers = dict(header.split(": ", 1) for header in asked.header)
    if data is not None:
        headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    body = None if data is None else data.encode()
    request = urllib.request.Request(asked.url, body, headers, method=asked.request)
    opener = urllib.request.build_opener(NoRedirects, urllib.request.HTTPCookieProcessor(jar))
    try:
        response = opener.open(request, timeout=30)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        content = response.read()
    if asked.cookie_jar:
        jar.save(asked.cookie_jar, ignore_discard=True)
    if asked.include:
        content = f"HTTP/1.1 {response.status}\r\n{response.headers}\r\n".encode() + content
    if asked.output:
        Path(asked.output).write_bytes(content)
    else:
        sys.stdout.buffer.write(content)
    written = asked.write_out.replace("\\n", "\n").replace("%{http_code}", str(response.status))
    sys.stdout.buffer.write(written.encode())


if __name__ == "__main__":
    main()
