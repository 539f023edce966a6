//! Keeps the place of one subscription in its store, one token after the other.

use std::sync::Arc;

use tokio::sync::Mutex;
use tonic::Code;

use crate::{
    error::{Error, ErrorKind},
    position::PositionStore,
    shared::Shared,
};

/// The store of one subscription.
pub(crate) struct Keeper {
    store: Arc<dyn PositionStore>,
    /// What is kept. It is locked while the store is at work: a later place is not to be overtaken by an earlier one. This is
    /// a lock of the runtime's, made to be held across awaits, and nobody but those who wait for the store wants it.
    kept: Mutex<Option<String>>,
}

impl Keeper {
    /// Asks the store for the place of an earlier run.
    pub(crate) async fn load(store: Arc<dyn PositionStore>) -> Result<(Option<Arc<Self>>, Option<String>), Error> {
        let token = store.load().await.map_err(|error| failed("the position cannot be read", &error))?;
        Ok((Some(Arc::new(Self { store, kept: Mutex::new(token.clone()) })), token))
    }

    /// Keeps the place, if it has moved.
    pub(crate) async fn keep(&self, shared: &Shared, subscription: i64) -> Result<(), Error> {
        let mut kept = self.kept.lock().await;
        let place = shared.with(|machine, _| machine.table.done(subscription));
        if let Some(place) = place.filter(|place| kept.as_ref() != Some(place)) {
            self.store.keep(&place).await.map_err(|error| failed("the position is not kept", &error))?;
            *kept = Some(place);
        }
        Ok(())
    }
}

fn failed(what: &str, error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Source, Code::Internal, "POSITION_STORE", format!("{what}: {error}"))
}
