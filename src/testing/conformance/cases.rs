//! The promises of the port.

use bob_core::error::StoreError;
use bob_core::types::{Message, Role, SessionState, TokenUsage, ToolCall};
use serde_json::json;
use tokio::task::JoinSet;

use super::compare::difference;
use super::{Failure, Running, Subject};

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every case under its name.
        pub(super) const ALL: &[(&str, fn(Subject) -> Running)] = &[$((stringify!($name), |subject| Box::pin($name(subject)))),*];
    };
}

cases!(
    load_of_a_session_that_never_existed_is_none,
    save_creates_version_1_and_counts_on,
    save_ignores_the_version_of_the_state,
    load_answers_the_stored_version,
    save_replaces_the_whole_state,
    save_if_version_0_creates_a_missing_session,
    save_if_version_of_a_missing_session_conflicts_with_0,
    save_if_version_stores_on_a_match,
    save_if_version_conflicts_on_a_mismatch_and_changes_nothing,
    save_if_version_0_conflicts_with_a_session,
    save_and_save_if_version_count_together,
    a_conflict_names_both_sides,
    odd_ids_are_sessions_of_their_own,
    an_id_of_one_kib_is_taken,
    an_empty_state_is_not_a_missing_one,
    every_shape_of_message_survives,
    text_of_every_kind_survives,
    numbers_survive,
    usage_at_its_bound_survives,
    a_state_of_two_mebibytes_survives,
    a_hundred_saves_count_a_hundred_versions,
    of_racing_creations_one_wins,
    of_racing_conditional_saves_one_wins,
    racing_increments_lose_nothing,
    racing_saves_take_a_version_each,
);

fn state(content: &str) -> SessionState {
    SessionState { messages: vec![Message::text(Role::User, content)], ..SessionState::default() }
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(what()) }
}

impl Subject {
    async fn load(&self, id: &String) -> Result<Option<SessionState>, Failure> {
        self.store.load(id).await.map_err(|error| format!("load failed: {error}"))
    }

    async fn save(&self, id: &String, state: &SessionState) -> Result<(), Failure> {
        self.store.save(id, state).await.map_err(|error| format!("save failed: {error}"))
    }

    async fn saves_as(&self, id: &String, state: &SessionState, expected: u64, version: u64) -> Result<(), Failure> {
        match self.store.save_if_version(id, state, expected).await {
            Ok(got) => check(got == version, || format!("save_if_version({expected}) answered {got}, not {version}")),
            Err(error) => Err(format!("save_if_version({expected}) failed: {error}")),
        }
    }

    async fn conflicts(&self, id: &String, state: &SessionState, expected: u64, actual: u64) -> Result<(), Failure> {
        match self.store.save_if_version(id, state, expected).await {
            Err(StoreError::VersionConflict { expected: e, actual: a }) if (e, a) == (expected, actual) => Ok(()),
            other => Err(format!("save_if_version({expected}) answered {other:?}, not a conflict with {actual}")),
        }
    }

    /// The session holds exactly this, at this version.
    async fn holds(&self, id: &String, state: &SessionState, version: u64) -> Result<(), Failure> {
        let Some(loaded) = self.load(id).await? else {
            return Err(format!("load found nothing where version {version} is stored"));
        };
        check(loaded.version == version, || format!("load answered version {}, not {version}", loaded.version))?;
        difference(state, &loaded).map_or(Ok(()), |difference| Err(format!("load answered another state: {difference}")))
    }

    async fn survives(&self, state: SessionState) -> Result<(), Failure> {
        let id = self.id("survives");
        self.save(&id, &state).await?;
        self.holds(&id, &state, 1).await
    }
}

async fn load_of_a_session_that_never_existed_is_none(subject: Subject) -> Result<(), Failure> {
    let loaded = subject.load(&subject.id("never")).await?;
    check(loaded.is_none(), || "load found a session".to_owned())
}

async fn save_creates_version_1_and_counts_on(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    for version in 1..=3 {
        let state = state(&format!("turn {version}"));
        subject.save(&id, &state).await?;
        subject.holds(&id, &state, version).await?;
    }
    Ok(())
}

async fn save_ignores_the_version_of_the_state(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    for (version, claimed) in [(1, 7), (2, 0), (3, u64::MAX)] {
        let state = SessionState { version: claimed, ..state("x") };
        subject.save(&id, &state).await?;
        subject.holds(&id, &state, version).await?;
    }
    Ok(())
}

async fn load_answers_the_stored_version(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    let state = SessionState { version: 99, ..state("x") };
    subject.saves_as(&id, &state, 0, 1).await?;
    subject.holds(&id, &state, 1).await
}

async fn save_replaces_the_whole_state(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    let mut long = state("one");
    long.messages.push(Message::text(Role::Assistant, "two"));
    long.memory_summary = Some("so far".to_owned());
    long.total_usage = TokenUsage { prompt_tokens: 10, completion_tokens: 20 };
    subject.save(&id, &long).await?;
    let short = SessionState { messages: vec![Message::text(Role::System, "other")], ..SessionState::default() };
    subject.save(&id, &short).await?;
    subject.holds(&id, &short, 2).await
}

async fn save_if_version_0_creates_a_missing_session(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    subject.saves_as(&id, &state("x"), 0, 1).await?;
    subject.holds(&id, &state("x"), 1).await
}

async fn save_if_version_of_a_missing_session_conflicts_with_0(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    for expected in [1, 5, u64::MAX] {
        subject.conflicts(&id, &state("x"), expected, 0).await?;
    }
    let loaded = subject.load(&id).await?;
    check(loaded.is_none(), || "a conflict created the session".to_owned())
}

async fn save_if_version_stores_on_a_match(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    for version in 1..=3 {
        let state = state(&format!("turn {version}"));
        subject.saves_as(&id, &state, version - 1, version).await?;
        subject.holds(&id, &state, version).await?;
    }
    Ok(())
}

async fn save_if_version_conflicts_on_a_mismatch_and_changes_nothing(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    subject.save(&id, &state("one")).await?;
    subject.save(&id, &state("two")).await?;
    for expected in [1, 3, u64::MAX] {
        subject.conflicts(&id, &state("three"), expected, 2).await?;
        subject.holds(&id, &state("two"), 2).await?;
    }
    Ok(())
}

async fn save_if_version_0_conflicts_with_a_session(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    subject.save(&id, &state("one")).await?;
    subject.conflicts(&id, &state("two"), 0, 1).await?;
    subject.holds(&id, &state("one"), 1).await
}

async fn save_and_save_if_version_count_together(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    subject.saves_as(&id, &state("one"), 0, 1).await?;
    subject.save(&id, &state("two")).await?;
    subject.saves_as(&id, &state("three"), 2, 3).await?;
    subject.save(&id, &state("four")).await?;
    subject.holds(&id, &state("four"), 4).await
}

async fn a_conflict_names_both_sides(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    for _ in 0..4 {
        subject.save(&id, &state("x")).await?;
    }
    subject.conflicts(&id, &state("y"), 2, 4).await
}

async fn odd_ids_are_sessions_of_their_own(subject: Subject) -> Result<(), Failure> {
    let odd = [
        "",
        "/",
        "//",
        "?",
        "#",
        "%",
        "%2F",
        "..",
        ".",
        "a/../b",
        "b",
        "a/b",
        "A/b",
        "a b",
        " a b",
        "a:b",
        "\n",
        "\u{0}",
        "\\",
        "\"'",
        "*",
        "é",
        "e\u{301}",
        "日本語",
        "🦀",
        "con",
        "CON",
        "~",
        "$HOME",
        ";",
        "a\tb",
    ];
    // Also as whole ids, without the prefix: the empty one is an id like any other.
    for name in odd {
        subject.save(&subject.id(name), &state(name)).await?;
    }
    for name in odd {
        subject.holds(&subject.id(name), &state(name), 1).await?;
    }
    for id in ["", "/", "..", "?"].map(str::to_owned) {
        let before = subject.load(&id).await?.map_or(0, |state| state.version);
        subject.saves_as(&id, &state(&id), before, before + 1).await?;
        subject.holds(&id, &state(&id), before + 1).await?;
    }
    Ok(())
}

async fn an_id_of_one_kib_is_taken(subject: Subject) -> Result<(), Failure> {
    let mut id = subject.id("");
    id.push_str(&"x".repeat(1024 - id.len()));
    subject.save(&id, &state("x")).await?;
    subject.holds(&id, &state("x"), 1).await
}

async fn an_empty_state_is_not_a_missing_one(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    subject.save(&id, &SessionState::default()).await?;
    subject.holds(&id, &SessionState::default(), 1).await?;
    subject.saves_as(&id, &state("x"), 1, 2).await
}

async fn every_shape_of_message_survives(subject: Subject) -> Result<(), Failure> {
    let mut messages: Vec<Message> =
        [Role::System, Role::User, Role::Assistant, Role::Tool].map(|role| Message::text(role, "text")).into();
    let arguments =
        [json!(null), json!({}), json!([]), json!(true), json!("text"), json!(1), json!({"deep": [{"er": {"a": [null, [[]]]}}]})];
    for (at, arguments) in arguments.into_iter().enumerate() {
        let mut message = Message::text(Role::Assistant, "");
        message.tool_calls =
            vec![ToolCall::new("search", arguments.clone()), ToolCall::new("", arguments).with_call_id(format!("c{at}"))];
        messages.push(message);
    }
    for (id, name) in [(None, Some("n")), (Some("i"), None), (Some("i"), Some("n")), (Some(""), Some(""))] {
        let mut message = Message::text(Role::Tool, "result");
        (message.tool_call_id, message.tool_name) = (id.map(str::to_owned), name.map(str::to_owned));
        messages.push(message);
    }
    for summary in [None, Some(String::new()), Some("so far".to_owned())] {
        let id = subject.id(&format!("{summary:?}"));
        let state = SessionState { messages: messages.clone(), memory_summary: summary, ..SessionState::default() };
        subject.save(&id, &state).await?;
        subject.holds(&id, &state, 1).await?;
    }
    Ok(())
}

async fn text_of_every_kind_survives(subject: Subject) -> Result<(), Failure> {
    let texts = [
        "",
        "\u{0}",
        "\"\\\n\r\t\u{8}\u{c}",
        "é e\u{301}",
        "日本語",
        "🦀👩‍👩‍👧",
        "\u{feff}",
        "\u{2028}",
        "{\"json\": [1]}",
        "\u{10ffff}",
    ];
    let messages = texts.map(|text| Message::text(Role::User, text)).into();
    subject.survives(SessionState { messages, memory_summary: Some(texts.concat()), ..SessionState::default() }).await
}

async fn numbers_survive(subject: Subject) -> Result<(), Failure> {
    let numbers = json!([0, -1, i64::MIN, i64::MAX, u64::MAX, 0.5, -0.25, 1e300, 1.0, -1.5e-7]);
    let mut message = Message::text(Role::Assistant, "");
    message.tool_calls = vec![ToolCall::new("sum", numbers)];
    subject.survives(SessionState { messages: vec![message], ..SessionState::default() }).await
}

async fn usage_at_its_bound_survives(subject: Subject) -> Result<(), Failure> {
    let total_usage = TokenUsage { prompt_tokens: u32::MAX, completion_tokens: u32::MAX };
    subject.survives(SessionState { total_usage, ..state("x") }).await
}

async fn a_state_of_two_mebibytes_survives(subject: Subject) -> Result<(), Failure> {
    let text = |at: usize| format!("{at} {}", "the quick brown fox ".repeat(50 + at % 7));
    let messages = (0..2000).map(|at| Message::text(Role::User, text(at))).collect();
    subject.survives(SessionState { messages, ..SessionState::default() }).await
}

async fn a_hundred_saves_count_a_hundred_versions(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    for _ in 0..100 {
        subject.save(&id, &state("x")).await?;
    }
    subject.holds(&id, &state("x"), 100).await
}

/// Runs `count` at once and answers what each gave.
async fn at_once<T: Send + 'static, F>(count: usize, run: impl Fn(usize) -> F) -> Result<Vec<T>, Failure>
where
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    (0..count).for_each(|at| drop(tasks.spawn(run(at))));
    let mut answers = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        answers.push(answer.map_err(|error| format!("the store panicked: {error}"))??);
    }
    Ok(answers)
}

/// Whether a conditional save won; anything but a conflict with a session that is there fails the case.
async fn wins(subject: Subject, id: String, state: SessionState, expected: u64) -> Result<bool, Failure> {
    match subject.store.save_if_version(&id, &state, expected).await {
        Ok(version) => check(version == expected + 1, || format!("save_if_version({expected}) answered {version}")).map(|()| true),
        Err(StoreError::VersionConflict { actual, .. }) if actual > expected => Ok(false),
        Err(error) => Err(format!("a racing save failed: {error}")),
    }
}

async fn one_wins(subject: Subject, id: String, expected: u64) -> Result<(), Failure> {
    let racer = |at: usize| wins(subject.clone(), id.clone(), state(&format!("racer {at}")), expected);
    let winners = at_once(16, racer).await?.into_iter().filter(|won| *won).count();
    check(winners == 1, || format!("{winners} of 16 racing saves from version {expected} were acknowledged"))?;
    let version = subject.load(&id).await?.map_or(0, |state| state.version);
    check(version == expected + 1, || format!("version {version} is stored, not {}", expected + 1))
}

async fn of_racing_creations_one_wins(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    one_wins(subject, id, 0).await
}

async fn of_racing_conditional_saves_one_wins(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    subject.save(&id, &state("x")).await?;
    one_wins(subject, id, 1).await
}

/// Adds one message, whatever it takes.
async fn append(subject: Subject, id: String, text: String) -> Result<(), Failure> {
    loop {
        let mut state = subject.load(&id).await?.unwrap_or_default();
        let expected = state.version;
        state.messages.push(Message::text(Role::User, text.clone()));
        if wins(subject.clone(), id.clone(), state, expected).await? {
            return Ok(());
        }
    }
}

async fn racing_increments_lose_nothing(subject: Subject) -> Result<(), Failure> {
    const RACERS: usize = 8;
    const TURNS: usize = 5;
    let id = subject.id("a");
    let racer = |at: usize| {
        let (subject, id) = (subject.clone(), id.clone());
        async move {
            for turn in 0..TURNS {
                append(subject.clone(), id.clone(), format!("{at}/{turn}")).await?;
            }
            Ok(())
        }
    };
    at_once(RACERS, racer).await?;
    let state = subject.load(&id).await?.unwrap_or_default();
    let mut texts: Vec<_> = state.messages.into_iter().map(|message| message.content).collect();
    texts.sort_unstable();
    texts.dedup();
    let total = RACERS * TURNS;
    let seen = (texts.len(), state.version);
    check(seen == (total, total as u64), || format!("of {total} acknowledged turns {} are stored, at version {}", seen.0, seen.1))
}

async fn racing_saves_take_a_version_each(subject: Subject) -> Result<(), Failure> {
    let id = subject.id("a");
    let racer = |at: usize| {
        let (subject, id) = (subject.clone(), id.clone());
        async move { subject.save(&id, &state(&format!("racer {at}"))).await }
    };
    at_once(16, racer).await?;
    let version = subject.load(&id).await?.map_or(0, |state| state.version);
    check(version == 16, || format!("after 16 acknowledged saves version {version} is stored"))
}
