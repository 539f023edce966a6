#!/usr/bin/env bash
# Checks k8s/ as a cluster would see it, without a cluster: the rendered base and overlays must fit the Kubernetes schemas,
# and must keep the promises on security and draining that a schema cannot know (check_manifests.py). And k8s/monitoring as
# Prometheus would: rules by their unit tests, and every query of the dashboard by its parser.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kubernetes_version=1.37
kustomize=.tools/bin/kustomize
promtool=.tools/bin/promtool
python=.tools/venv/bin/python

for tool in "$kustomize" "$promtool" "$python"; do
    if [[ ! -x $tool ]]; then
        echo "check-k8s: $tool is missing: run scripts/install-tools.sh" >&2
        exit 1
    fi
done

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT

for folder in k8s/base k8s/overlays/*/; do
    folder=${folder%/}
    file=$rendered/$(basename "$folder").yaml
    "$kustomize" build "$folder" >"$file"
    "$python" scripts/check_manifests.py "$kubernetes_version" "$folder" "$file"
done

"$promtool" check rules --lint-fatal k8s/monitoring/alerts.yaml
"$promtool" test rules k8s/monitoring/alerts_test.yaml
"$python" scripts/check_monitoring.py k8s/monitoring "$rendered/dashboard-queries.yaml"
"$promtool" check rules --lint=none "$rendered/dashboard-queries.yaml"
