//! Keeps the log short, purged only behind a durable flush, by bytes kept.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;

/// How often the size is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// A purge waits until the log is above its bound by this share of it: each costs a flush, and files go by whole segments anyway.
const SLACK_SHARE: u64 = 4;

/// Purges down to `bytes_kept` whenever the log is a quarter above it. Ends with the runtime.
///
/// openraft purges only what a snapshot covers; ours is a handle to rows that are durable already, so making one costs a flush.
pub async fn run(shared: Arc<Shared>, bytes_kept: u64) {
    loop {
        tokio::time::sleep(INTERVAL).await;
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
