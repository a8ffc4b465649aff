//! What users entrusted to us is in no `Debug` of what carries it.

use bytes::Bytes;
use quorate::client::{BackupPiece, Content, Session, Tls};
use quorate::machine::RowChange;
use quorate::storage::log::Record;
use quorate::types::{Blob, Change, Chunk, Counters, LogId, SessionId};

#[test]
fn no_debug_shows_content_an_id_or_a_key() {
    let secret = || Bytes::from_static(b"debugsecret");
    let id = SessionId::new("debugsecret").expect("short");
    let blob = Blob::plain(secret());
    let chunk = Chunk { item_count: 1, blob: blob.clone() };
    let change = Change::Full { chunks: vec![chunk], head: blob, counters: Counters::default() };
    let content = Content::Transcript { messages: vec![secret()], head: secret(), counters: Counters::default() };
    let session = Session::new(content);
    let mut piece = BackupPiece::default();
    piece.data = secret();
    let row = RowChange { table: 1, key: secret(), value: Some(secret()) };
    let record = Record { log_id: LogId::default(), payload: secret() };
    let list = quorate::client::List { prefix: "debugsecret".into(), ..Default::default() };
    let tls = Tls::ca_pem("debugsecret").identity_pem("debugsecret", "debugsecret");
    for shown in [
        format!("{id:?}"),
        format!("{change:?} {change:#?}"),
        format!("{session:?}"),
        format!("{:?}", Content::Value(secret())),
        format!("{piece:?}"),
        format!("{row:?}"),
        format!("{record:?}"),
        format!("{list:?}"),
        format!("{tls:?}"),
    ] {
        let as_numbers = b"debugsecret".iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
        assert!(!shown.contains("debugsecret") && !shown.contains(&as_numbers), "{shown}");
    }
}
