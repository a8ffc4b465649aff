//! Watches: frames from one node after the other, continued where the last one ended.
//!
//! ```text
//! watch ─> task ── one endpoint ── frame ─> Resume (where to continue) ─> channel of one ─> Watching
//!            └── broken, silent for 25 s, ended: the next endpoint, after 0.1 to 2 s
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;

use super::Error;
use super::config::Config;
use super::driver::connection::{Broken, sessions};
use super::failures::Failures;
use crate::limits::{WATCH_IDS_MAX, WATCH_PROGRESS_INTERVAL};
use crate::types::{Position, Refusal, RefusalKind, Selector, Watch, WatchFrame};
use crate::wire;

/// Two progress frames were missed.
const SILENT_MAX: Duration = Duration::from_secs(2 * WATCH_PROGRESS_INTERVAL.as_secs() + 5);
/// Pause before the next endpoint, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// No endpoint gave a frame for so long: the caller is informed.
const HOPELESS_AFTER: Duration = Duration::from_secs(30);

/// The sessions to watch, and where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// The sessions.
    pub sessions: Selector,
    /// The cluster and revision of a frame seen before, to continue from there.
    pub from: Option<Position>,
    /// Without `from`: whether the whole state comes first. By default a watch begins with what changes from now on.
    pub initial: bool,
}

impl WatchOptions {
    /// Sessions whose ids begin so.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { sessions: Selector::Prefix(prefix.into()), from: None, initial: false }
    }
}

/// The frames of a watch, for as long as it is held. It continues on any node by itself; dropped, it ends.
///
/// One frame is held in memory, at most 64 KiB; while it is not taken, nothing is read and the node keeps a place in the order of changes,
/// no more. A session that changes several times meanwhile comes once.
pub struct Watching {
    frames: mpsc::Receiver<Result<WatchFrame, Error>>,
}

impl Watching {
    /// The next frame; `None` after an error that ends the watch: `Invalid`, `Denied`, `Unauthenticated`. Other errors say that no node has
    /// answered for 30 s; the watch continues to try. Cancel safe: a frame that was not taken is the next one.
    pub async fn next(&mut self) -> Option<Result<WatchFrame, Error>> {
        self.frames.recv().await
    }
}

impl Stream for Watching {
    type Item = Result<WatchFrame, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.frames.poll_recv(cx)
    }
}

/// Begins a watch. Errors: `Invalid`, too many ids.
pub(super) fn begin(config: Arc<Config>, options: WatchOptions) -> Result<Watching, Error> {
    let selector = match options.sessions {
        Selector::Ids(ids) if ids.is_empty() || ids.len() > WATCH_IDS_MAX => {
            return Err(Error::invalid(format!("a watch takes 1 to {WATCH_IDS_MAX} ids ids={}", ids.len())));
        }
        Selector::Ids(ids) => Selector::of_ids(ids),
        prefix => prefix,
    };
    let (sender, frames) = mpsc::channel(1);
    let resume = Resume::new(options.from, options.initial);
    tokio::spawn(run(config, selector, resume, sender));
    Ok(Watching { frames })
}

/// Where a watch continues on the next connection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Resume {
    next: Next,
    /// The node shows the whole state, and does not know that it is again.
    says_resync: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Now,
    From(Position),
    /// The whole state, and whether a part of it was shown already: a walk that broke off counts for nothing.
    Whole {
        again: bool,
    },
}

impl Resume {
    fn new(from: Option<Position>, initial: bool) -> Self {
        let next = match from {
            Some(from) => Next::From(from),
            None if initial => Next::Whole { again: false },
            None => Next::Now,
        };
        Self { next, says_resync: false }
    }

    /// The request of the next connection.
    fn request(&mut self, selector: &Selector, seen: Option<Position>) -> Watch {
        self.says_resync = self.next == Next::Whole { again: true };
        let (from, initial) = match self.next {
            Next::Now => (None, false),
            Next::From(from) => (Some(from), false),
            Next::Whole { .. } => (None, true),
        };
        Watch { selector: selector.clone(), from, initial, seen }
    }

    /// Takes a frame, and says in it what its node does not know.
    fn take(&mut self, frame: &mut WatchFrame) {
        frame.resync |= std::mem::take(&mut self.says_resync);
        match frame.revision {
            Some(revision) => self.next = Next::From(Position { cluster_id: frame.cluster_id, revision }),
            None if frame.resync || matches!(self.next, Next::Whole { .. }) => self.next = Next::Whole { again: true },
            None => {}
        }
    }
}

/// The end of one connection.
enum End {
    /// Nobody listens.
    Dropped,
    /// The connection broke, or the watch was refused.
    Broken(Broken),
}

async fn run(config: Arc<Config>, selector: Selector, mut resume: Resume, frames: mpsc::Sender<Result<WatchFrame, Error>>) {
    let (mut at, mut pause, mut last_frame) = (0, PAUSE_MIN, config.clock.now());
    let mut failures = Failures::default();
    loop {
        let endpoint = &config.endpoints[at % config.endpoints.len()];
        let mut has_frame = false;
        let end = tokio::select! {
            () = frames.closed() => return,
            end = connection(&config, endpoint, &selector, &mut resume, &frames, &mut has_frame) => end,
        };
        if has_frame {
            (pause, last_frame, failures) = (PAUSE_MIN, config.clock.now(), Failures::default());
        }
        let End::Broken(Broken { refusal, failure }) = end else { return };
        if matches!(refusal.kind, RefusalKind::Invalid | RefusalKind::Denied | RefusalKind::Unauthenticated) {
            // The caller may be gone.
            let _ = frames.send(Err(Error::from_refusal(refusal))).await;
            return;
        }
        tracing::debug!(%endpoint, reason = refusal.message, "a watch continues at another node");
        failures.note(failure);
        if config.clock.now().saturating_sub(last_frame) >= HOPELESS_AFTER {
            last_frame = config.clock.now();
            let _ = frames.send(Err(Error::from_refusal(refusal).with_endpoints(&failures))).await;
        }
        at += 1;
        tokio::select! {
            () = frames.closed() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn connection(
    config: &Config,
    endpoint: &str,
    selector: &Selector,
    resume: &mut Resume,
    frames: &mpsc::Sender<Result<WatchFrame, Error>>,
    has_frame: &mut bool,
) -> End {
    let request = wire::watch_to(&resume.request(selector, config.seen.get()));
    let broken = |status: &tonic::Status| End::Broken(of_status(endpoint, status));
    let silent = || End::Broken(Broken::late(endpoint, SILENT_MAX));
    let begin = async {
        let link = config.dial(endpoint).connect().await.map_err(End::Broken)?;
        sessions(link).watch(request).await.map_err(|status| broken(&status))
    };
    let mut messages = match tokio::time::timeout(SILENT_MAX, begin).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(end)) => return end,
        Err(_) => return silent(),
    };
    loop {
        let frame = match tokio::time::timeout(SILENT_MAX, messages.message()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return End::Broken(Broken::unavailable(endpoint, "the node ended the watch")),
            Ok(Err(status)) => return broken(&status),
            Err(_) => return silent(),
        };
        let mut frame = match wire::watch_frame_from(frame) {
            Ok(frame) => frame,
            Err(Refusal { message, .. }) => return End::Broken(Broken::unavailable(endpoint, &message)),
        };
        *has_frame = true;
        resume.take(&mut frame);
        if let Some(revision) = frame.revision {
            config.seen.note(Position { cluster_id: frame.cluster_id, revision });
        }
        if frames.send(Ok(frame)).await.is_err() {
            return End::Dropped;
        }
    }
}

/// A node of an older release refuses a call it does not know as one that is wrong; another node may know it.
fn of_status(endpoint: &str, status: &tonic::Status) -> Broken {
    if status.code() == tonic::Code::Unimplemented {
        return Broken::unavailable(endpoint, "this node's release has no watch");
    }
    Broken::of_status(endpoint, status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClusterId, Revision};

    /// During a rolling upgrade the watch continues at a node that has it.
    #[test]
    fn a_node_that_does_not_know_the_call_does_not_end_a_watch() {
        let unknown = wire::unread(&tonic::Status::unimplemented(""));
        assert_eq!(Broken::of_status("a:1", &unknown).refusal.kind, RefusalKind::Invalid);
        assert_eq!(of_status("a:1", &unknown).refusal.kind, RefusalKind::Unavailable);
        let denied = wire::status_from_refusal(&Refusal::not_applied(RefusalKind::Denied, "not this"));
        assert_eq!(of_status("a:1", &denied).refusal.kind, RefusalKind::Denied);
    }

    fn frame(revision: Option<u64>, resync: bool, walked: bool) -> WatchFrame {
        let cluster_id = ClusterId([1; 16]);
        let revision = revision.map(Revision);
        WatchFrame { cluster_id, revision, changes: Vec::new(), complete: false, resync, walked, age_ms: None }
    }

    fn asked(resume: &mut Resume) -> (Option<u64>, bool) {
        let watch = resume.request(&Selector::Prefix(String::new()), None);
        (watch.from.map(|from| from.revision.0), watch.initial)
    }

    /// A walk that breaks off is begun again, and says `resync`: what was shown of it may be gone.
    #[test]
    fn a_broken_walk_is_begun_again_and_all_else_is_continued() {
        let mut resume = Resume::new(None, true);
        assert_eq!(asked(&mut resume), (None, true));
        let mut first = frame(None, false, false);
        resume.take(&mut first);
        assert!(!first.resync);
        assert_eq!(asked(&mut resume), (None, true), "the walk broke off");
        let mut again = frame(None, false, false);
        resume.take(&mut again);
        assert!(again.resync);
        let mut last = frame(Some(7), false, true);
        resume.take(&mut last);
        assert!(!last.resync);
        assert_eq!(asked(&mut resume), (Some(7), false));
        // An older place whose deletions are known is continued from there.
        resume.take(&mut frame(None, false, false));
        assert_eq!(asked(&mut resume), (Some(7), false));
        resume.take(&mut frame(None, true, false));
        assert_eq!(asked(&mut resume), (None, true), "a resync broke off");
        let mut whole = frame(Some(9), false, true);
        resume.take(&mut whole);
        assert!(whole.resync, "the frame that is the first is the last too");
        assert_eq!(asked(&mut resume), (Some(9), false));
    }

    #[test]
    fn a_watch_of_what_changes_from_now_on_continues_from_its_first_frame() {
        let mut resume = Resume::new(None, false);
        assert_eq!(asked(&mut resume), (None, false));
        resume.take(&mut frame(Some(3), false, false));
        assert_eq!(asked(&mut resume), (Some(3), false));
    }
}
