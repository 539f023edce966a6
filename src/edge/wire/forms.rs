//! The generated forms of the contract that the hub decodes and encodes. Protobuf messages stop at the edges.

use crate::model::Durability;

/// `switchyard.v1` with events as bytes: see build.rs. Some messages are only ever written by hand.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, dead_code)]
pub(in crate::edge) mod v1 {
    include!(concat!(env!("OUT_DIR"), "/wire/switchyard.v1.rs"));
}

impl From<Durability> for v1::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Sync => Self::Sync,
            Durability::Interval => Self::Interval,
            Durability::None => Self::None,
        }
    }
}

/// `grpc.health.v1`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub)]
pub(in crate::edge) mod health {
    include!(concat!(env!("OUT_DIR"), "/wire/grpc.health.v1.rs"));
}

/// Every message of the contract, for reflection.
pub(in crate::edge) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
