//! What `examples/generate.sh` makes of the contract: stubs in every language, under names that users can import; and that
//! `proto/` is complete, so that nothing else is needed to make them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use crate::{
    harness::{Process, root},
    stored::Folder,
};

/// The files of the contract.
fn files() -> Vec<FileDescriptorProto> {
    let set = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    let mut files = FileDescriptorSet::decode(&set[..]).expect("descriptors").file;
    files.retain(|file| file.package() == "switchyard.v1");
    assert!(files.len() >= 10, "{}", files.len());
    files
}

fn messages(files: &[FileDescriptorProto]) -> Vec<String> {
    files.iter().flat_map(|file| &file.message_type).map(|message| message.name().to_owned()).collect()
}

fn services(files: &[FileDescriptorProto]) -> Vec<String> {
    files.iter().flat_map(|file| &file.service).map(|service| service.name().to_owned()).collect()
}

/// The text of everything in a folder of stubs.
fn text_of(folder: &Path) -> String {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}: run `make tools`", folder.display()));
    let texts = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() { text_of(&path) } else { fs::read_to_string(&path).expect("text") }
    });
    texts.collect()
}

#[test]
fn no_class_of_a_file_has_the_name_of_another_class() {
    let files = files();
    let enums = files.iter().flat_map(|file| &file.enum_type).map(|found| found.name().to_owned());
    let names = messages(&files).into_iter().chain(services(&files)).chain(enums);
    // Some file systems take names that differ only in case for the same.
    let mut names: Vec<String> = names.map(|name| name.to_lowercase()).collect();
    for file in &files {
        let options = file.options.as_ref().expect("options");
        let outer = options.java_outer_classname();
        assert!(options.java_multiple_files() && outer.ends_with("Proto"), "{}: {outer:?}", file.name());
        names.push(outer.to_lowercase());
    }
    names.sort();
    let total = names.len();
    names.dedup();
    assert_eq!(names.len(), total);
}

#[test]
fn there_are_stubs_of_every_message() {
    let files = files();
    // How each language declares a message.
    let declared: [(&str, &str); 6] = [
        ("go/gen", "type {} struct {"),
        ("gen/java", "public final class {} extends"),
        ("gen/kotlin", "public object {}Kt {"),
        ("gen/node", "export interface {} {"),
        ("gen/cpp", " {} final : public ::google::protobuf::"),
        ("gen/csharp", "public sealed partial class {} :"),
    ];
    for (folder, form) in declared {
        let text = text_of(&root().join("examples").join(folder));
        for message in messages(&files) {
            assert!(text.contains(&form.replace("{}", &message)), "examples/{folder}: no {message}");
        }
    }
}

#[test]
fn there_are_stubs_of_every_service() {
    let files = files();
    let declared = [
        ("go/gen", "func New{}Client("),
        ("gen/java", "public final class {}Grpc {"),
        ("gen/kotlin", "public object {}GrpcKt {"),
        ("gen/node", "export interface {}Client extends"),
        ("gen/cpp", "class {} final {"),
        ("gen/csharp", "public static partial class {}\n"),
    ];
    for (folder, form) in declared {
        let text = text_of(&root().join("examples").join(folder));
        for service in services(&files) {
            assert!(text.contains(&form.replace("{}", &service)), "examples/{folder}: no {service}");
        }
    }
}

#[test]
fn python_imports_every_message_and_service() {
    let files = files();
    let lines = files.iter().flat_map(|file| {
        let module = file.name().trim_end_matches(".proto").replace('/', ".");
        let (package, module) = module.rsplit_once('.').expect("a package");
        let messages = file.message_type.iter().map(move |message| format!("{module}_pb2.{}", message.name()));
        let services = file.service.iter().map(move |service| format!("{module}_pb2_grpc.{}Stub", service.name()));
        let import = format!("from {package} import {module}_pb2, {module}_pb2_grpc");
        std::iter::once(import).chain(messages).chain(services).collect::<Vec<_>>()
    });
    let script = lines.collect::<Vec<_>>().join("\n");
    let python = Command::new(root().join(".tools/venv/bin/python"))
        .args(["-B", "-c", &script])
        .current_dir(root().join("examples/gen/python"))
        .output()
        .expect("Python: run `make tools`");
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
}

/// Runs a command of `go`, with what is already on this machine.
fn go(module: &Path, arguments: &[&str]) {
    let go = Command::new("go")
        .args(arguments)
        .current_dir(module)
        .env("GOFLAGS", "-mod=mod")
        .env("GOPROXY", "off")
        .output();
    let go = go.expect("go");
    assert!(go.status.success(), "{}", String::from_utf8_lossy(&go.stderr));
}

/// Makes Go stubs of a file in `proto` and in `own`, where `go_package` says, below the path of a module.
fn go_stubs(own: &Path, module: &str, out: &Path, files: &[String]) {
    let tools = root().join(".tools");
    let include = fs::read_dir(tools.join("venv/lib")).expect("a venv").next().expect("a version").expect("a folder");
    fs::create_dir_all(out).expect("a folder");
    let protoc = Command::new(tools.join("bin/protoc"))
        .arg("-I")
        .arg(root().join("proto"))
        .arg("-I")
        .arg(include.path().join("site-packages/grpc_tools/_proto"))
        .arg("-I")
        .arg(own)
        .arg(format!("--plugin={}", tools.join("bin/protoc-gen-go").display()))
        .arg(format!("--plugin={}", tools.join("bin/protoc-gen-go-grpc").display()))
        .args([format!("--go_out={}", out.display()), format!("--go_opt=module={module}")])
        .args([format!("--go-grpc_out={}", out.display()), format!("--go-grpc_opt=module={module}")])
        .args(files)
        .output()
        .expect("protoc: run `make tools`");
    assert!(protoc.status.success(), "{}", String::from_utf8_lossy(&protoc.stderr));
}

#[test]
fn go_imports_the_stubs_by_the_path_that_the_contract_names() {
    let folder = Folder::new();
    let (stubs, own) = (folder.path().join("gen"), folder.path().join("shop"));
    fs::create_dir_all(&own).expect("a folder");
    let contract: Vec<String> = files().iter().map(|file| file.name().to_owned()).collect();
    go_stubs(&own, "switchyard.example/gen", &stubs, &contract);
    // A contract of somebody else that is made of this one, and a program that uses both.
    let order = "syntax = \"proto3\";\npackage shop;\nimport \"switchyard/v1/event.proto\";\n\
                 option go_package = \"shop.example/shop/order\";\nmessage Order { switchyard.v1.Event event = 1; }\n";
    fs::write(own.join("order.proto"), order).expect("written");
    go_stubs(&own, "shop.example/shop", &own, &["order.proto".to_owned()]);
    let program = "package main\n\nimport (\n\t\"shop.example/shop/order\"\n\
                   \tswitchyardv1 \"switchyard.example/gen/switchyard/v1\"\n)\n\n\
                   func main() {\n\tprintln((&order.Order{Event: &switchyardv1.Event{}}).String())\n\
                   \t_ = switchyardv1.NewHubServiceClient\n}\n";
    fs::write(own.join("main.go"), program).expect("written");

    // The same versions as the examples, which are on this machine.
    let module = fs::read_to_string(root().join("examples/go/go.mod")).expect("a module");
    for (folder, name) in [(&stubs, "switchyard.example/gen"), (&own, "shop.example/shop")] {
        fs::write(folder.join("go.mod"), module.replace("switchyard.example/clients", name)).expect("written");
        fs::copy(root().join("examples/go/go.sum"), folder.join("go.sum")).expect("copied");
    }
    go(&own, &["mod", "edit", "-require=switchyard.example/gen@v0.0.0", "-replace=switchyard.example/gen=../gen"]);
    go(&own, &["build", "-o", "program", "."]);
}

#[test]
fn the_folder_alone_is_enough_to_read_every_answer() {
    let hub = Process::start(&[]);
    let command = r#"{"subscribe": {"subscription_id": 1, "spec": {"filters": ["a..b"]}}}"#;
    let called = Command::new(root().join(".tools/bin/buf"))
        .args(["curl", "--schema", "proto", "--protocol", "grpc", "--http2-prior-knowledge", "--data", command])
        .arg(format!("http://{}/switchyard.v1.HubService/Session", hub.address))
        .current_dir(root())
        .output()
        .expect("buf: run `make tools`");
    let told = String::from_utf8_lossy(&called.stdout);
    assert!(called.status.success(), "{}", String::from_utf8_lossy(&called.stderr));
    for word in ["type.googleapis.com/google.rpc.ErrorInfo", "INVALID_FILTER", "subscribe.spec.filters[0]"] {
        assert!(told.contains(word), "{told}");
    }
}

#[test]
fn the_details_of_errors_are_the_file_of_their_owner() {
    let versions = fs::read_dir(root().join(".tools/venv/lib")).expect("a venv: run `make tools`");
    let packages: Vec<PathBuf> =
        versions.map(|version| version.expect("a folder").path().join("site-packages")).collect();
    let theirs = fs::read_to_string(packages[0].join("google/rpc/error_details.proto")).expect("their file");
    let ours = fs::read_to_string(root().join("proto/google/rpc/error_details.proto")).expect("our file");
    assert_eq!(ours, theirs);
}
