//! Finds out which event of the source each event of the target is, from the events alone: for a copy whose state file is
//! gone.

use anyhow::{anyhow, bail, ensure};

use super::{end::End, map::Map, progress::Progress, reader::Reader};

/// Both ends, with their epochs and the last sequences that they had when this began.
pub(super) struct Ends<'a> {
    pub(super) source: &'a End,
    pub(super) target: &'a End,
    pub(super) epochs: (i64, i64),
    pub(super) last: (i64, i64),
    /// Whether the source has lost its first events. Then the target may have some that nothing is known of.
    pub(super) lost_front: bool,
}

/// Pairs every event of the target with the next one of the source, which must be the same. Says how many those were.
pub(super) async fn align(ends: &Ends<'_>) -> anyhow::Result<(Map, u64)> {
    let (of_source, of_target) = ends.last;
    let mut progress = Progress::new("compared", u64::try_from(of_target).unwrap_or_default());
    let mut source = Reader::open(ends.source, 0, ends.epochs.0).await?;
    let mut target = Reader::open(ends.target, 0, ends.epochs.1).await?;
    let mut map = Map::default();
    let mut next = source.next_up_to(of_source).await?;
    while let Some(there) = target.next_up_to(of_target).await? {
        match &next {
            Some(here) if here.encoded() == there.encoded() => {
                map.pair(here.sequence(), there.sequence());
                progress.add(1);
                next = source.next_up_to(of_source).await?;
            }
            Some(_) if map.is_empty() && ends.lost_front => {}
            Some(here) => bail!(
                "{}: its event {} is not event {} of the source",
                foreign(ends),
                there.sequence(),
                here.sequence()
            ),
            None => bail!("{}: its event {} is none of the source", foreign(ends), there.sequence()),
        }
    }
    ensure!(!map.is_empty(), "{}: none of its events is at the source", foreign(ends));
    let reached = map.to_source(of_target).unwrap_or_default();
    if next.is_some_and(|next| next.sequence() <= reached) {
        return Err(anyhow!("{}: its last events are gone, and cannot be compared", foreign(ends)));
    }
    Ok((map, progress.done()))
}

fn foreign(ends: &Ends<'_>) -> String {
    format!("{} has other events than a copy of the source", ends.target.place())
}
