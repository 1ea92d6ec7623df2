#!/bin/sh
# Tests emit() through node-postgres, pgx and JDBC against a throwaway Postgres of `postrider dev`.
#
# Usage: run.sh [node] [go] [java]      (default: all whose toolchain is on PATH)
#
# The Python drivers (psycopg, asyncpg, SQLAlchemy) are tested by `make test`. The drivers here come
# from npm, the Go proxy and Maven Central, into .tools/drivers/. A named driver whose toolchain is
# missing is an error. Without a name at least one toolchain must be there; the names of those that
# ran are printed at the end.
set -eu

cd "$(dirname "$0")/../.."
project=$PWD
postrider=${POSTRIDER:-$project/target/debug/postrider}
tools=$project/.tools/drivers
mkdir -p "$tools"
work=$(mktemp -d)
dev=

cleanup() {
    if [ -n "$dev" ]; then kill "$dev" 2>/dev/null || true; wait "$dev" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap cleanup EXIT

have() { command -v "$1" >/dev/null 2>&1; }

if [ $# = 0 ]; then
    if have node && have npm; then set -- "$@" node; fi
    if have go; then set -- "$@" go; fi
    if have mvn && have java; then set -- "$@" java; fi
    [ $# -gt 0 ] || { echo 'drivers: neither Node, Go nor Maven with a JDK is on PATH' >&2; exit 1; }
fi

"$postrider" dev --no-demo >"$work/dev.log" 2>&1 &
dev=$!
tries=0
until grep -q '^ *export DATABASE_URL=' "$work/dev.log"; do
    tries=$((tries + 1))
    if ! kill -0 "$dev" 2>/dev/null || [ "$tries" -gt 600 ]; then cat "$work/dev.log" >&2; exit 1; fi
    sleep 0.1
done
eval "$(grep '^ *export DATABASE_URL=' "$work/dev.log")"

run_node() {
    cp -r tests/drivers/node "$tools/"
    (cd "$tools/node" && npm install --silent --no-audit --no-fund && node emit.js)
}

run_go() {
    cp -r tests/drivers/go "$tools/"
    (cd "$tools/go" && go mod tidy >/dev/null 2>&1 && go run .)
}

run_java() {
    cp -r tests/drivers/java "$tools/"
    (cd "$tools/java" &&
        mvn -q -B -ntp compile dependency:build-classpath -Dmdep.outputFile=classpath >/dev/null &&
        java -cp "target/classes:$(cat classpath)" Emit)
}

for driver in "$@"; do
    case $driver in
        node) echo "node-postgres: $(run_node)" ;;
        go) echo "pgx: $(run_go)" ;;
        java) echo "JDBC: $(run_java)" ;;
        *) echo "drivers: unknown: $driver (node, go, java)" >&2; exit 1 ;;
    esac
done
