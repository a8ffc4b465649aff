//! Keeps the log short: purged only behind a durable flush, by bytes kept.

use std::sync::Arc;
use std::time::Duration;

use super::shared::Shared;

/// How often the size is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Purges whenever the log is above `bytes_kept`. Ends with the runtime.
///
/// openraft purges only what a snapshot covers; ours is a handle to rows that are durable already, so making one costs a flush.
pub async fn run(shared: Arc<Shared>, bytes_kept: u64) {
    loop {
        tokio::time::sleep(INTERVAL).await;
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
