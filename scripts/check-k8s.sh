#!/usr/bin/env bash
# Checks k8s/ as a cluster would see it, without a cluster: the rendered base and overlays must fit the Kubernetes schemas,
# must be the same whichever kustomize renders them, and must keep the promises on security and draining that a schema cannot
# know (check_manifests.py). And k8s/monitoring as Prometheus would: rules by their unit tests, and every query of the
# dashboard by its parser.
#
#     check-k8s.sh [FOLDER]     another folder than k8s/
set -euo pipefail
root=$(realpath "${1:-$(dirname "${BASH_SOURCE[0]}")/../k8s}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kubernetes_version=1.37
kustomize=.tools/bin/kustomize
# What kubectl has in it is older.
kustomize_oldest=.tools/bin/kustomize-oldest
promtool=.tools/bin/promtool
python=.tools/venv/bin/python

for tool in "$kustomize" "$kustomize_oldest" "$promtool" "$python"; do
    if [[ ! -x $tool ]]; then
        echo "check-k8s: $tool is missing: run scripts/install-tools.sh" >&2
        exit 1
    fi
done

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT

# All that is wrong is told, not only the first of it.
failed=0
wrong() {
    echo "check-k8s: $*" >&2
    failed=1
}

if grep -rnE '^[^#]*includeTemplates' --include=kustomization.yaml "$root"; then
    wrong "includeTemplates labels volumeClaimTemplates or not, depending on the version: name fields"
fi

for folder in "$root"/base "$root"/overlays/*/; do
    folder=${folder%/}
    file=$rendered/$(basename "$folder").yaml
    "$kustomize" build "$folder" >"$file"
    "$kustomize_oldest" build "$folder" >"$file.oldest"
    diff "$file.oldest" "$file" || wrong "$folder: the oldest kustomize renders something else than the newest"
    "$python" scripts/check_manifests.py "$kubernetes_version" "$folder" "$file" || failed=1
done

"$promtool" check rules --lint-fatal "$root/monitoring/alerts.yaml"
"$promtool" test rules "$root/monitoring/alerts_test.yaml"
"$python" scripts/check_monitoring.py "$root/monitoring" "$rendered/dashboard-queries.yaml"
"$promtool" check rules --lint=none "$rendered/dashboard-queries.yaml"
exit "$failed"
