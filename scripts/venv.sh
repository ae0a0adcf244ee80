# Sourced by run_optimized.sh and run_tests.sh: makes the checkout's own .venv and keeps it fresh.
#
#   . scripts/venv.sh
#   ensure_venv FOLDER REQUIREMENTS    e.g. ensure_venv "$PWD" requirements.txt
#
# Afterwards $VENV_PYTHON runs a Python >= 3.11 with exactly these requirements. When they are already there nothing
# is installed and no network is used. The stamp is written last: an interrupted run leaves none, so the next one
# starts over. Two at the same time wait for each other. Failure returns 1 with one sentence on stderr.
# shellcheck shell=bash

# Prints the first Python >= 3.11 ($PYTHON before those on PATH) that truly runs (version managers leave shims on PATH
# that only fail) and can make an environment with pip: with ensurepip, or with a pip of its own that can install into
# another (>= 22.3).
find_python() {
    local name path
    for name in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
        while IFS= read -r path; do
            if "$path" -c '
import sys, venv
ok = sys.version_info >= (3, 11)
try:
    import ensurepip
except ImportError:
    import pip
    ok = ok and tuple(map(int, pip.__version__.split(".")[:2])) >= (22, 3)
sys.exit(not ok)' </dev/null >/dev/null 2>&1; then
                printf '%s\n' "$path"
                return 0
            fi
        done < <(type -aP "$name" 2>/dev/null)
    done
    return 1
}

# What must be equal for an environment to be fresh: where it is, what runs in it, and every line it was made from.
# requirements-dev.txt holds `-r requirements.txt`, so that file counts for both.
_venv_stamp() {
    local folder=$1 requirements=$2
    printf 'folder %s\n' "$folder"
    "$folder/.venv/bin/python" -c 'import sys; print("python", sys.version)' 2>/dev/null || return 1
    cat "$folder/requirements.txt"
    [ "$requirements" = requirements.txt ] || cat "$folder/$requirements"
}

_venv_fresh() {
    local stamp
    stamp=$(_venv_stamp "$1" "$2") && [ "$stamp" = "$(cat "$1/.venv/.stamp-$2" 2>/dev/null)" ]
}

_venv_say() { printf '%s\n' "$*" >&2; }

_venv_make() {
    local folder=$1 requirements=$2 python pip
    _venv_fresh "$folder" "$requirements" && return 0 # somebody else made it while we waited

    # A healthy environment of this very folder is brought up to date; anything else is made anew.
    if ! ls "$folder"/.venv/.stamp-* >/dev/null 2>&1 ||
        ! grep -qsFx "folder $folder" "$folder"/.venv/.stamp-* ||
        ! "$folder/.venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        python=$(find_python) || {
            _venv_say "No usable Python >= 3.11 with venv and pip was found; install one or set PYTHON."
            return 1
        }
        _venv_say "Making .venv with $("$python" -V 2>&1) ..."
        rm -rf "$folder/.venv"
        if "$python" -c 'import ensurepip' >/dev/null 2>&1; then
            "$python" -m venv "$folder/.venv" || return 1
        else # Debian without python3-venv
            "$python" -m venv --without-pip "$folder/.venv" || return 1
        fi
    fi
    rm -f "$folder"/.venv/.stamp-*
    pip=("$folder/.venv/bin/python" -m pip)
    if ! "${pip[@]}" --version >/dev/null 2>&1; then
        python=${python:-$(find_python)} || return 1
        pip=("$python" -m pip --python "$folder/.venv/bin/python")
    fi
    _venv_say "Installing $requirements ..."
    if ! "${pip[@]}" install --quiet --no-input --disable-pip-version-check -r "$folder/$requirements" >&2; then
        _venv_say "Installing $requirements failed; the lines above say why. Run the command again to retry."
        return 1
    fi
    _venv_stamp "$folder" "$requirements" >"$folder/.venv/.stamp.new" &&
        mv "$folder/.venv/.stamp.new" "$folder/.venv/.stamp-$requirements" || return 1
    # The dev file includes the other one, which is thereby fresh as well.
    [ "$requirements" = requirements.txt ] ||
        _venv_stamp "$folder" requirements.txt >"$folder/.venv/.stamp-requirements.txt"
}

ensure_venv() {
    local folder requirements=$2
    folder=$(cd "$1" && pwd -P) || return 1
    # shellcheck disable=SC2034 # for whoever sourced this file
    VENV_PYTHON=$folder/.venv/bin/python
    _venv_fresh "$folder" "$requirements" && return 0
    if command -v flock >/dev/null 2>&1; then
        # The folder itself is the lock: .venv may be removed meanwhile.
        # shellcheck disable=SC2094 # nothing is read from it
        (flock 9 && _venv_make "$folder" "$requirements") 9<"$folder"
    else
        _venv_make "$folder" "$requirements"
    fi
}
