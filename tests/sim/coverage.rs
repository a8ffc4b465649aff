//! "Sometimes": what a set of seeds must have seen. Counted from what nodes and clients log, by the nemesis and by the driver.
//!
//! One process runs one seed, so the counts are the process's. `tests/sim/sometimes.txt` lists the points with their floors.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::{attempts, invariants};

static SEEN: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// What is logged, and the point it is.
const EVENTS: &[(&str, &str)] = &[
    ("the log ends in a torn batch, which is cut", "torn tail repaired"),
    ("the disk has no room for the log, trying again", "no room for the log"),
    ("the disk has no room for a flush, trying again", "no room for a flush"),
    ("a call is parked", "call parked"),
    ("installed a snapshot", "snapshot installed"),
    ("a delta's base is not what is stored", "delta base mismatch"),
    ("a turn was rebased", "rebase"),
    ("handing leadership over", "leadership handed over"),
    ("taking over from a lost leader", "lost leader replaced at once"),
    ("every member reads the next cluster version: proposing it", "cluster version proposed"),
    ("refused a peer's call", "foreign peer refused"),
    ("proposing a change of the members", "change of members proposed"),
    ("ending a change of the members that was left half made", "half a change ended"),
    ("the disk of this node hangs", "hung disk seen"),
    ("members with a full disk are spared; the others are enough", "full member spared"),
    ("the leader's disk is full: a voter with room takes over", "full leader handed over"),
    ("too few voters have room on their disks: saves are refused", "saves refused for want of room"),
    ("no majority of the voters answers this leader: it is none until one does", "leader without a quorum"),
    ("a majority of the voters answers this leader again", "leader with a quorum again"),
    ("the state of this node is rebuilt from the leader; it serves nothing until then", "corruption found"),
    ("the state of this node is rebuilt", "node rebuilt"),
];

/// Counts a point.
pub fn sometimes(point: &'static str) {
    *SEEN.lock().expect("nobody panics with it").entry(point).or_default() += 1;
}

/// What was seen so far.
pub fn seen() -> BTreeMap<&'static str, u64> {
    SEEN.lock().expect("nobody panics with it").clone()
}

struct Points;

/// What is read of one event.
#[derive(Default)]
struct Fields {
    message: String,
    flags: Vec<(&'static str, bool)>,
    numbers: Vec<(&'static str, u64)>,
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.flags.push((field.name(), value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.numbers.push((field.name(), value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Points {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        EVENTS.iter().filter(|(message, _)| *message == fields.message).for_each(|(_, point)| sometimes(point));
        let has = |name: &str| fields.flags.iter().any(|(field, is_set)| *field == name && *is_set);
        let number = |name: &str| fields.numbers.iter().find(|(field, _)| *field == name).map_or(0, |(_, number)| *number);
        match fields.message.as_str() {
            "proposing a change of the members" => invariants::proposed(),
            "granted a vote" => invariants::granted(number("node"), number("term")),
            "an attempt of a write begins" => attempts::begun((number("client"), number("sequence"))),
            "an attempt of a write was refused" => {
                sometimes("attempt refused");
                attempts::refused((number("client"), number("sequence")));
            }
            "the cluster forgot this client, another is opened" => {
                sometimes("client expired and reopened");
                attempts::forgotten(number("client"));
            }
            "a call is forwarded" if has("is_write") => sometimes("write forwarded"),
            "an ambiguous write was settled by a retry" if has("is_conflict") => sometimes("conflict after retry"),
            "an ambiguous write was settled by a retry" => sometimes("ambiguous write retried"),
            "the room on this node's disk crossed the bound below which it takes no content" if has("low") => {
                sometimes("full disk seen")
            }
            "the room on this node's disk crossed the bound below which it takes no content" => sometimes("full disk healed"),
            "swept" => {
                for (name, point) in
                    [("sessions", "session expired"), ("clients", "client swept"), ("tombstones", "tombstone swept")]
                {
                    if fields.numbers.iter().any(|(field, count)| *field == name && *count > 0) {
                        sometimes(point);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Counts from now on; with `SIM_LOG`, a filter, what nodes log is printed too, with virtual time.
pub fn start() {
    struct Virtual;
    impl tracing_subscriber::fmt::time::FormatTime for Virtual {
        fn format_time(&self, to: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
            write!(to, "{:>9.3}", turmoil::sim_elapsed().unwrap_or_default().as_secs_f64())
        }
    }
    let points = Points.with_filter(Targets::new().with_target("quorate", tracing::Level::TRACE));
    let registry = tracing_subscriber::registry().with(points);
    if std::env::var_os("SIM_LOG").is_none() {
        return registry.init();
    }
    let filter = tracing_subscriber::EnvFilter::from_env("SIM_LOG");
    let print = tracing_subscriber::fmt::layer().with_timer(Virtual).with_writer(std::io::stderr).with_ansi(false);
    registry.with(print.with_filter(filter)).init();
}

/// A point that no run has to see is not looked at: each that the code counts has a floor, and no floor is 0.
#[test]
fn every_point_has_a_floor() {
    let sources = [
        include_str!("audit.rs"),
        include_str!("coverage.rs"),
        include_str!("eras.rs"),
        include_str!("leases.rs"),
        include_str!("listing.rs"),
        include_str!("minority.rs"),
        include_str!("nemesis.rs"),
        include_str!("node.rs"),
        include_str!("operator.rs"),
        include_str!("turns.rs"),
        include_str!("workload.rs"),
    ];
    let called = |needle: &str| {
        let after = sources.iter().flat_map(|source| source.split(needle).skip(1).collect::<Vec<_>>());
        after.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut points = called(concat!("some", "times(\""));
    points.extend(called(concat!("count(sim", ", \"")));
    points.extend(EVENTS.iter().map(|(_, point)| (*point).to_owned()));
    assert!(points.len() > 30, "{points:?}");
    let floor = |line: &str| line.split_once(' ').and_then(|(floor, point)| Some((point.to_owned(), floor.parse::<u64>().ok()?)));
    let floors: BTreeMap<String, u64> = include_str!("sometimes.txt").lines().filter_map(floor).collect();
    for point in points {
        assert!(floors.contains_key(&point), "no floor in sometimes.txt: {point}");
    }
    let open: Vec<&String> = floors.iter().filter(|(_, floor)| **floor == 0).map(|(point, _)| point).collect();
    assert!(open.is_empty(), "a run that sees none of these passes: {open:?}");
}
