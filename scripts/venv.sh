# Sourced by the scripts beside it, for one function:
#
#     enter_venv EXTRAS
#
# goes to the root of the repository and makes sure that .venv there holds this package with these extras ("" or "test").
# It installs only when pyproject.toml has changed since the last time. Sets $python.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
python="$venv/bin/python"

# A Python that is new enough, can make environments, and starts at all (a shim of pyenv may not).
find_python() {
    local name
    for name in python3 python3.13 python3.12 python3.11; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    echo "This needs Python 3.11 or newer with the venv module, and found none:" \
        "install one as python3, python3.13, python3.12 or python3.11." >&2
    return 1
}

enter_venv() {
    local extras="$1" stamp state found
    cd "$root" || return 1
    if ! "$python" -c 'import pip' >/dev/null 2>&1; then
        found="$(find_python)" || return 1
        echo "Making the environment $venv with $("$found" --version) ..."
        "$found" -m venv --clear "$venv" || return 1
    fi
    stamp="$venv/installed${extras:+-$extras}"
    # The path is part of it: an environment does not survive being moved.
    state="$root $(cksum <pyproject.toml)"
    if [[ ! -f "$stamp" || "$(cat "$stamp")" != "$state" ]]; then
        echo "Installing cnnjax${extras:+ with what its $extras needs} into $venv (the first time takes minutes) ..."
        "$python" -m pip install --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}" || return 1
        echo "$state" >"$stamp"
    fi
}
