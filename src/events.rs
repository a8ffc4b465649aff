//! Not part of the interface: any release may change it.
//!
//! A node's memory of its past: its last 1 000 events, in a bounded file that survives a restart.
//!
//! Notes are taken in memory and written at most once a second, the whole file at a time beside the old one: a crash loses the last
//! second of them, never the file. It is for people: whatever the file holds, and whatever the disk says, the node continues.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::env::{Blocking, Disk, Env, Locked as _, Stop, replace_file};
use crate::limits::intervals;

const FILE: &str = "events";
/// Events kept.
const COUNT_MAX: usize = 1000;
/// Bytes of one event's text.
const DETAIL_BYTES_MAX: usize = 200;
/// A longer file is none of ours.
const FILE_BYTES_MAX: u64 = 1 << 20;
const _: () = assert!(COUNT_MAX * (DETAIL_BYTES_MAX + 64) <= FILE_BYTES_MAX as usize);
/// Between two writes of the file.
const INTERVAL: Duration = Duration::from_secs(1);

/// Something that happened on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// This node's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// One word, e.g. `leader`.
    pub kind: String,
    /// For people, values as `key=value`. Never a session's id or content.
    pub detail: String,
}

/// The events of one node.
pub struct Events {
    env: Env,
    dir: PathBuf,
    journal: Mutex<Journal>,
}

#[derive(Default)]
struct Journal {
    events: VecDeque<Event>,
    refusals: BTreeMap<&'static str, Refusals>,
    dirty: bool,
}

/// Refusals of one kind that were not noted yet.
#[derive(Default)]
struct Refusals {
    noted_ms: Option<u64>,
    since: u64,
}

impl Refusals {
    /// Whether the last note is too young for another.
    fn is_fresh(&self, at_ms: u64) -> bool {
        self.noted_ms.is_some_and(|noted_ms| u128::from(at_ms.saturating_sub(noted_ms)) < intervals().refusals.as_millis())
    }
}

impl Events {
    /// Reads the events of earlier runs in `dir`; unparsable lines are ignored. Blocks on the disk.
    pub fn open(env: &Env, dir: &Path) -> Self {
        let kept = match read(&*env.disk, &dir.join(FILE)) {
            Ok(bytes) => Journal { events: parse(&bytes), ..Journal::default() },
            Err(error) => {
                tracing::warn!(%error, "the events of earlier runs can't be read");
                Journal::default()
            }
        };
        Self { env: env.clone(), dir: dir.to_owned(), journal: Mutex::new(kept) }
    }

    /// All that are kept, oldest first.
    pub fn all(&self) -> Vec<Event> {
        self.journal.locked().events.iter().cloned().collect()
    }

    /// Takes a note.
    pub fn note(&self, kind: &str, detail: impl Into<String>) {
        let at_ms = self.env.clock.wall_ms();
        self.journal.locked().add(at_ms, kind, detail.into());
    }

    /// Counts a refusal; the first of its kind is noted at once, then their number once a minute.
    pub fn refused(&self, kind: &'static str) {
        let at_ms = self.env.clock.wall_ms();
        let mut kept = self.journal.locked();
        let refusals = kept.refusals.entry(kind).or_default();
        refusals.since += 1;
        if !refusals.is_fresh(at_ms) {
            kept.tell(at_ms, kind);
        }
    }

    /// Notes the refusals that were counted since the last note of their kind, where that is long enough ago. A storm that ended is
    /// noted in full by this, and not only with the next refusal.
    fn tell_refusals(&self) {
        let at_ms = self.env.clock.wall_ms();
        let mut kept = self.journal.locked();
        let is_due = |refusals: &Refusals| refusals.since > 0 && !refusals.is_fresh(at_ms);
        let due: Vec<&'static str> = kept.refusals.iter().filter(|(_, refusals)| is_due(refusals)).map(|(kind, _)| *kind).collect();
        due.into_iter().for_each(|kind| kept.tell(at_ms, kind));
    }

    /// Writes the file where something was noted. Blocks on the disk.
    pub fn save(&self) {
        let text = {
            let mut kept = self.journal.locked();
            if !std::mem::take(&mut kept.dirty) {
                return;
            }
            text(&kept.events)
        };
        if let Err(error) = replace_file(&*self.env.disk, &self.dir, FILE, &text) {
            tracing::debug!(%error, "the events can't be written; it is tried again with the next one");
        }
    }
}

impl Journal {
    fn tell(&mut self, at_ms: u64, kind: &'static str) {
        let refusals = self.refusals.entry(kind).or_default();
        let count = std::mem::take(&mut refusals.since);
        refusals.noted_ms = Some(at_ms);
        self.add(at_ms, "refused", format!("kind={kind} count={count}"));
    }

    fn add(&mut self, at_ms: u64, kind: &str, mut detail: String) {
        detail.retain(|c| !c.is_control());
        let end = detail.floor_char_boundary(DETAIL_BYTES_MAX);
        detail.truncate(end);
        self.events.push_back(Event { at_ms, kind: kind.to_owned(), detail });
        if self.events.len() > COUNT_MAX {
            self.events.pop_front();
        }
        self.dirty = true;
    }
}

/// Writes what was noted, once a second.
pub async fn run(events: Arc<Events>, blocking: Blocking, stop: Stop) {
    stop.or(async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            events.tell_refusals();
            if events.journal.locked().dirty {
                let events = events.clone();
                blocking.call(move || events.save()).await;
            }
        }
    })
    .await;
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    if !disk.exists(path)? {
        return Ok(Vec::new());
    }
    let file = disk.open(path)?;
    let len = file.len()?;
    if len > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the file is too long bytes={len} limit={FILE_BYTES_MAX}")));
    }
    let mut bytes = vec![0; len as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// One line each: time, kind, detail, between tabs. No field holds a control character.
fn text(events: &VecDeque<Event>) -> String {
    let mut text = String::new();
    for Event { at_ms, kind, detail } in events {
        let _ = writeln!(text, "{at_ms}\t{kind}\t{detail}");
    }
    text
}

fn parse(bytes: &[u8]) -> VecDeque<Event> {
    let mut events: VecDeque<Event> = bytes.split(|byte| *byte == b'\n').filter_map(parse_line).collect();
    events.drain(..events.len().saturating_sub(COUNT_MAX));
    events
}

fn parse_line(line: &[u8]) -> Option<Event> {
    let mut fields = std::str::from_utf8(line).ok()?.splitn(3, '\t');
    let at_ms = fields.next()?.parse().ok()?;
    let (kind, detail) = (fields.next()?, fields.next()?);
    let is_plain = |text: &str| text.len() <= DETAIL_BYTES_MAX && !text.chars().any(char::is_control);
    (is_plain(kind) && is_plain(detail)).then(|| Event { at_ms, kind: kind.to_owned(), detail: detail.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::disk::{Crash, SimDisk};
    use crate::testing::inline::SimEnv;

    fn events(disk: &SimDisk) -> Events {
        disk.create_dir_all(Path::new("/data")).expect("no fault is set");
        Events::open(&SimEnv::new(disk, 1).env, Path::new("/data"))
    }

    #[test]
    fn the_last_thousand_survive_a_restart() {
        let disk = SimDisk::new();
        let before = events(&disk);
        (0..COUNT_MAX + 7).for_each(|number| before.note("leader", format!("term={number}\n\u{1b}[31m{}", "x".repeat(500))));
        before.save();
        let after = events(&disk.crash(Crash::Kept, 0)).all();
        assert_eq!(after, before.all());
        assert_eq!((after.len(), &after[0].detail[..7]), (COUNT_MAX, "term=7["));
        assert!(after.iter().all(|event| event.detail.len() <= DETAIL_BYTES_MAX));
    }

    #[test]
    fn a_storm_of_refusals_is_one_event() {
        let events = events(&SimDisk::new());
        (0..10_000).for_each(|_| events.refused("overloaded"));
        events.refused("no_leader");
        let details: Vec<String> = events.all().into_iter().map(|event| event.detail).collect();
        assert_eq!(details, ["kind=overloaded count=1", "kind=no_leader count=1"]);

        events.tell_refusals();
        assert_eq!(events.all().len(), 2, "not before its time");
        events.journal.locked().refusals.values_mut().for_each(|refusals| refusals.noted_ms = None);
        events.tell_refusals();
        events.tell_refusals();
        let details: Vec<String> = events.all().into_iter().skip(2).map(|event| event.detail).collect();
        assert_eq!(details, ["kind=overloaded count=9999"], "the rest of the storm, once");
    }

    #[test]
    fn whatever_the_file_holds_is_events_or_nothing() {
        assert!(parse(b"\xff\xfe\n\n\t\t\n12\n12\tx\nx\ty\tz\n99999999999999999999999\ta\tb\n1\ta\x1b\tb").is_empty());
        let whole = text(&VecDeque::from([Event { at_ms: 7, kind: "leader".into(), detail: "term=1".into() }])).into_bytes();
        for at in 0..whole.len() {
            parse(&whole[..at]);
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                parse(&flipped);
            }
        }
        let many = b"1\ta\tb\n".repeat(5000);
        assert_eq!(parse(&many).len(), COUNT_MAX);
    }

    #[test]
    fn a_disk_that_fails_costs_events_and_nothing_else() {
        for halt in 0..20 {
            let disk = SimDisk::new();
            let events = events(&disk);
            events.note("leader", "term=1");
            disk.halt_after(halt);
            events.save();
            assert_eq!(events.all().len(), 1);
        }
    }
}
