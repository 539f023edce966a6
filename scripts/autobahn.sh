#!/usr/bin/env bash
# Plays the Autobahn test suite against the hub's own codec of WebSocket: an echo made of its reader and sender. Fails if a
# case does. The suite is installed into .tools/ at pinned versions; what is in place is left alone.
#
#     autobahn.sh [CASES...]     such as '1.*' or 7.1.6; without any, all that concern what the hub has
#
# The suite is a program for Python 2.7. PYTHON2 names one; without it one is looked for, and where there is none, that of the
# last Debian that had it is unpacked into .tools/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$PWD/.tools/autobahn
stamp=$PWD/.tools/stamps/autobahn
pins=scripts/autobahn.txt
# The last one that makes environments for Python 2.7.
virtualenv=virtualenv==20.21.1
debian_release=bullseye
debian_packages=(python2.7 python2.7-minimal libpython2.7-minimal libpython2.7-stdlib libffi7 libssl1.1)

say() { echo "autobahn: $*"; }

fail() {
    echo "autobahn: $*" >&2
    exit 1
}

# The path of the program itself: what is on the PATH may be a script that chooses one.
is_python2() { # PROGRAM
    timeout 10 "$1" -c 'import sys, ssl; assert sys.version_info[:2] == (2, 7); print(sys.executable)' 2>/dev/null
}

python2() {
    local candidate
    for candidate in "${PYTHON2:-}" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7 python2.7 python2; do
        if [[ -n $candidate ]] && is_python2 "$candidate"; then
            return
        fi
    done
    debian_python2 >&2
    is_python2 "$tools/python2.7" || fail "the Python 2.7 of Debian does not start: name another in PYTHON2"
}

# Those of a Python of Debian, which are not where the system looks; nothing for another.
libraries() {
    find "$tools/debian/usr/lib" -maxdepth 1 -name '*-linux-*' 2>/dev/null || true
}

# From where this machine has its own packages, only of an older release.
debian_python2() {
    local deb file ours sources=$tools/apt/sources
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "there is no Python 2.7: name one in PYTHON2"
    ours=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [[ -n $ours ]] || fail "this is no Debian that has older releases: name a Python 2.7 in PYTHON2"
    say "unpacking Python 2.7 of Debian $debian_release"
    rm -rf "$tools/apt" "$tools/debian"
    mkdir -p "$sources" "$tools/apt/lists/partial" "$tools/apt/cache/archives/partial" "$tools/debian"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.*; do
        if [[ -f $file ]]; then
            sed "s/\b$ours\b/$debian_release/g" "$file" >"$sources/${file##*/}"
        fi
    done
    apt() {
        apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$sources" \
            -o "Dir::State::lists=$tools/apt/lists" -o "Dir::Cache=$tools/apt/cache" -o Debug::NoLocking=1 \
            -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
    }
    apt update || fail "apt-get cannot read the package lists of Debian $debian_release"
    (cd "$tools/apt" && apt download "${debian_packages[@]/%//$debian_release}") ||
        fail "apt-get cannot download ${debian_packages[*]}"
    for deb in "$tools"/apt/*.deb; do
        dpkg-deb --extract "$deb" "$tools/debian"
    done
    rm -rf "$tools/apt"
    cat >"$tools/python2.7" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH="$(libraries)" exec "$tools/debian/usr/bin/python2.7" "\$@"
WRAPPER
    chmod +x "$tools/python2.7"
}

install() {
    local python wanted
    wanted="$virtualenv $(cksum <"$pins") $tools"
    if [[ -x $tools/venv/bin/wstest && -f $stamp && $(<"$stamp") == "$wanted" ]]; then
        say "the suite is in place"
        return
    fi
    rm -rf "$tools"
    mkdir -p "$tools" "${stamp%/*}"
    python=$(python2)
    say "installing the suite for $python"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --target "$tools/virtualenv" "$virtualenv"
    PYTHONPATH=$tools/virtualenv LD_LIBRARY_PATH=$(libraries) \
        python3 -m virtualenv --quiet --python "$python" "$tools/venv"
    LD_LIBRARY_PATH=$(libraries) "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --requirement "$pins" \
        2>"$tools/pip.log" || fail "pip cannot install the suite: $(tail -n 5 "$tools/pip.log")"
    printf '%s\n' "$wanted" >"$stamp"
}

install
AUTOBAHN_LIBRARIES=$(libraries) exec python3 scripts/play_autobahn.py "$tools" "$@"
