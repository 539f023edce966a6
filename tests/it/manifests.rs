//! What `k8s/` tells the hub and what it reads of it: settings that the hub's own parser takes, and metrics that exist.
//!
//! The manifests themselves are checked by scripts/check-k8s.sh, which `make lint` runs; here it is seen to refuse wrong ones.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;
use switchyard::{
    auth::{Policy, Principal},
    config::{Config, Flags, defaults},
};

use crate::{
    authority::{Authority, Secret, tls_client, trust},
    harness::{Process, http_get, hub_with, root},
    stored::Folder,
};

/// Variables of the hub that are no options.
const NO_OPTIONS: [&str; 1] = ["SWITCHYARD_CONFIG"];

/// What kustomize makes of a folder of `k8s/`.
fn rendered(folder: &str) -> Vec<Value> {
    rendered_from(&root().join("k8s"), folder)
}

fn rendered_from(k8s: &Path, folder: &str) -> Vec<Value> {
    let built = Command::new(root().join(".tools/bin/kustomize")).arg("build").arg(k8s.join(folder)).output();
    let built = built.expect("kustomize: run `make tools`");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let file = Folder::new();
    let path = file.path().join("rendered.yaml");
    fs::write(&path, built.stdout).expect("written");
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let json = Command::new(root().join(".tools/venv/bin/python")).args(["-c", script]).arg(path).output();
    serde_json::from_slice(&json.expect("Python: run `make tools`").stdout).expect("JSON")
}

fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    manifests.iter().find(|manifest| manifest["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// The settings of a hub that starts with a rendered folder.
fn settings(folder: &str) -> Config {
    let manifests = rendered(folder);
    let texts = manifests.iter().filter_map(|manifest| manifest["data"]["switchyard.toml"].as_str());
    let texts: Vec<&str> = texts.collect();
    assert_eq!(texts.len(), 1, "one settings file");
    let files = Folder::new();
    let path = files.path().join("switchyard.toml");
    fs::write(&path, texts[0]).expect("written");

    let hub = &of_kind(&manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"][0];
    let variables = hub["env"].as_array().expect("variables");
    let options: Vec<String> = defaults().into_keys().map(|key| variable(&key)).collect();
    for entry in variables {
        let name = entry["name"].as_str().expect("a name");
        // The hub takes no notice of variables that name no option, so a misspelt one would be silent.
        assert!(options.iter().any(|option| option == name) || NO_OPTIONS.contains(&name), "{folder}: {name}");
    }
    let lookup = |name: &str| {
        let entry = variables.iter().find(|entry| entry["name"] == name)?;
        entry["value"].as_str().map(str::to_owned)
    };
    let flags = Flags { config: Some(path), ..Flags::default() };
    Config::load(&flags, lookup).unwrap_or_else(|error| panic!("{folder}: {error}"))
}

fn variable(key: &str) -> String {
    format!("SWITCHYARD_{}", key.to_uppercase().replace('.', "_"))
}

#[test]
fn the_hub_takes_the_settings_of_the_base_and_of_every_overlay() {
    for folder in folders() {
        let config = settings(&folder);
        assert_eq!(config.data_dir.to_str(), Some("/var/lib/switchyard/data"), "{folder}");
        let with_tls = ["overlays/tls", "overlays/auth"].contains(&folder.as_str());
        assert_eq!((config.tls.is_on(), config.auth.enabled), (with_tls, folder == "overlays/auth"), "{folder}");
    }
}

/// The base and every overlay.
fn folders() -> Vec<String> {
    let overlays = fs::read_dir(root().join("k8s/overlays")).expect("overlays");
    let name = |entry: fs::DirEntry| format!("overlays/{}", entry.file_name().to_string_lossy());
    let mut folders: Vec<String> = overlays.map(|entry| name(entry.expect("an overlay"))).collect();
    folders.push("base".to_owned());
    assert!(folders.len() >= 5, "{folders:?}");
    folders
}

#[test]
fn the_hub_takes_the_policy_of_the_overlay_for_credentials() {
    let manifests = rendered("overlays/auth");
    let mut policies = manifests.iter().filter_map(|manifest| manifest["data"]["policy.toml"].as_str());
    let policy = Policy::parse(policies.next().expect("a policy")).expect("it is one");
    assert!(policies.next().is_none());
    for role in ["orders-writer", "orders-reader", "operator"] {
        assert_eq!(policy.roles_of(&Principal::nobody(), &[role.into()]).len(), 1, "{role}");
    }
}

#[tokio::test]
async fn clients_trust_the_certificate_by_every_name_they_dial() {
    let manifests = rendered("overlays/tls");
    let names = of_kind(&manifests, "Certificate")["spec"]["dnsNames"].as_array().expect("names");
    let names = names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect();
    let authority = Authority::new("cluster");
    let secret = Secret::new(&authority.server_of(names), "");
    let hub = hub_with(|config| secret.serve(config)).await;
    let pods = (0..3).map(|n| format!("switchyard-{n}.switchyard-headless"));
    for host in pods.chain(["switchyard".to_owned(), "switchyard-headless".to_owned()]) {
        for end in ["", ".switchyard", ".switchyard.svc", ".switchyard.svc.cluster.local"] {
            let dialled = trust(&authority).domain_name(format!("{host}{end}"));
            tls_client(hub.address, dialled).await.unwrap_or_else(|error| panic!("{host}{end}: {error:?}"));
        }
    }
    let stranger = tls_client(hub.address, trust(&authority).domain_name("switchyard.other.svc")).await;
    assert!(stranger.is_err(), "and by no other");
}

/// A copy of `k8s/` with texts replaced: (file, what is there, what is there then).
fn changed(changes: &[(&str, &str, &str)]) -> Folder {
    let folder = Folder::new();
    let copied = Command::new("cp").arg("-r").arg(root().join("k8s")).arg(folder.path()).status();
    assert!(copied.expect("cp").success());
    for (file, old, new) in changes {
        let path = folder.path().join("k8s").join(file);
        let text = fs::read_to_string(&path).expect("a manifest");
        assert_eq!(text.matches(old).count(), 1, "{file}: {old}");
        fs::write(&path, text.replace(old, new)).expect("written");
    }
    folder
}

#[test]
fn the_check_refuses_what_a_cluster_would_not_keep() {
    const FIELDS: &str = "    fields:
      - path: spec/template/metadata/labels
        create: true
        group: apps
        kind: StatefulSet
";
    let wrong = changed(&[
        ("base/kustomization.yaml", FIELDS, "    includeTemplates: true\n"),
        (
            "base/network-policy.yaml",
            "        - port: ops\n          protocol: TCP\n",
            "        - port: ops\n  egress: []\n",
        ),
        ("overlays/tls/kustomization.yaml", "      name: switchyard(-headless)?\n", ""),
    ]);
    let check = Command::new(root().join("scripts/check-k8s.sh")).arg(wrong.path().join("k8s")).output();
    let check = check.expect("bash");
    let told = String::from_utf8_lossy(&check.stderr);
    assert_eq!(check.status.code(), Some(1), "{told}");
    for expected in [
        "includeTemplates labels volumeClaimTemplates or not",
        "the oldest kustomize renders something else",
        "broken promise: no list is empty",
        "broken promise: every port of the network policy names its protocol",
        "broken promise: a patch with a target names it",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

#[test]
fn the_check_refuses_labels_that_cannot_be_changed_and_pods_without_any() {
    let fields = "path: spec/template/metadata/labels\n        create: true";
    let claims = "path: spec/volumeClaimTemplates[]/metadata/labels\n        create: true";
    let wrong = changed(&[("base/kustomization.yaml", fields, claims)]);
    let check = Command::new(root().join("scripts/check-k8s.sh")).arg(wrong.path().join("k8s")).output();
    let told = String::from_utf8_lossy(&check.expect("bash").stderr).into_owned();
    for expected in ["broken promise: claims have no labels", "broken promise: the pod has the common labels"] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

#[test]
fn tls_with_monitoring_leaves_the_ops_service_plain() {
    let resources = "resources:\n  - ../../base\n";
    let both = format!("components:\n  - ../../monitoring\n\n{resources}");
    let k8s = changed(&[("overlays/tls/kustomization.yaml", resources, &both)]);
    let manifests = rendered_from(&k8s.path().join("k8s"), "overlays/tls");
    let services = manifests.iter().filter(|manifest| manifest["kind"] == "Service").map(|service| {
        let name = service["metadata"]["name"].as_str().expect("a name");
        (name, service["spec"]["ports"][0]["appProtocol"].as_str().expect("a protocol"))
    });
    let services: BTreeSet<_> = services.collect();
    let expected = [("switchyard", "https"), ("switchyard-headless", "https"), ("switchyard-ops", "http")];
    assert_eq!(services, BTreeSet::from(expected));
}

/// `switchyard_...` names in a text; what a histogram is made of counts as its name.
fn metrics(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("switchyard_"))
        .map(|word| {
            ["_bucket", "_sum", "_count"].iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word).to_owned()
        })
        .collect()
}

/// The names in the first column of the table in docs/operations.md.
fn documented() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/operations.md")).expect("docs/operations.md");
    let rows = text.lines().filter(|line| line.starts_with("| `switchyard_"));
    rows.flat_map(|row| metrics(row.split('|').nth(1).expect("a column"))).collect()
}

#[test]
fn dashboard_and_alerts_name_metrics_that_exist() {
    let documented = documented();
    for file in ["alerts.yaml", "alerts_test.yaml", "prometheus-rule.yaml", "dashboard.json"] {
        let text = fs::read_to_string(root().join("k8s/monitoring").join(file)).expect("a file");
        let unknown: Vec<String> = metrics(&text).into_iter().filter(|name| !documented.contains(name)).collect();
        assert!(unknown.is_empty(), "k8s/monitoring/{file}: {unknown:?} are not in docs/operations.md");
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    let text = fs::read_to_string(root().join("k8s/monitoring/dashboard.json")).expect("a file");
    let missing: Vec<String> = documented().difference(&metrics(&text)).cloned().collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn the_table_of_metrics_has_what_the_hub_serves() {
    let folder = Folder::new();
    let hub = Process::start(&["--data-dir", folder.text()]);
    let text = http_get(hub.ops_address, "/metrics").await;
    let samples: String = text.lines().filter(|line| line.starts_with("switchyard_")).collect::<Vec<_>>().join("\n");
    let served = metrics(&samples);
    assert!(served.len() > 10, "{served:?}");
    let documented = documented();
    let unknown: Vec<&String> = served.difference(&documented).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
