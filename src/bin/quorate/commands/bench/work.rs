//! The workloads that put load on a cluster that stays up.

use std::sync::Arc;

use quorate::client::Client;
use quorate::testing::load::{
    Agents, Cases, Corpus, Failure as Failed, Loads, Saves, Saving, Sessions, TurnLoop, Updates, Values, fill,
};
use serde_json::json;

use super::Bench;
use crate::args::Workload;
use crate::failure::Failure;

const KIB: usize = 1024;
const KEYS: u64 = 10_000;
const HOT_KEYS: u64 = 8;
/// Large values are few, or they would fill the disk.
const LARGE_KEYS: u64 = 100;
/// Resets are whole, 4 in 1000 saves: of fewer saves than these they may be many by chance.
const SAVES_MIN: u64 = 2000;
/// Of saves of a population of agents.
const DELTA_SHARE_MIN: f64 = 0.99;
/// Sessions at work for each caller of `agent-sessions`.
const SESSIONS_PER_CALLER: usize = 4;

impl Workload {
    /// Callers, where none are asked for.
    pub fn callers(self) -> &'static [usize] {
        match self {
            Workload::Save => &[1, 16, 64, 256],
            Workload::Load => &[1, 64, 256],
            Workload::SaveLarge => &[8],
            Workload::Failover | Workload::HandOver | Workload::Stop | Workload::Rolling | Workload::AgentSessions => &[16],
            Workload::Restart | Workload::Deltas => &[1],
            Workload::Update | Workload::UpdateHot | Workload::Cas | Workload::Turn => &[64],
        }
    }

    /// Whether it stops or kills nodes.
    pub fn needs_processes(self) -> bool {
        use Workload::{Failover, HandOver, Restart, Rolling, Stop};
        matches!(self, Failover | HandOver | Stop | Rolling | Restart)
    }

    /// As it is typed.
    pub fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

impl Bench {
    /// W1 to W5.
    pub(super) async fn micro(&mut self, workload: Workload) -> Result<(), Failure> {
        let name = workload.name();
        let value_bytes = self.args.value_size.map_or(KIB, |size| size.as_u64() as usize);
        let keys = self.args.keys.unwrap_or(KEYS);
        for callers in self.callers(workload) {
            let clients = self.clients(callers)?;
            let targets: Vec<_> = clients.iter().cloned().map(|client| Arc::new(Values(client))).collect();
            let corpus = self.corpus.clone();
            let saves = Saves { targets, keys, value_bytes, corpus };
            match workload {
                Workload::Save => self.repeat(&name, callers, Arc::new(saves)).await?,
                Workload::SaveLarge => {
                    let value_bytes = self.args.value_size.map_or(512 * KIB, |size| size.as_u64() as usize);
                    let saves = Saves { value_bytes, keys: self.args.keys.unwrap_or(LARGE_KEYS), ..saves };
                    self.repeat(&name, callers, Arc::new(saves)).await?;
                }
                Workload::Load => {
                    self.filled(&saves, keys).await?;
                    let loads = Loads { targets: saves.targets, keys };
                    self.repeat(&name, callers, Arc::new(loads)).await?;
                }
                Workload::Update => {
                    self.filled(&saves, keys).await?;
                    self.repeat(&name, callers, Arc::new(Updates(saves))).await?;
                }
                Workload::UpdateHot => {
                    let saves = Saves { keys: self.args.keys.unwrap_or(HOT_KEYS), ..saves };
                    self.repeat(&name, callers, Arc::new(Updates(saves))).await?;
                }
                Workload::Cas => {
                    let cases = Cases { saves, callers: callers as u64 };
                    self.repeat(&name, callers, Arc::new(cases)).await?;
                }
                _ => {
                    let turns = self.turn_loop(&clients);
                    self.repeat(&name, callers, Arc::new(turns)).await?;
                }
            }
            close(clients).await;
        }
        Ok(())
    }

    pub(super) fn callers(&self, workload: Workload) -> Vec<usize> {
        if self.args.callers.is_empty() { workload.callers().to_vec() } else { self.args.callers.clone() }
    }

    async fn filled(&self, saves: &Saves<Values>, keys: u64) -> Result<(), Failure> {
        let _shown = super::Shown::start(format!("filling {keys} keys"), std::time::Duration::ZERO);
        fill(&saves.targets, keys, saves.value_bytes, &saves.corpus, self.args.seed).await.map_err(|failure| failed(&failure))
    }

    fn turn_loop(&self, clients: &[Client]) -> TurnLoop<Agents> {
        TurnLoop {
            stores: clients.iter().map(|client| Arc::new(Agents::of(client, Saving::IfVersion))).collect(),
            first_bytes: 8 * KIB,
            turn_bytes: 2 * KIB,
            session_bytes: 200 * KIB,
            corpus: self.text(),
            run: self.run,
        }
    }

    /// Messages are text whatever values are.
    pub(super) fn text(&self) -> Corpus {
        if self.args.incompressible { Corpus::text(self.args.seed, super::CORPUS_BYTES) } else { self.corpus.clone() }
    }

    /// The population, and its audit.
    pub(super) async fn agent_sessions(&mut self) -> Result<(), Failure> {
        let name = Workload::AgentSessions.name();
        for callers in self.callers(Workload::AgentSessions) {
            let clients = self.clients(callers)?;
            let stores = clients.iter().map(|client| Arc::new(Agents::of(client, Saving::Plain))).collect();
            self.run += 1;
            let sessions = Sessions::new(stores, self.text(), SESSIONS_PER_CALLER * callers, self.run, self.args.seed);
            let sessions = Arc::new(sessions);
            self.repeat(&name, callers, sessions.clone()).await?;
            let auditor = self.client()?;
            let shown = super::Shown::start("reading every session again".to_owned(), std::time::Duration::ZERO);
            let audit = sessions.audit(Arc::new(Agents::of(&auditor, Saving::Plain))).await;
            drop(shown);
            close(clients.into_iter().chain([auditor]).collect()).await;
            let fields = json!({
                "sessions": audit.sessions, "turns": audit.turns, "doubtful": audit.doubtful, "lost": audit.lost,
                "doubled": audit.doubled, "strange": audit.strange, "torn": audit.torn, "usage_wrong": audit.usage_wrong,
                "unread": audit.unread,
            });
            let Some(row) = self.report.last() else { continue };
            row.details.insert("audit".to_owned(), fields);
            let found = format!(
                "{} turns in {} sessions read again: {} lost, {} doubled, {} torn, {} unexpected, {} wrong sums, {} sessions unread",
                audit.turns, audit.sessions, audit.lost, audit.doubled, audit.torn, audit.strange, audit.usage_wrong, audit.unread
            );
            row.check("every acknowledged turn kept once, usage exact", audit.is_clean(), found);
            if let Some((share, saves)) = row.delta_share().filter(|(_, saves)| *saves >= SAVES_MIN) {
                let found = format!("{:.2} % of {saves} (limit {:.0} %)", 100.0 * share, 100.0 * DELTA_SHARE_MIN);
                row.check("saves of agents' sessions that sent only what was new", share >= DELTA_SHARE_MIN, found);
            }
        }
        Ok(())
    }
}

/// Tells the cluster that these clients are gone, or their rows would stay for an hour.
pub(super) async fn close(clients: Vec<Client>) {
    for client in clients {
        client.close().await;
    }
}

pub(super) fn failed(failure: &Failed) -> Failure {
    Failure::failed(format!("the cluster does not take the load: {failure}"))
}
