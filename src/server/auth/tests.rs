use std::time::Duration;

use super::*;
use crate::testing::inline::ManualClock;
use crate::types::Applied;

fn tokens(entries: &[(&str, &str, &str)]) -> Tokens {
    let entry = |(name, token, rest): &(&str, &str, &str)| {
        let hash: String = hash_of(token).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n")
    };
    Tokens::parse(&entries.iter().map(entry).collect::<String>()).expect("well formed")
}

const WRITER: (&str, &str, &str) =
    ("writer", "secret-w", "scopes = [\"read\", \"write\"]\nprefixes = [\"a/\"]\nexpires = \"1970-01-01T00:00:10Z\"");
const SCRAPER: (&str, &str, &str) = ("scraper", "secret-m", "scopes = [\"metrics\"]");
const ADMIN: (&str, &str, &str) = ("admin", "secret-a", "scopes = [\"admin\"]");

/// With a clock that stands a second after the epoch.
fn guard_of(tokens: Option<Tokens>) -> (Guard, ManualClock) {
    let clock = ManualClock::default();
    clock.advance(Duration::from_secs(1));
    (Guard::new(tokens, Arc::new(clock.clone())), clock)
}

fn guard() -> (Guard, ManualClock) {
    guard_of(Some(tokens(&[WRITER, ADMIN])))
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("ASCII"));
    headers
}

fn id(text: &str) -> SessionId {
    SessionId::new(text).expect("short")
}

fn kind(result: Result<(), Refusal>) -> Option<RefusalKind> {
    let refusal = result.err()?;
    assert_eq!(refusal.applied, Applied::No, "nothing was tried");
    assert!(!refusal.message.contains("secret") && !refusal.message.contains("private-id"), "{}", refusal.message);
    Some(refusal.kind)
}

#[test]
fn a_token_is_good_for_its_scopes_and_prefixes_and_nothing_else() {
    let (guard, _) = guard();
    let writer = guard.holder(&bearer("secret-w")).expect("known");
    assert_eq!(writer.principal(), "writer");
    let allowed = |need: Need<'_>| kind(guard.authorize(&writer, need));
    assert_eq!(allowed(Need::Read(&id("a/1"))), None);
    assert_eq!(allowed(Need::Write(&id("a/1"))), None);
    assert_eq!(allowed(Need::Client), None);
    assert_eq!(allowed(Need::Write(&id("private-id"))), Some(RefusalKind::Denied), "another beginning");
    assert_eq!(allowed(Need::Read(&id("a"))), Some(RefusalKind::Denied));
    assert_eq!(allowed(Need::List("a/")), Some(RefusalKind::Denied), "no scope");
    assert_eq!(allowed(Need::Admin), Some(RefusalKind::Denied));
    let admin = guard.holder(&bearer("secret-a")).expect("known");
    assert_eq!(kind(guard.authorize(&admin, Need::Admin)), None);
    assert_eq!(kind(guard.authorize(&admin, Need::Read(&id("a/1")))), Some(RefusalKind::Denied), "no scope includes another");
    assert_eq!(kind(guard.authorize(&admin, Need::List(""))), None, "but a backup tells every id");
    assert_eq!(guard.refused(), [0, 5]);
}

#[test]
fn a_token_for_metrics_reads_those_and_nothing_else_and_an_operators_reads_them_too() {
    let (guard, _) = guard_of(Some(tokens(&[SCRAPER, ADMIN, WRITER])));
    let allowed = |token: &str, need: Need<'_>| kind(guard.authorize_headers(&bearer(token), need));
    assert_eq!(allowed("secret-m", Need::Metrics), None);
    for need in [Need::Admin, Need::Client, Need::List(""), Need::Read(&id("a/1")), Need::Write(&id("a/1"))] {
        assert_eq!(allowed("secret-m", need), Some(RefusalKind::Denied));
    }
    assert_eq!(allowed("secret-a", Need::Metrics), None);
    assert_eq!(allowed("secret-w", Need::Metrics), Some(RefusalKind::Denied));
}

#[test]
fn a_caller_without_a_token_or_with_a_wrong_one_is_not_known() {
    let (guard, _) = guard();
    let mut two = bearer("secret-w");
    two.append(AUTHORIZATION, "Bearer secret-a".parse().expect("ASCII"));
    let mut basic = HeaderMap::new();
    basic.insert(AUTHORIZATION, "Basic secret-w".parse().expect("ASCII"));
    let long = "x".repeat(TOKEN_BYTES_MAX + 1);
    for headers in [HeaderMap::new(), bearer(""), bearer("secret"), bearer("secret-w "), bearer(&long), two, basic] {
        assert_eq!(kind(guard.holder(&headers).map(drop)), Some(RefusalKind::Unauthenticated), "{headers:?}");
        assert_eq!(kind(guard.authorize_admin(&headers)), Some(RefusalKind::Unauthenticated));
    }
    assert_eq!(kind(guard.authorize_admin(&bearer("secret-w"))), Some(RefusalKind::Denied));
    assert_eq!(kind(guard.authorize_admin(&bearer("secret-a"))), None);
}

#[test]
fn a_token_that_expires_or_is_withdrawn_ends_for_callers_that_are_in_already() {
    let (guard, clock) = guard();
    let (writer, admin) = (guard.holder(&bearer("secret-w")).expect("known"), guard.holder(&bearer("secret-a")).expect("known"));
    clock.advance(Duration::from_millis(8_999));
    assert_eq!(kind(guard.authorize(&writer, Need::Client)), None);
    clock.advance(Duration::from_millis(1));
    assert_eq!(kind(guard.authorize(&writer, Need::Client)), Some(RefusalKind::Unauthenticated));
    assert_eq!(kind(guard.holder(&bearer("secret-w")).map(drop)), Some(RefusalKind::Unauthenticated));
    guard.replace(tokens(&[("admin", "another", "scopes = [\"admin\"]")]));
    assert_eq!(kind(guard.authorize(&admin, Need::Admin)), Some(RefusalKind::Unauthenticated), "the same name, another token");
    assert_eq!(kind(guard.authorize_admin(&bearer("another"))), None);
}

#[test]
fn a_forwarded_call_is_judged_by_this_nodes_own_tokens() {
    let (guard, clock) = guard();
    assert_eq!(kind(guard.admit_forwards(false)), Some(RefusalKind::Unauthenticated), "who says so did not prove to be a member");
    assert_eq!(kind(guard.admit_forwards(true)), None);
    let silent = guard.forwarded(String::new(), &[], true);
    assert_eq!(kind(guard.authorize(&silent, Need::Client)), Some(RefusalKind::Unauthenticated));
    let writer = guard.forwarded("writer".into(), &hash_of("secret-w"), false);
    assert_eq!(kind(guard.authorize(&writer, Need::Write(&id("a/1")))), None);
    assert_eq!(kind(guard.authorize(&writer, Need::Write(&id("private-id")))), Some(RefusalKind::Denied));
    let nobody = guard.forwarded("root".into(), &hash_of("secret-w"), false);
    assert_eq!(kind(guard.authorize(&nobody, Need::Client)), Some(RefusalKind::Unauthenticated));
    clock.advance(Duration::from_secs(9));
    assert_eq!(kind(guard.authorize(&writer, Need::Write(&id("a/1")))), Some(RefusalKind::Unauthenticated));
}

/// A token that was replaced under its name is another one, though a node with an older file still takes it.
#[test]
fn a_forwarded_call_is_judged_by_its_tokens_hash_and_by_the_name_alone_only_from_an_earlier_release() {
    let (guard, _) = guard();
    let judged = |hash: &[u8], may_lack_hash| {
        let result = guard.authorize(&guard.forwarded("writer".into(), hash, may_lack_hash), Need::Client);
        let message = result.as_ref().err().map(|refusal| refusal.message.clone()).unwrap_or_default();
        (kind(result), message)
    };
    assert_eq!(judged(&hash_of("secret-w"), false), (None, String::new()));
    assert_eq!(judged(&[], true), (None, String::new()), "by its name");
    for hash in [&hash_of("secret-of-before")[..], &hash_of("secret-w")[1..], &[]] {
        let (kind, message) = judged(hash, false);
        assert_eq!(kind, Some(RefusalKind::Unauthenticated), "{hash:?}");
        assert_eq!(message, "this node knows another token of this name; give all nodes the same tokens token=\"writer\"");
    }
    assert_eq!(judged(&hash_of("secret-of-before"), true).0, Some(RefusalKind::Unauthenticated), "one that is sent is looked at");
}

#[test]
fn without_tokens_everyone_may_do_everything() {
    let (guard, _) = guard_of(None);
    let anyone = guard.holder(&HeaderMap::new()).expect("nobody asks");
    assert_eq!((kind(guard.authorize(&anyone, Need::Admin)), anyone.principal()), (None, ""));
    assert!(guard.is_open() && guard.admit_forwards(false).is_ok());
}
