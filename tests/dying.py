"""In place of the service: workers that are killed at the worst of moments, each time the same."""

import contextlib
import socket
import threading


class Dying:
    """What nginx meets with where workers are killed: each connection answers one request and dies of the next."""

    def __init__(self) -> None:
        self.new_ones_to_die = 0
        self.together = 1  # requests that are awaited before the first of them is answered
        self.heard: list[bytes] = []
        self._all_there = threading.Condition()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._live, args=[connection], daemon=True).start()

    def _live(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(ConnectionError):
            self._hear(connection)
            with self._all_there:
                self._all_there.notify_all()
                self._all_there.wait_for(lambda: len(self.heard) >= self.together, timeout=30)
                self.new_ones_to_die -= 1
                if self.new_ones_to_die >= 0:
                    return
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            self._hear(connection)

    def _hear(self, connection: socket.socket) -> None:
        if content := connection.recv(65536):
            with self._all_there:
                self.heard.append(content.split(b" ")[0])

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
