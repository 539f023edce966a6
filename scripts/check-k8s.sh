#!/usr/bin/env bash
# Checks k8s/base as a cluster would see it, without a cluster: the rendered manifests must fit the Kubernetes schemas,
# and must keep the promises on security and draining that a schema cannot know.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kubernetes_version=1.37
kustomize=.tools/bin/kustomize
python=.tools/venv/bin/python

for tool in "$kustomize" "$python"; do
    if [[ ! -x $tool ]]; then
        echo "check-k8s: $tool is missing: run scripts/install-tools.sh" >&2
        exit 1
    fi
done

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT

"$kustomize" build k8s/base >"$rendered/base.yaml"

# Strict, so that a misspelt field is an error here and not a setting that is silently ignored there.
"$python" -m kubernetes_validate --quiet --strict --kubernetes-version "$kubernetes_version" "$rendered/base.yaml"

"$python" - "$rendered/base.yaml" k8s/base/switchyard.toml <<'PYTHON'
import sys
import tomllib

import yaml

rendered, settings = sys.argv[1:]
with open(rendered, encoding="utf-8") as file:
    manifests = [m for m in yaml.safe_load_all(file) if m]
with open(settings, encoding="utf-8") as file:
    settings_text = file.read()
config = tomllib.loads(settings_text)

broken = []


def promise(text, kept):
    if not kept:
        broken.append(text)


def the(kind, name=None):
    """The one manifest of this kind; a config map's name has a hash after it."""
    found = [m for m in manifests if m["kind"] == kind and (name is None or m["metadata"]["name"] == name)]
    if len(found) != 1:
        sys.exit(f"check-k8s: expected one {kind} {name or ''}, found {len(found)}")
    return found[0]


deployment = the("Deployment")["spec"]
pod = deployment["template"]["spec"]
pod_security = pod.get("securityContext", {})
containers = pod["containers"] + pod.get("initContainers", [])

promise("one replica, replaced and never doubled: hubs do not share events yet",
        deployment.get("replicas") == 1 and deployment.get("strategy", {}).get("type") == "Recreate")

promise("the pod runs as a user that is not root",
        pod_security.get("runAsNonRoot") is True and pod_security.get("runAsUser", 0) > 0)
promise("the pod uses the runtime's default seccomp profile",
        pod_security.get("seccompProfile", {}).get("type") == "RuntimeDefault")
promise("the pod shares no namespace with its node",
        not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")))
promise("the pod mounts nothing of its node", not any("hostPath" in v for v in pod.get("volumes", [])))
for container in containers:
    name, security = container["name"], container.get("securityContext", {})
    promise(f"{name} takes nothing back from the pod's securityContext",
            not {"runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile"} & set(security))
    promise(f"{name} cannot gain privileges",
            security.get("allowPrivilegeEscalation") is False and not security.get("privileged"))
    promise(f"{name} has no capabilities", security.get("capabilities") == {"drop": ["ALL"]})
    promise(f"{name} has a read-only root file system", security.get("readOnlyRootFilesystem") is True)
    resources = container.get("resources", {})
    promise(f"{name} asks for CPU and memory, and its memory is limited",
            {"cpu", "memory"} <= set(resources.get("requests", {})) and "memory" in resources.get("limits", {}))

account = the("ServiceAccount")
promise("the pod uses its own service account", pod.get("serviceAccountName") == account["metadata"]["name"])
promise("no API token is mounted",
        pod.get("automountServiceAccountToken") is False and account.get("automountServiceAccountToken") is False)
promise("no variables are made from services", pod.get("enableServiceLinks") is False)


def port(address):
    return int(address.rpartition(":")[2])


if len(pod["containers"]) != 1:
    sys.exit("check-k8s: expected one container")
hub = pod["containers"][0]
ports = {p["name"]: p["containerPort"] for p in hub["ports"]}
promise("the container's ports are those of the settings",
        ports == {"grpc": port(config["listen"]), "ops": port(config["ops_listen"])})
promise("the hub listens on all interfaces",
        all(config[key].startswith("0.0.0.0:") for key in ("listen", "ops_listen")))
for kind, service in (("startup", "liveness"), ("liveness", "liveness"), ("readiness", "readiness")):
    probe = hub.get(f"{kind}Probe", {})
    promise(f"the {kind} probe is a gRPC check of {service} on the ops port",
            probe.get("grpc") == {"port": ports.get("ops"), "service": service}
            and not {"httpGet", "tcpSocket", "exec"} & set(probe))

drain = config["drain"]
drain_seconds = (drain["propagation_delay_ms"] + drain["deadline_ms"]) / 1000
margin = 5
promise(f"the grace period is at least the drain ({drain_seconds:g} s) and {margin} s more",
        pod.get("terminationGracePeriodSeconds", 0) >= drain_seconds + margin)
promise("a propagation delay is set", drain["propagation_delay_ms"] > 0)

config_map = the("ConfigMap")
promise("the config map holds the settings file", config_map["data"] == {"switchyard.toml": settings_text})
volumes = {v["name"]: v for v in pod.get("volumes", [])}
mounts = {m["mountPath"]: m for m in hub.get("volumeMounts", [])}
mount = mounts.get("/etc/switchyard", {})
promise("the config map is mounted, read-only, where the hub is told to look",
        mount.get("readOnly") is True
        and volumes.get(mount.get("name"), {}).get("configMap", {}).get("name") == config_map["metadata"]["name"]
        and hub.get("args") == ["serve", "--config", "/etc/switchyard/switchyard.toml"])

pod_labels = deployment["template"]["metadata"]["labels"]
for name, headless in (("switchyard", False), ("switchyard-headless", True)):
    service = the("Service", name)["spec"]
    promise(f"service {name} is {'headless' if headless else 'a cluster IP'}",
            service.get("type", "ClusterIP") == "ClusterIP" and (service.get("clusterIP") == "None") is headless)
    promise(f"service {name} selects the hub", service["selector"].items() <= pod_labels.items())
    promise(f"service {name} offers only gRPC, as h2c, on the container's own port",
            service["ports"] == [{"name": "grpc", "port": ports.get("grpc"), "targetPort": "grpc",
                                  "appProtocol": "kubernetes.io/h2c"}])

for manifest in manifests:
    labels = manifest["metadata"].get("labels", {})
    promise(f"{manifest['kind']} {manifest['metadata']['name']} has the common labels",
            {f"app.kubernetes.io/{key}" for key in ("name", "component", "part-of", "managed-by")} <= set(labels))

for text in broken:
    print(f"check-k8s: broken promise: {text}", file=sys.stderr)
if broken:
    sys.exit(1)
print(f"check-k8s: k8s/base is sound ({len(manifests)} manifests)")
PYTHON
