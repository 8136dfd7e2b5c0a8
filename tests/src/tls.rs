//! Certificates for one run: a CA, one for the servers and one for a client.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Where the certificates and keys lie, as PEM.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority that signed both.
    pub ca: PathBuf,
    /// A server's, for every address of the cluster and 127.0.0.1.
    pub server: PathBuf,
    /// The key to `server`.
    pub server_key: PathBuf,
    /// A client's.
    pub client: PathBuf,
    /// The key to `client`.
    pub client_key: PathBuf,
}

impl Certificates {
    /// Makes them in a directory.
    pub fn issue(directory: &Path, addresses: &[String]) -> Result<Certificates> {
        fs::create_dir_all(directory)?;
        let paths = Certificates {
            ca: directory.join("ca.pem"),
            server: directory.join("server.pem"),
            server_key: directory.join("server.key"),
            client: directory.join("client.pem"),
            client_key: directory.join("client.key"),
        };
        let ca_key = KeyPair::generate()?;
        let mut ca = named("testbed CA", Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        fs::write(&paths.ca, ca.self_signed(&ca_key)?.pem())?;
        let authority = Issuer::new(ca, ca_key);

        // etcd dials itself for its JSON gateway with the server's certificate, so it has to be good for both sides.
        let both = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        issue(
            &authority,
            named("etcd", addresses.to_vec())?,
            both,
            &paths.server,
            &paths.server_key,
        )?;
        issue(
            &authority,
            named("vip-agent", Vec::new())?,
            vec![ExtendedKeyUsagePurpose::ClientAuth],
            &paths.client,
            &paths.client_key,
        )?;
        Ok(paths)
    }
}

fn named(name: &str, addresses: Vec<String>) -> Result<CertificateParams> {
    let mut parameters = CertificateParams::new(addresses)?;
    parameters.distinguished_name.push(DnType::CommonName, name);
    Ok(parameters)
}

fn issue(
    authority: &Issuer<'_, KeyPair>,
    mut parameters: CertificateParams,
    usages: Vec<ExtendedKeyUsagePurpose>,
    certificate: &Path,
    key: &Path,
) -> Result<()> {
    let key_pair = KeyPair::generate()?;
    parameters.extended_key_usages = usages;
    fs::write(
        certificate,
        parameters.signed_by(&key_pair, authority)?.pem(),
    )?;
    fs::write(key, key_pair.serialize_pem())?;
    Ok(())
}
