#!/bin/sh
# Runs a command with TEST_DATABASE_URL naming a throw-away server of Debian's PostgreSQL 15, installing it if needed.
set -eu
if ! [ -x /usr/lib/postgresql/15/bin/postgres ] || ! command -v pg_virtualenv >/dev/null; then
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        echo "These tests need Debian's packages postgresql-15 and postgresql-common: apt-get install postgresql-15" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql-15 postgresql-common >/dev/null
fi
exec pg_virtualenv -v 15 -o fsync=off -o max_connections=100 sh -c \
    'TEST_DATABASE_URL="postgresql://$PGUSER:$PGPASSWORD@$PGHOST:$PGPORT/postgres" exec "$@"' sh "$@"
