//! Which pages may use this hub, and under which names it is reached. Pure.
//!
//! A browser sends what any page tells it to, with the network position and the certificates of its user. Two things
//! give a page away: `Origin`, which it can't forge, and `Host`, which is the name the page itself was loaded from if an
//! attacker lets his name point at this hub (DNS rebinding). Both are compared as parsed values, never as text.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderValue, Uri,
    header::{HOST, ORIGIN},
    uri::Authority,
};
use serde::{Deserialize, Serialize};

/// At most this many origins, and names.
const MAX_ENTRIES: usize = 256;
/// A browser says by this header where a request comes from that has no `Origin`, such as that of an image.
const SITE: &str = "sec-fetch-site";

/// Why an origin or a name is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Not an origin.
    #[error("{0:?} is not an origin such as https://app.example.com or http://localhost:5173")]
    Origin(String),
    /// Not the name of a host.
    #[error("{0:?} is not the name of a host such as events.example.com, without a port")]
    Host(String),
    /// There are too many.
    #[error("at most {MAX_ENTRIES} entries")]
    TooMany,
}

/// Where a page was loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let usual = usual_port(&scheme)?;
        let (host, port) = authority(rest)?;
        Some(Self { scheme, host, port: port.unwrap_or(usual) })
    }
}

fn usual_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// A host in lower case, without the brackets of an IPv6 address, and its port.
fn authority(text: &str) -> Option<(String, Option<u16>)> {
    let authority: Authority = text.parse().ok()?;
    let (host, port) = (authority.host(), authority.port());
    // Nothing before or after them, such as a user.
    let whole = port.as_ref().map_or(host.len(), |port| host.len() + 1 + port.as_str().len());
    if host.is_empty() || whole != text.len() {
        return None;
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // Names as the resolver knows them: in particular no pattern.
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte)) {
        return None;
    }
    Some((host.to_ascii_lowercase(), port.map(|port| port.as_u16())))
}

/// The origins of pages that may use the hub.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origins(Vec<(String, Origin)>);

impl TryFrom<String> for Origins {
    type Error = ListError;

    fn try_from(text: String) -> Result<Self, ListError> {
        let parse = |entry: &str| Some((entry.to_owned(), Origin::parse(entry)?));
        entries(&text, parse, ListError::Origin).map(Self)
    }
}

impl From<Origins> for String {
    fn from(origins: Origins) -> Self {
        origins.0.into_iter().map(|(text, _)| text).collect::<Vec<_>>().join(",")
    }
}

/// The names under which the hub is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hosts(Vec<String>);

impl TryFrom<String> for Hosts {
    type Error = ListError;

    fn try_from(text: String) -> Result<Self, ListError> {
        let parse = |entry: &str| authority(entry).and_then(|(host, port)| port.is_none().then_some(host));
        entries(&text, parse, ListError::Host).map(Self)
    }
}

impl From<Hosts> for String {
    fn from(hosts: Hosts) -> Self {
        hosts.0.join(",")
    }
}

fn entries<T>(
    text: &str,
    parse: impl Fn(&str) -> Option<T>,
    error: impl Fn(String) -> ListError,
) -> Result<Vec<T>, ListError> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let parsed: Vec<_> =
        entries.map(|entry| parse(entry).ok_or_else(|| error(entry.to_owned()))).collect::<Result<_, _>>()?;
    if parsed.len() > MAX_ENTRIES { Err(ListError::TooMany) } else { Ok(parsed) }
}

/// Where a request comes from that may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// No page of another origin: a program, or a page of this hub.
    Own,
    /// A page of this origin, which is listed. It is answered so that its browser lets it read the answer.
    Listed(HeaderValue),
}

/// Why a request is refused before anything else is looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Foreign {
    #[error("the request names no host, or several")]
    NoHost,
    #[error("this hub is not reached under that name: web.hosts has those it is")]
    Host,
    #[error("pages of that origin may not use this hub: web.origins has those that may")]
    Origin,
    #[error("requests that a page of another site makes without an Origin are refused")]
    Site,
}

/// Whether a request may come in at all.
pub(super) fn judge(uri: &Uri, headers: &HeaderMap, origins: &Origins, hosts: &Hosts) -> Result<Source, Foreign> {
    let (host, port) = host_of(uri, headers).ok_or(Foreign::NoHost)?;
    if !is_known(&host, hosts) {
        return Err(Foreign::Host);
    }
    let mut all = headers.get_all(ORIGIN).iter();
    let origin = match (all.next(), all.next()) {
        (None, _) => None,
        (Some(only), None) => Some(only),
        (Some(_), Some(_)) => return Err(Foreign::Origin),
    };
    let Some(value) = origin else {
        let site = headers.get(SITE).map(HeaderValue::as_bytes);
        return if matches!(site, None | Some(b"same-origin" | b"none")) {
            Ok(Source::Own)
        } else {
            Err(Foreign::Site)
        };
    };
    let origin = value.to_str().ok().and_then(Origin::parse).ok_or(Foreign::Origin)?;
    // Behind a proxy that ends TLS the scheme is not known here; the port that it implies is.
    let is_own = origin.host == host && Some(origin.port) == port.or_else(|| usual_port(&origin.scheme));
    if is_own {
        return Ok(Source::Own);
    }
    let is_listed = origins.0.iter().any(|(_, listed)| *listed == origin);
    if is_listed { Ok(Source::Listed(value.clone())) } else { Err(Foreign::Origin) }
}

/// The one host that a request names, and its port.
fn host_of(uri: &Uri, headers: &HeaderMap) -> Option<(String, Option<u16>)> {
    let named = headers.get_all(HOST).iter().map(|host| host.to_str().ok());
    let mut all = uri.authority().map(|authority| Some(authority.as_str())).into_iter().chain(named);
    let first = authority(all.next()??)?;
    all.all(|other| other.and_then(authority).as_ref() == Some(&first)).then_some(first)
}

/// A name that an attacker chose can't be an address, nor one of this machine.
fn is_known(host: &str, hosts: &Hosts) -> bool {
    let is_local = host == "localhost" || host.ends_with(".localhost");
    is_local || host.parse::<IpAddr>().is_ok() || hosts.0.iter().any(|known| known == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(host: &str, headers: &[(&'static str, &str)]) -> Result<Source, Foreign> {
        let mut map: HeaderMap = headers
            .iter()
            .map(|(name, value)| ((*name).parse().expect("name"), value.parse().expect("value")))
            .collect();
        map.append(HOST, host.parse().expect("a value"));
        let origins = Origins::try_from("https://app.example.com, http://localhost:5173".to_owned()).expect("origins");
        let hosts = Hosts::try_from("events.example.com".to_owned()).expect("hosts");
        judge(&Uri::from_static("/v1/ws"), &map, &origins, &hosts)
    }

    #[test]
    fn the_hub_is_reached_by_address_by_localhost_and_by_the_names_it_has() {
        for host in
            ["127.0.0.1", "127.0.0.1:50080", "[::1]:50080", "10.1.2.3", "localhost", "LOCALHOST:1", "a.localhost"]
        {
            assert_eq!(judged(host, &[]), Ok(Source::Own), "{host}");
        }
        assert_eq!(judged("events.example.com:443", &[]), Ok(Source::Own));
        assert_eq!(judged("Events.Example.COM", &[]), Ok(Source::Own));
        for host in
            ["evil.example", "events.example.com.evil.example", "127.0.0.1.evil.example", "localhost.evil.example"]
        {
            assert_eq!(judged(host, &[]), Err(Foreign::Host), "{host}");
        }
        for host in ["", "a@localhost", "localhost:x", "localhost:99999", "local host"] {
            assert_eq!(judged(host, &[]), Err(Foreign::NoHost), "{host}");
        }
    }

    #[test]
    fn a_request_with_two_hosts_is_refused() {
        assert_eq!(judged("localhost", &[("host", "127.0.0.1")]), Err(Foreign::NoHost));
        assert_eq!(judged("localhost", &[("host", "localhost")]), Ok(Source::Own));
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        let judge = |uri| judge(&Uri::from_static(uri), &headers, &Origins::default(), &Hosts::default());
        assert_eq!(judge("http://localhost/v1/ws"), Ok(Source::Own));
        assert_eq!(judge("http://evil.example/v1/ws"), Err(Foreign::NoHost));
        assert_eq!(judge("http://127.0.0.1/v1/ws"), Err(Foreign::NoHost));
    }

    #[test]
    fn pages_of_this_hub_and_of_listed_origins_come_in_and_no_others() {
        let from = |origin: &str| judged("localhost:50080", &[("origin", origin)]);
        assert_eq!(from("http://localhost:50080"), Ok(Source::Own));
        for listed in ["https://app.example.com", "https://app.example.com:443", "http://localhost:5173"] {
            assert_eq!(from(listed), Ok(Source::Listed(listed.parse().expect("a value"))));
        }
        for foreign in [
            "http://localhost",
            "http://localhost:50081",
            "http://127.0.0.1:50080",
            "http://app.example.com",
            "https://app.example.com:444",
            "https://app.example.com.evil.example",
            "https://evil.example",
            "file://",
            "null",
            "",
            "https://app.example.com/",
            "https://app.example.com@evil.example",
        ] {
            assert_eq!(from(foreign), Err(Foreign::Origin), "{foreign}");
        }
        assert_eq!(judged("events.example.com", &[("origin", "https://events.example.com")]), Ok(Source::Own));
        let two = [("origin", "https://app.example.com"), ("origin", "https://app.example.com")];
        assert_eq!(judged("localhost", &two), Err(Foreign::Origin));
    }

    #[test]
    fn what_another_site_makes_a_browser_load_is_refused_without_an_origin_too() {
        let from = |site: &str| judged("localhost", &[("sec-fetch-site", site)]);
        assert_eq!((from("same-origin"), from("none")), (Ok(Source::Own), Ok(Source::Own)));
        assert_eq!((from("cross-site"), from("same-site")), (Err(Foreign::Site), Err(Foreign::Site)));
    }

    #[test]
    fn lists_are_checked_when_they_are_read() {
        let origins = |text: &str| Origins::try_from(text.to_owned());
        for bad in
            ["*", "app.example.com", "https://*.example.com", "ftp://a", "https://", "https://a/b", "https://a b"]
        {
            assert_eq!(origins(bad), Err(ListError::Origin(bad.to_owned())), "{bad}");
        }
        let hosts = |text: &str| Hosts::try_from(text.to_owned());
        for bad in ["a:80", "http://a", "a/b", "[::1"] {
            assert_eq!(hosts(bad), Err(ListError::Host(bad.to_owned())), "{bad}");
        }
        let many = |n| (0..n).map(|n| format!("h{n}")).collect::<Vec<_>>().join(",");
        assert!(hosts(&many(MAX_ENTRIES)).is_ok());
        assert_eq!(hosts(&many(MAX_ENTRIES + 1)), Err(ListError::TooMany));
        let text = "https://a,http://b:81";
        assert_eq!(String::from(origins(text).expect("origins")), text);
    }
}
