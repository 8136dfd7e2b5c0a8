//! What can go wrong with etcd, and what a user should read then.

use std::{fmt, time::Duration};

/// A request that etcd did not serve.
#[derive(Debug)]
pub struct StoreError {
    endpoint: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// No answer within this time.
    Silence(Duration),
    /// A file of the TLS or user settings could not be used.
    File(String),
    Client(Box<etcd_client::Error>),
}

impl StoreError {
    pub(super) fn silence(endpoint: &str, patience: Duration) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            kind: Kind::Silence(patience),
        }
    }

    pub(super) fn file(endpoint: &str, message: String) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            kind: Kind::File(message),
        }
    }

    pub(super) fn client(endpoint: &str, error: etcd_client::Error) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            kind: Kind::Client(Box::new(error)),
        }
    }

    /// Whether trying again would be answered alike until somebody changes a password, a role or a
    /// certificate.
    pub fn is_refusal(&self) -> bool {
        const REFUSALS: [&str; 6] = [
            "authentication failed",
            "authentication is not enabled",
            "permission denied",
            "user name is empty",
            "invalid auth token",
            "certificate",
        ];
        let text = self.to_string();
        match &self.kind {
            Kind::Silence(_) | Kind::File(_) => false,
            Kind::Client(_) => REFUSALS.iter().any(|refusal| text.contains(refusal)),
        }
    }

    /// Whether etcd does not know the lease that was named.
    pub(super) fn says_lease_gone(&self) -> bool {
        match &self.kind {
            Kind::Client(error) => match &**error {
                // etcd's own text for gRPC's NotFound.
                etcd_client::Error::GRpcStatus(status) => {
                    status.message().contains("requested lease not found")
                }
                // The client's, for a renewal that was answered with no time left.
                etcd_client::Error::LeaseKeepAliveError(text) => text.contains("lease not found"),
                _ => false,
            },
            Kind::Silence(_) | Kind::File(_) => false,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd at {}: ", self.endpoint)?;
        match &self.kind {
            Kind::Silence(patience) => write!(f, "no answer within {} ms", patience.as_millis()),
            Kind::File(message) => f.write_str(message),
            Kind::Client(error) => match &**error {
                etcd_client::Error::GRpcStatus(status) => {
                    f.write_str(status.message().trim_start_matches("etcdserver: "))?;
                    write_causes(f, status)
                }
                etcd_client::Error::TransportError(error) => {
                    write!(f, "{error}")?;
                    write_causes(f, error)
                }
                other => write!(f, "{other}"),
            },
        }
    }
}

impl std::error::Error for StoreError {}

/// The innermost cause says what happened (`connection refused`); the ones around it are layers.
fn write_causes(f: &mut fmt::Formatter<'_>, error: &dyn std::error::Error) -> fmt::Result {
    let mut innermost = None;
    let mut next = error.source();
    while let Some(cause) = next {
        innermost = Some(cause);
        next = cause.source();
    }
    match innermost {
        Some(cause) => write!(f, ": {cause}"),
        None => Ok(()),
    }
}
