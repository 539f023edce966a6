//! Certificates made for a test, and where a hub finds them: a folder laid out as Kubernetes mounts a secret.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use switchyard::{config::Config, net::ClientAuth, proto::v1::hub_service_client::HubServiceClient};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::harness::{Folder, soon};

/// Both versions that a hub may speak.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// A certificate and its key.
pub struct Identity {
    pub certificate: String,
    pub key: String,
    pub der: CertificateDer<'static>,
}

/// An authority of the test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// What a hub on this machine shows.
    pub fn server(&self) -> Identity {
        self.issue(server_params())
    }

    /// What a hub of these names shows.
    pub fn server_of(&self, names: Vec<String>) -> Identity {
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// What a hub showed until the year 2001.
    pub fn expired_server(&self) -> Identity {
        let mut params = server_params();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2001, 1, 1);
        self.issue(params)
    }

    /// What a client shows.
    pub fn client(&self, uri: &str) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("a URI"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    fn issue(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
    }
}

fn server_params() -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// A secret as Kubernetes mounts one: its files are links through `..data`, which is itself a link and is replaced at
/// once.
pub struct Secret {
    folder: Folder,
    versions: AtomicUsize,
}

impl Secret {
    pub fn new(identity: &Identity, client_ca: &str) -> Self {
        let secret = Self { folder: Folder::new(), versions: AtomicUsize::new(0) };
        secret.swap(&identity.certificate, &identity.key, client_ca);
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(name), secret.path(name)).expect("a link");
        }
        secret
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces all files at once.
    pub fn swap(&self, certificate: &str, key: &str, client_ca: &str) {
        let version = format!("..version_{}", self.versions.fetch_add(1, Relaxed));
        fs::create_dir(self.path(&version)).expect("a folder");
        for (name, text) in [("tls.crt", certificate), ("tls.key", key), ("ca.crt", client_ca)] {
            fs::write(self.path(&version).join(name), text).expect("a file");
        }
        symlink(version, self.path("..data_tmp")).expect("a link");
        fs::rename(self.path("..data_tmp"), self.path("..data")).expect("a link in place of the other");
    }

    /// Has a hub serve what is here, and look often.
    pub fn serve(&self, config: &mut Config) {
        config.tls.cert_file = self.path("tls.crt");
        config.tls.key_file = self.path("tls.key");
        config.tls.reload_interval_ms = 100;
    }

    /// The same, with clients that show a certificate.
    pub fn serve_clients(&self, config: &mut Config, client_auth: ClientAuth) {
        self.serve(config);
        config.tls.client_ca_file = self.path("ca.crt");
        config.tls.client_auth = client_auth;
    }
}

/// What a client wants of TLS: hubs of this authority.
pub fn trust(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()))
}

/// What a client wants of TLS, and shows.
pub fn trust_as(authority: &Authority, identity: &Identity) -> ClientTlsConfig {
    trust(authority).identity(tonic::transport::Identity::from_pem(&identity.certificate, &identity.key))
}

/// A client of its own connection.
pub async fn tls_client(
    address: SocketAddr,
    tls: ClientTlsConfig,
) -> Result<HubServiceClient<Channel>, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("a URL").tls_config(tls)?;
    Ok(HubServiceClient::new(soon("a connection", endpoint.connect()).await?))
}

/// TLS below HTTP, of a client that speaks these versions and trusts these authorities.
pub async fn tls_stream(
    address: SocketAddr,
    authorities: &[&Authority],
    versions: &[&'static SupportedProtocolVersion],
    identity: Option<&Identity>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.0.der().clone()).expect("an authority");
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![identity.der.clone()], key).expect("a pair")
        }
    };
    let name = ServerName::from(address.ip());
    let stream = TcpStream::connect(address).await.expect("a port");
    soon("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// The certificate that a hub shows a new client.
pub async fn shown(address: SocketAddr, authorities: &[&Authority]) -> CertificateDer<'static> {
    let stream = tls_stream(address, authorities, &VERSIONS, None).await.expect("TLS");
    let shown = stream.get_ref().1.peer_certificates().expect("a certificate");
    shown[0].clone().into_owned()
}
