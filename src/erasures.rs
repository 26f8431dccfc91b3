//! Erasures that did not come to their end: after a restart, or when something was in the way.

use std::sync::Arc;
use std::time::Duration;

use wiretag_store::{ErasureState, Store};

/// How often they are tried again.
const EVERY: Duration = Duration::from_secs(10);

/// Goes on with them, for as long as the appliance runs.
pub(crate) async fn go_on(store: Arc<Store>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        let waiting = store.erasures().await;
        if waiting.is_ok_and(|all| all.iter().any(|erasure| erasure.state == ErasureState::Running)) {
            // What fails is logged, and on record.
            let _ = store.continue_erasures(&crate::host::now).await;
        }
    }
}
