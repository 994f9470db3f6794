"""The gunicorn worker: gevent's WSGI server with our own reading of requests, deadlines for it, and a gentle stop.

Chosen by figures: docs/decisions.md. gevent's own parser is lenient and waits for ever, which this replaces.
"""

import contextlib
import socket
import time
from typing import Any

import gevent
from gevent import pywsgi
from gevent.pool import Pool
from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler

from app import metrics, refusals, request_head, server_log
from app.request_body import Body
from app.request_head import Refused

HEAD_SECONDS = 10  # for a head, from its first byte
BODY_SECONDS = 20  # for a body, from when it is asked for
STILL_SECONDS = 30  # without a byte read or written in the midst of a request
LONGEST_HEAD = 65536
# What is left of a body that nobody wanted: this much is read, so that the client comes to read the answer.
LEFT_OVER = 8 * 1024 * 1024
LEFT_OVER_SECONDS = 2
LITTLE = 65536  # after so much of it the connection can be kept
# Requests, or pieces of a body, that are read on one connection before others have their turn, be they already there.
TURN = 16
GOODBYE_SECONDS = 0.5  # in which who keeps an idle connection to a stopping worker may send one more request


class Handler(PyWSGIHandler):  # type: ignore[misc]
    """One connection: request after request."""

    status: bytes | None
    response_headers: list[tuple[bytes, bytes]]

    def __init__(self, connection: Any, address: Any, server: "Server") -> None:
        super().__init__(connection, address, server)
        self.is_idle = False
        self.requests = 0

    def handle(self) -> None:
        self.server.handlers.add(self)
        try:
            super().handle()
        finally:
            self.server.handlers.discard(self)

    def handle_one_request(self) -> bool | None:
        """None where the connection is over, True where it goes on."""
        self.response_length, self.response_headers = 0, []
        self.requests += 1
        if self.requests % TURN == 0:
            gevent.sleep(0)
        try:
            raw = self._read_head()
            if raw is None:
                return None
            head = request_head.parse(raw)
        except Refused as refused:
            self._refuse(refused)
            return None
        except OSError:
            return None
        self._take(head)
        self.handle_one_response()
        if not self.wsgi_input.has_ended:
            self._read_left_over()
        return None if self.close_connection else True

    def handle_one_response(self) -> None:
        """As gevent's, without reading the rest of the body in any case."""
        self.time_start = time.time()
        self.status, self.headers_sent, self.result = None, False, None
        self.response_use_chunked = self.connection_upgraded = False
        try:
            self.run_application()
        except OSError:  # the client went away, or takes no bytes
            self.close_connection = True
        except Exception as error:
            self.close_connection = True
            self.handle_error(type(error), error, error.__traceback__)
        finally:
            self.time_finish = time.time()
            self.log_request()

    def log_request(self) -> None:
        if self.server.log.access_log_enabled:
            super().log_request()

    def finalize_headers(self) -> None:
        super().finalize_headers()
        if self.server.is_stopping or not self._is_body_soon_over():
            self.close_connection = True
        if self.close_connection and self.request_version == "HTTP/1.1":
            self.response_headers.append((b"Connection", b"close"))

    def _write_with_headers(self, data: bytes) -> None:
        # gevent sends head and body on their own, two calls of the system where one does.
        self.headers_sent = True
        self.finalize_headers()
        lines = [
            b"HTTP/1.1 " + (self.status or b""),
            *(name + b": " + value for name, value in self.response_headers),
            b"",
            b"",
        ]
        head = b"\r\n".join(lines)
        if self.response_use_chunked or len(data) > LONGEST_HEAD:
            self._sendall(head)
            self._write(data)
        else:
            self._sendall(head + data)

    def _read_head(self) -> bytes | None:
        """The next head without its last empty line; None where there will be none."""
        self.socket.settimeout(self.server.keep_idle)
        self.is_idle = True
        try:
            seen = self.rfile.peek(1)
        finally:
            self.is_idle = False
        if not seen:
            return None
        self.socket.settimeout(STILL_SECONDS)
        end = seen.find(b"\r\n\r\n")
        if end > 0 and not seen.startswith(b"\r"):  # mostly all of it is there, and no clock is needed
            head: bytes = self.rfile.read(end + 4)[:end]
            return head
        with gevent.Timeout(HEAD_SECONDS, Refused(408)):
            return self._read_slow_head()

    def _read_slow_head(self) -> bytes | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline(request_head.LONGEST_LINE + 3)
            if not line:
                return None
            if line == b"\r\n" and not head:  # one is allowed in front (RFC 9112 section 2.2)
                head = line = self.rfile.readline(request_head.LONGEST_LINE + 3)
            else:
                head += line
            if not line.endswith(b"\r\n"):
                too_long = len(line) > request_head.LONGEST_LINE
                raise Refused((431 if len(head) > len(line) else 414) if too_long else 400)
            if len(head) > LONGEST_HEAD:
                raise Refused(431)
        return head[:-4]

    def _refuse(self, refused: Refused) -> None:
        """What could not be read stands in the log as a dash."""
        self.time_start = self.time_finish = time.time()
        self.environ = {**self.server.environ, **refusals.UNREAD, "REMOTE_ADDR": self.client_address[0]}
        self._send_error_response_if_possible(refused.status)
        self.log_request()

    def _send_error_response_if_possible(self, error_code: int) -> None:
        """The last answer on a connection; gevent calls this where the application failed without one of its own."""
        if not self.response_length:
            self.status = b"%d" % error_code
            with contextlib.suppress(OSError):  # nobody waits for it
                number = server_log.note_refusal(error_code)
                self.socket.sendall(refusals.answer(error_code, self.server.headers_of_refusal, number))

    def _take(self, head: request_head.Head) -> None:
        self.environ = {**self.server.environ, **head.environ}
        self.environ["REMOTE_ADDR"], self.environ["REMOTE_PORT"] = self.client_address[0], str(self.client_address[1])
        self.command, self.path = head.environ["REQUEST_METHOD"], head.environ["RAW_URI"]
        self.request_version, self.close_connection = head.version, head.is_last
        self.requestline = f"{self.command} {self.path} {head.version}"
        self.head = head
        self.wsgi_input: Body = Body(_Timely(self), head.length, head.is_chunked, self._begin_body)
        self.environ["wsgi.input"] = self.wsgi_input
        self.application = self.server.application

    def _begin_body(self) -> None:
        self.body_deadline = time.monotonic() + BODY_SECONDS
        if self.head.wants_continue:
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _is_body_soon_over(self) -> bool:
        if self.head.wants_continue and not self.wsgi_input.was_begun:
            return False  # nobody knows whether it comes
        return self.wsgi_input.is_soon_over(LITTLE)

    def _read_left_over(self) -> None:
        """Closing while the client still sends would take the answer out of its hands."""
        if self.head.wants_continue and not self.wsgi_input.was_begun:
            return
        with contextlib.suppress(OSError), gevent.Timeout(LEFT_OVER_SECONDS, TimeoutError()):
            if not self.close_connection:
                while self.wsgi_input.read(LITTLE):
                    pass
                return
            self.socket.shutdown(socket.SHUT_WR)
            left = LEFT_OVER
            while left > 0 and (received := self.rfile.read1(LITTLE)):
                left -= len(received)
        self.close_connection = True


class _Timely:
    """The connection for a body: what is not there by the deadline never comes."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.reads = 0

    def read1(self, size: int, /) -> bytes:
        with self._deadline():
            received: bytes = self.handler.rfile.read1(size)
        return received

    def readline(self, size: int, /) -> bytes:
        with self._deadline():
            line: bytes = self.handler.rfile.readline(size)
        return line

    def _deadline(self) -> gevent.Timeout:
        self.reads += 1
        if self.reads % TURN == 0:  # what is there already is read without a pause, be it a chunk for each byte
            gevent.sleep(0)
        return gevent.Timeout(max(0.001, self.handler.body_deadline - time.monotonic()), TimeoutError("a slow body"))


class Server(pywsgi.WSGIServer):  # type: ignore[misc]
    """Its handlers, and what they have to know."""

    keep_idle = 75

    def __init__(self, *arguments: Any, **options: Any) -> None:
        log = options["log"]
        super().__init__(*arguments, **options)
        self.log = log
        self.handlers: set[Handler] = set()
        self.is_stopping = False
        self.headers_of_refusal = refusals.headers_for(options["application"])
        self.environ["wsgi.input_terminated"] = True

    def close_idle(self) -> None:
        for handler in [handler for handler in self.handlers if handler.is_idle]:
            with contextlib.suppress(OSError):  # the client was faster
                handler.socket.shutdown(socket.SHUT_RD)  # its read comes back with nothing, and it ends


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """gunicorn's worker for this server. Its configuration has patched the standard library before anything else."""

    server_class = Server
    wsgi_handler = Handler

    def run(self) -> None:
        servers = [self._serve(listener) for listener in self.sockets]
        metrics.CONNECTIONS.ask = lambda: sum(len(server.handlers) for server in servers)
        while self.alive:
            self._rest()
        for server in servers:
            server.close()
            server.is_stopping = True
        started = time.monotonic()
        while any(server.handlers for server in servers) and time.monotonic() < started + self.cfg.graceful_timeout:
            if time.monotonic() > started + GOODBYE_SECONDS:
                for server in servers:
                    server.close_idle()
            self._rest()

    def _serve(self, listener: Any) -> Server:
        listener.setblocking(True)
        name, port = listener.getsockname()[:2]
        environ = {
            "wsgi.multithread": True,
            "wsgi.multiprocess": self.cfg.workers > 1,
            "SERVER_SOFTWARE": "Belfry",
            "SERVER_NAME": name,
            "SERVER_PORT": str(port),
        }
        server = self.server_class(
            listener,
            application=self.wsgi,
            spawn=Pool(self.worker_connections),
            log=self.log,
            handler_class=self.wsgi_handler,
            environ=environ,
        )
        server.keep_idle = self.cfg.keepalive
        server.start()
        return server

    def _rest(self) -> None:
        # A signal only sets `alive`: the shorter the rest, the sooner a worker stops.
        self.notify()
        gevent.sleep(0.1)
