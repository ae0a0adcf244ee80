#!/usr/bin/env bash
# Starts FileProxy on a machine with only Python >= 3.11: ./run_optimized.sh [options of `fileproxy serve`]
#
# Makes .venv with the pinned requirements when it is missing (scripts/venv.sh; later starts need no network), then
# runs `fileproxy serve` in this folder: its configuration, files, logs and var lie here, whatever folder it was called
# from. Without options: port 10080, uvloop workers, the embedded origin over ./files and an embedded Valkey.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
. scripts/venv.sh

# A path that was typed means what it meant where it was typed.
from_caller() { case $1 in "" | /*) printf '%s' "$1" ;; *) printf '%s/%s' "$caller" "$1" ;; esac; }
options=()
while [ $# -gt 0 ]; do
    case $1 in
    --config | --cache-dir)
        options+=("$1")
        [ $# -lt 2 ] || options+=("$(from_caller "$2")")
        shift $(($# < 2 ? 1 : 2))
        ;;
    --config=* | --cache-dir=*) options+=("${1%%=*}=$(from_caller "${1#*=}")") && shift ;;
    *) options+=("$1") && shift ;;
    esac
done
[ -z "${FILEPROXY_CONFIG:-}" ] || FILEPROXY_CONFIG=$(from_caller "$FILEPROXY_CONFIG")

ensure_venv "$PWD" requirements.txt
exec "$VENV_PYTHON" -m fileproxy serve "${options[@]}"
