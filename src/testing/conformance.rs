//! A suite for any implementation of Bob's `SessionStore`: what the port promises, case by case.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # async fn example(make: impl Fn() -> Arc<dyn bob_core::ports::SessionStore>) {
//! let report = quorate::testing::conformance::run(|| async { make() }).await;
//! assert!(report.passed(), "{report}");
//! # }
//! ```
//!
//! Each case gets its own store from the caller and uses ids nobody used before, so all of them may be the same store.

mod cases;
mod compare;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bob_core::ports::SessionStore;

pub use compare::difference;

use crate::env::{Random, SystemRandom};

/// Why a case failed.
type Failure = String;
type Running = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// The store and the session of one case.
#[derive(Clone)]
struct Subject {
    store: Arc<dyn SessionStore>,
    prefix: String,
}

impl Subject {
    /// An id nobody used before.
    fn id(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// How one case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The promise, as a sentence.
    pub name: &'static str,
    /// The observation that broke the promise; `None`: it was kept.
    pub failure: Option<String>,
}

/// How all cases went. Its text has a line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a report says whether the store passed"]
pub struct Report {
    /// The cases, in the order they ran.
    pub cases: Vec<Case>,
}

impl Report {
    /// Whether every promise was kept.
    pub fn passed(&self) -> bool {
        self.cases.iter().all(|case| case.failure.is_none())
    }

    /// Names of the promises that were not.
    pub fn failed(&self) -> Vec<&'static str> {
        self.cases.iter().filter(|case| case.failure.is_some()).map(|case| case.name).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for case in &self.cases {
            match &case.failure {
                None => writeln!(f, "ok    {}", case.name)?,
                Some(failure) => writeln!(f, "FAIL  {}: {failure}", case.name)?,
            }
        }
        write!(f, "{} of {} promises kept", self.cases.len() - self.failed().len(), self.cases.len())
    }
}

/// Runs every case, one after the other, each against a store from `make_store`. It needs a tokio runtime.
///
/// Dropping the future stops after the operation that is under way; the sessions stay.
pub async fn run<F, S>(make_store: F) -> Report
where
    F: Fn() -> S,
    S: Future<Output = Arc<dyn SessionStore>>,
{
    let mut cases = Vec::new();
    for (name, case) in cases::ALL {
        let mut random = [0; 8];
        SystemRandom.fill(&mut random);
        let subject = Subject { store: make_store().await, prefix: format!("{:016x}-", u64::from_le_bytes(random)) };
        cases.push(Case { name, failure: case(subject).await.err() });
    }
    Report { cases }
}
