//! Callers known by the certificates of their connections: TLS verifies, the policy decides.

use switchyard::net::ClientAuth;
use tonic::Code;

use crate::{
    auth_harness::Guarded,
    authority::{Authority, Secret, tls_client, trust, trust_as},
    harness::{Folder, event, publish, reason_of_call},
};

/// What services of the namespace `shop` may do.
const OF_THE_SHOP: &str = r#"
[roles.shop]
identities = ["mtls:spiffe://prod/ns/shop/*"]
[roles.shop.allow]
publish = ["orders.>"]
"#;

#[tokio::test]
async fn a_certificate_is_a_credential_that_the_policy_knows() {
    let (authority, folder) = (Authority::new("clients"), Folder::new());
    let secret = Secret::new(&authority.server(), &authority.pem());
    let hub = Guarded::start(&folder, |config| {
        std::fs::write(folder.path().join("policy.toml"), OF_THE_SHOP).expect("written");
        secret.serve_clients(config, ClientAuth::Optional);
        config.auth.client_certificates = true;
    })
    .await;
    let address = hub.server.address;
    let order = || publish(vec![event("orders.eu", "x")]);

    let mut shop = tls_client(address, trust_as(&authority, &authority.client("spiffe://prod/ns/shop/cart")))
        .await
        .expect("connected");
    shop.publish(order()).await.expect("its role may");
    let denied = shop.publish(publish(vec![event("bills.eu", "x")])).await.expect_err("and no more than that");
    assert_eq!((denied.code(), reason_of_call(&denied).as_str()), (Code::PermissionDenied, "TOPIC_DENIED"));

    let mut other = tls_client(address, trust_as(&authority, &authority.client("spiffe://prod/ns/other/cart")))
        .await
        .expect("connected");
    let denied = other.publish(order()).await.expect_err("no role knows it");
    assert_eq!((denied.code(), reason_of_call(&denied).as_str()), (Code::PermissionDenied, "TOPIC_DENIED"));

    let mut nobody = tls_client(address, trust(&authority)).await.expect("connected");
    let missing = nobody.publish(order()).await.expect_err("no certificate, no token");
    assert_eq!((missing.code(), reason_of_call(&missing).as_str()), (Code::Unauthenticated, "CREDENTIAL_MISSING"));

    // The same in a session.
    let mut session = crate::harness::Session::open_on(&mut shop).await;
    session.publish(vec![event("orders.eu", "x")]).await;
}
