//! The identity that the certificate of a connection tells.
//!
//! Whether the certificate is good was decided when the connection was made; here it is only read. A workload identity,
//! the URI `spiffe://...`, comes before the first DNS name. The common name counts for nothing, as everywhere today.

use std::time::{Duration, UNIX_EPOCH};

use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::principal::{Principal, Source};

const SPIFFE: &str = "spiffe://";

/// Who a verified certificate is of; `None` when it names nobody, or more than one workload.
pub(super) fn identity(der: &[u8]) -> Option<Principal> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut workloads = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with(SPIFFE) => Some(*uri),
        _ => None,
    });
    let name = match (workloads.next(), workloads.next()) {
        (Some(one), None) => one,
        // A workload has one identity.
        (Some(_), Some(_)) => return None,
        (None, _) => names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })?,
    };
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    let expires = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    Principal::new(Source::Certificate, name, Vec::new(), Some(expires))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    /// A certificate of these names: URIs, and DNS names.
    fn certificate(names: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.subject_alt_names = names
            .iter()
            .map(|name| {
                let text = (*name).try_into().expect("ASCII");
                if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
            })
            .collect();
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().to_vec()
    }

    fn name(names: &[&str]) -> Option<String> {
        identity(&certificate(names)).map(|principal| principal.to_string())
    }

    #[test]
    fn a_workload_identity_comes_before_a_dns_name() {
        let workload = "spiffe://prod/ns/shop/sa/checkout";
        assert_eq!(name(&["shop.internal", workload]), Some(format!("mtls:{workload}")));
        assert_eq!(name(&["shop.internal", "other.internal"]), Some("mtls:shop.internal".into()));
        assert_eq!(name(&["https://shop.internal", "shop.internal"]), Some("mtls:shop.internal".into()));
        assert_eq!(name(&[workload, "spiffe://prod/ns/shop/sa/other"]), None);
        assert_eq!(name(&["https://shop.internal"]), None);
        assert_eq!(name(&[]), None);
        assert!(identity(b"nonsense").is_none());
    }

    #[test]
    fn it_holds_as_long_as_the_certificate() {
        let principal = identity(&certificate(&["a"])).expect("a principal");
        assert!(principal.expires().expect("an end") > SystemTime::now());
    }
}
