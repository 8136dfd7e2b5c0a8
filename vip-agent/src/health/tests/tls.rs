//! Servers with certificates that are good, and that are not.

use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::*;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("it signs itself").pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    /// A server for this name that answers 200. Returns its port.
    fn serve(&self, name: &str, has_expired: bool) -> u16 {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if has_expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).expect("signed").pem();
        let chain = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .expect("they go together");
        let config = Arc::new(config);
        serve(move |stream| {
            let connection = ServerConnection::new(config.clone()).expect("a connection");
            let mut stream = StreamOwned::new(connection, stream);
            read_request(&mut stream);
            // Who does not like the certificate hangs up.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let _ = stream.flush();
        })
    }
}

fn check(url: String, ca: PathBuf) -> CheckConfig {
    super::check(Target::Http {
        url,
        ca: Some(ca),
        status: None,
    })
}

#[test]
fn a_server_is_believed_that_the_ca_signed_for_its_name_and_time() {
    let [ours, other, namesake] = ["ours", "other", "ours"].map(Authority::new);
    let directory = tempfile::tempdir().expect("a directory");
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, &ours.pem).expect("it can be written");
    let mut kept = Vec::new();
    let silent = serve(move |stream| kept.push(stream));
    let speaks_no_tls = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        read_request(&mut stream);
    });
    for (port, expected) in [
        (ours.serve("127.0.0.1", false), None),
        (
            other.serve("127.0.0.1", false),
            Some("its certificate is signed by none of those in `ca`"),
        ),
        (
            namesake.serve("127.0.0.1", false),
            Some("its certificate is signed by none of those in `ca`"),
        ),
        (
            ours.serve("127.0.0.1", true),
            Some("its certificate has expired"),
        ),
        (
            ours.serve("10.0.0.11", false),
            Some("its certificate is not for 127.0.0.1 but for 10.0.0.11"),
        ),
        (
            ours.serve("cp-1.example", false),
            Some("its certificate is not for 127.0.0.1 but for cp-1.example"),
        ),
        (speaks_no_tls, Some("what answers speaks no TLS")),
        (silent, Some("no end of the TLS handshake within 300ms")),
    ] {
        let mut check = check(format!("https://127.0.0.1:{port}/livez"), ca.clone());
        if port == silent {
            check.timeout = SHORT;
        }
        let expected = expected.map_or(Ok(()), |why| Err(why.to_owned()));
        assert_eq!(first(check), expected);
    }
    // A name, with which the server is asked for its certificate.
    let port = ours.serve("localhost", false);
    assert_eq!(
        first(check(format!("https://localhost:{port}/"), ca)),
        Ok(())
    );
}

#[test]
fn a_ca_that_is_replaced_is_read_at_the_next_failure() {
    let [old, new] = ["CA"; 2].map(Authority::new);
    let directory = tempfile::tempdir().expect("a directory");
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, &old.pem).expect("it can be written");
    let port = new.serve("127.0.0.1", false);
    let mut bench = Bench::with(&[CheckConfig {
        interval: Duration::from_millis(100),
        ..check(format!("https://127.0.0.1:{port}/"), ca.clone())
    }]);
    assert!(bench.next().result.is_err());
    fs::write(&ca, "half a file").expect("it can be written");
    bench.await_result(|result| {
        result
            .as_ref()
            .is_err_and(|why| why.ends_with("ca.pem: it holds no certificate in PEM"))
    });
    fs::remove_file(&ca).expect("it can be removed");
    bench.await_result(|result| {
        result
            .as_ref()
            .is_err_and(|why| why.contains("ca.pem: it cannot be read: No such file"))
    });
    fs::write(&ca, &new.pem).expect("it can be written");
    bench.await_result(Result::is_ok);
}
