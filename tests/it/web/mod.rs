//! The web listener: what is checked on every path before a door sees a request.

mod calls;
#[cfg(feature = "tools-tests")]
mod doc;
mod envelopes;
mod events;
mod http;
#[cfg(feature = "tools-tests")]
mod packages;
mod poll;
mod publish;
pub mod source;
pub mod websocket;
#[cfg(feature = "tools-tests")]
mod websocket_python;
mod ws;
mod ws_rules;

use std::collections::BTreeSet;

use switchyard::{
    edge::web::{PATHS, Path, WebListen},
    server::Server,
};

use crate::{
    auth_harness::{Guarded, token},
    harness::{Folder, config, hub_with},
};
pub use http::{Answer, Conversation, ask, begin};

/// A hub with a web listener.
pub async fn hub(change: impl FnOnce(&mut switchyard::config::Config)) -> Server {
    hub_with(|config| {
        config.web.listen = any_port();
        change(config);
    })
    .await
}

/// A port of the system's choice.
pub fn any_port() -> WebListen {
    std::net::SocketAddr::from(([127, 0, 0, 1], 0))
        .to_string()
        .parse::<switchyard::net::ListenAddress>()
        .expect("an address")
        .into()
}

/// Where the web listener is.
pub fn address(hub: &Server) -> std::net::SocketAddr {
    hub.web_address.expect("a web listener")
}

/// A path, a method and headers.
type Request<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// A request of each path that its door would take, as far as headers go.
const REQUESTS: &[Request<'_>] = &[
    ("/v1/ticket", "POST", &[("content-type", "application/json")]),
    // Without what makes it a WebSocket: it would not end.
    ("/v1/ws", "GET", &[]),
    ("/v1/events", "GET", &[]),
    ("/v1/poll", "GET", &[]),
    ("/v1/poll", "POST", &[("content-type", "application/json")]),
    ("/v1/poll", "DELETE", &[]),
    ("/v1/publish", "POST", &[("content-type", "application/json")]),
];

#[test]
fn every_path_has_its_row_in_the_table_of_attacks() {
    let paths: BTreeSet<_> =
        PATHS.iter().flat_map(|row| row.methods.split(", ").map(|method| (row.path, method))).collect();
    let rows: BTreeSet<_> = REQUESTS.iter().map(|(path, method, _)| (*path, *method)).collect();
    assert_eq!(rows, paths, "each path and method of PATHS needs a row in REQUESTS");
}

/// One request of the table with more headers.
async fn attack(hub: &Server, (path, method, usual): &Request<'_>, more: &[(&str, &str)]) -> Answer {
    let mut headers: Vec<_> =
        usual.iter().filter(|(name, _)| more.iter().all(|(other, _)| other != name)).copied().collect();
    headers.extend(more);
    ask(address(hub), method, path, &headers, "").await
}

#[tokio::test]
async fn pages_of_other_origins_and_other_names_of_the_hub_are_refused_on_every_path() {
    let hub =
        hub(|config| config.web.origins = "https://app.example.com".to_owned().try_into().expect("origins")).await;
    for row in REQUESTS {
        for (refused, headers) in [
            ("a foreign origin", &[("origin", "https://evil.example")][..]),
            ("a sandboxed page", &[("origin", "null")]),
            ("another port of this machine", &[("origin", "http://localhost:1")]),
            ("a rebinding name", &[("host", "evil.example")]),
            ("a rebinding name that is its own origin", &[("host", "evil.example"), ("origin", "http://evil.example")]),
            ("a form of another site", &[("sec-fetch-site", "cross-site")]),
            (
                "a preflight of a foreign page",
                &[("origin", "https://evil.example"), ("access-control-request-method", "POST")],
            ),
        ] {
            let answer = attack(&hub, row, headers).await;
            assert_eq!(answer.status, 403, "{refused} on {row:?}: {}", answer.body);
            assert_eq!(answer.header("access-control-allow-origin"), None, "{refused} on {row:?}");
        }
        let listed = attack(&hub, row, &[("origin", "https://app.example.com")]).await;
        assert_ne!(listed.status, 403, "{row:?}");
        assert_eq!(listed.header("access-control-allow-origin"), Some("https://app.example.com"), "{row:?}");
    }
    for path in ["/", "/v1", "/v1/nothing", "/switchyard.v1.HubService/Publish"] {
        let answer = ask(address(&hub), "GET", path, &[("origin", "https://evil.example")], "").await;
        assert_eq!(answer.status, 403, "{path}");
    }
}

#[tokio::test]
async fn a_form_of_another_site_is_refused_on_every_path_that_is_posted_to() {
    let hub = hub(|_| {}).await;
    for row in REQUESTS.iter().filter(|(_, method, _)| *method == "POST") {
        for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"] {
            // Old browsers send no Origin with a form.
            let answer = attack(&hub, row, &[("content-type", kind)]).await;
            assert_eq!(answer.status, 415, "{kind} to {row:?}: {}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_credential_and_says_what_a_path_has() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| {
        config.web.listen = any_port();
        config.web.origins = "https://app.example.com".to_owned().try_into().expect("origins");
    })
    .await;
    for Path { path, methods, .. } in PATHS {
        let headers = [("origin", "https://app.example.com"), ("access-control-request-method", "POST")];
        let answer = ask(address(&hub.server), "OPTIONS", path, &headers, "").await;
        assert_eq!((answer.status, answer.header("access-control-allow-methods")), (204, Some(*methods)), "{path}");
        assert_eq!(answer.header("access-control-max-age"), Some("7200"));
    }
}

#[tokio::test]
async fn every_path_wants_a_credential_where_the_hub_does() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| config.web.listen = any_port()).await;
    let good = format!("Bearer {}", token("anyone", &["admin"]));
    for row in REQUESTS {
        let none = attack(&hub.server, row, &[]).await;
        assert_eq!((none.status, none.header("www-authenticate")), (401, Some("Bearer")), "{row:?}");
        for bad in ["Bearer nonsense", "Basic YTpi"] {
            assert_eq!(attack(&hub.server, row, &[("authorization", bad)]).await.status, 401, "{bad} on {row:?}");
        }
        assert_ne!(attack(&hub.server, row, &[("authorization", &good)]).await.status, 401, "{row:?}");
        let path = format!("{}?ticket=AAAA", row.0);
        let by_ticket = attack(&hub.server, &(path.as_str(), row.1, row.2), &[]).await;
        assert_eq!(by_ticket.status, 401, "a ticket that nobody issued on {row:?}");
    }
}

#[tokio::test]
async fn a_ticket_opens_its_path_once() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| config.web.listen = any_port()).await;
    let good = format!("Bearer {}", token("anyone", &["admin"]));
    for row in REQUESTS.iter().filter(|row| PATHS.iter().any(|path| path.path == row.0 && path.takes_tickets)) {
        let headers = [("authorization", good.as_str()), ("content-type", "application/json")];
        let issued =
            ask(address(&hub.server), "POST", "/v1/ticket", &headers, &format!("{{\"path\":\"{}\"}}", row.0)).await;
        assert_eq!(issued.status, 200, "{}", issued.body);
        let ticket = issued.json()["ticket"].as_str().expect("a ticket").to_owned();
        let path = format!("{}?ticket={ticket}", row.0);
        let with_ticket = (path.as_str(), row.1, row.2);
        assert_ne!(attack(&hub.server, &with_ticket, &[]).await.status, 401, "{row:?}");
        assert_eq!(attack(&hub.server, &with_ticket, &[]).await.status, 401, "again on {row:?}");
    }
}

#[tokio::test]
async fn what_the_web_listener_does_not_have_is_said_plainly() {
    let hub = hub(|_| {}).await;
    let missing = ask(address(&hub), "GET", "/v1/nothing", &[], "").await;
    assert_eq!(missing.status, 404);
    assert!(missing.json()["message"].as_str().is_some_and(|text| text.contains("/v1/nothing")), "{}", missing.body);
    let wrong = ask(address(&hub), "DELETE", "/v1/ticket", &[], "").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    for (body, status) in [("{\"path\":\"/v1/nothing\"}", 400), ("{\"paths\":\"/v1/ws\"}", 422), ("{", 400)] {
        let refused = ask(address(&hub), "POST", "/v1/ticket", &[("content-type", "application/json")], body).await;
        assert_eq!(refused.status, status, "{body}: {}", refused.body);
    }
    assert_eq!(config().web.listen, WebListen::OFF, "other tests have none");
}
