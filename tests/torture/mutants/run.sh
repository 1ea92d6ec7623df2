#!/bin/sh
# Tests whether the tests notice defects: plants one at a time into a copy of the source, and runs
# the tests that have to fail.
#
# A mutant is a file beside this script. Its first lines say what it breaks, and which faults of the
# torture suite, tests of tests/it and unit tests have to notice it. plant.pl says how its edits are
# written. Each fault gets ITERATIONS strikes, of which five at a time are checked. The table says
# after how many strikes a mutant was noticed. The script ends with 1 when a mutant is not noticed,
# or no longer applies.
#
# Usage: tests/torture/mutants/run.sh [number...]            (default: all)
set -eu

ITERATIONS=${ITERATIONS:-60}
SEED=${SEED:-1}

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
scratch=$(mktemp -d)
tree=$scratch/tree
log=$scratch/log
table=$scratch/table
export CARGO_TARGET_DIR="$root/target/mutants"

clean_up() {
    git -C "$root" worktree remove --force "$tree" 2>/dev/null || true
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

git -C "$root" worktree add --quiet --detach "$tree" HEAD
[ -d "$root/.tools" ] && ln -s "$root/.tools" "$tree/.tools"
# The dependencies are the same as those of the real tree, so their built files are copied.
if [ ! -d "$CARGO_TARGET_DIR/debug" ] && [ -d "$root/target/debug" ]; then
    mkdir -p "$CARGO_TARGET_DIR/debug"
    cp -a "$root/target/debug/deps" "$root/target/debug/build" "$root/target/debug/.fingerprint" \
        "$CARGO_TARGET_DIR/debug/"
fi
cd "$tree"

field() { sed -n "s/^$2: *//p" "$1" | head -1; }

# Prints the fault or test that has noticed the mutant, or nothing.
killer() {
    for fault in $(field "$1" faults); do
        if ! FAULT=$fault ITERATIONS=$ITERATIONS SET=5 SEED=$SEED TIER='' \
            timeout 900 cargo test --locked --quiet --test torture >"$log" 2>&1
        then
            strikes=$(awk -v fault="$fault" '$1 == fault && $2 ~ /^[0-9]+$/ { print $2 }' "$log" | head -1)
            echo "fault $fault after ${strikes:-?} strikes"
            return
        fi
    done
    for filter in $(field "$1" tests); do
        if ! timeout 900 cargo test --locked --quiet --test it -- "$filter" >"$log" 2>&1; then
            name=$(sed -n 's/^---- \(.*\) stdout ----$/\1/p' "$log" | head -1)
            echo "test ${name:-$filter}"
            return
        fi
    done
    for filter in $(field "$1" unit); do
        if ! timeout 900 cargo test --locked --quiet --lib -- "$filter" >"$log" 2>&1; then
            name=$(sed -n 's/^---- \(.*\) stdout ----$/\1/p' "$log" | head -1)
            echo "test ${name:-$filter}"
            return
        fi
    done
}

survivors=0
for mutant in "$here"/*.mutant; do
    name=$(basename "$mutant" .mutant)
    wanted=no
    [ $# -gt 0 ] || wanted=yes
    for number in "$@"; do
        case $name in "$number"-*) wanted=yes ;; esac
    done
    [ $wanted = yes ] || continue
    git checkout --quiet -- .
    if ! perl "$here/plant.pl" "$mutant" 2>"$log"; then
        verdict='DOES NOT APPLY'
    elif ! cargo build --locked --quiet --bin postrider >"$log" 2>&1; then
        verdict='DOES NOT BUILD'
    else
        found=$(killer "$mutant")
        verdict=${found:-SURVIVED}
    fi
    case $verdict in
        [A-Z]*) survivors=$((survivors + 1)); tail -5 "$log" ;;
    esac
    printf '%-28s %s\n' "$name" "$verdict" | tee -a "$table"
done
printf '\nmutants:\n'
cat "$table"
[ $survivors = 0 ]
