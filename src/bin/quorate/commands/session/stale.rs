//! Reads without a quorum, and how old what they show may be.

use std::io::Write;
use std::time::Duration;

use quorate::types::Consistency;

/// The guarantee that `--stale` asks for.
pub fn consistency(stale: bool) -> Consistency {
    if stale { Consistency::Stale } else { Consistency::Linearizable }
}

/// Says on stderr how old the answer may be: by how long the node that gave it may lack what was acknowledged.
pub fn tell(age: Option<Duration>) {
    let text = match age {
        Some(age) => format!(
            "stale: writes acknowledged until {} ago are in it; later ones may be missing",
            humantime::format_duration(rounded(age))
        ),
        None => "stale: the node has heard of no leader since it started; how old this is, is unknown".into(),
    };
    // With stderr gone nobody is left to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn rounded(age: Duration) -> Duration {
    match age.as_secs() {
        0 => Duration::from_millis(age.as_millis() as u64),
        seconds => Duration::from_secs(seconds),
    }
}
