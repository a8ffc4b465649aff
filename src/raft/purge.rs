//! Keeps the log short, purged only behind a durable flush, by bytes kept; and watches the room on the disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::shared::Shared;
use crate::env::Space;

/// How often the size is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Below the smaller of this many bytes free ...
const LOW_BYTES: u64 = 1 << 30;
/// ... and this share of the file system, the disk is low.
const LOW_SHARE: u64 = 20;

/// A purge waits until the log is above its bound by this share of it: each costs a flush, and files go by whole segments anyway.
const SLACK_SHARE: u64 = 4;

/// Whether so little room is left that saves are to be refused. Pure.
fn is_low(space: Space) -> bool {
    space.free < LOW_BYTES.min(space.total / LOW_SHARE)
}

async fn watch_disk(shared: &Arc<Shared>) {
    let own = shared.clone();
    let low = match shared.blocking.call(move || own.env.disk.space(&own.data_dir)).await {
        Ok(space) => {
            shared.disk_free.store(space.free, Ordering::Relaxed);
            shared.disk_total.store(space.total, Ordering::Relaxed);
            is_low(space)
        }
        Err(error) => return tracing::warn!(%error, "cannot tell how much room the disk has"),
    };
    if shared.disk_low.swap(low, Ordering::Relaxed) != low {
        shared.events.note("disk", if low { "low: saves are refused" } else { "healed: saves are taken again" });
        tracing::warn!(low, "the disk's room crossed the bound below which saves are refused");
    }
}

/// Purges down to `bytes_kept` whenever the log is a quarter above it. Ends with the runtime.
///
/// openraft purges only what a snapshot covers; ours is a handle to rows that are durable already, so making one costs a flush.
pub async fn run(shared: Arc<Shared>, bytes_kept: u64) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        watch_disk(&shared).await;
        if shared.log.bytes() <= bytes_kept.saturating_add(bytes_kept / SLACK_SHARE) {
            continue;
        }
        let Some(point) = shared.log.purge_point(bytes_kept) else { continue };
        if let Err(error) = purge(&shared, point.index).await {
            tracing::warn!(%error, upto = point.index, "could not purge the log");
        }
    }
}

async fn purge(shared: &Shared, upto: u64) -> std::io::Result<()> {
    shared.machine.flush().await?;
    let flushed = shared.state.flushed().map_or(0, |flushed| flushed.index);
    let upto = upto.min(flushed);
    let trigger = shared.raft.trigger();
    trigger.snapshot().await.map_err(std::io::Error::other)?;
    let wait = shared.raft.wait(Some(Duration::from_secs(10)));
    let covered =
        wait.metrics(|metrics| metrics.snapshot.as_ref().is_some_and(|snapshot| snapshot.index >= upto), "snapshot covers");
    covered.await.map_err(std::io::Error::other)?;
    trigger.purge_log(upto).await.map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_low_below_the_smaller_of_a_gibibyte_and_a_twentieth() {
        let space = |free: u64, total: u64| Space { free, total };
        assert!(!is_low(space(LOW_BYTES, 100 * LOW_BYTES)));
        assert!(is_low(space(LOW_BYTES - 1, 100 * LOW_BYTES)));
        assert!(!is_low(space(50, 1000)));
        assert!(is_low(space(49, 1000)));
    }
}
