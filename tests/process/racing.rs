//! Stock Bob agents whose turns race on hot sessions, and the audit of what became of them.
//!
//! Every turn says a number of its own, calls a tool, and answers: four messages that belong together. Its number is in each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bob_core::error::{AgentError, LlmError, StoreError, ToolError};
use bob_core::ports::{LlmPort, SessionStore, ToolPort};
use bob_core::types::{
    FinishReason, LlmCapabilities, LlmRequest, LlmResponse, LlmStream, Message, Role, SessionState, TokenUsage, ToolCall,
    ToolDescriptor, ToolResult, ToolSource,
};
use bob_runtime::{AgentBootstrap as _, AgentRuntime, RuntimeBuilder};
use quorate::client::{Error, ErrorKind};

#[path = "../../examples/bob_agent.rs"]
/// The example, whose turns these are.
#[allow(dead_code, reason = "the example's own model and main")]
pub mod agent;

const TOOL: &str = "look_up";
/// Tokens of one turn: two steps of the model.
const PROMPT_TOKENS: u32 = 2 * 10;
const COMPLETION_TOKENS: u32 = 2 * 3;

/// Calls the tool with what the user said, then answers with what the tool said.
struct Model;

#[async_trait::async_trait]
impl LlmPort for Model {
    fn capabilities(&self) -> LlmCapabilities {
        LlmCapabilities { native_tool_calling: true, streaming: false }
    }

    async fn complete(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let last = request.messages.iter().rev().find(|message| message.role != Role::System);
        let last = last.ok_or_else(|| LlmError::Provider("nothing was said".to_owned()))?;
        let (content, tool_calls) = if last.role == Role::Tool {
            (serde_json::json!({ "type": "final", "content": last.content }).to_string(), Vec::new())
        } else {
            let call = ToolCall::new(TOOL, serde_json::json!({ "number": last.content })).with_call_id(last.content.clone());
            (String::new(), vec![call])
        };
        let usage = TokenUsage { prompt_tokens: PROMPT_TOKENS / 2, completion_tokens: COMPLETION_TOKENS / 2 };
        Ok(LlmResponse { content, usage, finish_reason: FinishReason::Stop, tool_calls })
    }

    async fn complete_stream(&self, _: LlmRequest) -> Result<LlmStream, LlmError> {
        Err(LlmError::Provider("this model does not stream".to_owned()))
    }
}

/// Gives back the number it is given.
struct Tool;

#[async_trait::async_trait]
impl ToolPort for Tool {
    async fn list_tools(&self) -> Result<Vec<ToolDescriptor>, ToolError> {
        let mut tool = ToolDescriptor::new(TOOL, "Looks up a number");
        tool.source = ToolSource::Local;
        Ok(vec![tool])
    }

    async fn call_tool(&self, call: ToolCall) -> Result<ToolResult, ToolError> {
        Ok(ToolResult { name: call.name, output: call.arguments["number"].clone(), is_error: false })
    }
}

/// How a turn ended, for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is kept.
    Acknowledged,
    /// It failed; nothing changed.
    Refused,
    /// Nobody knows.
    Indeterminate,
}

/// Turns that go on until they are stopped, or are all made.
pub struct Race {
    name: String,
    turns: u64,
    turns_per_session: u64,
    next: AtomicU64,
    stop: AtomicBool,
    acknowledged: AtomicU64,
    ended: Mutex<HashMap<u64, Ended>>,
    first_failure: Mutex<Option<String>>,
}

impl Race {
    /// At most so many turns. After `turns_per_session` the agents move on to a new session together.
    pub fn new(name: &str, turns: u64, turns_per_session: u64) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            turns,
            turns_per_session,
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            ended: Mutex::default(),
            first_failure: Mutex::default(),
        })
    }

    /// So many agents at once, over these stores by turns. They end when all turns are made, or soon after [`Race::stop`].
    pub fn agents(self: &Arc<Self>, count: usize, stores: &[Arc<dyn SessionStore>]) -> Vec<tokio::task::JoinHandle<()>> {
        let runtimes: Vec<Arc<dyn AgentRuntime>> = stores.iter().cloned().map(runtime).collect();
        let agents = (0..count).map(|number| {
            let (race, runtime) = (self.clone(), runtimes[number % runtimes.len()].clone());
            tokio::spawn(async move { race.run(&*runtime).await })
        });
        agents.collect()
    }

    async fn run(&self, runtime: &dyn AgentRuntime) {
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.turns {
                return;
            }
            let turned = agent::turn(runtime, &self.session(number), &text(number)).await;
            let ended = ended(&turned);
            if let Err(error) = turned {
                self.first_failure.lock().expect("no panic").get_or_insert(error.to_string());
            } else {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            self.ended.lock().expect("no panic").insert(number, ended);
        }
    }

    /// Begins no more turns.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Turns acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn session(&self, number: u64) -> String {
        format!("{}/{}", self.name, number / self.turns_per_session)
    }

    /// What is kept of all turns, once all agents have ended. Errors: a session can't be read.
    pub async fn audit(&self, store: &dyn SessionStore) -> Result<Audit, StoreError> {
        let ended = self.ended.lock().expect("no panic").clone();
        let mut sessions: Vec<String> = ended.keys().map(|number| self.session(*number)).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let mut audit = Audit { first_failure: self.first_failure.lock().expect("no panic").clone(), ..Audit::default() };
        let mut kept: HashMap<u64, u64> = HashMap::new();
        for session in sessions {
            let state = store.load(&session).await?.unwrap_or_default();
            audit.session(&state, &mut kept);
        }
        for (number, ended) in &ended {
            let times = kept.remove(number).unwrap_or(0);
            let counted = match ended {
                Ended::Acknowledged => &mut audit.acknowledged,
                Ended::Refused => &mut audit.refused,
                Ended::Indeterminate => &mut audit.indeterminate,
            };
            *counted += 1;
            audit.lost += u64::from(*ended == Ended::Acknowledged && times == 0);
            audit.doubled += times.saturating_sub(1);
            audit.kept_though_refused += u64::from(*ended == Ended::Refused && times > 0);
        }
        audit.never_made = kept.len() as u64;
        Ok(audit)
    }
}

fn runtime(store: Arc<dyn SessionStore>) -> Arc<dyn AgentRuntime> {
    let builder = RuntimeBuilder::new()
        .with_llm(Arc::new(Model))
        .with_tools(Arc::new(Tool))
        .with_store(store)
        .with_events(Arc::new(agent::Quiet))
        .with_default_model("scripted:model");
    builder.build().expect("every part is there")
}

fn text(number: u64) -> String {
    format!("turn {number}")
}

fn number(text: &str) -> Option<u64> {
    text.strip_prefix("turn ")?.parse().ok()
}

fn ended(turned: &Result<String, AgentError>) -> Ended {
    match turned {
        Ok(_) => Ended::Acknowledged,
        Err(AgentError::Store(StoreError::VersionConflict { .. })) => Ended::Refused,
        Err(AgentError::Store(StoreError::Other(source))) => match source.downcast_ref::<Error>().map(Error::kind) {
            Some(ErrorKind::Indeterminate) | None => Ended::Indeterminate,
            Some(_) => Ended::Refused,
        },
        Err(_) => Ended::Indeterminate,
    }
}

/// What became of all turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Turns that were acknowledged.
    pub acknowledged: u64,
    /// Turns that failed and are known to have changed nothing.
    pub refused: u64,
    /// Turns of which nobody knows.
    pub indeterminate: u64,
    /// The first error an agent got.
    pub first_failure: Option<String>,
    /// Acknowledged, and not kept.
    pub lost: u64,
    /// Kept more than once.
    pub doubled: u64,
    /// Kept, though the answer said that nothing changed.
    pub kept_though_refused: u64,
    /// Kept, and asked for by nobody.
    pub never_made: u64,
    /// Turns whose messages are not together, complete and in order.
    pub split: u64,
    /// Sessions whose usage is not the sum of their turns'.
    pub wrong_usage: u64,
}

impl Audit {
    /// Whether all is as it was promised. A race in which nothing was acknowledged proves nothing.
    pub fn holds(&self) -> bool {
        let wrong = [self.lost, self.doubled, self.kept_though_refused, self.never_made, self.split, self.wrong_usage];
        self.acknowledged > 0 && wrong == [0; 6]
    }

    fn session(&mut self, state: &SessionState, kept: &mut HashMap<u64, u64>) {
        let mut turns = 0_u32;
        let mut messages = state.messages.as_slice();
        while let Some(first) = messages.first() {
            let next = messages[1..].iter().position(|message| message.role == Role::User).map_or(messages.len(), |at| at + 1);
            match number(&first.content).filter(|_| is_whole(&messages[..next])) {
                Some(number) => *kept.entry(number).or_default() += 1,
                None => self.split += 1,
            }
            turns += 1;
            messages = &messages[next..];
        }
        let usage = &state.total_usage;
        let expected = (turns * PROMPT_TOKENS, turns * COMPLETION_TOKENS);
        self.wrong_usage += u64::from((usage.prompt_tokens, usage.completion_tokens) != expected);
    }
}

/// A question, the call of the tool, its result, the answer: all of one turn.
fn is_whole(messages: &[Message]) -> bool {
    let [question, call, result, answer] = messages else { return false };
    let said = &question.content;
    question.role == Role::User
        && call.role == Role::Assistant
        && call.tool_calls.iter().map(|call| call.call_id.as_ref()).eq([Some(said)])
        && result.role == Role::Tool
        && result.tool_call_id.as_ref() == Some(said)
        && answer.role == Role::Assistant
        && answer.content.contains(said.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(number: u64) -> Vec<Message> {
        let said = text(number);
        let call = ToolCall::new(TOOL, serde_json::Value::Null).with_call_id(said.clone());
        vec![
            Message::text(Role::User, said.clone()),
            Message::assistant_tool_calls("", vec![call]),
            Message::tool_result(TOOL, Some(said.clone()), said.clone()),
            Message::text(Role::Assistant, said),
        ]
    }

    fn audited(messages: Vec<Message>, turns: u32) -> (Audit, HashMap<u64, u64>) {
        let total_usage = TokenUsage { prompt_tokens: turns * PROMPT_TOKENS, completion_tokens: turns * COMPLETION_TOKENS };
        let state = SessionState { messages, total_usage, ..SessionState::default() };
        let (mut audit, mut kept) = (Audit::default(), HashMap::new());
        audit.session(&state, &mut kept);
        (audit, kept)
    }

    /// The audit sees what it is there to see.
    #[test]
    fn turns_that_are_doubled_split_or_miscounted_are_found() {
        let (audit, kept) = audited([turn(1), turn(2), turn(1)].concat(), 3);
        assert_eq!((audit, kept), (Audit::default(), HashMap::from([(1, 2), (2, 1)])));
        assert_eq!(audited(turn(1), 2).0.wrong_usage, 1);
        let mut crossed = [turn(1), turn(2)].concat();
        crossed.swap(2, 6);
        assert_eq!(audited(crossed, 2).0.split, 2);
        let mut cut = [turn(1), turn(2)].concat();
        cut.remove(2);
        assert_eq!(audited(cut, 2).0.split, 1);
    }

    /// What is stored is held against what the agents were answered.
    #[tokio::test]
    async fn turns_that_are_lost_or_kept_against_their_answer_are_found() {
        let store = bob_adapters::store_memory::InMemorySessionStore::new();
        let race = Race::new("hot", 10, 100);
        race.ended.lock().expect("no panic").extend([(1, Ended::Acknowledged), (2, Ended::Refused), (3, Ended::Indeterminate)]);
        let audit = race.audit(&store).await.expect("readable");
        assert_eq!((audit.lost, audit.acknowledged, audit.refused, audit.indeterminate), (1, 1, 1, 1));
        assert!(!audit.holds());
        let messages = [turn(1), turn(2), turn(7)].concat();
        let total_usage = TokenUsage { prompt_tokens: 3 * PROMPT_TOKENS, completion_tokens: 3 * COMPLETION_TOKENS };
        let state = SessionState { messages, total_usage, ..SessionState::default() };
        store.save(&race.session(1), &state).await.expect("stored");
        let audit = race.audit(&store).await.expect("readable");
        assert_eq!((audit.lost, audit.kept_though_refused, audit.never_made, audit.split), (0, 1, 1, 0));
        assert!(!audit.holds());
    }
}
