"""Checks what kustomize rendered: the Kubernetes schemas, and promises that a schema cannot know.

    check_manifests.py KUBERNETES_VERSION FOLDER RENDERED_FILE
"""

import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

# The store is closed behind drain.deadline_ms, in at most this many seconds (src/server.rs).
CLOSE_SECONDS = 6
MARGIN_SECONDS = 5

# Kinds of others, for which there is no schema here: at least what the hub's pods depend on is looked at.
FOREIGN = {
    "Certificate": ("cert-manager.io/v1", {"secretName", "issuerRef", "dnsNames"}),
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}),
}

# Overlays whose hub speaks TLS.
WITH_TLS = {"tls", "auth"}

version, folder, rendered = sys.argv[1:]
overlay = Path(folder).name
manifests = [m for m in yaml.safe_load_all(Path(rendered).read_text(encoding="utf-8")) if m]
base = Path(folder) if overlay == "base" else Path(folder).parents[1] / "base"
settings_text = (base / "switchyard.toml").read_text(encoding="utf-8")
config = tomllib.loads(settings_text)

broken = []


def promise(text, kept):
    if not kept:
        broken.append(text)


def the(kind, name=None):
    """The one manifest of this kind; a config map's name has a hash after it."""
    found = [m for m in manifests if m["kind"] == kind and (name is None or m["metadata"]["name"].startswith(name))]
    if len(found) != 1:
        sys.exit(f"check-k8s: {folder}: expected one {kind} {name or ''}, found {len(found)}")
    return found[0]


def port(address):
    return int(address.rpartition(":")[2])


def fits_schemas():
    for manifest in manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind in FOREIGN:
            api, needed = FOREIGN[kind]
            promise(f"{kind} {name} is of {api} and says {needed}",
                    manifest["apiVersion"] == api and needed <= set(manifest["spec"]))
            continue
        try:
            # Strict, so that a misspelt field is an error here and not a setting that is silently ignored there.
            kubernetes_validate.validate(manifest, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            broken.append(f"{kind} {name} fits the schema of Kubernetes {version}: {error}")


def empty_lists(value, path):
    """Where an empty list is written."""
    if value == []:
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in items for found in empty_lists(inner, f"{path}.{key}")]


def is_what_the_server_keeps():
    """`kubectl diff` is empty after `kubectl apply`."""
    for manifest in manifests:
        found = empty_lists(manifest, f"{manifest['kind']} {manifest['metadata']['name']}")
        promise(f"no list is empty, since the API server drops those: {found}", not found)
    policy = the("NetworkPolicy")["spec"]
    rules = policy.get("ingress", []) + policy.get("egress", [])
    promise("every port of the network policy names its protocol",
            all(p.get("protocol") for rule in rules for p in rule.get("ports", [])))


def can_be_changed(stateful_set):
    """Nothing of what the API server lets nobody change depends on the version of a tool."""
    promise("claims have no labels", not any(c["metadata"].get("labels") for c in stateful_set["volumeClaimTemplates"]))
    patches = yaml.safe_load((Path(folder) / "kustomization.yaml").read_text(encoding="utf-8")).get("patches", [])
    promise("a patch with a target names it, and does not change what others add",
            all(patch["target"].get("name") for patch in patches if "target" in patch))


def is_confined(pod):
    security = pod.get("securityContext", {})
    promise("the pod runs as a user that is not root",
            security.get("runAsNonRoot") is True and security.get("runAsUser", 0) > 0)
    promise("the pod uses the runtime's default seccomp profile",
            security.get("seccompProfile", {}).get("type") == "RuntimeDefault")
    promise("the pod's volumes are of its own group", security.get("fsGroup") == security.get("runAsGroup"))
    promise("the pod shares no namespace with its node",
            not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")))
    promise("the pod mounts nothing of its node", not any("hostPath" in v for v in pod.get("volumes", [])))
    for container in pod["containers"] + pod.get("initContainers", []):
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


def is_probed_and_drained(pod, hub, ports):
    for kind, service in (("startup", "liveness"), ("liveness", "liveness"), ("readiness", "readiness")):
        probe = hub.get(f"{kind}Probe", {})
        promise(f"the {kind} probe is a gRPC check of {service} on the ops port",
                probe.get("grpc") == {"port": ports.get("ops"), "service": service}
                and not {"httpGet", "tcpSocket", "exec"} & set(probe))
    drain = config["drain"]
    promise("a propagation delay is set", drain["propagation_delay_ms"] > 0)
    before = hub.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    promise("endpoints are withdrawn before SIGTERM comes", before > 0)
    seconds = before + (drain["propagation_delay_ms"] + drain["deadline_ms"]) / 1000 + CLOSE_SECONDS
    promise(f"the grace period is at least the drain ({seconds:g} s) and {MARGIN_SECONDS} s more",
            pod.get("terminationGracePeriodSeconds", 0) >= seconds + MARGIN_SECONDS)


def is_configured(hub, pod, claims):
    config_map = the("ConfigMap", "switchyard-config")
    promise("the config map holds the settings file", config_map["data"] == {"switchyard.toml": settings_text})
    volumes = {v["name"]: v for v in pod.get("volumes", [])}
    mounts = {m["mountPath"]: m for m in hub.get("volumeMounts", [])}
    mount = mounts.get("/etc/switchyard", {})
    promise("the config map is mounted, read-only, where the hub is told to look",
            mount.get("readOnly") is True
            and volumes.get(mount.get("name"), {}).get("configMap", {}).get("name") == config_map["metadata"]["name"]
            and hub.get("args") == ["serve", "--config", "/etc/switchyard/switchyard.toml"])
    data = [path for path, mount in mounts.items() if mount["name"] in claims and not mount.get("readOnly")]
    promise("the data directory is below a mounted claim",
            any(config["data_dir"].startswith(f"{path}/") for path in data))
    # A runtime cannot make the mount point inside a volume that is read-only.
    promise("no volume is mounted inside another",
            not any(a != b and a.startswith(f"{b}/") for a in mounts for b in mounts))
    for entry in hub.get("env", []):
        if entry["name"].endswith("_FILE"):
            path = next((m for m in mounts if entry["value"].startswith(f"{m}/")), None)
            kind = "configMap" if entry["name"] == "SWITCHYARD_AUTH_POLICY_FILE" else "secret"
            promise(f"{entry['name']} is in a {kind} that is mounted read-only",
                    path and mounts[path].get("readOnly") and kind in volumes[mounts[path]["name"]])


def is_reachable(labels, ports):
    protocol = "https" if overlay in WITH_TLS else "kubernetes.io/h2c"
    services = [m for m in manifests if m["kind"] == "Service" and m["metadata"]["name"] != "switchyard-ops"]
    promise("there are two services for clients", len(services) == 2)
    for service in services:
        name, spec = service["metadata"]["name"], service["spec"]
        headless = name == "switchyard-headless"
        promise(f"service {name} is {'headless' if headless else 'a cluster IP'}",
                spec.get("type", "ClusterIP") == "ClusterIP" and (spec.get("clusterIP") == "None") is headless)
        promise(f"service {name} selects the hub", spec["selector"].items() <= labels.items())
        promise(f"service {name} offers only gRPC, as {protocol}, on the container's own port",
                spec["ports"] == [{"name": "grpc", "port": ports.get("grpc"), "targetPort": "grpc",
                                   "appProtocol": protocol}])
    policy = the("NetworkPolicy")["spec"]
    promise("the network policy is of the hub's pods", policy["podSelector"]["matchLabels"].items() <= labels.items())
    promise("every rule of the network policy says who and where",
            all(rule.get("from") and rule.get("ports") for rule in policy["ingress"]))
    promise("what the network policy opens are the container's ports",
            {p["port"] for rule in policy["ingress"] for p in rule["ports"]} == set(ports))
    budget = the("PodDisruptionBudget")["spec"]
    promise("nodes can be drained, one hub at a time",
            budget.get("maxUnavailable") == 1 and budget["selector"]["matchLabels"].items() <= labels.items())


def is_certified(pod, hub, hubs):
    certificate = the("Certificate")["spec"]
    variables = {entry["name"]: entry.get("value", "") for entry in hub["env"]}
    mounts = {m["mountPath"]: m["name"] for m in hub["volumeMounts"]}
    secrets = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    for name, file in (("CERT", "tls.crt"), ("KEY", "tls.key")):
        path = Path(variables.get(f"SWITCHYARD_TLS_{name}_FILE", "/"))
        promise(f"the hub reads {file} where the certificate's secret is mounted",
                path.name == file and secrets.get(mounts.get(str(path.parent))) == certificate["secretName"])
    promise("the certificate is for servers", "server auth" in certificate["usages"])
    # What clients dial: both services, and each hub by its name.
    services = [m["metadata"] for m in manifests if m["kind"] == "Service"]
    dialled = [(service["name"], service["namespace"]) for service in services]
    dialled += [(f"switchyard-{n}.switchyard-headless", the("StatefulSet")["metadata"]["namespace"]) for n in range(hubs)]
    for name, namespace in dialled:
        for end in ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local"):
            host = name + end
            # A wildcard stands for one word, and wants two or more behind it.
            wildcard = "*." + host.partition(".")[2]
            promise(f"the certificate is good for {host}",
                    host in certificate["dnsNames"]
                    or (wildcard.count(".") >= 2 and wildcard in certificate["dnsNames"]))


def asks_for_credentials(hub, pod):
    variables = {entry["name"]: entry.get("value") for entry in hub["env"]}
    promise("credentials are asked for", variables.get("SWITCHYARD_AUTH_ENABLED") == "true")
    policy = the("ConfigMap", "switchyard-policy")
    path = Path(variables["SWITCHYARD_AUTH_POLICY_FILE"])
    mount = next((m["name"] for m in hub["volumeMounts"] if m["mountPath"] == str(path.parent)), None)
    volume = next((v for v in pod["volumes"] if v["name"] == mount), {})
    promise("the policy is the file of its config map",
            volume.get("configMap", {}).get("name") == policy["metadata"]["name"] and set(policy["data"]) == {path.name})
    # A name with a hash would be another with every change, and pods keep the one they were made with.
    promise("a changed policy reaches pods that run", policy["metadata"]["name"] == "switchyard-policy")
    promise("no secret is in the manifests", all(m["kind"] != "Secret" for m in manifests))
    promise("files are mounted as folders, which are swapped when they change",
            not any("subPath" in m for m in hub["volumeMounts"]))


def is_monitored(labels, ports):
    service, monitor = the("Service", "switchyard-ops"), the("ServiceMonitor")["spec"]
    promise("the ops service leads to the hub's ops port, ready or not",
            service["spec"]["selector"].items() <= labels.items() and service["spec"].get("publishNotReadyAddresses")
            and [p["targetPort"] for p in service["spec"]["ports"]] == ["ops"]
            and [p["port"] for p in service["spec"]["ports"]] == [ports.get("ops")])
    selected = monitor["selector"]["matchLabels"].items()
    found = [m["metadata"]["name"] for m in manifests
             if m["kind"] == "Service" and selected <= m["metadata"]["labels"].items()]
    promise("the service monitor finds the ops service and no other", found == ["switchyard-ops"])
    promise("it scrapes a port of that service by its name",
            {e["port"] for e in monitor["endpoints"]} <= {p["name"] for p in service["spec"]["ports"]})


def main():
    fits_schemas()
    stateful_set = the("StatefulSet")["spec"]
    pod, labels = stateful_set["template"]["spec"], stateful_set["template"]["metadata"]["labels"]
    if len(pod["containers"]) != 1:
        sys.exit(f"check-k8s: {folder}: expected one container")
    hub = pod["containers"][0]
    ports = {p["name"]: p["containerPort"] for p in hub["ports"]}
    promise("the container's ports are those of the settings",
            ports == {"grpc": port(config["listen"]), "ops": port(config["ops_listen"])})
    promise("the hub listens on all interfaces",
            all(config[key].startswith("0.0.0.0:") for key in ("listen", "ops_listen")))
    promise("only the overlay that explains it has more than one hub",
            (stateful_set.get("replicas") == 1) is (overlay != "replicas"))
    promise("pods have names in the headless service", stateful_set["serviceName"] == "switchyard-headless")
    promise("what is stored is never deleted with the pods",
            stateful_set["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"})
    claims = {claim["metadata"]["name"] for claim in stateful_set["volumeClaimTemplates"]}
    is_what_the_server_keeps()
    can_be_changed(stateful_set)
    is_confined(pod)
    is_probed_and_drained(pod, hub, ports)
    is_configured(hub, pod, claims)
    is_reachable(labels, ports)
    if overlay in WITH_TLS:
        # As many as the overlay with the most.
        is_certified(pod, hub, hubs=3)
    if overlay == "auth":
        asks_for_credentials(hub, pod)
    if overlay == "monitoring":
        is_monitored(labels, ports)
    labelled = {f"{m['kind']} {m['metadata']['name']}": m["metadata"].get("labels", {}) for m in manifests}
    for name, found in {**labelled, "the pod": labels}.items():
        promise(f"{name} has the common labels",
                {f"app.kubernetes.io/{key}" for key in ("name", "component", "part-of", "managed-by")} <= set(found))
    for text in broken:
        print(f"check-k8s: {folder}: broken promise: {text}", file=sys.stderr)
    if broken:
        sys.exit(1)
    print(f"check-k8s: {folder} is sound ({len(manifests)} manifests)")


main()
