//! Says when machine time is ahead of the clocks (decision 0004): it never goes back, so clocks that were wrong for a minute stay in it.
//!
//! Nothing is lost by it and nothing expires early. It continues at half speed until the clocks have caught up, and what is to expire
//! lives up to twice as long meanwhile.

use std::sync::Arc;
use std::time::Duration;

use crate::env::Stop;
use crate::raft::context::NodeContext;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// So far ahead it is reported: what clocks may differ by is less.
pub const AHEAD_MS_MAX: u64 = 10_000;

/// Notes when it begins and ends.
pub async fn run(context: Arc<NodeContext>, stop: Stop) {
    stop.or(async {
        let mut said = false;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let machine_ms = context.state.view(|state, _, _| state.machine.now_ms());
            let ahead_ms = context.clocks.machine_ahead_ms(machine_ms, &context.voters());
            let is_ahead = ahead_ms > AHEAD_MS_MAX;
            if is_ahead == said {
                continue;
            }
            said = is_ahead;
            let seconds = ahead_ms / 1000;
            match is_ahead {
                true => context
                    .events
                    .note("time", format!("machine time is ahead of the clocks seconds={seconds}: sessions expire later")),
                false => context.events.note("time", "the clocks have caught up with machine time"),
            }
            tracing::warn!(is_ahead, seconds, "machine time, ahead of the clocks or not any more");
        }
    })
    .await;
}
