//! Where the hub listens, in all the ways an operator may write it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use switchyard::{client::Target, config::Config, proto::v1::ListSessionsRequest};

use crate::{
    cli::{run, text},
    harness::{Process, config, event, http_get, hub_with, publish, until},
};

/// Starts a hub that listens so for both, and asks it by IPv4.
async fn check_reached(listen: &str) -> SocketAddr {
    let (clients, operators) = (format!("listen={listen}"), format!("ops_listen={listen}"));
    let hub = Process::start(&["--set", &clients, "--set", &operators]);
    let by_ipv4 = |address: SocketAddr| SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    assert!(http_get(by_ipv4(hub.ops_address), "/livez").await.starts_with("HTTP/1.1 200"), "{listen}");
    assert!(http_get(by_ipv4(hub.address), "/").await.starts_with("HTTP/1.1 426"), "{listen}");
    hub.address
}

#[tokio::test]
async fn a_hub_listens_on_names_and_on_all_interfaces() {
    let by_name = check_reached("localhost:0").await;
    assert_eq!(by_name.ip(), IpAddr::from(Ipv4Addr::LOCALHOST), "IPv4 comes first");
    assert!(check_reached(":0").await.ip().is_unspecified());
    // Where there is no IPv6 at all, it cannot be asked for.
    if std::net::UdpSocket::bind("[::1]:0").is_ok() {
        assert!(check_reached("[::]:0").await.ip().is_unspecified());
    }
    check_reached("\"127.0.0.1:0\"").await;
}

#[test]
fn a_bad_address_is_told_with_its_key_and_value() {
    for (arguments, told) in [
        (["--listen", "foo"], "--listen: \"foo\" has no port"),
        (["--ops-listen", "foo"], "--ops-listen: \"foo\" has no port"),
        (["--listen", "foo:http"], "--listen: \"foo:http\" has no port from 0 to 65535"),
        (["--listen", "unix:run/hub.sock"], "--listen: \"unix:run/hub.sock\" is no Unix socket"),
        (["--set", "listen=::1:50051"], "listen=::1:50051: \"::1:50051\" is an IPv6 address without brackets"),
        (["--set", "listen=\"foo"], "begins with a quote"),
        (["--listen", "192.0.2.1:1"], "listen: cannot listen on 192.0.2.1:1 for clients: 192.0.2.1:1: "),
    ] {
        let output = run(&[&["serve", "--data-dir", ""][..], &arguments].concat());
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        assert!(error.lines().count() == 1 && error.contains(told), "{error}");
    }
    let error = Config::from_toml("hub.toml", "listen = \"foo\"").expect_err("no port").to_string();
    assert!(error.contains("hub.toml") && error.contains("listen") && error.contains("\"foo\" has no port"), "{error}");
}

#[test]
fn quotes_of_toml_are_no_part_of_a_value() {
    let output = run(&["serve", "--set", "tls.cert_file=\"/nothing.crt\"", "--set", "tls.key_file='/nothing.key'"]);
    let error = text(&output.stderr);
    assert!(error.contains("/nothing.crt") && !error.contains("\"/nothing.crt\"\""), "{error}");
    assert!(!error.contains("'/nothing"), "{error}");
}

#[tokio::test]
async fn a_hub_on_a_unix_socket_serves_its_clients_and_takes_the_file_with_it() {
    let folder = std::path::PathBuf::from(format!("/tmp/switchyard-{:x}", fastrand::u64(..)));
    std::fs::create_dir(&folder).expect("a folder");
    let (socket, ops) = (folder.join("hub.sock"), folder.join("ops.sock"));
    let listen = |path: &std::path::Path| format!("unix:{}", path.display()).parse().expect("an address");
    // As a hub that was killed leaves it.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    let hub = hub_with(|config| (config.listen, config.ops_listen) = (listen(&socket), listen(&ops))).await;

    let target = Target { server: format!("unix:{}", socket.display()), ..Target::default() };
    let mut client = target.hub().await.expect("connected");
    let published = client.publish(publish(vec![event("a", "x")])).await.expect("published");
    assert_eq!(published.into_inner().results.len(), 1);
    let (_commands, receiver) = tokio::sync::mpsc::channel(1);
    let session = client.session(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.expect("a session");
    let list = target.sessions().await.expect("connected").list_sessions(ListSessionsRequest::default()).await;
    let peers: Vec<_> = list.expect("listed").into_inner().sessions.into_iter().map(|session| session.peer).collect();
    assert!(matches!(&peers[..], [peer] if peer.starts_with("unix:uid=")), "{peers:?}");
    drop(session);

    let taken = tokio::net::UnixStream::connect(&ops).await;
    assert!(taken.is_ok(), "the port of operators");
    let second = switchyard::server::start(Config { listen: listen(&socket), ..config() }).await;
    assert!(format!("{:#}", second.expect_err("taken")).contains("hub.sock"), "another hub has it");
    std::fs::write(folder.join("file"), "precious").expect("written");
    let file = Config { listen: listen(&folder.join("file")), ..config() };
    assert!(switchyard::server::start(file).await.is_err(), "what is no socket is left alone");
    assert_eq!(std::fs::read_to_string(folder.join("file")).expect("still there"), "precious");

    hub.stop(std::time::Duration::ZERO).await;
    until("the files are gone", async || !socket.exists() && !ops.exists()).await;
    std::fs::remove_dir_all(folder).expect("removed");
}
