//! Transactions and their verdicts: what is refused, and by which name.

use bytes::Bytes;

use super::super::v1;
use super::*;
use crate::types::*;

#[test]
fn a_transaction_that_breaks_a_bound_or_has_a_wrong_operation_is_refused_by_name() {
    use v1::write_operation::transaction::{self, operation::Operation as Message};
    let request = Request { client: ClientId(1), nonce: Nonce([1; 16]), sequence: Sequence(1), acknowledged_below: Sequence(1) };
    let delete = |n: usize| Operation::Delete { id: SessionId::new(&format!("s{n}")).expect("short"), expected: None, fence: None };
    let operations = Operations::new((0..64).map(delete).collect()).expect("at the bound");
    let write = Write::Transaction { request, operations };
    let Some(v1::write_operation::Write::Transaction(message)) = write_to(&write).write else { panic!("another message") };
    let refused = |change: &dyn Fn(&mut v1::write_operation::Transaction)| {
        let mut transaction = message.clone();
        change(&mut transaction);
        let write = v1::WriteOperation { write: Some(v1::write_operation::Write::Transaction(transaction)) };
        let refusal = write_from(write).expect_err("hostile");
        assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Invalid, Applied::No));
        refusal.message
    };
    let with = |operation: Message| {
        let operation = Some(operation);
        refused(&move |transaction| transaction.operations[3] = transaction::Operation { operation: operation.clone() })
    };
    let wrong_count = "field=transaction.operations value=65 min=1 max=64";
    assert!(refused(&|transaction| transaction.operations.push(message.operations[0].clone())).contains(wrong_count));
    assert!(refused(&|transaction| transaction.operations.clear()).contains("field=transaction.operations value=0 min=1 max=64"));
    assert!(refused(&|transaction| transaction.request = None).contains("field=request"));
    let twice = refused(&|transaction| transaction.operations[63] = message.operations[7].clone());
    assert!(twice.contains("field=transaction.operations[63].id") && !twice.contains("s7"), "{twice}");
    let none = refused(&|transaction| transaction.operations[3].operation = None);
    assert!(none.contains("field=operation in=transaction.operations[3]"), "{none}");
    let own = v1::write_operation::Delete { request: Some(request_message()), id: "s".into(), expected: None, fence: None };
    assert!(with(Message::Delete(own)).contains("the transaction has it field=request in=transaction.operations[3]"));
    let append = v1::write_operation::Append { id: "s".into(), ..Default::default() };
    assert!(with(Message::Append(append)).contains("field=append.head_if_created in=transaction.operations[3]"));
    let require = transaction::RequireStored { id: "s".into(), expected: None, fence: None };
    assert!(with(Message::Require(require)).contains("field=require.expected"));
    let long =
        transaction::RequireStored { id: "x".repeat(crate::limits::SESSION_ID_BYTES_MAX + 1), expected: None, fence: Some(1) };
    assert!(with(Message::Require(long)).contains("field=require.id"));
    let save = |id: &str, data: usize, chunks: usize| {
        let chunk = v1::Chunk { item_count: 1, blob: Some(blob_message(0)) };
        let full = v1::change::Full { chunks: vec![chunk; chunks], head: Some(blob_message(data)), counters: vec![] };
        let change = Some(v1::Change { change: Some(v1::change::Change::Full(full)) });
        Message::Save(v1::write_operation::Save { id: id.into(), change, ..Default::default() })
    };
    let bytes = with(save("big", (16 << 20) + 1, 0));
    assert!(bytes.contains("field=transaction.operations write_bytes=16777217 limit=16777216"), "{bytes}");
    let chunks = with(save("big", 0, 4097));
    assert!(chunks.contains("field=chunks value=4097 min=0 max=4096 in=transaction.operations[3]"), "{chunks}");
    let together = refused(&|transaction| {
        for (at, (id, chunks)) in [("big", 2049), ("large", 2048)].into_iter().enumerate() {
            transaction.operations[at].operation = Some(save(id, 0, chunks));
        }
    });
    assert!(together.contains("field=transaction.operations chunks=4097 limit=4096"), "{together}");
}

fn request_message() -> v1::Request {
    v1::Request { client: 1, nonce: Bytes::from_static(&[1; 16]), sequence: 1, acknowledged_below: 1 }
}

fn blob_message(bytes: usize) -> v1::Blob {
    let Blob { raw_bytes, crc32c, data, .. } = Blob::plain(Bytes::from(vec![0; bytes]));
    v1::Blob { codec: v1::Codec::None.into(), raw_bytes, crc32c, data }
}

/// A server of another release, or a hostile one: a verdict within a verdict is on one operation, and holds no further one.
#[test]
fn a_verdict_within_another_is_one_on_an_operation() {
    let busy = v1::Outcome { revision: 0, verdict: Some(v1::outcome::Verdict::Busy(v1::Empty {})) };
    let met = v1::Outcome { revision: 0, verdict: Some(v1::outcome::Verdict::Met(v1::Empty {})) };
    let transacted = |results| v1::outcome::Verdict::Transacted(v1::outcome::Transacted { results });
    let aborted = |outcome| v1::outcome::Verdict::Aborted(Box::new(v1::outcome::Aborted { index: 1, outcome }));
    let within = v1::Outcome { revision: 0, verdict: Some(transacted(vec![met.clone()])) };
    for wrong in [
        transacted(vec![]),
        transacted(vec![met.clone(); 65]),
        transacted(vec![busy.clone()]),
        transacted(vec![within.clone()]),
        aborted(None),
        aborted(Some(Box::new(met.clone()))),
        aborted(Some(Box::new(busy))),
        aborted(Some(Box::new(within))),
    ] {
        let refusal = outcome_from(v1::Outcome { revision: 1, verdict: Some(wrong.clone()) });
        assert_eq!(refusal.map_err(|refusal| refusal.kind), Err(RefusalKind::Invalid), "{wrong:?}");
    }
    assert!(outcome_from(v1::Outcome { revision: 1, verdict: Some(transacted(vec![met; 64])) }).is_ok());
}
