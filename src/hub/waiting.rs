//! Waiting for what there may be none of.

use std::future::{Future, pending};

/// Waits for a future if there is one, and else for ever.
pub(crate) async fn first<F: Future + Unpin>(future: Option<&mut F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
