//! Every order in which threads can see each other's steps, by loom, for the one lock of ours that threads wait on: the signal of a
//! worker. Its source is compiled here once more, over loom's locks.
//!
//! A wake or a stop that is lost leaves threads waiting for ever, which loom finds. It panics then, and again while a lock is let go: the
//! process is aborted, with the word deadlock in its output.

#[path = "../../src/env/signal.rs"]
#[allow(dead_code, reason = "what a worker without a thread is asked is not tried here")]
mod signal;

/// What the signal names as its locks.
mod sync {
    pub use std::sync::PoisonError;

    pub use loom::sync::{Condvar, Mutex, MutexGuard};
}

/// The bug that can be planted in what is compiled here, by the same variable as in the library.
mod mutant {
    use std::sync::OnceLock;

    pub enum Mutant {
        WakeBetweenTwoSteps,
    }

    pub fn is(Mutant::WakeBetweenTwoSteps: Mutant) -> bool {
        static IS_PLANTED: OnceLock<bool> = OnceLock::new();
        *IS_PLANTED.get_or_init(|| std::env::var("QUORATE_MUTANT").is_ok_and(|name| name == "wake-between-two-steps"))
    }
}

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use signal::Signal;

/// A worker that takes a step for each wake until it has seen all of the work; beside it threads that add to the work and wake it, once
/// each.
fn all_work_is_seen(wakers: usize) {
    let wanted = Arc::new(Signal::new(None));
    // Relaxed: that a step sees what was done before its wake is the signal's to promise.
    let work = Arc::new(AtomicUsize::new(0));
    let worker = thread::spawn({
        let (wanted, work) = (wanted.clone(), work.clone());
        move || {
            while work.load(Ordering::Relaxed) < wakers {
                assert!(wanted.wait(None), "nobody stops it");
            }
        }
    });
    let waker = || {
        let (wanted, work) = (wanted.clone(), work.clone());
        move || {
            work.fetch_add(1, Ordering::Relaxed);
            wanted.wake();
        }
    };
    // This thread is one of them.
    let others: Vec<_> = (1..wakers).map(|_| thread::spawn(waker())).collect();
    waker()();
    others.into_iter().for_each(|other| other.join().expect("it ends"));
    worker.join().expect("it has seen all");
}

#[test]
fn a_wake_is_never_lost_whenever_it_comes() {
    loom::model(|| all_work_is_seen(1));
}

/// All orders are too many for three threads: those in which at most two times one is interrupted where it could go on.
#[test]
fn of_two_wakes_at_once_neither_is_lost() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| all_work_is_seen(2));
}

#[test]
fn a_stop_is_never_lost_whenever_it_comes_and_beside_a_wake() {
    loom::model(|| {
        let wanted = Arc::new(Signal::new(None));
        let worker = thread::spawn({
            let wanted = wanted.clone();
            move || while wanted.wait(None) {}
        });
        let other = thread::spawn({
            let wanted = wanted.clone();
            move || wanted.wake()
        });
        wanted.stop();
        worker.join().expect("a stop ends it");
        other.join().expect("it ends");
    });
}
