"""The tuned stack's database and its cookies; apart from the app, whose packages are in an environment of their own."""

from itsdangerous import TimestampSigner

from bench import data

COOKIE = "session"

FILL = f"""
    CREATE TABLE users (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, username text NOT NULL UNIQUE,
        is_active boolean NOT NULL DEFAULT true, version bigint NOT NULL DEFAULT 0);
    CREATE TABLE notifications (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        user_id bigint NOT NULL REFERENCES users, type text NOT NULL, title text NOT NULL, body text NOT NULL,
        body_html text NOT NULL, url text, actor_name text, actor_url text, actor_image text, data jsonb NOT NULL,
        priority text NOT NULL, count integer NOT NULL DEFAULT 1, created_at timestamptz NOT NULL,
        expires_at timestamptz NOT NULL, seen_at timestamptz, read_at timestamptz, archived_at timestamptz);
    CREATE INDEX notifications_unread ON notifications (user_id, id DESC)
        WHERE read_at IS NULL AND archived_at IS NULL;
    CREATE TEMPORARY TABLE content ON COMMIT DROP AS {data.CONTENT};
    INSERT INTO users (username, version)
        SELECT subject, count(*) FROM content GROUP BY who, subject ORDER BY who;
    INSERT INTO notifications (user_id, type, title, body, body_html, url, actor_name, actor_url, data, priority,
            created_at, expires_at, seen_at, read_at)
        SELECT users.id, type, title, body, body_html, url, actor_name, actor_url, data, priority,
            content.created_at, expires_at, seen_at, read_at
        FROM content JOIN users ON username = subject ORDER BY number, who;
"""


def prepare(database_url: str) -> list[str]:
    """Fills the empty database; gives back each user's session cookie as a browser sends it."""
    data.fill(database_url, FILL)
    signer = TimestampSigner(data.SECRET_KEY)
    # The identity counts from 1, in the order of the users' numbers.
    return [f"{COOKIE}={signer.sign(str(user_id)).decode()}" for user_id in range(1, data.USERS + 1)]
