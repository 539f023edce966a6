#!/usr/bin/env bash
# Installs what the tests need beyond a Rust toolchain into .tools/, at pinned versions: every machine and CI then test
# with the same tools, and nothing outside the checkout is changed. Run it again at any time; what is in place is left
# alone, and a changed pin is installed anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
bin=$root/.tools/bin
venv=$root/.tools/venv
stamps=$root/.tools/stamps

python_packages=(
    grpcio==1.85.1
    grpcio-tools==1.85.1
    googleapis-common-protos==1.76.0
    kubernetes-validate==1.37.0
    protobuf==7.36.2
    PyYAML==6.0.3
    vega-datasets==0.9.0
)

say() { echo "install-tools: $*"; }

fail() {
    echo "install-tools: $*" >&2
    exit 1
}

need() { # COMMAND PURPOSE
    command -v "$1" >/dev/null || fail "$1 is missing: it is needed for $2"
}

# A stamp is written only when its tool is in place, so an install that was interrupted is done again.
current() { # NAME WANTED PRODUCT
    [[ -e $3 && -f $stamps/$1 && $(<"$stamps/$1") == "$2" ]]
}

stamp() { # NAME WANTED
    printf '%s\n' "$2" >"$stamps/$1"
}

go_tool() { # NAME PACKAGE VERSION
    if current "$1" "$3" "$bin/$1"; then
        say "$1 $3 is in place"
        return
    fi
    say "installing $1 $3 (compiles it; can take minutes)"
    GOBIN=$bin go install "$2@$3"
    stamp "$1" "$3"
}

python_venv() {
    # A venv holds absolute paths and links to its interpreter, so it is made anew when one of them changes.
    local wanted
    wanted="$(python3 --version) $venv ${python_packages[*]}"
    if current python "$wanted" "$venv/bin/python"; then
        say "the Python venv is in place"
        return
    fi
    say "making the Python venv: ${python_packages[*]}"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${python_packages[@]}"
    stamp python "$wanted"
}

node_packages() {
    local lock=examples/node/package-lock.json
    if [[ ! -e $lock ]]; then
        say "no $lock, so no Node packages to install"
        return
    fi
    # The lock file names every version, so a copy of it is the stamp.
    if [[ -d examples/node/node_modules ]] && cmp -s "$lock" "$stamps/node"; then
        say "the Node packages are in place"
        return
    fi
    say "installing the Node packages of $lock"
    npm ci --prefix examples/node --ignore-scripts --no-audit --no-fund
    cp "$lock" "$stamps/node"
}

need go "grpcurl, buf, kustomize and the Go example"
need python3 "the Python example and the check of k8s/"
python3 -c 'import ensurepip, venv' 2>/dev/null || fail "python3 has no venv module: install it (Debian: python3-venv)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 is too old: 3.11 or newer is needed"
need node "the Node example"
need npm "the Node example"
need curl "the tests of the ops port"

mkdir -p "$bin" "$stamps"

# One after another: each go install already uses all cores.
go_tool grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl v1.9.4
go_tool buf github.com/bufbuild/buf/cmd/buf v1.75.0
# Not 5.8.3: from there on kustomize needs Go 1.27, the others are content with 1.26.
go_tool kustomize sigs.k8s.io/kustomize/kustomize/v5 v5.8.2
go_tool protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go v1.36.12
go_tool protoc-gen-go-grpc google.golang.org/grpc/cmd/protoc-gen-go-grpc v1.6.2
python_venv
node_packages
