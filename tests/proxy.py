"""nginx in front of the real service, with the file that operators get: `deploy/nginx.conf`, unprivileged, in a folder.

Only where it listens and whom it asks is changed in it: addresses, ports, names and paths.
"""

import contextlib
import datetime
import ipaddress
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests import postgres, programs
from tests.service import Service, free_port, running_service, wait_until

SITE = postgres.ROOT / "deploy/nginx.conf"
# What /etc/nginx/nginx.conf holds elsewhere; `deploy/nginx.conf` asks for as many connections in its first lines.
AROUND_IT = """
daemon off;
pid {folder}/nginx.pid;
worker_processes 2;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {more}
    include {folder}/site.conf;
}}
"""


class Proxy:
    """A running nginx: `url` is https, `plain_url` http; `context` trusts its certificate."""

    def __init__(self, folder: Path, port: int, plain_port: int) -> None:
        self.folder = folder
        self.port, self.plain_port = port, plain_port
        self.url = f"https://localhost:{port}"
        self.plain_url = f"http://localhost:{plain_port}"
        self.certificate = folder / "fullchain.pem"
        self.context = ssl.create_default_context(cafile=str(self.certificate))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """The access log, a line of JSON for each request."""
        return (self.folder / "belfry.log").read_text()

    @property
    def errors(self) -> str:
        return "".join((self.folder / name).read_text() for name in ("belfry-error.log", "error.log"))

    def start(self) -> None:
        command = [programs.find("nginx"), "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        self.process = subprocess.Popen([*command, "-e", str(self.folder / "error.log")])
        wait_until(self._answers, "nginx answers")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.errors
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)


def changed(site: str, *changes: tuple[str, str]) -> str:
    """The file with each of these texts replaced, wherever it stands; all of them must be there."""
    for old, new in changes:
        assert old in site, f"{old!r} does not stand in the file"
        site = site.replace(old, new)
    return site


@contextlib.contextmanager
def nginx(upstream_port: int, port: int | None = None, site: str | None = None, more: str = "") -> Iterator[Proxy]:
    """nginx in front of what listens on `upstream_port`; `more` goes into its `http` block."""
    with tempfile.TemporaryDirectory(prefix="belfry-nginx-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # started by root, its workers are another user
        proxy_port, plain_port = port or free_port(), free_port()
        write_certificate(folder)
        text = changed(
            site or SITE.read_text(),
            ("listen [::]:443 ssl http2;", ""),  # not every machine that runs tests has IPv6
            ("listen [::]:80;", ""),
            ("listen 443 ssl http2;", f"listen 127.0.0.1:{proxy_port} ssl http2;"),
            ("listen 80;", f"listen 127.0.0.1:{plain_port};"),
            ("server 127.0.0.1:8000 ", f"server 127.0.0.1:{upstream_port} "),
            ("https://bell.example.com$request_uri", "https://localhost$request_uri"),
            ("server_name bell.example.com;", "server_name localhost 127.0.0.1;"),
            ("/etc/letsencrypt/live/bell.example.com/", f"{folder}/"),
            ("/var/log/nginx/", f"{folder}/"),
        )
        (folder / "site.conf").write_text(text)
        (folder / "nginx.conf").write_text(AROUND_IT.format(folder=folder, more=more.format(folder=folder)))
        proxy = Proxy(folder, proxy_port, plain_port)
        try:
            proxy.start()
            yield proxy
        finally:
            proxy.stop()


@contextlib.contextmanager
def behind_nginx(**settings: str) -> Iterator[tuple[Service, Proxy]]:
    """A running service and the nginx in front of it, by whose address the service is known."""
    port = free_port()
    usual = {"PUBLIC_URL": f"https://localhost:{port}", "TRUSTED_PROXIES": "1"}
    with running_service(**{**usual, **settings}) as service, nginx(service.port, port) as proxy:
        yield service, proxy


def write_certificate(folder: Path) -> None:
    """One for this machine that nobody has signed but itself: `fullchain.pem`, and its key in `privkey.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), here]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "privkey.pem").write_bytes(key.private_bytes(*encoding))
