//! A stock Bob agent whose conversation lives in quorate.
//!
//! Start a cluster in one terminal, talk in another, kill the leader in between:
//!
//! ```text
//! cargo run --release -- dev
//! cargo run --example bob_agent -- support-42 "hello"
//! cargo run --example bob_agent -- support-42 "do you remember me?"
//! ```
//!
//! The model is scripted, so no network is needed: it answers with the number of messages it was shown.

use std::sync::Arc;

use bob_core::error::{LlmError, ToolError};
use bob_core::ports::{EventSink, LlmPort, SessionStore, ToolPort};
use bob_core::types::{
    AgentEvent, AgentRequest, AgentRunResult, FinishReason, LlmRequest, LlmResponse, LlmStream, RequestContext, Role, TokenUsage,
    ToolCall, ToolDescriptor, ToolResult,
};
use bob_runtime::{AgentBootstrap as _, AgentRuntime, RuntimeBuilder};
use quorate::client::Client;

/// Answers with what it was asked last and how many user messages it saw.
pub struct ScriptedModel;

#[async_trait::async_trait]
impl LlmPort for ScriptedModel {
    async fn complete(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let asked: Vec<&str> =
            request.messages.iter().filter(|message| message.role == Role::User).map(|message| message.content.as_str()).collect();
        let text = format!("you said {:?}; that was message {} of yours", asked.last().unwrap_or(&""), asked.len());
        let content = serde_json::json!({ "type": "final", "content": text }).to_string();
        let usage = TokenUsage { prompt_tokens: 10, completion_tokens: 3 };
        Ok(LlmResponse { content, usage, finish_reason: FinishReason::Stop, tool_calls: Vec::new() })
    }

    async fn complete_stream(&self, _: LlmRequest) -> Result<LlmStream, LlmError> {
        Err(LlmError::Provider("this model does not stream".to_owned()))
    }
}

/// No tools.
pub struct NoTools;

#[async_trait::async_trait]
impl ToolPort for NoTools {
    async fn list_tools(&self) -> Result<Vec<ToolDescriptor>, ToolError> {
        Ok(Vec::new())
    }

    async fn call_tool(&self, call: ToolCall) -> Result<ToolResult, ToolError> {
        Err(ToolError::NotFound { name: call.name })
    }
}

/// Nobody listens to the events.
pub struct Quiet;

impl EventSink for Quiet {
    fn emit(&self, _: AgentEvent) {}
}

/// The stock runtime over any store.
pub fn runtime(store: Arc<dyn SessionStore>) -> Arc<dyn AgentRuntime> {
    let builder = RuntimeBuilder::new()
        .with_llm(Arc::new(ScriptedModel))
        .with_tools(Arc::new(NoTools))
        .with_store(store)
        .with_events(Arc::new(Quiet))
        .with_default_model("scripted:model");
    builder.build().expect("every part is there")
}

/// One turn of a conversation; gives the answer.
pub async fn turn(runtime: &dyn AgentRuntime, session: &str, input: &str) -> Result<String, bob_core::error::AgentError> {
    let request = AgentRequest {
        input: input.to_owned(),
        session_id: session.to_owned(),
        model: None,
        context: RequestContext::default(),
        cancel_token: None,
        output_schema: None,
        max_output_retries: 0,
    };
    let AgentRunResult::Finished(response) = runtime.run(request).await?;
    Ok(response.content)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let session = arguments.next().unwrap_or_else(|| "example".to_owned());
    let input = arguments.next().unwrap_or_else(|| "hello".to_owned());
    let endpoints =
        std::env::var("QUORATE_ENDPOINTS").unwrap_or_else(|_| "127.0.0.1:7460,127.0.0.1:7470,127.0.0.1:7480".to_owned());

    let client = Client::builder().endpoints(endpoints.split(',')).build()?;
    let store = client.session_store();
    let answer = turn(&*runtime(Arc::new(store.clone())), &session, &input).await?;
    println!("{answer}");

    let state = store.load(&session).await?.ok_or("the session was just saved")?;
    println!("session {session:?} has {} messages at version {}", state.messages.len(), state.version);
    client.close().await;
    Ok(())
}
