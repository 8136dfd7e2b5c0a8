//! Connections, with the certificates and the password that lie on disk when one is made: they are
//! replaced while we run.

use std::{fs, path::Path, sync::Mutex, time::Duration};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use super::{error::StoreError, lock};
use crate::config::{EtcdConfig, PemKind, Tls, User};

/// etcd's servers hang up on clients that ping more often than each 5 s
/// (`--grpc-keepalive-min-time`).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(6);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes connections.
pub(super) struct Connector {
    tls: Option<Tls>,
    user: Option<User>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What a connection could last be made with.
    good: Option<Secrets>,
    /// What was said of files that no connection could be made with.
    told: Option<String>,
}

/// The content of the files.
#[derive(Clone, PartialEq, Eq)]
struct Secrets {
    ca: Option<Vec<u8>>,
    /// Certificate and key.
    identity: Option<(Vec<u8>, Vec<u8>)>,
    password: Option<String>,
}

impl Connector {
    pub fn new(config: &EtcdConfig) -> Self {
        Self {
            tls: config.tls.clone(),
            user: config.user.clone(),
            known: Mutex::default(),
        }
    }

    /// A connection that was not used yet; where etcd wants a user, it has let us in.
    pub async fn connect(&self, url: &str) -> Result<Client, StoreError> {
        let (mut client, password) = self.client(url).await?;
        if let (Some(user), Some(password)) = (&self.user, password) {
            client
                .update_user(Some((user.name.clone(), password)))
                .await
                .map_err(|error| StoreError::client(url, error))?;
        }
        Ok(client)
    }

    /// With what lies on disk, or, while that is not fit for use, with what did before.
    async fn client(&self, url: &str) -> Result<(Client, Option<String>), StoreError> {
        let fresh = match self.read() {
            Ok(secrets) => match build(url, &secrets).await {
                Ok(client) => Ok((client, secrets)),
                Err(why) => Err(format!("{}: {why}", self.tls_files())),
            },
            Err(why) => Err(why),
        };
        match fresh {
            Ok((client, secrets)) => {
                let password = secrets.password.clone();
                self.note_good(secrets);
                Ok((client, password))
            }
            Err(why) => {
                let Some(before) = lock(&self.known).good.clone() else {
                    return Err(StoreError::file(url, why));
                };
                self.note_bad(&why);
                let client = build(url, &before)
                    .await
                    .map_err(|why| StoreError::file(url, why))?;
                Ok((client, before.password))
            }
        }
    }

    fn tls_files(&self) -> String {
        let Some(Tls { ca, identity }) = &self.tls else {
            return String::new();
        };
        let own = identity.iter().flat_map(|own| [&own.cert, &own.key]);
        let files: Vec<String> = std::iter::once(ca)
            .chain(own)
            .map(|file| file.display().to_string())
            .collect();
        files.join(", ")
    }

    fn note_good(&self, secrets: Secrets) {
        let mut known = lock(&self.known);
        known.told = None;
        if known.good.as_ref().is_some_and(|before| *before != secrets) {
            tracing::info!(
                "certificates or password were replaced on disk; new connections use them"
            );
        }
        known.good = Some(secrets);
    }

    fn note_bad(&self, why: &str) {
        let mut known = lock(&self.known);
        if known.told.as_deref() != Some(why) {
            tracing::warn!(
                error = why,
                "certificates and password are not fit for use; new connections go on with those before"
            );
            known.told = Some(why.to_owned());
        }
    }

    fn read(&self) -> Result<Secrets, String> {
        let mut secrets = Secrets {
            ca: None,
            identity: None,
            password: None,
        };
        if let Some(Tls { ca, identity }) = &self.tls {
            secrets.ca = Some(pem(ca, PemKind::Certificate)?);
            if let Some(own) = identity {
                let cert = pem(&own.cert, PemKind::Certificate)?;
                secrets.identity = Some((cert, pem(&own.key, PemKind::Key)?));
            }
        }
        if let Some(user) = &self.user {
            let file = &user.password_file;
            let text = String::from_utf8(bytes(file)?).map_err(|_| {
                format!(
                    "{} is not text; it should hold the password",
                    file.display()
                )
            })?;
            secrets.password = Some(text.trim_end_matches(['\r', '\n']).to_owned());
        }
        Ok(secrets)
    }
}

/// Sends nothing yet.
async fn build(url: &str, secrets: &Secrets) -> Result<Client, String> {
    let mut options = ConnectOptions::new()
        .with_keep_alive(KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some(ca) = &secrets.ca {
        let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(ca));
        if let Some((cert, key)) = &secrets.identity {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        options = options.with_tls(tls);
    }
    Client::connect([url], Some(options))
        .await
        .map_err(|error| StoreError::client(url, error).reason())
}

fn pem(path: &Path, kind: PemKind) -> Result<Vec<u8>, String> {
    let bytes = bytes(path)?;
    kind.check(&bytes)
        .map_err(|why| format!("{} {why}", path.display()))?;
    Ok(bytes)
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
