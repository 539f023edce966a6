#!/usr/bin/env bash
# Makes the stubs of the Python and the Go example from proto/, with the tools that scripts/install-tools.sh installs.
# Node makes its stubs when it starts; for Rust, cargo makes them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

for tool in .tools/venv/bin/python .tools/bin/{buf,protoc-gen-go,protoc-gen-go-grpc}; do
    [[ -x $tool ]] || { echo "generate: $tool is missing: run scripts/install-tools.sh first" >&2; exit 1; }
done

python=examples/gen/python
rm -rf "$python"
mkdir -p "$python"
.tools/venv/bin/python -m grpc_tools.protoc -I proto --python_out="$python" --grpc_python_out="$python" \
    proto/switchyard/v1/*.proto

.tools/bin/buf generate --template examples/buf.gen.yaml
