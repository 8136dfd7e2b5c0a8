//! The end of local connections from an address that has gone: their programs would wait in vain.

use std::{net::IpAddr, time::Duration};

use tokio::time::timeout;

use crate::net;

/// How much of a release's time they may take; what is left is done beside it.
const WAIT: Duration = Duration::from_millis(50);

/// Ends them. What fails is said, and holds nothing up: the gate is shut.
pub(super) async fn end_connections(vip: IpAddr) {
    let ending = tokio::spawn(async move {
        match net::destroy_bound_to(vip).await {
            Ok(0) => {}
            Ok(ended) => {
                tracing::info!(%vip, ended, "local connections from the address were ended")
            }
            Err(error) => tracing::warn!(%vip, %error, "they hang until they time out"),
        }
    });
    if timeout(WAIT, ending).await.is_err() {
        tracing::info!(%vip, "ending local connections takes long; going on meanwhile");
    }
}
