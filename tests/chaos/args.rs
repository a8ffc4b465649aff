//! What a run is asked to do.

use std::path::PathBuf;
use std::time::Duration;

use crate::chaos::plan::Kind;

/// A run of CI judges so many refused attempts at least.
const CI_ATTEMPTS_MIN: u64 = 40;

/// The options of a run, as `scripts/chaos/run.sh` documents them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// 3 or 5.
    pub nodes: usize,
    /// How long faults go on.
    pub duration: Duration,
    /// Faults end after so many, if that is sooner.
    pub faults_max: usize,
    /// Fewer installed faults prove too little.
    pub faults_min: usize,
    /// How long each fault stays; none: as long as its kind does.
    pub hold: Option<Duration>,
    /// No call may take longer or end without a known outcome. Callers have the client's own deadlines then, and none walks away.
    pub call_max: Option<Duration>,
    /// Fewer refused attempts that were compared with the entries of the log prove too little.
    pub attempts_min: u64,
    /// Which faults; empty: all that fit.
    pub kinds: Vec<Kind>,
    /// Decides every choice of the run that time does not.
    pub seed: u64,
    /// Faults that need root are allowed.
    pub root: bool,
    /// Disks lie on purpose, and the run must find out.
    pub control: bool,
    /// Where runs keep their files. Never a tmpfs.
    pub dir: PathBuf,
}

impl Options {
    /// Whether the long intervals of nodes and clients pass in seconds: by the seed in a third of all runs. Where calls are bounded a client
    /// that is away for so long would be one more reason for an unknown outcome.
    pub fn short_intervals(&self) -> bool {
        self.call_max.is_none() && self.seed.is_multiple_of(3)
    }

    /// Short and small, for `cargo test`.
    pub fn small(dir: PathBuf) -> Self {
        let all = Self::parse([], dir).expect("every option has a default");
        let kinds = vec![Kind::KillLeader, Kind::CutLeader, Kind::PauseLeader];
        Self { duration: Duration::from_secs(60), faults_max: 3, faults_min: 3, kinds, seed: 1, ..all }
    }

    /// Reads words as a shell has split them. Errors: what is wrong, in one line.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>, dir: PathBuf) -> Result<Self, String> {
        let mut options = Self {
            nodes: 3,
            duration: Duration::from_secs(300),
            faults_max: usize::MAX,
            faults_min: 1,
            hold: None,
            call_max: None,
            attempts_min: 0,
            kinds: Vec::new(),
            seed: crate::chaos::world::now_ms() % 1_000_000,
            root: false,
            control: false,
            dir,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word {
                "--nodes" => options.nodes = number(word, value()?)?,
                "--minutes" => options.duration = minutes(value()?)?,
                "--hold" => options.hold = Some(seconds(word, value()?)?),
                "--call-max" => options.call_max = Some(seconds(word, value()?)?),
                "--faults" => options.faults_max = number(word, value()?)?,
                "--seed" => options.seed = number(word, value()?)?,
                "--dir" => options.dir = PathBuf::from(value()?),
                "--nemesis" => options.kinds = value()?.split(',').map(Kind::parse).collect::<Result<_, _>>()?,
                "--root" => options.root = true,
                "--control" => (options.root, options.control) = (true, true),
                // 8 minutes with starting, healing and checking.
                "--ci" => {
                    (options.duration, options.faults_max, options.faults_min) = (Duration::from_secs(450), 66, 60);
                    options.attempts_min = CI_ATTEMPTS_MIN;
                }
                other => return Err(format!("unknown option: {other}")),
            }
        }
        if ![3, 5].contains(&options.nodes) {
            return Err(format!("--nodes must be 3 or 5: nodes={}", options.nodes));
        }
        if let Some(kind) = options.kinds.iter().find(|kind| kind.needs_root() && !options.root) {
            return Err(format!("--nemesis {} needs --root", kind.name()));
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{name} must be a number: {text:?}"))
}

fn seconds(name: &str, text: &str) -> Result<Duration, String> {
    let seconds: f64 = number(name, text)?;
    if !(0.1..=600.0).contains(&seconds) {
        return Err(format!("{name} must be between 0.1 and 600 seconds: {text}"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = number("--minutes", text)?;
    if !(0.1..=600.0).contains(&minutes) {
        return Err(format!("--minutes must be between 0.1 and 600: {text}"));
    }
    Ok(Duration::from_secs_f64(minutes * 60.0))
}

#[test]
fn options_are_read_and_what_makes_no_sense_is_refused() {
    let parse = |text: &str| Options::parse(text.split_whitespace(), PathBuf::from("x"));
    let options = parse("--nodes 5 --minutes 1.5 --nemesis kill-leader,pause-one --seed 7").expect("valid");
    assert_eq!((options.nodes, options.duration, options.seed), (5, Duration::from_secs(90), 7));
    assert_eq!(options.kinds, [Kind::KillLeader, Kind::PauseOne]);
    assert_eq!((options.hold, options.call_max), (None, None));
    let options = parse("--nemesis cut-leader --hold 20 --call-max 5").expect("valid");
    assert_eq!((options.hold, options.call_max), (Some(Duration::from_secs(20)), Some(Duration::from_secs(5))));
    for bad in [
        "--nodes 4",
        "--nodes",
        "--minutes 0",
        "--hold 0",
        "--call-max soon",
        "--nemesis dragons",
        "--nemesis power-loss",
        "--what",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    assert!(parse("--root --nemesis power-loss").is_ok());
}
