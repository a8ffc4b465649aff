//! Comparing states by value: Bob's types have no `PartialEq`.

use bob_core::types::{Message, SessionState, TokenUsage, ToolCall};

/// Where two states differ, their versions left aside; `None` if they are equal. A field added to Bob's types must be placed here, or
/// this does not compile.
pub fn difference(left: &SessionState, right: &SessionState) -> Option<String> {
    let SessionState { messages, memory_summary, total_usage, version: _ } = left;
    let TokenUsage { prompt_tokens, completion_tokens } = total_usage;
    if messages.len() != right.messages.len() {
        return Some(format!("messages: {} and {}", messages.len(), right.messages.len()));
    }
    if let Some(at) = (0..messages.len()).find(|at| !messages_equal(&messages[*at], &right.messages[*at])) {
        return Some(format!("message {at}: {:?} and {:?}", messages[at], right.messages[at]));
    }
    if *memory_summary != right.memory_summary {
        return Some(format!("memory_summary: {memory_summary:?} and {:?}", right.memory_summary));
    }
    let usage = (*prompt_tokens, *completion_tokens);
    let other = (right.total_usage.prompt_tokens, right.total_usage.completion_tokens);
    (usage != other).then(|| format!("total_usage: {usage:?} and {other:?}"))
}

fn messages_equal(left: &Message, right: &Message) -> bool {
    let Message { role, content, tool_calls, tool_call_id, tool_name } = left;
    *role == right.role
        && *content == right.content
        && tool_calls.len() == right.tool_calls.len()
        && tool_calls.iter().zip(&right.tool_calls).all(|(left, right)| calls_equal(left, right))
        && *tool_call_id == right.tool_call_id
        && *tool_name == right.tool_name
}

fn calls_equal(left: &ToolCall, right: &ToolCall) -> bool {
    let ToolCall { call_id, name, arguments } = left;
    *call_id == right.call_id && *name == right.name && *arguments == right.arguments
}

#[cfg(test)]
mod tests {
    use bob_core::types::Role;

    use super::*;

    #[test]
    fn every_field_but_the_version_counts() {
        let mut call = Message::text(Role::Assistant, "");
        call.tool_calls = vec![ToolCall::new("search", serde_json::json!({"q": 1}))];
        let state = SessionState { messages: vec![call], memory_summary: Some("s".into()), ..SessionState::default() };
        assert_eq!(difference(&state, &SessionState { version: 9, ..state.clone() }), None);
        let changes: [fn(&mut SessionState); 10] = [
            |state| state.messages.clear(),
            |state| state.messages[0].role = Role::User,
            |state| state.messages[0].content.push('x'),
            |state| state.messages[0].tool_call_id = Some(String::new()),
            |state| state.messages[0].tool_name = Some(String::new()),
            |state| state.messages[0].tool_calls[0].call_id = Some(String::new()),
            |state| state.messages[0].tool_calls[0].name.push('x'),
            |state| state.messages[0].tool_calls[0].arguments = serde_json::json!({"q": 1.0}),
            |state| state.memory_summary = None,
            |state| state.total_usage.completion_tokens += 1,
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut changed = state.clone();
            change(&mut changed);
            assert!(difference(&state, &changed).is_some(), "change {at}");
        }
    }
}
