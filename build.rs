//! Makes the Rust forms of `proto/` with protox, so that no protoc is needed on the machine, and constants for the numbers
//! of its fields.
//!
//! Three forms are made of the same contract:
//! - `client`: messages and tonic clients as any user would generate them; `cli/` and the tests use them.
//! - `wire`: what the hub itself decodes and encodes, and the server side of the services. In it the events inside a
//!   publish, a delivery and an answer are plain `bytes`. On the wire a nested message and a bytes field are the same
//!   thing, so the hub can validate an event once, keep the fields it does not know, and share the encoded form with
//!   every subscriber (docs/adr/0002).
//! - `load`: a tonic client whose publishes and deliveries are plain `bytes`, for `bench/`: a load that decoded every field
//!   of every event would measure its own client.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use prost_types::{FileDescriptorSet, field_descriptor_proto::Type};

/// Names of fields: (message, field).
type Fields = &'static [(&'static str, &'static str)];
/// Fields that the hub passes on without decoding, or writes by itself.
const OPAQUE_TO_HUB: Fields = &[
    ("PublishRequest", "events"),
    ("SessionResponse", "published"),
    ("Events", "events"),
    ("GetEventResponse", "event"),
    ("DeadLetter", "event"),
    ("ListedEvent", "event"),
];
/// The service whose paths the hub serves by hand.
const SERVED_BY_HAND: &str = "HubService";
/// Fields that a load writes and reads by itself.
const OPAQUE_TO_LOAD: Fields = &[("SessionRequest", "publish"), ("SessionResponse", "events")];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files([
        "switchyard/v1/hub_service.proto",
        "switchyard/v1/stream_service.proto",
        "switchyard/v1/group_service.proto",
        "switchyard/v1/session_service.proto",
        "switchyard/v1/backup_service.proto",
        "switchyard/v1/access_service.proto",
        "grpc/health/v1/health.proto",
        // What the details of a status are, for reflection and JSON.
        "google/rpc/error_details.proto",
    ])?;
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let contract = compiler.file_descriptor_set();
    fs::write(out.join("messages.bin"), messages(contract.clone()).encode_to_vec())?;
    fs::write(out.join("field_numbers.rs"), field_numbers(&contract))?;
    // tonic-health has the health client.
    let mut files = contract.clone();
    files.file.retain(|file| file.package() != "grpc.health.v1");
    generate(&out.join("load"), with_opaque(files.clone(), OPAQUE_TO_LOAD)?, true)?;
    generate(&out.join("client"), files, true)?;
    let mut files = contract;
    files.file.iter_mut().for_each(|file| file.service.retain(|service| service.name() != SERVED_BY_HAND));
    generate(&out.join("wire"), with_opaque(files, OPAQUE_TO_HUB)?, false)
}

fn generate(dir: &PathBuf, files: FileDescriptorSet, client: bool) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    tonic_prost_build::configure()
        .out_dir(dir)
        .build_client(client)
        .build_server(!client)
        .bytes(".")
        .extern_path(".google.rpc", "::tonic_types::pb")
        // tonic-health lacks only the newer List call.
        .extern_path(".grpc.health.v1.HealthCheckRequest", "::tonic_health::pb::HealthCheckRequest")
        .extern_path(".grpc.health.v1.HealthCheckResponse", "::tonic_health::pb::HealthCheckResponse")
        .compile_fds(files)?;
    Ok(())
}

/// The messages and enums alone: what the hub reads as it starts.
fn messages(mut contract: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut contract.file {
        file.source_code_info = None;
        file.service.clear();
    }
    contract
}

/// A module for each message, with a constant for each field.
fn field_numbers(contract: &FileDescriptorSet) -> String {
    let mut text = String::new();
    let messages = contract.file.iter().filter(|file| file.package() == "switchyard.v1").flat_map(|f| &f.message_type);
    for message in messages {
        let constants = message.field.iter().map(|field| {
            let (name, number) = (field.name().to_uppercase(), field.number());
            format!("    pub(crate) const {name}: u32 = {number};\n")
        });
        let name = snake_case(message.name());
        text.extend(["pub(crate) mod ", &name, " {\n", &constants.collect::<String>(), "}\n"]);
    }
    text
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// The same contract with some fields as bytes.
fn with_opaque(mut set: FileDescriptorSet, fields: Fields) -> Result<FileDescriptorSet, Box<dyn Error>> {
    let mut changed = 0;
    for message in set.file.iter_mut().filter(|f| f.package() == "switchyard.v1").flat_map(|f| &mut f.message_type) {
        let name = message.name().to_owned();
        for field in &mut message.field {
            if fields.contains(&(name.as_str(), field.name())) {
                field.set_type(Type::Bytes);
                field.type_name = None;
                changed += 1;
            }
        }
    }
    if changed != fields.len() {
        return Err("an opaque field of build.rs is no longer in the contract".into());
    }
    // A round trip proves that the changed descriptors are still well formed.
    Ok(FileDescriptorSet::decode(set.encode_to_vec().as_slice())?)
}
