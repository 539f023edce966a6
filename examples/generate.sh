#!/usr/bin/env bash
# Makes stubs from proto/ in every language that the tests look at, with the tools that scripts/install-tools.sh installs:
# Python, Java, Kotlin, C++, C# and types for Node in examples/gen, Go in examples/go/gen. For Rust, cargo makes them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.tools/venv/bin/python
java=.tools/java
gen=examples/gen
types=examples/node/node_modules/.bin/proto-loader-gen-types

for tool in "$python" .tools/bin/{buf,protoc,protoc-gen-go,protoc-gen-go-grpc,protoc-gen-grpc-java,protoc-gen-grpc-kotlin} \
    .tools/bin/grpc_{cpp,csharp}_plugin "$types"; do
    [[ -x $tool ]] || { echo "generate: $tool is missing: run scripts/install-tools.sh first" >&2; exit 1; }
done

# Everything that decides what comes out: contract, this script, and versions of tools.
wanted=$(find proto examples/generate.sh examples/buf.gen.yaml .tools/stamps -type f -print0 | sort -z | xargs -0 cat | cksum)
if [[ -f $gen/stamp && $(<$gen/stamp) == "$wanted" && -d examples/go/gen ]]; then
    echo "generate: the stubs are in place"
    exit
fi

rm -rf "$gen"
mkdir -p "$gen"/{python,java,kotlin,cpp,csharp,node,classes}
files=(proto/switchyard/v1/*.proto)
# Types of protobuf itself, google/protobuf/*.proto.
include=$("$python" -c 'import grpc_tools; print(grpc_tools.__path__[0])')/_proto

"$python" -m grpc_tools.protoc -I proto --python_out="$gen/python" --grpc_python_out="$gen/python" "${files[@]}"

protoc() { .tools/bin/protoc -I proto -I "$include" "$@" "${files[@]}"; }
protoc --java_out="$gen/java" \
    --plugin=.tools/bin/protoc-gen-grpc-java --grpc-java_out="$gen/java"
protoc --kotlin_out="$gen/kotlin" \
    --plugin=.tools/bin/protoc-gen-grpc-kotlin --grpc-kotlin_out="$gen/kotlin"
protoc --cpp_out="$gen/cpp" \
    --plugin=protoc-gen-grpc=.tools/bin/grpc_cpp_plugin --grpc_out="$gen/cpp"
protoc --csharp_out="$gen/csharp" \
    --plugin=protoc-gen-grpc=.tools/bin/grpc_csharp_plugin --grpc_out="$gen/csharp"

# Node loads the .proto files when it starts; types are for those who write TypeScript.
"$types" --grpcLib=@grpc/grpc-js --includeDirs proto --outDir="$gen/node" "${files[@]#proto/}" >/dev/null

.tools/bin/buf generate --template examples/buf.gen.yaml

find "$gen/java" -name '*.java' -exec javac -nowarn -d "$gen/classes" -cp "$java/lib/*" {} +

echo "$wanted" >"$gen/stamp"
