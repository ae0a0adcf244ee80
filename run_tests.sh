#!/usr/bin/env bash
# Every check of the project: ./run_tests.sh [--lab] [pytest options]
#
# Makes .venv when it is missing (scripts/venv.sh), then: ruff, mypy, import-linter, pytest. All of them run even if one
# fails; the exit code is 0 only when all passed. Needs Python >= 3.11; no root, no Docker, nothing installed.
#
# Tests on real sockets share two processors with each other. When a full run had at most three failures, these tests run
# once more, alone; one that passes then is named as one that depends on how busy the machine is, and fails nothing.
#
# --lab  also runs the tests marked `lab`, which need root or programs from Debian packages. As root on a machine with
#        apt-get these packages are installed, one by one; a test whose program could not be had says so and is skipped.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
root=$PWD
. scripts/venv.sh

lab=false
options=()
for option in "$@"; do
    if [ "$option" = --lab ]; then lab=true; else options+=("$option"); fi
done

# --- privileges ---------------------------------------------------------------------------------------------------
# A test of "permission denied" proves nothing when the kernel lets root pass. So root runs the checks without its
# powers, in the first way that works here:
#
# 1. A user namespace in which our uid is shown as 1000. The processes own the same files as before (so a Python under
#    /root, the checkout and .venv stay readable, which another uid could not promise) but hold no capability, and
#    getuid() is not 0. Permission bits bind them as they bind anybody.
# 2. uid 0 without any capability. Permission bits bind too; only getuid() still says 0.
#
# The lab keeps root: that is what it is for.
plain=()
if [ "$(id -u)" = 0 ]; then
    # shellcheck disable=SC2016 # expanded by the sh that runs it
    denied='f=$(mktemp) && chmod 000 "$f"; if cat "$f" 2>/dev/null; then r=1; else r=0; fi; rm -f "$f"; exit $r'
    for way in "unshare --user --map-user=1000 --map-group=1000" "setpriv --bounding-set=-all --inh-caps=-all"; do
        # shellcheck disable=SC2086 # the words of $way are meant
        if $way sh -c "$denied" >/dev/null 2>&1 && $way "${BASH}" -c 'exec 3<run_tests.sh'; then
            read -ra plain <<<"$way"
            break
        fi
    done
    if [ ${#plain[@]} -gt 0 ]; then
        echo "Running as root: the checks run without root's powers (${plain[0]})."
    else
        echo "Running as root, and neither unshare nor setpriv can put its powers down: tests of refused access may fail." >&2
    fi
fi

ensure_venv "$root" requirements-dev.txt || exit 1
bin=$root/.venv/bin

# --- caches -------------------------------------------------------------------------------------------------------
# In the checkout, where the next run finds them; elsewhere when the checkout cannot be written to.
caches=$root
if ! "${plain[@]}" test -w "$root"; then
    caches=$(mktemp -d) && chmod 777 "$caches" || exit 1
    trap 'rm -rf "$caches"' EXIT
    export PYTHONDONTWRITEBYTECODE=1
fi
export RUFF_CACHE_DIR=$caches/.ruff_cache MYPY_CACHE_DIR=$caches/.mypy_cache
export HYPOTHESIS_STORAGE_DIRECTORY=$caches/.hypothesis
# What the caller's shell has set must not change what is tested.
while IFS= read -r name; do unset "$name"; done < <(compgen -e FILEPROXY_)

# --- the checks ---------------------------------------------------------------------------------------------------
failed=()
MOST_AGAIN=3
list=$caches/.pytest_cache/v/cache/lastfailed
check() { # NAME COMMAND...
    local name=$1
    shift
    printf '\n== %s\n' "$name"
    "${plain[@]}" "$@" || failed+=("$name")
}
tests() { # NAME COMMAND...   pytest's 5 (nothing collected) is a failure, unless options chose other tests
    local name=$1 code
    shift
    printf '\n== %s\n' "$name"
    [ ${#options[@]} = 0 ] && rm -f "$list" # what failed in earlier runs is not this one's
    "$@"
    code=$?
    [ $code = 0 ] && ran=true
    [ $code = 5 ] && [ ${#options[@]} -gt 0 ] && return
    if [ $code = 1 ] && [ ${#options[@]} = 0 ] && alone "$name" "$@"; then ran=true; return; fi
    [ $code = 0 ] || failed+=("$name")
}
alone() { # NAME COMMAND...   what failed, once more; 0 when all of it passes now
    local name=$1
    shift
    [ "$(grep -c '": true' "$list" 2>/dev/null)" -le "$MOST_AGAIN" ] || return 1
    local again
    again=$(cat "$list") # the next run empties it
    printf '\n== %s: what failed, once more and alone\n' "$name"
    "$@" -n 0 --last-failed --last-failed-no-failures none || return 1
    printf 'Passed alone, but not among the others (look into it):\n'
    sed -n 's/^  "\(.*\)": true,\{0,1\}$/  \1/p' <<<"$again"
}

if $lab; then
    printf '\n== lab packages\n'
    scripts/lab_packages.sh
fi
check lint "$bin/ruff" check .
check format "$bin/ruff" format --check .
check types "$bin/mypy"
check layers "$bin/lint-imports" --cache-dir "$caches/.import_linter_cache"

pytest=("$bin/python" -m pytest -o "cache_dir=$caches/.pytest_cache")
ran=false
tests tests "${plain[@]}" "${pytest[@]}" -n 2 -m "not lab" "${options[@]}"
if $lab; then
    tests lab "${pytest[@]}" -m lab "${options[@]}"
fi

$ran || [ ${#failed[@]} -gt 0 ] || failed+=("no test was run")
if [ ${#failed[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "$(IFS=,; echo "${failed[*]}")" >&2
    exit 1
fi
