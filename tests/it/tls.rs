//! TLS as clients meet it: who is served, who is not, and what a change of the files does to those that are connected.

use std::{
    convert::Infallible,
    process::{Output, Stdio},
    sync::Arc,
};

use http::{Request, Response};
use switchyard::{
    net::{self, Acceptor, ClientAuth, Connection, Connections, Http, Inbound, Options, Tls, TlsOptions, TlsVersion},
    proto::v1::hub_service_client::HubServiceClient,
    server::{self, Server},
    tasks::{OnPanic, Tasks},
    telemetry::Metrics,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    authority::{Authority, Identity, Secret, VERSIONS, shown, tls_client, tls_stream, trust, trust_as},
    harness::{
        Process, Session, config, event, http_get, hub_with, metric, program, publish, soon, spec, texts, until,
    },
    witness::Witness,
};

/// A hub that shows a certificate of this authority, and where its files are.
async fn secured(authority: &Authority) -> (Server, Secret, Identity) {
    let identity = authority.server();
    let secret = Secret::new(&identity, "");
    let hub = hub_with(|config| secret.serve(config)).await;
    (hub, secret, identity)
}

/// A hub whose clients are to show certificates of this authority.
async fn wants_clients(authority: &Authority, client_auth: ClientAuth) -> (Server, Secret) {
    let secret = Secret::new(&authority.server(), &authority.pem());
    let hub = hub_with(|config| secret.serve_clients(config, client_auth)).await;
    (hub, secret)
}

/// A client is served.
async fn check_served(mut client: HubServiceClient<Channel>) {
    let mut session = Session::open_on(&mut client).await;
    session.subscribe(1, spec(&["a"])).await;
    client.publish(publish(vec![event("a", "x")])).await.expect("published");
    assert_eq!(texts(&session.events().await), ["x"]);
}

/// A client is not: there is no connection, or none that bears a call. With TLS 1.3 a client has done its part of the
/// handshake before the hub has judged it.
async fn check_refused(client: Result<HubServiceClient<Channel>, tonic::transport::Error>) {
    if let Ok(mut client) = client {
        soon("an answer", client.publish(publish(vec![event("a", "x")]))).await.expect_err("refused");
    }
}

/// The handshakes that failed for a reason.
async fn failures(hub: &Server, reason: &str) -> u64 {
    let text = http_get(hub.ops_address, "/metrics").await;
    let line = format!("switchyard_tls_handshake_failures_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn clients_are_served_by_tls_and_only_by_tls() {
    let authority = Authority::new("ours");
    let (hub, _secret, _) = secured(&authority).await;
    check_served(tls_client(hub.address, trust(&authority)).await.expect("TLS")).await;

    let plain = Channel::from_shared(format!("http://{}", hub.address)).expect("a URL");
    check_refused(soon("an answer", plain.connect()).await.map(HubServiceClient::new)).await;
    until("it is counted", async || failures(&hub, "protocol").await == 1).await;

    check_refused(tls_client(hub.address, trust(&Authority::new("other"))).await).await;
    check_served(tls_client(hub.address, trust(&authority)).await.expect("TLS")).await;
    let text = http_get(hub.ops_address, "/metrics").await;
    assert!(text.contains("switchyard_tls_certificate_expiry_timestamp_seconds{certificate=\"server\"} "), "{text}");
}

#[tokio::test]
async fn a_hub_without_tls_tells_of_no_certificate() {
    let hub = hub_with(|_| {}).await;
    let text = http_get(hub.ops_address, "/metrics").await;
    assert!(!text.lines().any(|line| line.starts_with("switchyard_tls_certificate_expiry")), "{text}");
}

#[tokio::test]
async fn http1_over_tls_is_told_what_this_port_is() {
    let authority = Authority::new("ours");
    let (hub, _secret, _) = secured(&authority).await;
    let mut stream = tls_stream(hub.address, &[&authority], &VERSIONS, None).await.expect("TLS");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: hub\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    soon("an answer", stream.read_to_end(&mut answer)).await.expect("an end in order");
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 426 "));
}

#[tokio::test]
async fn versions_before_the_oldest_are_refused() {
    let authority = Authority::new("ours");
    let secret = Secret::new(&authority.server(), "");
    for (min_version, old_is_served) in [(TlsVersion::V12, true), (TlsVersion::V13, false)] {
        let hub = hub_with(|config| {
            secret.serve(config);
            config.tls.min_version = min_version;
        })
        .await;
        for (version, served) in [(&rustls::version::TLS12, old_is_served), (&rustls::version::TLS13, true)] {
            let stream = tls_stream(hub.address, &[&authority], &[version], None).await;
            assert_eq!(stream.is_ok(), served, "{version:?} with {min_version:?}: {:?}", stream.err());
        }
    }
}

#[tokio::test]
async fn required_client_certificates_are_required() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let (hub, _secret) = wants_clients(&authority, ClientAuth::Required).await;
    let mut witness = Witness::of(
        tls_client(hub.address, trust_as(&authority, &authority.client("spiffe://a/b"))).await.expect("TLS"),
    )
    .await;

    check_refused(tls_client(hub.address, trust(&authority)).await).await;
    check_refused(tls_client(hub.address, trust_as(&authority, &other.client("spiffe://a/b"))).await).await;
    // Signed by the right authority, for something else.
    check_refused(tls_client(hub.address, trust_as(&authority, &authority.server())).await).await;
    until("they are counted", async || failures(&hub, "client_certificate").await >= 3).await;
    witness.is_served().await;
    let text = http_get(hub.ops_address, "/metrics").await;
    assert!(text.contains("switchyard_tls_certificate_expiry_timestamp_seconds{certificate=\"client_ca\"} "), "{text}");
}

#[tokio::test]
async fn optional_client_certificates_are_good_or_absent() {
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let (hub, _secret) = wants_clients(&authority, ClientAuth::Optional).await;
    check_served(tls_client(hub.address, trust(&authority)).await.expect("TLS")).await;
    check_served(tls_client(hub.address, trust_as(&authority, &authority.client("spiffe://a/b"))).await.expect("TLS"))
        .await;
    check_refused(tls_client(hub.address, trust_as(&authority, &other.client("spiffe://a/b"))).await).await;
}

/// Answers with the certificate of the client.
async fn who_asks(request: Request<Inbound>) -> Result<Response<String>, Infallible> {
    let connection = request.extensions().get::<Arc<Connection>>().expect("every request has one");
    Ok(Response::new(format!("{:?}", connection.peer_certificate())))
}

#[tokio::test]
async fn requests_come_with_the_certificate_of_their_client() {
    let authority = Authority::new("ours");
    let secret = Secret::new(&authority.server(), &authority.pem());
    let mut config = config();
    secret.serve_clients(&mut config, ClientAuth::Optional);
    let (metrics, tasks) = (Arc::new(Metrics::default()), Tasks::default());
    let options = Options::default();
    let (bound, listener) = net::listen(&config.listen, &options).await.expect("a port");
    let address = bound.tcp();
    let acceptor = Acceptor {
        options: Arc::new(options),
        tls: Tls::load(&config.tls, &metrics).expect("files in order"),
        connections: Arc::new(Connections::new(Arc::clone(&metrics), Arc::default())),
        tasks: tasks.clone(),
        metrics,
        stop: CancellationToken::new(),
    };
    let edge = Http::new(tower::service_fn(who_asks), Arc::clone(&acceptor.options), tasks.clone());
    tasks.spawn("accept", OnPanic::Stop, acceptor.run(listener, edge));
    let client = authority.client("spiffe://a/b");
    for identity in [None, Some(&client)] {
        let mut stream = tls_stream(address, &[&authority], &VERSIONS, identity).await.expect("TLS");
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
        let mut answer = String::new();
        soon("an answer", stream.read_to_string(&mut answer)).await.expect("an answer");
        let told = format!("{:?}", identity.map(|identity| identity.der.as_ref()));
        assert!(answer.ends_with(&told), "{answer}");
    }
}

/// Publishes to itself as fast as events come back, in order and once, until it is enough. Tells how many came.
async fn echo(mut client: HubServiceClient<Channel>, topic: &'static str, enough: CancellationToken) -> usize {
    let mut session = Session::open_on(&mut client).await;
    session.subscribe(1, spec(&[topic])).await;
    let mut echoed = 0;
    while !enough.is_cancelled() || echoed <= 10 {
        let text = echoed.to_string();
        client.publish(publish(vec![event(topic, &text)])).await.expect("published");
        assert_eq!(texts(&session.events().await), [text]);
        echoed += 1;
    }
    echoed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_swapped_under_load_drops_no_connection() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let (hub, secret, first) = secured(&before).await;
    let mut witness = Witness::of(tls_client(hub.address, trust(&before)).await.expect("TLS")).await;
    let (enough, mut busy) = (CancellationToken::new(), JoinSet::new());
    for topic in ["one", "two", "three"] {
        let client = tls_client(hub.address, trust(&before)).await.expect("TLS");
        busy.spawn(echo(client, topic, enough.clone()));
    }
    assert_eq!(shown(hub.address, &[&before, &after]).await, first.der);

    let second = after.server();
    secret.swap(&second.certificate, &second.key, "");
    until("new connections are shown the new one", async || shown(hub.address, &[&before, &after]).await == second.der)
        .await;
    witness.is_served().await;
    enough.cancel();
    while let Some(echoed) = busy.join_next().await {
        assert!(echoed.expect("undisturbed") > 10);
    }
    check_served(tls_client(hub.address, trust(&after)).await.expect("TLS")).await;
    assert_eq!(metric(&hub, "switchyard_tls_reloads_total").await, 1);
    assert_eq!(metric(&hub, "switchyard_tls_reload_failures_total").await, 0);
}

#[tokio::test]
async fn files_that_are_not_good_are_refused_and_the_old_kept() {
    let authority = Authority::new("ours");
    let (hub, secret, first) = secured(&authority).await;
    let (second, expired) = (authority.server(), authority.expired_server());
    let half = &second.certificate[..second.certificate.len() / 2];
    let bad = [
        ("a key of another certificate", second.certificate.as_str(), first.key.as_str()),
        ("half a certificate", half, &second.key),
        ("no certificate", "", &second.key),
        ("no key", &second.certificate, ""),
        ("no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &second.key),
        ("an expired one", &expired.certificate, &expired.key),
    ];
    for (failed, (what, certificate, key)) in (1..).zip(bad) {
        secret.swap(certificate, key, "");
        until(what, async || metric(&hub, "switchyard_tls_reload_failures_total").await == failed).await;
        assert_eq!(shown(hub.address, &[&authority]).await, first.der, "{what}");
    }
    std::fs::remove_file(secret.path("tls.key")).expect("removed");
    until("a file that is gone", async || metric(&hub, "switchyard_tls_reload_failures_total").await == 7).await;
    assert_eq!(shown(hub.address, &[&authority]).await, first.der);

    std::os::unix::fs::symlink("..data/tls.key", secret.path("tls.key")).expect("a link");
    secret.swap(&second.certificate, &second.key, "");
    until("good files are served", async || shown(hub.address, &[&authority]).await == second.der).await;
    assert_eq!(metric(&hub, "switchyard_tls_reloads_total").await, 1);
}

#[tokio::test]
async fn the_authority_of_clients_is_replaced_too() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let server = old.server();
    let secret = Secret::new(&server, &old.pem());
    let hub = hub_with(|config| secret.serve_clients(config, ClientAuth::Required)).await;
    let (old_client, new_client) = (old.client("spiffe://a/old"), new.client("spiffe://a/new"));
    let mut witness = Witness::of(tls_client(hub.address, trust_as(&old, &old_client)).await.expect("TLS")).await;
    check_refused(tls_client(hub.address, trust_as(&old, &new_client)).await).await;

    secret.swap(&server.certificate, &server.key, &new.pem());
    until("it is served", async || metric(&hub, "switchyard_tls_reloads_total").await == 1).await;
    check_served(tls_client(hub.address, trust_as(&old, &new_client)).await.expect("TLS")).await;
    check_refused(tls_client(hub.address, trust_as(&old, &old_client)).await).await;
    witness.is_served().await;
}

#[tokio::test]
async fn a_hub_does_not_start_with_files_that_are_not_good() {
    let authority = Authority::new("ours");
    let (first, second) = (authority.server(), authority.server());
    for (certificate, key, told) in [
        (first.certificate.as_str(), second.key.as_str(), "is not the key of the certificate"),
        ("", &first.key, "no certificate in PEM"),
        (&first.certificate, "", "no private key in PEM"),
    ] {
        let secret =
            Secret::new(&Identity { certificate: certificate.into(), key: key.into(), der: first.der.clone() }, "");
        let mut config = config();
        secret.serve(&mut config);
        let error = format!("{:#}", server::start(config).await.expect_err("refused"));
        assert!(error.contains(told) && error.contains("tls."), "{error}");
    }
}

#[tokio::test]
async fn the_port_of_the_operator_has_tls_only_when_asked() {
    let authority = Authority::new("ours");
    let secret = Secret::new(&authority.server(), "");
    let hub = hub_with(|config| {
        secret.serve(config);
        config.tls.ops = true;
    })
    .await;
    let mut stream = tls_stream(hub.ops_address, &[&authority], &VERSIONS, None).await.expect("TLS");
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A hub as a process that wants clients to show certificates, and what a client needs, in files.
pub fn secured_process(authority: &Authority) -> (Process, Secret) {
    let secret = Secret::new(&authority.server(), &authority.pem());
    let file = |name: &str| secret.path(name).display().to_string();
    let set = |key: &str, value: String| ["--set".to_owned(), format!("tls.{key}={value}")];
    let flags = [
        set("cert_file", file("tls.crt")),
        set("key_file", file("tls.key")),
        set("client_ca_file", file("ca.crt")),
        set("client_auth", "optional".to_owned()),
    ]
    .concat();
    (Process::start(&flags.iter().map(String::as_str).collect::<Vec<_>>()), secret)
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = program();
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
    command.output().expect("the program runs")
}

#[test]
fn every_command_reaches_a_hub_by_tls() {
    let authority = Authority::new("ours");
    let (hub, secret) = secured_process(&authority);
    let client = authority.client("spiffe://a/b");
    let (cert, key) = (secret.path("client.crt"), secret.path("client.key"));
    std::fs::write(&cert, &client.certificate).and_then(|()| std::fs::write(&key, &client.key)).expect("files");
    let (address, url) = (hub.address.to_string(), format!("https://{}", hub.address));
    let (ca, cert, key) = (secret.path("ca.crt"), cert.display().to_string(), key.display().to_string());
    let ca = ca.display().to_string();

    let flags = ["--server", &url, "--tls-ca", &ca];
    let bench = ["bench", "fan-out", "--seconds", "0.2", "--warm-up", "0"];
    for command in [&["health"][..], &["pub", "a", "x"], &bench, &["health", "--tls-cert", &cert, "--tls-key", &key]] {
        let output = run(&[command, &flags].concat(), &[]);
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // Without a scheme it is https, since an authority is named; by variables, too.
    let variables = [("SWITCHYARD_SERVER", address.as_str()), ("SWITCHYARD_TLS_CA", &ca)];
    assert!(run(&["health"], &variables).status.success());
    let clients = [("SWITCHYARD_TLS_CERT", cert.as_str()), ("SWITCHYARD_TLS_KEY", &key)];
    assert!(run(&["health"], &[&variables[..], &clients].concat()).status.success());

    for (arguments, told) in [
        (&["health", "--server", &url][..], "--tls-ca"),
        (&["health", "--server", &url, "--tls-ca", "/nowhere.pem"], "/nowhere.pem"),
        (&["health", "--server", &url, "--tls-ca", &ca, "--tls-server-name", "other"], "--tls-ca"),
        (&["health", "--server", &url, "--tls-cert", &cert], "--tls-key"),
        (&["health", "--server", &address], "switchyard: "),
    ] {
        let output = run(arguments, &[]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && error.contains(told), "{arguments:?}: {error}");
    }
}

/// What a hub logs before it serves.
pub fn log_of(flags: &[&str]) -> String {
    let mut child = program()
        .args([
            "serve",
            "--ops-listen",
            "127.0.0.1:0",
            "--web-listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
            "--data-dir",
            "",
        ])
        .args(flags)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut log = String::new();
    let mut lines = std::io::BufReader::new(child.stderr.take().expect("piped"));
    while !log.contains("\"serving\"") {
        assert!(std::io::BufRead::read_line(&mut lines, &mut log).expect("a log") > 0, "it ended: {log}");
    }
    child.kill().and_then(|()| child.wait()).expect("ended");
    log
}

#[test]
fn a_hub_that_others_can_reach_without_tls_says_so() {
    let exposed = log_of(&["--listen", "0.0.0.0:0"]);
    assert!(exposed.contains("\"WARN\"") && exposed.contains("WITHOUT TLS"), "{exposed}");
    assert!(!log_of(&["--listen", "127.0.0.1:0"]).contains("WITHOUT TLS"));
    let authority = Authority::new("ours");
    let secret = Secret::new(&authority.server(), "");
    let (cert, key) = (secret.path("tls.crt"), secret.path("tls.key"));
    let (cert, key) = (format!("tls.cert_file={}", cert.display()), format!("tls.key_file={}", key.display()));
    assert!(!log_of(&["--listen", "0.0.0.0:0", "--set", &cert, "--set", &key]).contains("WITHOUT TLS"));
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let path = || "file.pem".into();
    let on = || TlsOptions { cert_file: path(), key_file: path(), ..TlsOptions::default() };
    assert!(on().check().is_ok() && TlsOptions::default().check().is_ok());
    let bad = [
        (TlsOptions { key_file: path(), ..TlsOptions::default() }, "cert_file and"),
        (TlsOptions { client_auth: ClientAuth::Required, ..on() }, "needs tls.client_ca_file"),
        (TlsOptions { client_ca_file: path(), ..on() }, "needs tls.client_auth"),
        (
            TlsOptions { client_ca_file: path(), client_auth: ClientAuth::Optional, ..TlsOptions::default() },
            "cert_file",
        ),
        (TlsOptions { ops: true, ..TlsOptions::default() }, "tls.ops"),
        (TlsOptions { reload_interval_ms: 99, ..on() }, "reload_interval_ms"),
    ];
    for (options, told) in bad {
        assert!(options.check().is_err_and(|error| error.contains(told)), "{options:?}");
    }
}
