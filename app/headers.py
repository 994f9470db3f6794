"""The headers that protect an answer, whoever gives it: a route, the short way in for polls, or the worker itself."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from app.settings import Settings

NOSNIFF = {"X-Content-Type-Options": "nosniff"}
# Under no-referrer a browser's own forms would send `Origin: null`, which the cross-site rule refuses.
REFERRER = {"Referrer-Policy": "same-origin"}
# No page of another origin may load an answer as a picture or a script, where its bytes would be within reach.
NOT_ELSEWHERE = {"Cross-Origin-Resource-Policy": "same-origin"}
# Host pages on any site load the bell. `no-cache` asks each time: no upgrade mixes module versions.
STATIC = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "no-cache",
}
# A window that opened a page of ours, or was opened by it, is no way into it.
PAGE = {"Cross-Origin-Opener-Policy": "same-origin"}
UNKEPT = {"Cache-Control": "private, no-store", "Vary": "Cookie, Authorization"}
# A year. Which of the names below ours speak https is not known here, so nothing is said of them.
TRANSPORT = {"Strict-Transport-Security": "max-age=31536000"}


def content_security_policy(form_action: str = "", image_origins: Sequence[str] = ()) -> str:
    """What a page of ours may load: its own files, nothing inline. `form_action`: where its form may lead as well;
    `image_origins`: where its pictures may come from as well.
    """
    parts = urlsplit(form_action)
    beyond = f" {parts.scheme}://{parts.netloc}" if form_action else ""
    pictures = " ".join(["'self'", *image_origins])
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        f" img-src {pictures}; form-action 'self'{beyond}; base-uri 'none'; frame-ancestors 'none'"
    )


def of_transport(settings: Settings) -> dict[str, str]:
    """What binds browsers to https, where readers reach the service so."""
    return TRANSPORT if settings.is_https else {}


def of_bodies(settings: Settings) -> dict[str, str]:
    """How a body is to be treated: on everything but a 304 of the API, whose caller has the body already."""
    policy = content_security_policy(image_origins=settings.image_origins)
    return {**NOSNIFF, **REFERRER, "Content-Security-Policy": policy}


def of_unchanged(settings: Settings) -> dict[str, str]:
    """What stands on a 304 of the readers' API to a page of ours, besides the tag and the interval."""
    varying = {"Vary": UNKEPT["Vary"] + ", Origin"} if settings.cors_origins else {}
    return {**UNKEPT, **varying, **NOT_ELSEWHERE, **of_transport(settings)}


def of_snapshot(settings: Settings) -> dict[str, str]:
    """What stands on a 200 of the readers' API to a page of ours, besides the tag and the interval."""
    return {**of_unchanged(settings), **of_bodies(settings), **of_pictures(settings)}


def of_refusal(settings: Settings) -> dict[str, str]:
    """What stands on an answer of the worker's own, to a request that came to no route."""
    return {**UNKEPT, **NOT_ELSEWHERE, **of_transport(settings), **of_bodies(settings)}


def of_pictures(settings: Settings) -> dict[str, str]:
    """What tells a bell whose pictures it may load, if anybody else's than the service's own."""
    return {"X-Image-Origins": " ".join(settings.image_origins)} if settings.image_origins else {}
