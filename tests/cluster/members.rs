//! Who belongs to the cluster, while it changes: under load, after a lost disk, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate::client::{Client, Content, ErrorKind, Member, MemberChange, Members, NodeId, WriteOptions};
use quorate::testing::Cluster;
use quorate::wire::peer::v1 as peer;
use tokio::task::JoinSet;

use super::rig::peer_of;

/// Longest a change may take here.
const WITHIN: Duration = Duration::from_secs(30);

fn value(text: impl Into<String>) -> Content {
    Content::Value(text.into().into())
}

/// Writers that save all the time; any error fails the test.
struct Load {
    stop: Arc<AtomicBool>,
    saves: Arc<AtomicU64>,
    writers: JoinSet<u64>,
}

impl Load {
    fn start(client: &Client) -> Self {
        let (stop, saves) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut writers = JoinSet::new();
        for writer in 0..8 {
            let (client, stop, saves) = (client.clone(), stop.clone(), saves.clone());
            writers.spawn(async move {
                let mut version = 0;
                while !stop.load(Ordering::Relaxed) {
                    let saved = client.save(&format!("w{writer}"), value((version + 1).to_string()), WriteOptions::default()).await;
                    let saved = saved.unwrap_or_else(|error| panic!("writer {writer}: {error}"));
                    version += 1;
                    assert_eq!(saved.version.0, version, "a gap or a double of writer {writer}");
                    saves.fetch_add(1, Ordering::Relaxed);
                }
                version
            });
        }
        Self { stop, saves, writers }
    }

    /// Waits for so many more saves.
    async fn progress(&mut self, more: u64) {
        let until = self.saves.load(Ordering::Relaxed) + more;
        while self.saves.load(Ordering::Relaxed) < until {
            if let Some(ended) = self.writers.try_join_next() {
                panic!("a writer ended: {ended:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(mut self, client: &Client) {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = 0;
        while let Some(version) = self.writers.join_next().await {
            total += version.expect("no save failed");
        }
        assert_eq!(total, self.saves.load(Ordering::Relaxed));
        for writer in 0..8 {
            let stored = client.load(&format!("w{writer}")).await.expect("a load").expect("a session");
            assert_eq!(stored.content, value(stored.info.version.0.to_string()));
        }
    }
}

async fn change(client: &Client, change: MemberChange) -> Members {
    let text = format!("{change:?}");
    client.change_members(change, false, WITHIN).await.unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Starts a further node and makes it a member without a vote.
async fn added(cluster: &mut Cluster, client: &Client) -> Member {
    let id = cluster.prepare_node().expect("a free port");
    cluster.restart(id).await.expect("it waits to be added");
    let member = cluster.member(id).expect("prepared");
    change(client, MemberChange::Add(member.clone())).await;
    member
}

fn voter(cluster: &Cluster, id: u64) -> Member {
    let mut member = cluster.member(id).expect("a member");
    member.voter = true;
    member
}

fn voters(members: &Members) -> Vec<u64> {
    members.members.iter().filter(|member| member.voter).map(|member| member.id.0).collect()
}

/// What a node says of the members, once it is as wanted: nodes apply a change one after the other, and any of them may be asked.
async fn members_when(client: &Client, wanted: impl Fn(&Members) -> bool) -> Members {
    let deadline = Instant::now() + WITHIN;
    loop {
        let members = client.members().await;
        match members {
            Ok(members) if wanted(&members) => return members,
            members => assert!(Instant::now() < deadline, "{members:?}"),
        }
    }
}

async fn refused(cluster: &Cluster, change: MemberChange, words: &[&str]) {
    let leader = cluster.leader().await.expect("a leader");
    let applied = || cluster.node(leader).expect("it runs").applied_members();
    let (before, text) = (applied(), format!("{change:?}"));
    let error = cluster.client().change_members(change, false, WITHIN).await.expect_err(&text);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{text}: {error}");
    words.iter().for_each(|word| assert!(error.to_string().contains(word), "{text}: {error}"));
    assert_eq!(applied(), before, "{text}");
}

/// Three voters become five, and those five three others than at first, while clients that know only the first three save: none of them
/// sees an error. Removed nodes say so and end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_become_five_and_three_again_under_load_without_an_error() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let client = cluster.client();
    let mut load = Load::start(&client);
    load.progress(50).await;
    for _ in 0..2 {
        let member = added(&mut cluster, &client).await;
        load.progress(20).await;
        change(&client, MemberChange::Promote(member.id)).await;
        load.progress(20).await;
    }
    members_when(&client, |members| voters(members) == [1, 2, 3, 4, 5]).await;
    // The leader first: it hands over, and the next one takes it out.
    let first = cluster.leader().await.expect("a leader");
    let second = [1, 2, 3].map(NodeId).into_iter().find(|id| *id != first).expect("two more");
    for id in [first, second] {
        change(&client, MemberChange::Remove(id)).await;
        load.progress(20).await;
        let why = cluster.ended(id).await.expect("it ends");
        assert!(why.contains("removed from the cluster"), "{why}");
    }
    let members = members_when(&client, |members| voters(members).len() == 3).await;
    assert_eq!(members.largest_id, NodeId(5));
    load.progress(50).await;
    load.end(&client).await;
    cluster.converged().await.expect("all members agree");
    // A node that was removed is answered so again, and a change that has happened is done.
    cluster.restart(first).await.expect("its data is there");
    assert!(cluster.ended(first).await.expect("it ends").contains("removed"));
    assert_eq!(change(&client, MemberChange::Remove(first)).await, members);
}

/// A disk is lost for good. The node can't come back under its id, since it may have forgotten a vote; another takes its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_is_replaced_under_a_new_id_and_votes_are_not_forgotten() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let client = cluster.client();
    for n in 0..20 {
        client.save(&format!("s{n}"), value(format!("value {n}")), WriteOptions::default()).await.expect("a save");
    }
    let lost = NodeId(1);
    cluster.kill(lost).await.expect("it runs");
    cluster.wipe(lost).expect("it is off");
    cluster.restart(lost).await.expect("an empty disk is no obstacle");
    // Empty, under the old id: it is refused by its peers, and can't be added again.
    refused(&cluster, MemberChange::Add(cluster.member(lost).expect("a member")), &["another data directory", "a new id"]).await;
    cluster.stop(lost).await.expect("it has nothing");

    let member = added(&mut cluster, &client).await;
    let members = change(&client, MemberChange::Replace { old: lost, new: member.id }).await;
    assert_eq!(voters(&members), [2, 3, 4]);
    assert_eq!(change(&client, MemberChange::Replace { old: lost, new: member.id }).await, members, "asked again");
    // The new one counts: with it and one other there is a quorum.
    cluster.kill(2).await.expect("it runs");
    client.save("after", value("after"), WriteOptions::default()).await.expect("two of three");
    for n in 0..20 {
        let stored = client.load(&format!("s{n}")).await.expect("a load").expect("it was acknowledged");
        assert_eq!(stored.content, value(format!("value {n}")));
    }
    cluster.restart(2).await.expect("its disk is there");
    cluster.converged().await.expect("all members agree");
}

/// A node applies who the members are some time after it started. Until then it says nothing, not that there is nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_node_says_that_nobody_is_a_member() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let alone = |address: String| Client::builder().endpoints([address]).build().expect("a client");
    let said = async |address| members_when(&alone(address), |_| true).await;
    for address in cluster.endpoints() {
        assert_eq!(voters(&said(address).await), [1, 2, 3]);
    }
    let client = cluster.client();
    let member = added(&mut cluster, &client).await;
    let members = said(member.client_address).await;
    assert!(members.members.len() >= 3, "{members:?}");
}

/// What may not be is refused with its reason, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_is_refused_with_its_reason() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let client = cluster.client();
    let third = |change: fn(&mut Member)| {
        let mut member = cluster.member(3).expect("a member");
        change(&mut member);
        member
    };
    let dead = third(|member| (member.id, member.peer_address) = (NodeId(9), "127.0.0.1:1".into()));
    refused(&cluster, MemberChange::Add(dead), &["node 9 does not answer"]).await;
    let nowhere = third(|member| member.client_address = "nowhere".into());
    refused(&cluster, MemberChange::Add(nowhere), &["field=client", "nowhere"]).await;
    let other = third(|member| member.id = NodeId(9));
    refused(&cluster, MemberChange::Add(other), &["node 3 answers"]).await;
    refused(&cluster, MemberChange::Promote(NodeId(9)), &["no member", "members=1,2,3"]).await;
    refused(&cluster, MemberChange::Update(third(|member| member.id = NodeId(2))), &["node 3 answers"]).await;

    // An id is never used twice: not even of a member that never had a vote and is gone.
    let member = added(&mut cluster, &client).await;
    // One that never heard of the cluster's members has nobody to ask, and goes on waiting to be added.
    cluster.converged().await.expect("it has the log");
    change(&client, MemberChange::Remove(member.id)).await;
    assert!(cluster.ended(member.id).await.expect("it ends").contains("removed"));
    cluster.wipe(member.id).expect("it is off");
    cluster.restart(member.id).await.expect("an empty disk");
    refused(&cluster, MemberChange::Add(member.clone()), &["never used twice", "above 4"]).await;

    // Two of three answer: without one of those nothing could be written.
    let leader = cluster.leader().await.expect("a leader");
    let followers: Vec<NodeId> = [1, 2, 3].map(NodeId).into_iter().filter(|id| *id != leader).collect();
    cluster.kill(followers[0]).await.expect("it runs");
    cluster.node(leader).expect("it runs").wait_disconnected(followers[0]).await;
    refused(&cluster, MemberChange::Remove(followers[1]), &["2 voters, of which 2 must answer and 1 do", "--force"]).await;
    client.save("s", value("x"), WriteOptions::default()).await.expect("nothing was changed");
    // The dead one may go.
    assert_eq!(voters(&change(&client, MemberChange::Remove(followers[0])).await).len(), 2);
}

/// A node that waits takes a cluster's id only if it is meant, by its data directory; one that has data takes none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_node_that_is_meant_and_has_no_data_joins() {
    let mut cluster = Cluster::start(1).await.expect("a cluster");
    let client = cluster.client();
    let id = cluster.prepare_node().expect("a free port");
    cluster.restart(id).await.expect("it waits to be added");
    let member = cluster.member(id).expect("prepared");
    let mut peer = peer_of(&cluster, id);
    let hello = peer.hello(peer::HelloRequest::default()).await.expect("every caller is answered").into_inner();
    assert!(!hello.initialized && hello.cluster_id.is_empty());
    let offer = |instance: &[u8]| peer::AdoptRequest {
        name: hello.name.clone(),
        configuration_hash: hello.configuration_hash,
        to: id.0,
        to_instance: instance.to_vec().into(),
        cluster_id: vec![9; 16].into(),
    };
    peer.adopt(offer(&[7; 16])).await.expect_err("the offer is for another data directory");
    let hello = peer.hello(peer::HelloRequest::default()).await.expect("every caller is answered").into_inner();
    assert!(hello.cluster_id.is_empty(), "it took nothing");

    // Of another cluster of the same name, with data.
    let other = Cluster::start(3).await.expect("another cluster");
    refused(&cluster, MemberChange::Add(other.member(3).expect("a member")), &["has data already", "empty data directory"]).await;
    change(&client, MemberChange::Add(member)).await;
}

/// The leadership goes where it is sent, and a removed node neither votes nor calls elections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leadership_is_handed_over_and_a_removed_node_disturbs_nobody() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let client = cluster.client();
    let leader = cluster.leader().await.expect("a leader");
    let to = [1, 2, 3].map(NodeId).into_iter().find(|id| *id != leader).expect("two more");
    assert_eq!(client.transfer_leadership(Some(to), WITHIN).await.expect("it is up to date"), to);
    assert_eq!(cluster.leader().await.expect("a leader"), to);
    let error = client.transfer_leadership(Some(NodeId(9)), WITHIN).await.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");

    // Cut off while it is removed, it does not know: it asks when it is back, and is answered.
    let gone = [1, 2, 3].map(NodeId).into_iter().find(|id| *id != to).expect("two more");
    cluster.kill(gone).await.expect("it runs");
    change(&client, MemberChange::Remove(gone)).await;
    let term = cluster.status_of(to).await.expect("it answers").term;
    cluster.restart(gone).await.expect("its data is there");
    assert!(cluster.ended(gone).await.expect("it ends").contains("removed"));
    assert_eq!(cluster.status_of(to).await.expect("it answers").term, term, "no election");
}

/// A node is restarted at other addresses: it tells the cluster, which believes it after asking for its data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_moved_tells_the_cluster() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    let client = cluster.client();
    client.save("s", value("before"), WriteOptions::default()).await.expect("a save");
    cluster.stop(3).await.expect("it runs");
    cluster.move_node(3).expect("it is off");
    cluster.restart(3).await.expect("its data is there");
    let moved = voter(&cluster, 3);
    members_when(&client, |members| members.members.contains(&moved)).await;
    // It counts there.
    let other = [1, 2].map(NodeId).into_iter().find(|id| cluster.node(*id).is_some()).expect("both run");
    cluster.converged().await.expect("it has caught up");
    cluster.kill(other).await.expect("it runs");
    client.save("s", value("after"), WriteOptions::default()).await.expect("two of three");
}

/// Nobody is where the members have it: they are found where they are configured, and say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_all_come_back_at_other_addresses_find_each_other() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    cluster.client().save("s", value("before"), WriteOptions::default()).await.expect("a save");
    for id in 1..=3 {
        cluster.kill(id).await.expect("it runs");
        cluster.move_node(id).expect("it is off");
    }
    for id in 1..=3 {
        cluster.restart(id).await.expect("its data is there");
    }
    let moved: Vec<Member> = (1..=3).map(|id| voter(&cluster, id)).collect();
    let is_there = |status: &quorate::client::ClusterStatus| {
        status.nodes.iter().zip(&moved).all(|(node, moved)| node.reachable && node.peer_address == moved.peer_address)
    };
    cluster.wait_for("the new addresses", is_there).await.expect("each says where it is");
    let client = cluster.client();
    client.save("s", value("after"), WriteOptions::default()).await.expect("they make a majority");
    members_when(&client, |members| members.members == moved).await;
}

/// Two nodes with each other's addresses: a caller of one finds the other, looks where they are configured, and the members have both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_swap_their_addresses_are_found_and_recorded() {
    let mut cluster = Cluster::start(3).await.expect("a cluster");
    cluster.client().save("s", value("before"), WriteOptions::default()).await.expect("a save");
    for id in 1..=3 {
        cluster.kill(id).await.expect("it runs");
    }
    cluster.swap_nodes(1, 2).expect("they are off");
    for id in 1..=3 {
        cluster.restart(id).await.expect("its data is there");
    }
    let client = cluster.client();
    client.save("s", value("after"), WriteOptions::default()).await.expect("they make a majority");
    cluster.converged().await.expect("all three take part");
    let moved: Vec<Member> = (1..=3).map(|id| voter(&cluster, id)).collect();
    let recorded = |status: &quorate::client::ClusterStatus| {
        let is_well = |node: &quorate::client::NodeStatus| node.checks.iter().all(|check| check.name != "addresses" || check.ok);
        status.nodes.iter().zip(&moved).all(|(node, moved)| node.peer_address == moved.peer_address && is_well(node))
    };
    cluster.wait_for("the new addresses", recorded).await.expect("both say where they are");
    members_when(&client, |members| members.members == moved).await;
    // Said again by hand, it is done.
    let one = cluster.member(1).expect("a member");
    assert_eq!(change(&client, MemberChange::Update(one)).await.members, moved);
}

/// The leader's disk hangs: what is saved is acknowledged all the same, another leads before long, and all agree when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_hangs_hands_over_and_saves_go_on() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let client = cluster.client();
    let mut load = Load::start(&client);
    load.progress(50).await;
    let leader = cluster.leader().await.expect("a leader");
    cluster.disk(leader).expect("in memory").hold_syncs();
    let elsewhere = |node: &quorate::client::NodeStatus| {
        node.id != leader && node.reachable && node.leader.is_some_and(|other| other != leader)
    };
    cluster.wait_for("another leader", |status| status.nodes.iter().any(elsewhere)).await.expect("it hands over");
    load.progress(100).await;
    cluster.disk(leader).expect("in memory").release_syncs();
    load.progress(50).await;
    load.end(&client).await;
    cluster.converged().await.expect("all members agree");
}
