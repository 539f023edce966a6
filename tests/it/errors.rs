//! The reasons are the same in docs/errors.md, in the contract and in the code.

use std::collections::BTreeSet;

use switchyard::{model::Reason, proto::v1::EndReason};

use crate::harness::root;

/// (reason, code) of every row of the table.
fn documented() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join("docs/errors.md")).expect("docs/errors.md");
    let table = text.split("## Reasons").nth(1).expect("the table");
    table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| reason"))
        .map(|line| {
            let mut cells = line.split('|').map(str::trim).skip(1);
            (cells.next().expect("a reason").to_owned(), cells.next().expect("a code").to_owned())
        })
        .collect()
}

#[test]
fn reasons_are_the_same_in_docs_contract_and_code() {
    let code: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.name().to_owned()).collect();
    let docs: BTreeSet<String> = documented().into_iter().map(|(reason, _)| reason).collect();
    let contract: BTreeSet<String> = (0..1_000)
        .filter_map(|value| EndReason::try_from(value).ok())
        .filter_map(|reason| reason.as_str_name().strip_prefix("END_REASON_").map(str::to_owned))
        .filter(|name| name != "UNSPECIFIED")
        .collect();
    assert_eq!(docs, code, "docs/errors.md");
    assert_eq!(contract, code, "proto");
}

#[test]
fn codes_are_the_same_in_docs_and_contract() {
    let proto = std::fs::read_to_string(root().join("proto/switchyard/v1/reason.proto")).expect("the proto");
    let lines: Vec<&str> = proto.lines().collect();
    for (reason, code) in documented() {
        let at =
            lines.iter().position(|line| line.trim().starts_with(&format!("END_REASON_{reason} ="))).expect("a value");
        let comment = lines[at - 1].trim().trim_start_matches("// ");
        assert!(comment.starts_with(&format!("{code}:")), "{reason}: {code} in the docs, but `{comment}` in the proto");
    }
}

#[test]
fn codes_are_the_same_in_docs_and_code() {
    for (reason, code) in documented() {
        let known = Reason::ALL.iter().find(|known| known.name() == reason).expect("a reason");
        assert_eq!(switchyard::edge::grpc::code_name(*known), code, "{reason}");
    }
}
