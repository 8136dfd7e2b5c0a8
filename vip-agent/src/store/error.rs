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

    /// What went wrong, whichever endpoint it was.
    pub(super) fn reason(&self) -> String {
        let text = self.text();
        match self.hint(&text) {
            Some(hint) => format!("{text} ({hint})"),
            None => text,
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
            "certificate",
            "received fatal alert",
        ];
        match &self.kind {
            Kind::Silence(_) | Kind::File(_) => false,
            Kind::Client(_) => {
                let text = self.text();
                REFUSALS.iter().any(|refusal| text.contains(refusal))
            }
        }
    }

    fn text(&self) -> String {
        match &self.kind {
            Kind::Silence(patience) => format!("no answer within {} ms", patience.as_millis()),
            Kind::File(message) => message.clone(),
            Kind::Client(error) => match &**error {
                etcd_client::Error::GRpcStatus(status) => {
                    with_causes(status.message().trim_start_matches("etcdserver: "), status)
                }
                etcd_client::Error::TransportError(error) => with_causes(&error.to_string(), error),
                other => other.to_string(),
            },
        }
    }

    /// What is most likely behind an error that does not say so itself.
    fn hint(&self, text: &str) -> Option<&'static str> {
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let is_https = self.endpoint.starts_with("https:");
        // How a server ends a handshake that it has no liking for, or a connection right after it.
        if is_https && says(&["fatal alert", "broken pipe", "connection reset"]) {
            return Some("it may want another client certificate: see etcd.tls.cert and key");
        }
        (!is_https && says(&["broken pipe"]))
            .then_some("if it serves TLS, write https:// and give etcd.tls")
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
        write!(f, "etcd at {}: {}", self.endpoint, self.reason())
    }
}

impl std::error::Error for StoreError {}

/// `text` and all that is behind it. Layers repeat the one below, or say no more than that they are
/// there: what is said is said once.
fn with_causes(text: &str, error: &dyn std::error::Error) -> String {
    const SAYS_NOTHING: &str = "transport error";
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let layers = std::iter::once(text.to_owned()).chain(causes.map(ToString::to_string));
    let mut whole = String::new();
    for layer in layers.filter(|layer| layer != SAYS_NOTHING) {
        if whole.is_empty() {
            whole = layer;
        } else if !whole.contains(&layer) {
            whole = format!("{whole}: {layer}");
        }
    }
    if whole.is_empty() {
        whole = SAYS_NOTHING.to_owned();
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    fn chain(texts: &[&'static str]) -> Layer {
        let (first, below) = texts.split_first().expect("a layer at least");
        let below = (!below.is_empty()).then(|| Box::new(chain(below)));
        Layer(first, below)
    }

    #[test]
    fn every_cause_is_said_once() {
        for (texts, whole) in [
            (
                &[
                    "tcp connect error",
                    "transport error",
                    "tcp connect error",
                    "Connection refused",
                ][..],
                "tcp connect error: Connection refused",
            ),
            (
                &["transport error", "dns error", "no such name"],
                "dns error: no such name",
            ),
            (&["a", "b: c", "c"], "a: b: c"),
            (&["transport error"], "transport error"),
        ] {
            let error = chain(texts);
            assert_eq!(with_causes(&error.to_string(), &error), whole);
        }
    }

    #[test]
    fn what_a_wrong_scheme_or_certificate_looks_like_gets_its_mend() {
        let error = |endpoint, text: &str| {
            let status = etcd_client::Error::WatchError(text.to_owned());
            StoreError::client(endpoint, status).to_string()
        };
        let alert = error("https://a:1", "received fatal alert: BadCertificate");
        assert!(alert.contains("etcd.tls.cert"), "{alert}");
        let closed = error("http://a:1", "stream closed because of a broken pipe");
        assert!(closed.contains("https"), "{closed}");
        let refused = error("http://a:1", "Connection refused");
        assert!(!refused.contains('('), "{refused}");
    }
}
