//! The report of a run: text for a terminal, and a page for a browser that needs nothing else.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::chaos::args::Options;
use crate::chaos::audit::Audited;
use crate::chaos::figures::Figures;
use crate::chaos::nemesis::{Fault, Status};

/// What a run comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Faults were there, and nothing is wrong.
    Passed,
    /// Something is wrong.
    Failed,
    /// Too few faults were there: nothing is proved.
    NothingProved,
}

/// All that is reported of a run.
pub struct Report<'a> {
    /// What was asked.
    pub options: &'a Options,
    /// The commit, or that it is not known.
    pub commit: &'a str,
    /// How packets were lost.
    pub cut: &'a str,
    /// Every fault.
    pub faults: &'a [Fault],
    /// The history in numbers.
    pub figures: &'a Figures,
    /// Turns: all, acknowledged, not known.
    pub turns: (usize, usize, usize),
    /// What became of attempts.
    pub audited: &'a Audited,
    /// Clients that reach one node only, and the writes of such callers that were acknowledged.
    pub pinned: (usize, usize),
    /// What is wrong.
    pub findings: &'a [String],
    /// How long faults went on.
    pub lasted: Duration,
}

impl Report<'_> {
    /// Faults that were there.
    pub fn installed(&self) -> usize {
        self.faults.iter().filter(|fault| matches!(fault.status, Status::Installed(_))).count()
    }

    /// By what was found, then by how much was tried.
    pub fn verdict(&self) -> Verdict {
        // Where something was refused, it was judged.
        let judged_min = self.options.attempts_min.max(u64::from(self.audited.refused > 0));
        let (pinned, served) = self.pinned;
        let is_enough =
            self.installed() >= self.options.faults_min.max(1) && self.audited.judged >= judged_min && (pinned == 0 || served > 0);
        match (self.findings.is_empty(), is_enough) {
            (false, _) => Verdict::Failed,
            (true, true) => Verdict::Passed,
            (true, false) => Verdict::NothingProved,
        }
    }

    /// One fault a line is said while it happens; this is the end.
    pub fn text(&self) -> String {
        let Self { figures, options, .. } = self;
        let mut text = format!(
            "chaos nodes={} seed={} seconds={} commit={} packets_lost_by={:?}\n",
            options.nodes,
            options.seed,
            self.lasted.as_secs(),
            self.commit,
            self.cut
        );
        for (kind, [installed, skipped, indeterminate]) in self.by_kind() {
            let _ = writeln!(text, "  {kind:<14} installed={installed} skipped={skipped} indeterminate={indeterminate}");
        }
        let _ = writeln!(text, "faults: installed={} floor={}", self.installed(), options.faults_min);
        let _ = writeln!(
            text,
            "operations={} answered={} acknowledged_writes={} ambiguous={} refused={} per_second={:.0} median={:.0}ms p99={:.0}ms",
            figures.operations,
            figures.answered,
            figures.acknowledged,
            figures.ambiguous,
            figures.refused,
            figures.answered as f64 / self.lasted.as_secs_f64().max(0.001),
            figures.median.as_secs_f64() * 1e3,
            figures.p99.as_secs_f64() * 1e3
        );
        let (turns, kept, unknown) = self.turns;
        let _ = writeln!(text, "turns={turns} acknowledged={kept} ambiguous={unknown}");
        let _ = writeln!(
            text,
            "longest_gap={:.2}s gaps_over_250ms={} longest_call={:.2}s",
            figures.longest_gap().as_secs_f64(),
            figures.gaps.len(),
            figures.longest_call().as_secs_f64()
        );
        let _ = writeln!(text, "{} short_intervals={}", self.audited.line(), options.short_intervals());
        let _ = writeln!(text, "pinned_clients={} acknowledged_writes_of_pinned_callers={}", self.pinned.0, self.pinned.1);
        for finding in self.findings.iter().take(50) {
            let _ = writeln!(text, "FINDING: {finding}");
        }
        let _ = writeln!(text, "findings={} verdict={}", self.findings.len(), self.verdict().name());
        text
    }

    /// The figures in one line, for scripts that count what ran.
    pub fn summary(&self) -> String {
        let kinds = self.by_kind();
        let of = |at: usize| kinds.values().map(|counts| counts[at]).sum::<usize>();
        let shown = kinds.values().filter(|counts| counts[0] > 0).count();
        format!(
            "chaos: faults={} kinds={shown} skipped={} indeterminate={} nodes={} seconds={} operations={} acknowledged={} ambiguous={} turns={} findings={}",
            self.installed(),
            of(1),
            of(2),
            self.options.nodes,
            self.lasted.as_secs(),
            self.figures.operations,
            self.figures.acknowledged,
            self.figures.ambiguous,
            self.turns.0,
            self.findings.len()
        )
    }

    fn by_kind(&self) -> BTreeMap<&'static str, [usize; 3]> {
        let mut kinds: BTreeMap<&'static str, [usize; 3]> = BTreeMap::new();
        for fault in self.faults {
            let at = match fault.status {
                Status::Installed(_) => 0,
                Status::Skipped(_) => 1,
                Status::Indeterminate(_) => 2,
            };
            kinds.entry(fault.kind.name()).or_default()[at] += 1;
        }
        kinds
    }
}

impl Verdict {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::NothingProved => "NOTHING PROVED: too few faults were there",
        }
    }

    /// For the shell.
    pub fn code(self) -> i32 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::NothingProved => 3,
        }
    }
}

impl Fault {
    /// One line.
    pub fn line(&self) -> String {
        let (status, why) = self.status.parts();
        let served = self.served.map_or("NOT SERVED".to_owned(), |served| format!("served after {:.2} s", served.as_secs_f64()));
        let held = (self.healed - self.began).as_secs_f64();
        format!(
            "[{:7.1} s] {:<13} {status:<13} {} for {held:.1} s; {served} ({why})",
            self.began.as_secs_f64(),
            self.kind.name(),
            self.target
        )
    }
}

impl Status {
    /// The word, and how or why.
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Installed(how) => ("installed", how),
            Self::Skipped(why) => ("skipped", why),
            Self::Indeterminate(why) => ("indeterminate", why),
        }
    }
}
