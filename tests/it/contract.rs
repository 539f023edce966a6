//! The generated code that the client crate has checked in is that of the contract.

#[test]
fn the_code_of_the_client_crate_is_that_of_the_contract() {
    let made = include_str!(concat!(env!("OUT_DIR"), "/client/switchyard.v1.rs"));
    let path = crate::harness::root().join("client/src/gen/switchyard.v1.rs");
    if std::env::var_os("UPDATE_CLIENT").is_some() {
        std::fs::write(&path, made).expect("written");
    }
    let checked_in = std::fs::read_to_string(&path).expect("text");
    assert!(made == checked_in, "proto/ has changed: run UPDATE_CLIENT=1 cargo test --test it contract");
}
