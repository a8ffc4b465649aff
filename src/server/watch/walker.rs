//! The walker: one task that looks at what changed, and gives each watch that asks its next frame.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::line::Line;
use super::prefixes::Prefixes;
use super::{Begun, Watches, authorize};
use crate::limits::{WATCH_FRAME_BYTES, WATCH_INTERVAL, WATCH_PROGRESS_INTERVAL, WATCH_STEP_RECORDS, WATCH_WITHOUT_LEADER_MAX};
use crate::machine::{Bounds, Changed, Cursor, Place, Reach, Step};
use crate::server::auth::Caller;
use crate::server::context::ServerContext;
use crate::types::{ClusterId, Refusal, RefusalKind, Revision, Selector, SessionChange, WatchFrame};
use crate::wire;

/// One watch, as the walker has it.
struct Watch {
    caller: Caller,
    selector: Selector,
    cursor: Cursor,
    line: Line,
    sent_at: Duration,
    /// Whether its last frame said that something was newer, or there was none yet.
    owes_complete: bool,
}

/// The task's state.
struct Walker {
    watches: Watches,
    context: ServerContext,
    open: BTreeMap<u64, Watch>,
    prefixes: Prefixes,
    /// All up to here was looked at for those who are at the end; `None`: nobody watches.
    place: Option<Place>,
    /// Since when this node does not know how old its state is.
    without_age_since: Option<Duration>,
}

/// Runs until `stop`; then every watch ends, and its client resumes elsewhere.
pub async fn run(context: ServerContext, mut stop: watch::Receiver<bool>) {
    let watches = context.watches().clone();
    let mut walker = Walker {
        watches: watches.clone(),
        context,
        open: BTreeMap::new(),
        prefixes: Prefixes::default(),
        place: None,
        without_age_since: None,
    };
    let mut rounds = tokio::time::interval(WATCH_INTERVAL);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            () = watches.0.wake.notified() => walker.take_new(),
            _ = rounds.tick(), if !walker.open.is_empty() => {
                walker.take_new();
                walker.end_without_leader();
                while walker.round() {
                    tokio::task::yield_now().await;
                }
            }
        }
        let keys: Vec<u64> = walker.open.keys().copied().collect();
        for key in keys {
            if walker.step(key) {
                tokio::task::yield_now().await;
            }
        }
    }
    walker.take_new();
    walker.end_all(&Refusal::not_applied(RefusalKind::Unavailable, "the node is stopping: resume the watch at another one"));
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Walker {
    fn take_new(&mut self) {
        let new = std::mem::take(&mut self.watches.registered().new);
        for Begun { key, caller, selector, cursor, line } in new {
            self.prefixes.add(key, &selector);
            let sent_at = self.context.now();
            self.open.insert(key, Watch { caller, selector, cursor, line, sent_at, owes_complete: true });
        }
        let closed: Vec<u64> = self.open.iter().filter(|(_, watch)| watch.line.is_closed()).map(|(key, _)| *key).collect();
        closed.into_iter().for_each(|key| self.remove(key));
        if self.open.is_empty() {
            self.place = None;
        }
    }

    fn remove(&mut self, key: u64) {
        if let Some(watch) = self.open.remove(&key) {
            self.prefixes.remove(key, &watch.selector);
        }
    }

    fn end_all(&mut self, refusal: &Refusal) {
        for watch in self.open.values() {
            watch.line.end(Err(wire::status_from_refusal(refusal)));
        }
        self.open.clear();
        (self.prefixes, self.place) = (Prefixes::default(), None);
    }

    /// Ends all watches of a node that lags behind: its clients go elsewhere.
    fn end_without_leader(&mut self) {
        let now = self.context.now();
        let for_so_long = match self.context.node().stale_ms() {
            Some(age_ms) => {
                self.without_age_since = None;
                Duration::from_millis(age_ms)
            }
            None => now.saturating_sub(*self.without_age_since.get_or_insert(now)),
        };
        if for_so_long > WATCH_WITHOUT_LEADER_MAX && !self.open.is_empty() {
            let message =
                format!("this node has heard of no leader for_ms={}: resume the watch at another node", for_so_long.as_millis());
            self.end_all(&Refusal::not_applied(RefusalKind::NoLeader, message));
        }
    }

    /// Looks once at what changed, for all watches that are at the end. Whether more is there.
    fn round(&mut self) -> bool {
        if self.open.is_empty() {
            return false;
        }
        let prefixes = &self.prefixes;
        let before = self.place.take();
        let (changed, now_ms) = self.context.node().look(|machine, now_ms| {
            let before = before.clone().unwrap_or_else(|| Place::after(machine.revision()));
            let changed = (machine.reach(before.whole()) == Reach::Changes)
                .then(|| machine.changes_after(&before, Bounds::of_records(WATCH_STEP_RECORDS), |id| prefixes.concerns(id)));
            // What is not known any more is shown by steps of each watch.
            let nothing = || Changed { changes: Vec::new(), place: Place::after(machine.revision()), at_end: true };
            (changed.ok_or_else(nothing), now_ms)
        });
        let (Changed { changes, place, at_end }, is_known) = match changed {
            Ok(changed) => (changed, true),
            Err(nothing) => (nothing, false),
        };
        if let Some(before) = before.filter(|_| is_known) {
            self.hand_out(&before, changes, &place, at_end, now_ms);
        }
        self.place = Some(place);
        !at_end
    }

    /// Gives each watch that was at `before` what concerns it. One that does not ask, or for which it is too much for a frame, stays
    /// behind.
    fn hand_out(&mut self, before: &Place, changes: Vec<(Revision, SessionChange)>, place: &Place, at_end: bool, now_ms: u64) {
        let mut theirs: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (n, (_, change)) in changes.iter().enumerate() {
            self.prefixes.each(change.id(), |key| theirs.entry(key).or_default().push(n));
        }
        let keys: Vec<u64> = self.open.keys().copied().collect();
        for key in keys {
            let Some(watch) = self.open.get_mut(&key) else { continue };
            let Cursor::At(at) = &mut watch.cursor else { continue };
            if !at.has_reached(before) || at.has_reached(place) {
                continue;
            }
            let of_it = theirs.remove(&key).unwrap_or_default().into_iter().map(|n| &changes[n]);
            let mine: Vec<SessionChange> =
                of_it.filter(|(revision, change)| at.is_before(*revision, change.id())).map(|(_, change)| change.clone()).collect();
            let bytes = mine.iter().map(SessionChange::bytes).sum::<u64>();
            let fits = watch.line.asks() && bytes < WATCH_FRAME_BYTES;
            if mine.is_empty() {
                *at = place.clone();
            } else if fits {
                *at = place.clone();
                let step = Step { changes: mine, revision: Some(place.whole()), complete: at_end, ..Step::default() };
                self.give(key, step, now_ms);
            }
        }
    }

    /// One step of a watch that asks and is behind, or is to hear that all is well. Whether the machine was looked at.
    fn step(&mut self, key: u64) -> bool {
        let now = self.context.now();
        let Some(watch) = self.open.get_mut(&key) else { return false };
        let is_at_end = match (&watch.cursor, &self.place) {
            (Cursor::At(at), Some(place)) => at.has_reached(place),
            (Cursor::At(_), None) => true,
            _ => false,
        };
        let is_late = now.saturating_sub(watch.sent_at) >= WATCH_PROGRESS_INTERVAL;
        if (is_at_end && !watch.owes_complete && !is_late) || !watch.line.asks_or_will() {
            return false;
        }
        let (step, now_ms) = self.context.node().look(|machine, now_ms| (watch.cursor.step(machine, &watch.selector), now_ms));
        let is_due = step.complete && watch.owes_complete || is_late && step.revision.is_some();
        if step.says_something() || is_due {
            self.give(key, step, now_ms);
        } else {
            // Nothing of it is this watch's: on with it, others in between.
            self.watches.asked();
        }
        true
    }

    fn give(&mut self, key: u64, step: Step, now_ms: u64) {
        let Some(watch) = self.open.get_mut(&key) else { return };
        let cluster_id = self.context.node().cluster_id().unwrap_or(ClusterId([0; 16]));
        if let Err(refusal) = authorize(self.context.guard(), &watch.caller, &watch.selector) {
            watch.line.end(Err(wire::status_from_refusal(&refusal)));
            return self.remove(key);
        }
        watch.sent_at = self.context.now();
        watch.owes_complete = !step.complete;
        let Step { mut changes, revision, complete, resync, walked } = step;
        for change in &mut changes {
            if let SessionChange::Saved { info, .. } = change {
                info.set_remaining(now_ms);
            }
        }
        let age_ms = self.context.node().stale_ms();
        self.watches.sent(resync);
        let frame = WatchFrame { cluster_id, revision, changes, complete, resync, walked, age_ms };
        watch.line.give(wire::watch_frame_to(&frame));
    }
}
