//! A line that says how far it is, on a terminal only.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use quorate::testing::load::Progress;
use tokio::task::JoinHandle;

const EVERY: Duration = Duration::from_millis(250);

/// Shown until it is dropped.
pub struct Shown {
    /// Counted here.
    pub progress: Progress,
    task: Option<JoinHandle<()>>,
}

impl Shown {
    /// `what` is under way, for about `duration` where that is known.
    pub fn start(what: String, duration: Duration) -> Self {
        let progress = Progress::default();
        if !std::io::stderr().is_terminal() {
            return Self { progress, task: None };
        }
        let counted = progress.clone();
        let task = tokio::spawn(async move {
            let (began, mut ticks, mut before) = (Instant::now(), tokio::time::interval(EVERY), 0);
            loop {
                ticks.tick().await;
                let (operations, now) = (counted.operations(), began.elapsed().as_secs());
                let rate = (operations - before) as f64 / EVERY.as_secs_f64();
                before = operations;
                let of = if duration.is_zero() { String::new() } else { format!(" of {}", duration.as_secs()) };
                let flow = if operations == 0 { String::new() } else { format!(", {rate:.0}/s") };
                write(&format!("{what}: {now}{of} s{flow}"));
            }
        });
        Self { progress, task: Some(task) }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
            write("");
        }
    }
}

/// Over what stood there. A terminal that is gone is no reason to stop.
fn write(line: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush());
}
