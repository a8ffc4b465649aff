//! The verdicts of `benches/peers`: ratios are within a round, and what was not measured was not reached.

#[path = "../../benches/peers/figures.rs"]
#[allow(dead_code, reason = "the driver uses the rest")]
mod figures;

/// The stores, as the driver names them.
mod stores {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Kind {
        Quorate,
        Etcd,
        Postgres,
    }
}

use figures::{BARS, Cell, Figures, Measured, Metric, compared, verdicts, workload};
use stores::Kind;

const CELL: Cell = Cell { workload: workload::SAVES, callers: 64 };

fn run(round: usize, kind: Kind, rate: f64, cpu: f64) -> Measured {
    let figures = Figures::from([(Metric::Rate, rate), (Metric::CpuMsPerOp, cpu)]);
    Measured { cell: CELL, round, kind, figures }
}

/// The machine was twice as fast in the second round: the ratio does not care.
#[test]
fn ratios_are_within_a_round() {
    let runs = [
        run(0, Kind::Quorate, 50.0, 1.0),
        run(0, Kind::Etcd, 10.0, 5.0),
        run(1, Kind::Quorate, 120.0, 1.0),
        run(1, Kind::Etcd, 20.0, 8.0),
        run(2, Kind::Quorate, 7.0, 1.0),
    ];
    let ratio = compared(&runs, CELL, Kind::Quorate, Metric::Rate, Some(Kind::Etcd)).expect("two rounds have both");
    assert_eq!((ratio.min, ratio.median, ratio.max), (5.0, 5.5, 6.0));
    let cpu = compared(&runs, CELL, Kind::Quorate, Metric::CpuMsPerOp, Some(Kind::Etcd)).expect("two rounds have both");
    assert_eq!((cpu.min, cpu.max), (0.125, 0.2));
    let absolute = compared(&runs, CELL, Kind::Quorate, Metric::Rate, None).expect("three rounds");
    assert_eq!((absolute.min, absolute.median, absolute.max), (7.0, 50.0, 120.0));
}

#[test]
fn a_bar_is_reached_by_the_median_and_never_by_what_was_not_measured() {
    let of = |runs: &[Measured]| verdicts(runs, &[CELL]).iter().map(figures::Verdict::is_reached).collect::<Vec<_>>();
    let etcd = run(0, Kind::Etcd, 10.0, 1.0);
    let postgres = run(0, Kind::Postgres, 40.0, 1.0);
    // In their order: rate to etcd, processor to etcd, rate to PostgreSQL.
    assert_eq!(of(&[run(0, Kind::Quorate, 50.0, 0.2), etcd.clone(), postgres.clone()]), [true, true, true]);
    assert_eq!(of(&[run(0, Kind::Quorate, 49.0, 0.21), etcd.clone(), postgres]), [false, false, true]);
    assert_eq!(of(&[run(0, Kind::Quorate, 50.0, 0.2), etcd]), [true, true, false], "PostgreSQL was not measured");
    assert_eq!(of(&[]), [false, false, false]);
    assert!(verdicts(&[], &[]).is_empty() && BARS.len() >= 16);
}
