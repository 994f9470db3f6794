"""A tuned stack: FastAPI, asyncpg and uvicorn with uvloop and httptools, and nothing between a poll and its one query.

A signed cookie says who is calling. A tag is compared with the user's version, by one query; the list is another one,
written to the wire by orjson. Unlike Belfry it counts no limit and cannot end a session.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import orjson
from fastapi import FastAPI, Request, Response
from itsdangerous import BadSignature, TimestampSigner

COOKIE = "session"
VERSION = "SELECT version FROM users WHERE id = $1 AND is_active"
# One statement, so that list, counts and version are of one moment.
SNAPSHOT = """
    SELECT u.username, u.version, n.*, count(*) OVER () AS unread,
        count(*) FILTER (WHERE n.seen_at IS NULL) OVER () AS unseen
    FROM users AS u LEFT JOIN notifications AS n ON n.user_id = u.id
        AND n.read_at IS NULL AND n.archived_at IS NULL AND n.expires_at > now()
    WHERE u.id = $1 AND u.is_active ORDER BY n.id DESC LIMIT 20
"""

signer = TimestampSigner(os.environ["SECRET_KEY"])
pool: asyncpg.Pool


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    global pool
    url = os.environ["DATABASE_URL"].replace("postgresql+psycopg", "postgresql")
    async with asyncpg.create_pool(url, min_size=8, max_size=8) as pool:
        yield


app = FastAPI(lifespan=lifespan, openapi_url=None)


@app.get("/notifications/unread")
async def unread(request: Request) -> Response:
    try:
        user_id = int(signer.unsign(request.cookies.get(COOKIE, ""), max_age=12 * 3600))
    except BadSignature:
        return Response(status_code=401)
    known = request.headers.get("If-None-Match")
    if known is not None:
        version = await pool.fetchval(VERSION, user_id)
        if version is not None and known == f'"{user_id}.{version}"':
            return Response(status_code=304, headers={"ETag": known, "X-Poll-Interval": "30"})
    rows = await pool.fetch(SNAPSHOT, user_id)
    if not rows:
        return Response(status_code=401)
    first = rows[0]
    content = {
        "user": first["username"],
        "notifications": [notification(row) for row in rows if row["id"] is not None],
        "unread_count": first["unread"] if first["id"] is not None else 0,
        "unseen_count": first["unseen"] if first["id"] is not None else 0,
    }
    headers = {"ETag": f'"{user_id}.{first["version"]}"', "X-Poll-Interval": "30", "Cache-Control": "private, no-store"}
    return Response(orjson.dumps(content), media_type="application/json", headers=headers)


def notification(row: asyncpg.Record) -> dict[str, object]:
    return {
        "id": row["id"],
        "type": row["type"],
        "title": row["title"],
        "body": row["body"],
        "body_html": row["body_html"],
        "url": row["url"],
        "actor": {"name": row["actor_name"], "url": row["actor_url"], "image": row["actor_image"]},
        "data": orjson.Fragment(row["data"]),
        "priority": row["priority"],
        "count": row["count"],
        "created_at": row["created_at"],
        "expires_at": row["expires_at"],
        "seen_at": row["seen_at"],
        "read_at": row["read_at"],
        "archived_at": row["archived_at"],
    }
