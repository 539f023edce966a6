//! A group as a person names it.

/// A group, by its stream and its name.
#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// Its stream
    pub(super) stream: String,
    /// Its name
    pub(super) group: String,
}
