//! Asking a host for its key before anybody trusts it.
//!
//! The handshake goes on until the host has signed it, which shows that it holds the key, and is
//! ended there by us: not even our own key has been sent by then.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::timeout;

use crate::dial::{any_port_towards, client_config};
use crate::patience::Patience;
use crate::tls::{self, Curious};
use crate::{Credentials, LinkError, Tuning, endpoint, path};

/// What the host at `address` shows, and proves to be its own; `host` is only named in errors.
/// Whether it is the host that the operator means, only he can tell, by its fingerprint.
pub async fn fetch(
    host: &str,
    address: SocketAddr,
    tuning: &Tuning,
) -> Result<Credentials, LinkError> {
    let endpoint = endpoint::bind(any_port_towards(address), None)?;
    let curious = Curious::new();
    let tls = tls::asker(Arc::clone(&curious)).map_err(LinkError::Tls)?;
    let config = client_config(tls, tuning.transport(path::PAYLOAD_FIRST))?;
    let host = host.to_owned();
    let wait = tuning.handshake_wait;
    let mut patience = Patience::of(&endpoint);
    let ended = loop {
        let connecting = endpoint.connect_with(config.clone(), address, tls::SERVER_NAME);
        let failed = |source| LinkError::Connect { host: host.clone(), address, source };
        match timeout(wait, connecting.map_err(failed)?).await {
            Ok(Err(source)) if endpoint::is_busy(&source) => {
                let busy = |tried| LinkError::Busy { host: host.clone(), address, tried };
                patience.pause().await.map_err(busy)?;
            }
            ended => break ended,
        }
    };
    // It hears at once that nobody goes on, and does not wait for us.
    endpoint.close(0u32.into(), b"");
    let _told_or_not = timeout(wait, endpoint.wait_idle()).await;
    match (curious.proven(), ended) {
        (Some(shown), _) => Ok(shown),
        (None, Err(_)) => Err(LinkError::Unreachable { host, address, waited: wait }),
        (None, Ok(Err(quinn::ConnectionError::TimedOut))) => {
            Err(LinkError::Unreachable { host, address, waited: wait })
        }
        (None, Ok(Err(source))) if endpoint::is_version_mismatch(&source) => {
            Err(LinkError::VersionMismatch { address, source })
        }
        (None, Ok(Err(source))) => Err(LinkError::Handshake { address, source }),
        (None, Ok(Ok(_))) => unreachable!("a verifier that never says yes has let somebody in"),
    }
}
