//! What many clients were answered while nodes died, judged by both checkers.

use quorate::testing::history::{Answer, Caller, Lister, Op, Page, Recorder, listings, verdict};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::rig::Cluster;

const CALLERS: usize = 4;
const KEYS: usize = 2;

/// Answers are counted by whether they say what became of the call.
fn known(history: &[Op]) -> usize {
    history.iter().filter(|op| op.answer.revision().is_some()).count()
}

/// Runs callers through faults: each node in turn is killed or loses its power, with calls under way, and comes back. Gives what was
/// answered, and every page that was listed meanwhile.
async fn through_faults(power_loss: bool) -> (Vec<Op>, Vec<Page>) {
    let mut cluster = Cluster::start(3).await;
    let (recorder, began) = (Recorder::default(), Instant::now());
    let mut callers = JoinSet::new();
    for process in 0..CALLERS {
        let mut caller = Caller::new(process, cluster.client(), KEYS, recorder.clone(), began);
        callers.spawn(async move {
            loop {
                caller.step().await;
            }
        });
    }
    let lister = Lister::new(cluster.client(), 1, began);
    let mut listing = lister.clone();
    callers.spawn(async move {
        loop {
            // While nobody leads a page may be refused.
            let _ = listing.step().await;
        }
    });
    for _ in 0..3 {
        progress(&recorder, 60).await;
        let leader = cluster.leader(1).await;
        if power_loss {
            cluster.power_loss(leader).await;
        } else {
            cluster.kill(leader).await;
        }
        progress(&recorder, 30).await;
        cluster.start_node(leader).await;
    }
    progress(&recorder, 60).await;
    callers.shutdown().await;
    // What is there in the end counts too.
    let mut last = Caller::new(CALLERS, cluster.client(), KEYS, recorder.clone(), began);
    for key in 0..KEYS {
        assert!(last.call(key, quorate::testing::history::Ask::Load).await.revision().is_some(), "a healed cluster answers");
    }
    cluster.converged().await.expect("all replicas are in the same state");
    (recorder.history(), lister.pages())
}

/// Waits for so many more answers that settle their call.
async fn progress(recorder: &Recorder, more: usize) {
    let (until, deadline) = (known(&recorder.history()) + more, Instant::now() + super::rig::PATIENCE);
    while known(&recorder.history()) < until {
        assert!(Instant::now() < deadline, "the cluster does not serve");
        tokio::task::yield_now().await;
    }
}

fn judge((history, pages): (Vec<Op>, Vec<Page>)) {
    let mut found: Vec<String> = verdict(&history).iter().map(ToString::to_string).collect();
    found.extend(listings(&history, &pages));
    assert!(found.is_empty(), "{} operations\n{}", history.len(), found.join("\n"));
    let has = |wanted: fn(Answer) -> bool| history.iter().any(|op| wanted(op.answer));
    assert!(pages.iter().any(|page| page.more) && pages.iter().any(|page| !page.after.is_empty()), "{} pages", pages.len());
    assert!(has(|answer| matches!(answer, Answer::Conflict { .. })) && has(|answer| matches!(answer, Answer::Found { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_are_answered_while_leaders_are_killed_is_linearizable() {
    judge(through_faults(false).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_are_answered_while_leaders_lose_their_power_is_linearizable() {
    judge(through_faults(true).await);
}
