//! The identity that the certificate of a connection tells.
//!
//! Whether the certificate is good was decided when the connection was made; here it is only read. A workload identity,
//! the URI `spiffe://...`, comes before the first DNS name. The common name counts for nothing, as everywhere today.
//!
//! Names of one kind are never taken for those of the other, and only such as are names at all count: policies have
//! patterns, and those see a text.

use std::time::{Duration, UNIX_EPOCH};

use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::principal::{Principal, Source};
use crate::model::limits::MAX_PRINCIPAL_BYTES;

/// What stands before the name of a workload.
pub(super) const SPIFFE: &str = "spiffe://";
/// What stands before a DNS name, in policies and logs.
pub(super) const DNS: &str = "dns:";
/// The longest DNS name, and the longest part of one, in bytes.
const MAX_DNS_BYTES: usize = MAX_PRINCIPAL_BYTES - DNS.len();
const MAX_LABEL_BYTES: usize = 63;

/// Who a verified certificate is of; `None` when it names nobody, or more than one workload.
pub(super) fn identity(der: &[u8]) -> Option<Principal> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut workloads = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with(SPIFFE) => Some(*uri),
        _ => None,
    });
    let name = match (workloads.next(), workloads.next()) {
        (Some(one), None) if is_workload(one) => one.to_owned(),
        // A workload has one identity, and a sound one.
        (Some(_), _) => return None,
        (None, _) => names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) if is_dns_name(name) => Some(format!("{DNS}{}", name.to_ascii_lowercase())),
            _ => None,
        })?,
    };
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    let expires = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
    Principal::new(Source::Certificate, &name, Vec::new(), Some(expires))
}

/// True for a workload identity as SPIFFE has it: a trust domain, and a path that leads nowhere else than it says.
fn is_workload(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix(SPIFFE) else { return false };
    let (domain, path) = rest.split_once('/').map_or((rest, None), |(domain, path)| (domain, Some(path)));
    let of_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    let of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(of_path);
    !domain.is_empty() && domain.bytes().all(of_domain) && path.is_none_or(|path| path.split('/').all(is_segment))
}

/// True for the name of a host; one with `*` is for servers.
fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(sound)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= MAX_DNS_BYTES && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    /// A certificate of these names: URIs, and DNS names.
    fn certificate(names: &[&str]) -> Vec<u8> {
        let kind = |name: &&str| {
            let text = (*name).try_into().expect("ASCII");
            if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
        };
        signed(names.iter().map(kind).collect())
    }

    fn signed(names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.subject_alt_names = names;
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
        assert_eq!(name(&["Shop.internal", "other.internal"]), Some("mtls:dns:shop.internal".into()));
        assert_eq!(name(&["https://shop.internal", "shop.internal"]), Some("mtls:dns:shop.internal".into()));
        assert_eq!(name(&[workload, "spiffe://prod/ns/shop/sa/other"]), None);
        assert_eq!(name(&["https://shop.internal"]), None);
        assert_eq!(name(&[]), None);
        assert!(identity(b"nonsense").is_none());
    }

    #[test]
    fn a_name_of_one_kind_is_never_taken_for_the_other() {
        let dns = |name: &str| SanType::DnsName(name.try_into().expect("ASCII"));
        let of = |names: Vec<SanType>| identity(&signed(names)).map(|principal| principal.to_string());
        assert_eq!(of(vec![dns("spiffe://prod/ns/shop/sa/x")]), None);
        assert_eq!(
            of(vec![dns("spiffe://prod/ns/shop/sa/x"), dns("shop.internal")]),
            Some("mtls:dns:shop.internal".into())
        );
        let just = [63, 63, 63, 60].map(|len| "a".repeat(len)).join(".");
        assert_eq!(of(vec![dns(&just)]), Some(format!("mtls:dns:{just}")));
        for bad in [
            "*.shop.internal",
            "evil/x.shop.internal",
            "shop.internal:443",
            "shop..internal",
            ".shop",
            "shop.",
            "",
            "-shop.internal",
            "shop-.internal",
            "sh op",
            &format!("{just}a"),
            &"a".repeat(64),
        ] {
            assert_eq!(of(vec![dns(bad)]), None, "{bad}");
        }
    }

    #[test]
    fn the_path_of_a_workload_leads_nowhere_else() {
        for good in [
            "spiffe://prod",
            "spiffe://prod.example_1-a/ns/Shop/sa/check.out_1-2",
            "spiffe://prod/...",
            "spiffe://prod/.a",
        ] {
            assert_eq!(name(&[good]), Some(format!("mtls:{good}")), "{good}");
        }
        for bad in [
            "spiffe://prod/ns/shop/../other/sa/x",
            "spiffe://prod/./x",
            "spiffe://prod/ns//x",
            "spiffe://prod/ns/",
            "spiffe://prod/",
            "spiffe:///ns/x",
            "spiffe://",
            "spiffe://prod/%2e%2e/x",
            "spiffe://prod/x?y",
            "spiffe://prod/x#y",
            "spiffe://prod:443/x",
            "spiffe://a@prod/x",
            "spiffe://PROD/x",
            "spiffe://prod/*",
        ] {
            // A name beside it does not make it good.
            assert_eq!((name(&[bad]), name(&[bad, "shop.internal"])), (None, None), "{bad}");
        }
    }

    #[test]
    fn it_holds_as_long_as_the_certificate() {
        let principal = identity(&certificate(&["a"])).expect("a principal");
        assert!(principal.expires().expect("an end") > SystemTime::now());
    }
}
