//! TLS towards a server that somebody known signed.

use std::{fs, io, path::Path, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Who is believed: those whose certificates are in the file.
pub(super) fn config(ca: &Path) -> Result<Arc<ClientConfig>, String> {
    let of_file = |why: String| format!("ca {}: {why}", ca.display());
    let text = fs::read(ca).map_err(|error| of_file(format!("it cannot be read: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| of_file(format!("it is no PEM: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| of_file(format!("it holds what is no certificate: {error}")))?;
    }
    if roots.is_empty() {
        return Err(of_file("it holds no certificate in PEM".to_owned()));
    }
    // Named, for a process has no default of its own where several crates bring one.
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session shows no certificate, and so not that it has expired.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// `host`: a name or an address.
pub(super) async fn connect(
    stream: TcpStream,
    host: &str,
    config: Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|error| plain(&error, host))
}

fn plain(error: &io::Error, host: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let why = match inner {
        Some(rustls::Error::InvalidCertificate(why)) => why,
        Some(rustls::Error::InvalidMessage(_)) => return "what answers speaks no TLS".to_owned(),
        _ => return format!("TLS: {error}"),
    };
    match why {
        // The latter where another authority has the same name, as those of kubeadm's clusters have.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is signed by none of those in `ca`".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!(
                "its certificate is not for {host} but for {}",
                names(presented)
            )
        }
        CertificateError::NotValidForName => format!("its certificate is not for {host}"),
        other => format!("its certificate is not valid: {other}"),
    }
}

/// rustls writes `DnsName("a")` and `IpAddress(10.0.0.11)`.
fn names(presented: &[String]) -> String {
    let name = |text: &String| {
        let inner = text
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(text).trim_matches('"').to_owned()
    };
    let names: Vec<String> = presented.iter().map(name).collect();
    if names.is_empty() {
        return "no name at all".to_owned();
    }
    names.join(", ")
}
