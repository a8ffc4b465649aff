//! The operator that changes the members of the cluster while everything else goes wrong.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::client::{Client, ErrorKind, Member, MemberChange, Members, NodeId};
use quorate::testing::inline::SeededRandom;

use super::coverage::sometimes;
use super::node::Host;
use super::params::Params;
use super::workload::{Connect, Phase, Shared};

/// Fewer voters than this are never left: the other faults are for clusters that tolerate one.
const VOTERS_MIN: usize = 3;
/// How long one change may take.
const WITHIN: Duration = Duration::from_secs(5);

/// Changes that the nemesis asks for and the operator has not made yet.
pub type Wanted = Arc<Mutex<u64>>;

/// See the module.
pub struct Operator {
    pub params: Arc<Params>,
    pub shared: Arc<Mutex<Shared>>,
    pub wanted: Wanted,
    pub hosts: Vec<Host>,
    pub random: SeededRandom,
    /// The members as the last change that was answered left them: what any node says of them may be old.
    pub known: Option<Members>,
    /// A change that may have happened: it is asked for again, and no other before, or a vote too many might be taken away.
    pub open: Option<MemberChange>,
}

impl Operator {
    /// Makes changes as long as there are faults.
    pub async fn run(mut self) {
        let client = Connect { pinned: None, ..Connect::of(&self.params, "operator") }.client(&self.random);
        while self.shared.lock().expect("nobody panics with it").phase == Phase::Faults {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if self.shared.lock().expect("nobody panics with it").is_settled {
                continue;
            }
            let is_wanted = {
                let mut wanted = self.wanted.lock().expect("nobody panics with it");
                let is_wanted = *wanted > 0;
                *wanted = wanted.saturating_sub(1);
                is_wanted
            };
            if is_wanted {
                self.change(&client).await;
            }
        }
    }

    /// One change, of those that make sense; that it is refused or comes to nothing is nobody's fault.
    async fn change(&mut self, client: &Client) {
        let change = match self.open.take() {
            Some(change) => change,
            None => match self.choose(client).await {
                Some(change) => change,
                None => return,
            },
        };
        let point = match change {
            MemberChange::Add(_) => "member added",
            MemberChange::Promote(_) => "member promoted",
            MemberChange::Replace { .. } => "member replaced",
            _ => "member removed",
        };
        match client.change_members(change.clone(), false, WITHIN).await {
            Ok(members) => {
                self.known = Some(members);
                sometimes(point);
            }
            Err(error) if error.kind() == ErrorKind::Indeterminate => self.open = Some(change),
            Err(_) => {}
        }
    }

    /// The next change; `None` if the leadership was handed over instead.
    async fn choose(&mut self, client: &Client) -> Option<MemberChange> {
        if self.known.is_none() {
            // Nobody has changed them yet: any node knows them, once they are formed.
            self.known = client.members().await.ok().filter(|members| !members.members.is_empty());
        }
        let members = self.known.as_ref()?;
        let voters: Vec<NodeId> = members.members.iter().filter(|member| member.voter).map(|member| member.id).collect();
        let learners: Vec<NodeId> = members.members.iter().filter(|member| !member.voter).map(|member| member.id).collect();
        let spare = self.hosts.iter().map(|host| NodeId(host.id)).find(|id| *id > members.largest_id);
        let any = |ids: &[NodeId]| (!ids.is_empty()).then(|| ids[self.random.below(ids.len() as u64) as usize]);
        Some(match (self.random.below(5), spare, any(&learners), any(&voters)) {
            (0 | 1, Some(spare), _, _) => MemberChange::Add(member(spare)),
            (0..=2, _, Some(learner), _) => MemberChange::Promote(learner),
            (3, _, Some(new), Some(old)) => MemberChange::Replace { old, new },
            (3 | 4, _, _, Some(voter)) if voters.len() > VOTERS_MIN => MemberChange::Remove(voter),
            (_, _, _, to) => {
                let handed = client.transfer_leadership(to, WITHIN).await;
                if handed.is_ok() {
                    sometimes("leadership transferred");
                }
                return None;
            }
        })
    }
}

fn member(id: NodeId) -> Member {
    let name = Host::name(id.0);
    let at = |port: u16| format!("{name}:{port}");
    let mut member = Member::new(id);
    (member.client_address, member.peer_address, member.admin_address) = (at(7460), at(7461), at(7462));
    member
}
