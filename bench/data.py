"""What everybody's database holds: 1,000 users with 95 notifications read and the newest 5 unread."""

from pathlib import Path

import psycopg

ROOT = Path(__file__).parent.parent

USERS = 1_000
READ = 95
UNREAD = 5

# A browser keeps its name, and Flask-Login's sessions remember it: cookies are made with it and polls are sent with it.
USER_AGENT = "Mozilla/5.0 (bench)"
SECRET_KEY = "only for benchmarks, and long enough to be accepted"

# One row for each notification that there will be: `who` is the user's number, `number` counts from the oldest to the
# newest. Each has a text of its own, as comments have; two of the unread ones have not been seen.
CONTENT = f"""
    SELECT who, number,
        'user-' || who AS subject,
        'comment' AS type,
        format('Grace Hopper commented on “Issue %s”', who * 100 + number) AS title,
        format('Looks good to me, but see line %s before you merge this, please.', number) AS body,
        format('<b>Looks good</b> to me, but see line %s before you merge this, please.', number) AS body_html,
        format('https://app.example/issues/%s#comment-%s', who * 100 + number, number) AS url,
        'Grace Hopper' AS actor_name,
        'https://app.example/people/grace' AS actor_url,
        jsonb_build_object('issue', who * 100 + number, 'project', 'belfry') AS data,
        'normal' AS priority,
        now() - make_interval(mins => {READ + UNREAD} - number) AS created_at,
        now() + interval '30 days' AS expires_at,
        CASE WHEN number <= {READ + UNREAD - 2} THEN now() END AS seen_at,
        CASE WHEN number <= {READ} THEN now() END AS read_at
    FROM generate_series(1, {USERS}) AS who, generate_series(1, {READ + UNREAD}) AS number
"""


def fill(database_url: str, statements: str) -> None:
    """Runs the statements in one transaction, then lets PostgreSQL take stock: nobody is measured beside a vacuum."""
    with psycopg.connect(database_url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        with connection.transaction():
            connection.execute(statements)  # type: ignore[call-overload]
        connection.execute("VACUUM (ANALYZE, FREEZE)")
