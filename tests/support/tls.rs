use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use super::server::{Server, free_port};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// A server that speaks TLS by itself or, if it was built without TLS (as Valkey's wheel for Python is), behind TLS termination in
/// this process.
pub struct TlsServer {
    /// The port without TLS.
    pub plain: Server,
    port: u16,
    _end: Option<TlsProxy>,
}

/// Terminates TLS in front of a port.
pub struct TlsProxy {
    port: u16,
    task: JoinHandle<()>,
}

impl Authority {
    /// Two authorities of one name differ by their keys.
    pub fn named(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("signed");
        Self {
            issuer: Issuer::new(parameters, key),
            certificate: certificate.pem(),
        }
    }

    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a host, valid until the end of a year.
    pub fn sign(&self, host: &str, year: i32) -> Identity {
        let mut parameters = CertificateParams::new([host.to_owned()]).expect("a host");
        parameters.not_before = date_time_ymd(2020, 1, 1);
        parameters.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl TlsServer {
    pub async fn start(identity: &Identity) -> Self {
        let port = free_port();
        let directory = Files::of(identity);
        let [certificate, key] = [directory.path("certificate"), directory.path("key")];
        let tls_port = port.to_string();
        let arguments = [
            ["--tls-port", &tls_port],
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &certificate],
            ["--tls-auth-clients", "no"],
        ]
        .concat();
        match Server::try_start(None, &arguments).await {
            Ok(plain) => Self {
                plain,
                port,
                _end: None,
            },
            Err(log) => {
                assert!(log.contains("TLS"), "{log}");
                let plain = Server::start().await;
                let end = TlsProxy::at(port, plain.port(), identity).await;
                Self {
                    plain,
                    port,
                    _end: Some(end),
                }
            }
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl TlsProxy {
    pub async fn before(server: u16, identity: &Identity) -> Self {
        Self::at(free_port(), server, identity).await
    }

    async fn at(port: u16, server: u16, identity: &Identity) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener.expect("a free port");
        let task = tokio::spawn(end_tls(listener, identity, server));
        Self { port, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The files of a certificate and its key.
struct Files(PathBuf);

impl Files {
    fn of(identity: &Identity) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("axum-redis-sessions-tls-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a temporary directory");
        fs::write(directory.join("certificate"), &identity.certificate).expect("written");
        fs::write(directory.join("key"), &identity.key).expect("written");
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("text").to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn end_tls(
    listener: TcpListener,
    identity: &Identity,
    server: u16,
) -> impl Future<Output = ()> + Send + 'static {
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.expect("PEM")], key.expect("PEM"));
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("a certificate")));
    async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
                let mut client = acceptor.accept(client).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    }
}
