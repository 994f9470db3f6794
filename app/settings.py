"""Every setting: name, type, default, one sentence. The only reader of the environment.

A setting is an environment variable of the field's name in capitals; `NAME_FILE` names a file that holds it instead.
docs/configuration.md is made from this file.
"""

import ipaddress
import os
import re
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import click
import flask
import limits
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

SHORTEST_SECRET = 32  # characters
LEAST_DIFFERENT = 8  # of them; 32 random ones hold more, were they but hexadecimal
LOCAL_HOSTS = ["localhost", "127.0.0.1"]
IN_MEMORY = "memory://"


class SettingsError(click.ClickException):
    """What is wrong with the settings, each by its name, in one message for the operator."""


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _checked_origin(value: str) -> str:
    if not _is_origin(value):
        raise ValueError("must be an origin such as https://app.example, without a path")
    if value.lower().endswith(":443" if value.lower().startswith("https") else ":80"):
        raise ValueError("must leave out the port that its scheme has anyway, as browsers do")
    return value.lower()


def _checked_public_url(value: str) -> str:
    address = _ADDRESS.fullmatch(value)
    # Werkzeug trusts no Host with brackets or _, so with an IPv6 address here the service would answer nobody.
    if address is None or not _is_origin(address[1]) or re.search(r"[\[_]", address[1]):
        raise ValueError("must be an address such as https://app.example or https://app.example/belfry")
    # Schemes and hosts know no case, and the cookie's name and the cross-site rule depend on them.
    return address[1].lower() + address[2]


# What stands in a cookie's path and in every link is kept to characters that mean only themselves there.
_ADDRESS = re.compile(r"([^/]+://[^/]+)((?:/[A-Za-z0-9._~-]+)*)/*")
_HOST = re.compile(r"\.?[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*", re.IGNORECASE)
_ORIGIN = re.compile(
    r"https?://(?:[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.IGNORECASE
)
# Of seven letters and more each: none of them comes out of a generator by chance.
_EXAMPLE = re.compile(
    r"(?:change|replace|insert)[ _-]?(?:me|this|it|your)|put[ _-]?your|your[ _-]?(?:own|secret|key)", re.IGNORECASE
)


def _is_origin(value: str) -> bool:
    try:
        return bool(_ORIGIN.fullmatch(value)) and urlsplit(value).port != 0
    except ValueError:  # a port above 65535, or brackets around what is no address
        return False


def _checked_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError("must be host names such as bell.internal, or .internal for all below it, without ports")
    return value.lower()


def _checked_address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise ValueError("must be an IP address of this machine such as 127.0.0.1 or 0.0.0.0") from error


def _checked_network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError("must be addresses such as 10.0.0.7 or networks such as 10.0.0.0/24") from error
    return value


def _checked_rate(value: str) -> str:
    try:
        rates = limits.parse_many(value)
    except ValueError as error:
        raise ValueError("must be a rate such as 100 per minute") from error
    if not all(rate.amount for rate in rates):
        raise ValueError("must allow something: a rate of 0 would be taken for 1")
    return value


def _checked_epoch(value: str) -> str:
    # It stands inside an ETag, between dots: RFC 9110 leaves no room for quotes, blanks and control characters.
    if not value.isascii() or not value.replace("-", "").replace("_", "").isalnum():
        raise ValueError("must be letters, digits, - and _ only")
    return value


def _checked_secret(value: str) -> str:
    # What stands in somebody's example, or was typed by a finger that rested on a key, is known to everybody.
    if len(set(value)) < LEAST_DIFFERENT or _EXAMPLE.search(value):
        raise ValueError(
            "must be random, and yours alone: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return value


def _checked_database_url(value: str) -> str:
    if not value.startswith(("postgresql://", "postgresql+psycopg://", "postgres://")):
        raise ValueError("must be the address of a PostgreSQL server: postgresql://user:password@host/name")
    return "postgresql+psycopg://" + value.split("://", 1)[1]


def _checked_storage(value: str) -> str:
    if value == IN_MEMORY:
        return value
    try:
        _require_an_address_of_redis(value)
    except (ValueError, TypeError):  # their words may repeat the password
        raise ValueError("must be memory://, or the address of a Redis server: redis://:password@host:6379/0") from None
    return value


def _require_an_address_of_redis(uri: str) -> None:
    parts = urlsplit(uri)
    is_complete = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname) and parts.port != 0
    if parts.scheme not in ("redis", "rediss", "unix") or not is_complete:
        raise ValueError
    if parts.scheme != "unix" and not re.fullmatch(r"(?:/[0-9]*)?", parts.path):  # the client would take it for 0
        raise ValueError
    from redis import ConnectionPool  # here, for most do without Redis, and loading it takes a tenth of a second

    ConnectionPool.from_url(uri).make_connection()  # connects to nothing yet


def _algorithm_for(jwt_key: str) -> str:
    """The one algorithm whose signatures this key can check."""
    if "-----BEGIN" not in jwt_key and not jwt_key.startswith(("ssh-", "ecdsa-")):
        return "HS256"
    try:
        key = load_pem_public_key(jwt_key.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("JWT_KEY: must be a shared secret, or a public key in PEM (BEGIN PUBLIC KEY)") from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return "RS256"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return "ES256"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "EdDSA"
    raise ValueError("JWT_KEY: must be a key for RS256 (of 2,048 bits or more), ES256 (P-256) or EdDSA (Ed25519)")


Hosts = Annotated[list[Annotated[str, AfterValidator(_checked_host)]], NoDecode, BeforeValidator(_split)]
Origins = Annotated[list[Annotated[str, AfterValidator(_checked_origin)]], NoDecode, BeforeValidator(_split)]
Networks = Annotated[list[Annotated[str, AfterValidator(_checked_network)]], NoDecode, BeforeValidator(_split)]
Secret = Annotated[str, Field(min_length=SHORTEST_SECRET), AfterValidator(_checked_secret)]


class Settings(BaseSettings):
    """What an operator can set."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    database_url: Annotated[str, AfterValidator(_checked_database_url)] | None = Field(
        None,
        description="The PostgreSQL server (14 or newer), `postgresql://user:password@host/name`."
        " Unset: a private one in `instance/postgres`.",
    )
    secret_key: Secret | None = Field(
        None,
        description="Signs the sessions; at least 32 random characters. Required with `DATABASE_URL`;"
        " otherwise one is made and kept in `instance/secret_key`.",
    )
    secret_key_fallbacks: Annotated[list[Secret], NoDecode, BeforeValidator(_split)] = Field(
        [], description="Former values of `SECRET_KEY`, with commas: sessions that they signed stay good."
    )
    bind: Annotated[str, AfterValidator(_checked_address)] = Field(
        "127.0.0.1",
        description="The address of this machine that gunicorn listens on, for a proxy; in a container `0.0.0.0`.",
    )
    port: int = Field(8000, ge=1, le=65535, description="The port that gunicorn listens on.")
    web_concurrency: int = Field(2, ge=1, le=64, description="How many worker processes gunicorn starts.")
    threads: int = Field(4, ge=1, le=64, description="How many requests of a worker are at the database at a time.")
    public_url: Annotated[str, AfterValidator(_checked_public_url)] | None = Field(
        None,
        description="Where readers reach the service, a path prefix included: `https://app.example/belfry`."
        " Unset: `http://127.0.0.1:PORT`.",
    )
    trusted_hosts: Hosts = Field(
        [],
        description="Host names answered besides this machine's own and `PUBLIC_URL`'s, with commas; others get 400.",
    )
    trusted_proxies: int = Field(
        0,
        ge=0,
        le=8,
        description="How many proxies in front add to `X-Forwarded-For` and `X-Forwarded-Proto`, exactly."
        " 0: these headers are ignored.",
    )
    cors_origins: Origins = Field(
        [], description="Origins of the host pages that carry the bell from another host name, with commas."
    )
    image_origins: Origins = Field(
        [],
        description="Origins that pictures of people may come from, besides the service's own, with commas."
        " Unset: initials instead.",
    )
    jwt_key: Secret | None = Field(
        None,
        description="Checks the tokens by which a host signs its readers in: a shared secret of at least 32 characters,"
        " or a public key in PEM. Unset: tokens are refused.",
    )
    jwt_algorithms: Literal["HS256", "RS256", "ES256", "EdDSA"] = Field(
        "HS256", description="The one algorithm that a token may be signed with, which is what `JWT_KEY` is made for."
    )
    jwt_audience: str | None = Field(None, description="What a token's `aud` must be. Unset: a token must have none.")
    jwt_issuer: str | None = Field(None, description="What a token's `iss` must be. Unset: it is not looked at.")
    session_hours: float = Field(
        12, gt=0, le=24 * 365, description="Hours from sign-in until a session ends; polling never extends it."
    )
    poll_interval: int = Field(
        30,
        ge=1,
        le=3600,
        description="Seconds between two polls of a bell (`X-Poll-Interval`); up to four times that under load.",
    )
    poll_limit: Annotated[str, AfterValidator(_checked_rate)] = Field(
        "100 per minute", description="Polls allowed per user."
    )
    ratelimit_storage_uri: Annotated[str, AfterValidator(_checked_storage)] = Field(
        IN_MEMORY,
        description="Where polls and readers' other calls are counted: `memory://`, where each worker allows its part"
        " of a limit, or for all workers together a Redis, `redis://:password@host:6379/0`, `rediss://…` or"
        " `unix:///path`.",
    )
    notification_ttl_days: float = Field(
        30, gt=0, le=365, description="Days that a notification lives when its sender names no expiry."
    )
    epoch: Annotated[str, Field(min_length=1, max_length=32), AfterValidator(_checked_epoch)] = Field(
        "0", description="Change it after any loss of commits (a restored backup, a fail-over): every bell reloads."
    )

    fast_path: bool = Field(
        True, description="Whether polls with nothing new are answered before Flask; off, they only cost more."
    )
    fast_path_inboxes: int = Field(
        100_000, ge=2, description="How many inboxes a worker knows at most, at some 500 bytes each."
    )
    changes_database_url: Annotated[str, AfterValidator(_checked_database_url)] | None = Field(
        None,
        description="Where workers tell each other what has changed: a direct connection to the same database, for"
        " where a pooler stands in front. Unset: `DATABASE_URL`.",
    )

    metrics_allow: Networks = Field(
        ["127.0.0.1", "::1"],
        description="Addresses and networks that may read `/metrics`, with commas; others get 404. Who comes through"
        " a proxy must be among them, and so must the proxy.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important lines that are logged; `info` has a line for each refused request."
    )

    @model_validator(mode="after")
    def _require_a_secret_for_a_real_server(self) -> "Settings":
        if self.database_url and not self.secret_key:
            raise ValueError("SECRET_KEY: must be set when DATABASE_URL is set")
        return self

    @model_validator(mode="after")
    def _require_a_poll_for_each_worker(self) -> "Settings":
        # Each worker allows its part of the limit. A part of none would refuse everybody, and one poll would exceed it.
        if any(rate.amount < self.web_concurrency for rate in limits.parse_many(self.poll_limit)):
            raise ValueError(f"POLL_LIMIT: must be at least WEB_CONCURRENCY, which is {self.web_concurrency}")
        return self

    @model_validator(mode="after")
    def _require_the_algorithm_that_fits_the_key(self) -> "Settings":
        # One key must never serve two ways: whoever knows a public key could sign with it as if it were a secret.
        if self.jwt_key and self.jwt_algorithms != (fitting := _algorithm_for(self.jwt_key)):
            raise ValueError(f"JWT_ALGORITHMS: must be {fitting}, which is what JWT_KEY is made for")
        return self

    @property
    def listens_on(self) -> str:
        """Where gunicorn listens: address and port."""
        return f"[{self.bind}]:{self.port}" if ":" in self.bind else f"{self.bind}:{self.port}"

    @property
    def own_url(self) -> str:
        """The service's public address without a slash at its end."""
        return self.public_url or f"http://127.0.0.1:{self.port}"

    @property
    def prefix(self) -> str:
        """The path under which the service lives: `/belfry`, or nothing."""
        return urlsplit(self.own_url).path

    @property
    def is_https(self) -> bool:
        return self.own_url.startswith("https://")

    @property
    def own_origin(self) -> str:
        parts = urlsplit(self.own_url)
        return f"{parts.scheme}://{parts.netloc}".lower()

    @property
    def hosts(self) -> list[str]:
        """The values of `Host`, without ports, that are answered."""
        return [*LOCAL_HOSTS, *self.trusted_hosts, urlsplit(self.own_url).hostname or ""]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, FileSettings(settings_cls)


class FileSettings(PydanticBaseSettingsSource):
    """`NAME_FILE`: the setting's value is the content of that file, as secrets are handed to containers."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        path = os.environ.get(f"{field_name.upper()}_FILE")
        if not path:
            return None, field_name, False
        try:
            return Path(path).read_text().strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{field_name.upper()}_FILE: cannot read {path}") from error

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


def files() -> dict[str, str]:
    """The settings that come from files, as `SECRET_KEY_FILE`, each with its file's path."""
    named = [f"{name.upper()}_FILE" for name in Settings.model_fields]
    return {name: os.environ[name] for name in named if os.environ.get(name)}


def load(**overrides: Any) -> Settings:
    """The settings from the environment, `overrides` before them.

    Raises `SettingsError` that names every setting that makes no sense.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_sentence(problem["loc"], problem["msg"]) for problem in error.errors(include_url=False)]
        raise SettingsError("\n".join(lines)) from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    return f"{str(location[0]).upper()}: {message}" if location else message


def init_app(app: flask.Flask, settings: Settings) -> None:
    app.extensions["settings"] = settings
    app.config["SECRET_KEY"] = settings.secret_key or kept_secret_key(Path(app.instance_path))
    app.config["SECRET_KEY_FALLBACKS"] = settings.secret_key_fallbacks


def current() -> Settings:
    """The settings of the app that is at work."""
    found: Settings = flask.current_app.extensions["settings"]
    return found


def kept_secret_key(folder: Path) -> str:
    """The secret key in `instance/secret_key`, made at the first start; only its owner can read it."""
    path = folder / "secret_key"
    if not path.exists():
        _make_secret_key(folder, path)
    key = path.read_text()
    if len(key) < SHORTEST_SECRET:  # emptied by hand or by a crash of the machine
        raise SettingsError(f"SECRET_KEY: {path} is damaged. Delete it; everybody will have to sign in again.")
    return key


def _make_secret_key(folder: Path, path: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = folder / f".secret_key.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32))
    try:
        os.link(draft, path)  # whole or not at all, and never over one that another process has just made
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def environment(**changed: str) -> dict[str, str]:
    """The environment for a process of ours, with these settings changed."""
    return {**os.environ, **changed}
