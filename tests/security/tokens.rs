//! Who may do what.

use quorate::client::{Client, Content, Error, ErrorKind, List, MemberChange, WriteOptions};
use quorate::types::NodeId;

use crate::security::nodes::{Nodes, PATIENCE};
use crate::security::wire;

fn content() -> Content {
    Content::Value("x".into())
}

async fn save(client: &Client, id: &str) -> Result<(), Error> {
    client.save(id, content(), WriteOptions::default()).await.map(drop)
}

async fn list(client: &Client, prefix: &str) -> Result<usize, Error> {
    let page = client.list(List { prefix: prefix.to_owned(), ..List::default() }).await?;
    Ok(page.sessions.len())
}

fn kind<T>(result: Result<T, Error>) -> Option<ErrorKind> {
    let error = result.err()?;
    assert!(!error.to_string().contains("tokensecret") && !error.to_string().contains("b/1"), "{error}");
    Some(error.kind())
}

#[tokio::test]
async fn a_token_does_what_its_scopes_and_prefixes_say_and_nothing_else() {
    let nodes = Nodes::start(1, "info").await;
    let (denied, unknown) = (Some(ErrorKind::Denied), Some(ErrorKind::Unauthenticated));

    let writer = nodes.client("writer");
    save(&writer, "a/1").await.expect("its prefix");
    assert_eq!(list(&writer, "a/").await.expect("its prefix"), 1);
    assert_eq!(kind(save(&writer, "b/1").await), denied, "wrong prefix");
    assert_eq!(kind(writer.load("b/1").await), denied, "wrong prefix");
    assert_eq!(kind(writer.delete("b/1", None).await), denied, "wrong prefix");
    assert_eq!(kind(list(&writer, "").await), denied, "a listing beyond its prefix");
    assert_eq!(kind(writer.status(Default::default()).await), denied, "an admin call with a writer's token");
    assert_eq!(kind(writer.events().await), denied, "an admin call with a writer's token");
    let within = PATIENCE;
    for refused in [
        kind(writer.backup(Default::default(), within).await),
        kind(writer.change_members(MemberChange::Remove(NodeId(1)), true, within).await),
        kind(writer.transfer_leadership(None, within).await),
    ] {
        assert_eq!(refused, denied, "an admin call with a writer's token");
    }
    assert_eq!(writer.members().await.expect("any client may learn where the nodes are").members.len(), 1);

    let reader = nodes.client("reader");
    assert!(reader.load("a/1").await.expect("any id").is_some());
    assert_eq!(kind(save(&reader, "a/1").await), denied, "no scope");
    assert_eq!(kind(list(&reader, "a/").await), denied, "listing needs its own scope");

    let admin = nodes.client("admin");
    assert_eq!(admin.status(Default::default()).await.expect("its scope").nodes.len(), 1);
    admin.events().await.expect("its scope");
    assert_eq!(kind(admin.load("a/1").await), denied, "no scope includes another");

    let expired = nodes.client("expired");
    assert_eq!(kind(expired.load("a/1").await), unknown);
    let nobody = nodes.builder().tls(nodes.tls()).build().expect("well formed");
    assert_eq!(kind(nobody.load("a/1").await), unknown, "no token");
    assert_eq!(kind(nobody.status(Default::default()).await), unknown, "no token");
    let stranger = nodes.builder().tls(nodes.tls()).token("tokensecret-unheard-of").build().expect("well formed");
    assert_eq!(kind(save(&stranger, "a/1").await), unknown);
    for client in [writer, reader, admin, expired, nobody, stranger] {
        client.close().await;
    }
}

#[tokio::test]
async fn the_admin_port_tells_everyone_that_it_lives_and_nobody_more_without_an_administrators_token() {
    let nodes = Nodes::start(1, "info").await;
    let get = async |path, token| wire::get(&nodes.admin_address(1), &nodes.ca, path, token).await;
    for path in ["/livez", "/readyz", "/readyz?verbose"] {
        assert_eq!(get(path, None).await.0, 200, "{path}");
    }
    for path in ["/metrics", "/version", "/log-level"] {
        let (code, text) = get(path, None).await;
        assert!(code == 401 && text.to_ascii_lowercase().contains("www-authenticate: bearer"), "{text}");
        assert_eq!(get(path, Some("tokensecret-nobody")).await.0, 401, "{path}");
        assert_eq!(get(path, Some("tokensecret-writer")).await.0, 403, "{path}");
        assert_eq!(get(path, Some("tokensecret-admin")).await.0, 200, "{path}");
    }
    // What the page asks for.
    for (what, body) in [("GET /api/status", ""), ("POST /api/sessions", "{}"), ("POST /api/session", r#"{"id":"a/1"}"#)] {
        let ask = async |token| wire::ask(&nodes.admin_address(1), &nodes.ca.pem(), what, token, body).await.0;
        assert_eq!((ask(None).await, ask(Some("tokensecret-writer")).await), (401, 403), "{what}");
        assert!(!matches!(ask(Some("tokensecret-operator")).await, 401 | 403), "{what}");
        // An operator of the cluster does not thereby read what is in it.
        assert_eq!(ask(Some("tokensecret-admin")).await == 403, what.ends_with("/session"), "{what}");
    }
    assert_eq!(get("/metrics", Some("tokensecret-scraper")).await.0, 200, "its scope");
    assert_eq!(get("/version", Some("tokensecret-scraper")).await.0, 403, "its scope is for metrics only");
    let (_, metrics) = get("/metrics", Some("tokensecret-admin")).await;
    for line in ["quorate_refused_credentials_total{reason=\"denied\"} 8", "quorate_certificate_not_after_seconds 3786912000"] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}
