#!/bin/sh
# What the official image does before its command: make the database on an empty volume, with a server that listens on
# a socket only.
set -eu
export PGDATA=/var/lib/postgresql/data
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    initdb -U "$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust --auth-host=scram-sha-256 -E UTF8
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    pg_ctl -w start -o "-c listen_addresses=''"
    createdb -h /var/run/postgresql -U "$POSTGRES_USER" "$POSTGRES_DB" 2> /dev/null || true # the user's own is there
    pg_ctl -w -m fast stop
    echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
fi
exec "$@"
