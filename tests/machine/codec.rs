//! The codec: round trips, and that damaged or hostile bytes give an error and nothing else.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use quorate::codec::{self, Problem};
use quorate::limits::{
    CHUNK_OVERHEAD_BYTES_MAX, COUNTERS_MAX, LEASE_TTL_MAX, LEASE_TTL_MIN, LEASES_RENEWED_MAX, OPERATION_OVERHEAD_BYTES_MAX,
    SESSION_ID_BYTES_MAX, SESSION_TTL_MAX, TOMBSTONE_TTL_MAX, TRANSACTION_IDS_BYTES_MAX, TRANSACTION_OPERATIONS_MAX,
    WRITE_MESSAGE_BYTES_MAX,
};
use quorate::machine::{Command, Entry, rows};
use quorate::types::{
    Addition, Attributes, Base, Blob, Change, Chunk, ChunkSum, ClientId, Codec, Counters, Expected, Expiry, Fence, Form, Holder,
    Label, LeaseTtl, NoTransaction, Nonce, OnConflict, Operation, Operations, Renewals, Repack, Request, Require, Revision,
    Sequence, SessionId, Version, Write,
};

use crate::machine::lab::{blob, chunk, id, request};

fn any_blob() -> impl Strategy<Value = Blob> {
    (any::<bool>(), any::<u64>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
        |(zstd, raw_bytes, crc32c, data)| Blob {
            codec: if zstd { Codec::Zstd } else { Codec::None },
            raw_bytes,
            crc32c,
            data: data.into(),
        },
    )
}

fn any_chunks() -> impl Strategy<Value = Vec<Chunk>> {
    prop::collection::vec((any::<u64>(), any_blob()).prop_map(|(item_count, blob)| Chunk { item_count, blob }), 0..4)
}

fn any_counters() -> impl Strategy<Value = Counters> {
    prop::collection::vec(any::<u64>(), 0..=COUNTERS_MAX).prop_map(|values| Counters::new(values).expect("few"))
}

fn any_change() -> impl Strategy<Value = Change> {
    let base = prop_oneof![
        Just(Base::Absent),
        any::<(u64, u64, u64)>().prop_map(|(created, version, items)| Base::At {
            create_revision: Revision(created),
            version: Version(version),
            items
        }),
    ];
    prop_oneof![
        (any_chunks(), any_blob(), any_counters()).prop_map(|(chunks, head, counters)| Change::Full { chunks, head, counters }),
        (base, any_chunks(), prop::option::of(any_blob()), any_counters())
            .prop_map(|(base, chunks, head, counters)| Change::Delta { base, chunks, head, counters }),
    ]
}

fn any_expiry() -> impl Strategy<Value = Expiry> {
    let longest = u64::try_from(SESSION_TTL_MAX.as_millis()).expect("ten years");
    prop_oneof![Just(Expiry::Keep), Just(Expiry::Never), (0..=longest).prop_map(|ms| Expiry::After(Duration::from_millis(ms)))]
}

fn any_expected() -> impl Strategy<Value = Expected> {
    prop_oneof![
        Just(Expected::Absent),
        any::<(u64, Option<u64>)>()
            .prop_map(|(version, created)| Expected::At { version: Version(version), create_revision: created.map(Revision) }),
    ]
}

fn any_request() -> impl Strategy<Value = Request> {
    any::<(u64, [u8; 16], u64, u64)>().prop_map(|(client, nonce, sequence, below)| Request {
        client: ClientId(client),
        nonce: Nonce(nonce),
        sequence: Sequence(sequence),
        acknowledged_below: Sequence(below),
    })
}

fn any_id() -> impl Strategy<Value = SessionId> {
    "\\PC{0,40}".prop_map(|text| SessionId::new(&text).expect("at most 160 bytes"))
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        (any_request(), any_id(), any_change(), any_expiry()).prop_map(|(request, id, change, expiry)| Write::Save {
            request,
            id,
            change,
            attributes: expiry.into(),
            fence: None
        }),
        (any_request(), any_id(), any_expected(), any_change(), any::<bool>(), any_expiry()).prop_map(
            |(request, id, expected, change, rebase, expiry)| {
                let on_conflict = if rebase { OnConflict::Rebase } else { OnConflict::Reject };
                Write::SaveIfVersion { request, id, expected, change, on_conflict, attributes: expiry.into(), fence: None }
            }
        ),
        (any_request(), any_id(), prop::option::of(any_expected())).prop_map(|(request, id, expected)| Write::Delete {
            request,
            id,
            expected,
            fence: None
        }),
        any::<[u8; 16]>().prop_map(|nonce| Write::OpenClient { nonce: Nonce(nonce) }),
        any_request().prop_map(|request| Write::KeepAlive {
            client: request.client,
            nonce: request.nonce,
            acknowledged_below: request.acknowledged_below
        }),
        any_request().prop_map(|request| Write::CloseClient { client: request.client, nonce: request.nonce }),
    ]
}

fn later_expiry() -> impl Strategy<Value = Expiry> {
    let longest = u64::try_from(SESSION_TTL_MAX.as_millis()).expect("ten years");
    prop_oneof![any_expiry(), idle(longest)]
}

fn idle(longest: u64) -> impl Strategy<Value = Expiry> {
    (0..=longest).prop_map(|ms| Expiry::Idle(Duration::from_millis(ms)))
}

fn tombstone_ttl() -> impl Strategy<Value = Duration> {
    let longest = u64::try_from(TOMBSTONE_TTL_MAX.as_millis()).expect("seven days");
    prop_oneof![Just(0), 0..=longest].prop_map(Duration::from_millis)
}

fn any_label() -> impl Strategy<Value = Label> {
    "\\PC{0,60}".prop_map(|text| Label::new(&text).expect("at most 240 bytes"))
}

fn any_holder() -> impl Strategy<Value = Holder> {
    "\\PC{0,60}".prop_map(|text| Holder::new(&text).expect("at most 240 bytes"))
}

fn lease_ttl() -> impl Strategy<Value = LeaseTtl> {
    let millis = |ttl: Duration| u64::try_from(ttl.as_millis()).expect("minutes");
    (millis(LEASE_TTL_MIN)..=millis(LEASE_TTL_MAX)).prop_map(|ms| LeaseTtl::new(Duration::from_millis(ms)).expect("within"))
}

fn later_attributes() -> impl Strategy<Value = Attributes> {
    let form = prop_oneof![Just(Form::Unknown), Just(Form::Value), Just(Form::Transcript)];
    (later_expiry(), form, prop::option::of(tombstone_ttl()), prop::option::of(any_label()))
        .prop_map(|(expiry, form, tombstone_ttl, label)| Attributes { expiry, form, tombstone_ttl, label })
}

/// A write that only version 2 has.
fn later_write() -> impl Strategy<Value = Write> {
    let form = prop_oneof![Just(Form::Value), Just(Form::Transcript)];
    let at = (any::<Option<u64>>(), any::<Option<u64>>(), any::<Option<u64>>()).prop_map(|(created, version, items)| Require::At {
        create_revision: created.map(Revision),
        version: version.map(Version),
        items,
    });
    let only = any::<(u64, u64)>()
        .prop_map(|(created, since)| Require::AppendedOnly { create_revision: Revision(created), since: Version(since) });
    let require = prop_oneof![Just(Require::Any), Just(Require::Present), Just(Require::Absent), at, only].boxed();
    let addition = (any_chunks(), prop::option::of(any_blob()), any_counters())
        .prop_map(|(chunks, head_if_created, counters)| Addition { chunks, head_if_created, counters });
    prop_oneof![
        (any_request(), any_id(), any_change(), idle(1 << 30)).prop_map(|(request, id, change, expiry)| Write::Save {
            request,
            id,
            change,
            attributes: expiry.into(),
            fence: None
        }),
        (any_request(), any_id(), require, addition, later_attributes(), any::<Option<u64>>()).prop_map(
            |(request, id, require, addition, attributes, fence)| Write::Append {
                request,
                id,
                require,
                addition,
                attributes,
                fence: fence.map(Fence)
            }
        ),
        (any_request(), any_id(), later_expiry(), any::<Option<u64>>()).prop_map(|(request, id, expiry, fence)| Write::Touch {
            request,
            id,
            expiry,
            fence: fence.map(Fence)
        }),
        write_of_a_turn().boxed(),
        write_to_one_incarnation().boxed(),
        (any_request(), any_id(), any_change(), any_expiry(), form).prop_map(|(request, id, change, expiry, form)| {
            Write::Save { request, id, change, attributes: Attributes { expiry, form, ..Attributes::default() }, fence: None }
        }),
        (any_request(), any_id(), any_change(), any_label()).prop_map(|(request, id, change, label)| {
            Write::Save { request, id, change, attributes: Attributes { label: Some(label), ..Attributes::default() }, fence: None }
        }),
        (any_request(), any_id(), any_change(), tombstone_ttl()).prop_map(|(request, id, change, ttl)| {
            Write::Save {
                request,
                id,
                change,
                attributes: Attributes { tombstone_ttl: Some(ttl), ..Attributes::default() },
                fence: None,
            }
        }),
    ]
}

/// A write that expects a session by its creation alone.
fn write_to_one_incarnation() -> impl Strategy<Value = Write> {
    (any_request(), any_id(), any::<u64>(), any_change(), any::<bool>()).prop_map(|(request, id, created, change, deletes)| {
        let expected = Expected::Incarnation { create_revision: Revision(created) };
        match deletes {
            true => Write::Delete { request, id, expected: Some(expected), fence: None },
            false => Write::SaveIfVersion {
                request,
                id,
                expected,
                change,
                on_conflict: OnConflict::Rebase,
                attributes: Attributes::default(),
                fence: None,
            },
        }
    })
}

/// A write to a lease, or under one.
fn write_of_a_turn() -> impl Strategy<Value = Write> {
    prop_oneof![
        (any_request(), any_id(), any_holder(), lease_ttl(), any::<bool>())
            .prop_map(|(request, id, holder, ttl, steal)| { Write::AcquireLease { request, id, holder, ttl, steal } }),
        (any_request(), prop::collection::btree_map("\\PC{0,9}", any::<u64>(), 1..=LEASES_RENEWED_MAX), lease_ttl()).prop_map(
            |(request, leases, ttl)| {
                let leases = leases.into_iter().map(|(of, fence)| (id(&of), Fence(fence))).collect();
                Write::RenewLeases { request, leases: Renewals::new(leases).expect("some, each once"), ttl }
            }
        ),
        (any_request(), any_id(), any::<u64>()).prop_map(|(request, id, fence)| Write::ReleaseLease {
            request,
            id,
            fence: Fence(fence)
        }),
        (any_request(), any_id(), any::<u64>()).prop_map(|(request, id, fence)| Write::Delete {
            request,
            id,
            expected: None,
            fence: Some(Fence(fence))
        }),
        (any_request(), any_id(), any_change(), any_expiry(), any::<u64>()).prop_map(|(request, id, change, expiry, fence)| {
            Write::SaveIfVersion {
                request,
                id,
                expected: Expected::Absent,
                change,
                on_conflict: OnConflict::Reject,
                attributes: expiry.into(),
                fence: Some(Fence(fence)),
            }
        }),
        (any_request(), any_id(), any_chunks(), any::<[u64; 7]>()).prop_map(|(request, id, chunks, n)| {
            let old = ChunkSum { items: n[0], raw_bytes: n[1], stored_bytes: n[2], hash: n[3] };
            let (create_revision, first_chunk, until_chunk) = (Revision(n[4]), n[5], n[6]);
            Write::Repack { request, repack: Repack { id, create_revision, first_chunk, until_chunk, old, chunks } }
        }),
        (any_request(), any_id(), any_change(), any_expiry(), any::<u64>()).prop_map(|(request, id, change, expiry, fence)| {
            Write::Save { request, id, change, attributes: expiry.into(), fence: Some(Fence(fence)) }
        }),
    ]
}

/// A transaction of these, of each session the first.
fn transaction(request: Request, writes: Vec<Write>, required: Option<(SessionId, Expected)>) -> Write {
    let required = required.map(|(id, expected)| Operation::Require { id, expected: Some(expected), fence: None });
    let mut operations: Vec<Operation> = Vec::new();
    for operation in writes.into_iter().filter_map(Operation::of).chain(required) {
        if operations.iter().all(|other| other.session().0 != operation.session().0) {
            operations.push(operation);
        }
    }
    match Operations::new(operations) {
        Ok(operations) => Write::Transaction { request, operations },
        Err(_) => Write::Touch { request, id: id("no operation"), expiry: Expiry::Never, fence: None },
    }
}

fn any_transaction() -> impl Strategy<Value = Write> {
    let writes = prop::collection::vec(prop_oneof![any_write(), later_write()], 0..6);
    let required = prop::option::of((any_id(), any_expected()));
    (any_request(), writes, required).prop_map(|(request, writes, required)| transaction(request, writes, required))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    entry_of(any_write().boxed())
}

fn entry_of(write: BoxedStrategy<Write>) -> impl Strategy<Value = Entry> {
    let command = prop_oneof![
        8 => write.prop_map(Command::Client),
        1 => any::<u32>().prop_map(|limit| Command::Sweep { limit }),
        1 => any::<u16>().prop_map(|version| Command::SetClusterVersion { version }),
    ];
    (any::<u64>(), command).prop_map(|(stamp_ms, command)| Entry { stamp_ms, command })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_entry_comes_back_from_either_format(entry in any_entry()) {
        for format in [1, 2] {
            let payload = codec::encode(&entry, format);
            prop_assert_eq!(payload[0], format);
            prop_assert_eq!(codec::decode(&payload, 2), Ok(entry.clone()));
        }
    }

    #[test]
    fn what_version_2_has_is_neither_proposable_nor_decoded_under_version_1(
        entry in entry_of(prop_oneof![later_write(), any_transaction()].boxed())
    ) {
        let payload = codec::encode(&entry, 2);
        prop_assert_eq!(codec::decode(&payload, 2), Ok(entry.clone()));
        prop_assert!(codec::decode(&payload, 1).is_err());
        prop_assert_eq!(codec::is_proposable(&entry.command, 1), !matches!(entry.command, Command::Client(_)));
        let mut disguised = payload.to_vec();
        disguised[0] = 1;
        if let Ok(decoded) = codec::decode(&Bytes::from(disguised), 2) {
            prop_assert!(decoded.command.cluster_version() == 1);
        }
    }

    #[test]
    fn a_truncated_entry_is_an_error_that_names_a_field(entry in any_entry()) {
        let payload = codec::encode(&entry, 1);
        for end in 0..payload.len() {
            let error = codec::decode(&payload.slice(..end), 1).expect_err("truncated");
            prop_assert!(!error.field.is_empty());
            prop_assert_eq!(error.problem, Problem::Truncated);
        }
    }

    #[test]
    fn a_transaction_with_a_flipped_bit_never_panics_and_what_decodes_encodes_again(
        write in any_transaction(),
        bits in prop::collection::vec(any::<u16>(), 1..40)
    ) {
        let payload = codec::encode(&Entry { stamp_ms: 1, command: Command::Client(write) }, 2);
        for bit in bits {
            let mut damaged = payload.to_vec();
            let bit = usize::from(bit) % (damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(decoded) = codec::decode(&Bytes::from(damaged), 2) {
                prop_assert_eq!(codec::decode(&codec::encode(&decoded, 2), 2), Ok(decoded));
            }
        }
    }

    #[test]
    fn an_entry_with_a_flipped_bit_never_panics_and_what_decodes_encodes_again(entry in any_entry(), bits in prop::collection::vec(any::<u16>(), 1..40)) {
        let payload = codec::encode(&entry, 1);
        for bit in bits {
            let mut damaged = payload.to_vec();
            let bit = usize::from(bit) % (damaged.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(decoded) = codec::decode(&Bytes::from(damaged), 2) {
                prop_assert_eq!(codec::decode(&codec::encode(&decoded, 1), 1), Ok(decoded));
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first %= 3;
        }
        let bytes = Bytes::from(bytes);
        let _ = codec::decode(&bytes, 2);
        let _ = rows::decode_chunk(&bytes);
        let _ = rows::decode_head(&bytes);
        let _ = rows::decode_global(&bytes);
        for table in 0..9u8 {
            let row = Ok::<_, rows::Error>((table, bytes.clone(), bytes.clone()));
            let _ = quorate::machine::Machine::from_rows(std::iter::once(row));
        }
    }
}

/// What operations keep together: an entry that breaks it would end every replica, so it is refused wherever it comes from.
#[test]
fn operations_that_break_what_they_keep_together_are_no_transaction_and_are_not_decoded() {
    let of = |ids: &[String]| ids.iter().map(|id| delete(id)).collect::<Vec<_>>();
    let many: Vec<String> = (0..=TRANSACTION_OPERATIONS_MAX).map(|n| format!("s{n}")).collect();
    assert_eq!(Operations::new(Vec::new()), Err(NoTransaction::Operations { count: 0 }));
    assert_eq!(Operations::new(of(&many)), Err(NoTransaction::Operations { count: 65 }));
    assert!(Operations::new(of(&many[1..])).is_ok());
    let twice = [&many[..3], &many[..1]].concat();
    assert_eq!(Operations::new(of(&twice)), Err(NoTransaction::Twice { index: 3 }));
    let brings = |name: &str, chunks: usize, bytes: usize| {
        let chunks = vec![chunk(1, ""); chunks];
        let change = Change::Full { chunks, head: blob(&"x".repeat(bytes)), counters: Counters::default() };
        Operation::Save { id: id(name), change, attributes: Expiry::Keep.into(), fence: None }
    };
    assert!(Operations::new(vec![brings("a", 2048, 1), brings("b", 2048, 1)]).is_ok());
    assert_eq!(Operations::new(vec![brings("a", 2048, 1), brings("b", 2049, 1)]), Err(NoTransaction::Chunks { chunks: 4097 }));
    assert!(Operations::new(vec![brings("a", 0, 8 << 20), brings("b", 0, 8 << 20)]).is_ok());
    let above = Operations::new(vec![brings("a", 0, 8 << 20), brings("b", 0, (8 << 20) + 1)]);
    assert_eq!(above, Err(NoTransaction::Bytes { bytes: (16 << 20) + 1 }));
    // As bytes: `a` and `b` become the same id, and one operation becomes none, and 65.
    let request = request(ClientId(1), 1, 1, 1);
    let operations = Operations::new(of(&["aaaa".into(), "bbbb".into()])).expect("two");
    let entry = Entry { stamp_ms: 1, command: Command::Client(Write::Transaction { request, operations }) };
    let payload = codec::encode(&entry, 2);
    let damaged = |from: &[u8], to: &[u8]| {
        let at = payload.windows(from.len()).position(|bytes| bytes == from).expect("is there");
        codec::decode(&Bytes::from([&payload[..at], to, &payload[at + from.len()..]].concat()), 2)
    };
    let error = damaged(b"bbbb", b"aaaa").expect_err("twice").to_string();
    assert!(error.contains("names a session twice") && !error.contains("aaaa"), "{error}");
    for count in [0, 65] {
        let error = damaged(b"\x02\x04\x04aaaa", &[&[count][..], b"\x04\x04aaaa"].concat()).expect_err("wrong number").to_string();
        assert!(error.contains(&format!("count={count} ")), "{error}");
    }
}

/// Everything at its bound at once, as the constants say that it fits.
#[test]
fn the_largest_transaction_fits_in_a_message_between_peers() {
    let chunk = Chunk { item_count: u64::MAX, blob: Blob { raw_bytes: u64::MAX, ..Blob::plain(Bytes::from(vec![7; 4095])) } };
    let at = Base::At { create_revision: Revision(u64::MAX), version: Version(u64::MAX), items: u64::MAX };
    let operations = (0..TRANSACTION_OPERATIONS_MAX).map(|n| Operation::SaveIfVersion {
        id: id(&format!("{n:02}{}", "x".repeat(SESSION_ID_BYTES_MAX - 2))),
        expected: Expected::At { version: Version(u64::MAX), create_revision: Some(Revision(u64::MAX)) },
        change: Change::Delta {
            base: at,
            chunks: vec![chunk.clone(); 64],
            head: Some(Blob { raw_bytes: u64::MAX, crc32c: u32::MAX, codec: Codec::Zstd, data: Bytes::from(vec![7; 64]) }),
            counters: Counters::new(vec![u64::MAX; COUNTERS_MAX]).expect("few"),
        },
        on_conflict: OnConflict::Rebase,
        attributes: Attributes {
            expiry: Expiry::Idle(SESSION_TTL_MAX),
            form: Form::Transcript,
            tombstone_ttl: Some(TOMBSTONE_TTL_MAX),
            label: Some(Label::new(&"x".repeat(256)).expect("at the bound")),
        },
        fence: Some(Fence(u64::MAX)),
    });
    let operations = Operations::new(operations.collect()).expect("at the bounds");
    let data = 4096 * 4095 + 64 * 64;
    assert_eq!(operations.iter().map(Operation::stored_bytes).sum::<u64>(), data);
    let request = request(ClientId(u64::MAX), 1, u64::MAX, u64::MAX);
    let entry = Entry { stamp_ms: u64::MAX, command: Command::Client(Write::Transaction { request, operations }) };
    let payload = codec::encode(&entry, 2);
    let overhead = payload.len() as u64 - data;
    let reckoned = 64 * OPERATION_OVERHEAD_BYTES_MAX + TRANSACTION_IDS_BYTES_MAX + 4096 * CHUNK_OVERHEAD_BYTES_MAX;
    assert!(overhead <= reckoned, "overhead={overhead} reckoned={reckoned}");
    assert_eq!(codec::decode(&payload, 2), Ok(entry));
    let Command::Client(write) = codec::decode(&payload, 2).expect("its own").command else { panic!("a write") };
    let message = quorate::wire::write_to(&write);
    assert!(prost::Message::encoded_len(&message) as u64 + 1024 <= WRITE_MESSAGE_BYTES_MAX, "on the wire");
}

fn delete(name: &str) -> Operation {
    Operation::Delete { id: id(name), expected: None, fence: None }
}

fn save(change: Change) -> Entry {
    let write =
        Write::Save { request: request(ClientId(1), 1, 1, 1), id: id("a"), change, attributes: Expiry::Keep.into(), fence: None };
    Entry { stamp_ms: 1, command: Command::Client(write) }
}

#[test]
fn decoded_content_is_a_slice_of_the_payload() {
    let change = Change::Full { chunks: vec![chunk(1, "first items")], head: blob("the head"), counters: Counters::default() };
    let payload = codec::encode(&save(change), 1);
    let entry = codec::decode(&payload, 1).expect("own encoding");
    let Command::Client(write) = &entry.command else {
        panic!("not a write");
    };
    let range = payload.as_ptr_range();
    let blobs: Vec<_> = write.blobs().collect();
    assert_eq!(blobs.len(), 2);
    for blob in blobs {
        assert!(range.contains(&blob.data.as_ptr()), "copied");
    }
}

#[test]
fn a_format_above_the_version_in_force_is_refused_before_its_body_is_looked_at() {
    let entry = Entry { stamp_ms: 1, command: Command::Sweep { limit: 1 } };
    let payload = codec::encode(&entry, 2);
    let refused = codec::decode(&payload, 1).expect_err("format 2 under version 1");
    assert_eq!((refused.field, refused.problem), ("format", Problem::Format { format: 2, newest: 1 }));
    assert_eq!(codec::decode(&payload, 2), Ok(entry.clone()));
    assert_eq!(codec::decode(&codec::encode(&entry, 1), 2), Ok(entry), "an older format stays readable");
    for format in [0, 3, 255] {
        let refused = codec::decode(&Bytes::from(vec![format, 0, 1, 1]), 9).expect_err("unknown format");
        assert_eq!(refused.problem, Problem::Format { format, newest: 9 });
    }
    assert_eq!(codec::decode(&Bytes::new(), 1).expect_err("empty").problem, Problem::Truncated);
}

/// The payload of a delete, by hand: format, stamp, command, write, client, nonce, sequence, acknowledged_below, then the id.
fn delete_of(id: &[u8], rest: &[u8]) -> Bytes {
    let mut payload = vec![1, 5, 0, 2, 1];
    payload.extend([7; 16]);
    payload.extend([1, 1]);
    match u8::try_from(id.len()) {
        Ok(length) if length < 251 => payload.push(length),
        _ => {
            payload.push(251);
            payload.extend(u16::try_from(id.len()).expect("short").to_le_bytes());
        }
    }
    payload.extend(id);
    payload.extend(rest);
    payload.into()
}

#[test]
fn errors_name_the_field() {
    assert!(codec::decode(&delete_of(b"a", &[0]), 1).is_ok(), "the bytes by hand are right");
    let cases: [(Bytes, &str); 6] = [
        (delete_of(&[0xff, 0xfe], &[0]), "SessionId"),
        (delete_of(&vec![b'x'; SESSION_ID_BYTES_MAX + 1], &[0]), "SessionId"),
        (delete_of(b"a", &[0, 0]), "Write.Delete.expected"),
        (delete_of(b"a", &[1, 9]), "Expected"),
        (Bytes::from_static(&[1, 5, 9]), "Command"),
        (Bytes::from_static(&[1, 5, 0, 77]), "Write"),
    ];
    for (payload, field) in cases {
        let error = codec::decode(&payload, 1).expect_err(field);
        assert_eq!(error.field, field, "{error}");
        assert!(error.to_string().contains(field));
    }
    let trailing = codec::decode(&delete_of(b"a", &[0, 0]), 1).expect_err("trailing");
    assert_eq!(trailing.problem, Problem::Trailing { bytes: 1 });
}

#[test]
fn a_false_length_is_an_error_and_no_allocation() {
    // format, stamp, client write, Save, request, id "a", Full, then a length of chunks or bytes far beyond the input.
    let prefix = [&[1, 5, 0, 0, 1][..], &[7; 16], &[1, 1, 1, b'a', 0]].concat();
    for length in [u64::MAX, 1 << 40, 20_000] {
        let mut payload = prefix.clone();
        payload.push(253);
        payload.extend(length.to_le_bytes());
        let error = codec::decode(&Bytes::from(payload), 1).expect_err("no chunks follow");
        assert_eq!(error.field, "Change.chunks");
    }
    let mut payload = prefix;
    // No chunks; a head, codec none, 0 raw bytes, checksum 0, of 2^63 bytes.
    payload.extend([0, 0, 0, 0, 253]);
    payload.extend((1u64 << 63).to_le_bytes());
    let error = codec::decode(&Bytes::from(payload), 1).expect_err("no bytes follow");
    assert_eq!((error.field, error.problem), ("Blob.data", Problem::Truncated));
}

#[test]
fn what_decode_would_refuse_is_not_proposable() {
    let too_long = SESSION_TTL_MAX + Duration::from_millis(1);
    let full = Change::Full { chunks: Vec::new(), head: Blob::default(), counters: Counters::default() };
    let write = |expiry: Expiry, change| {
        Command::Client(Write::Save {
            request: request(ClientId(1), 1, 1, 1),
            id: id("a"),
            change,
            attributes: expiry.into(),
            fence: None,
        })
    };
    assert!(codec::is_proposable(&write(Expiry::After(SESSION_TTL_MAX), full.clone()), 1));
    assert!(!codec::is_proposable(&write(Expiry::After(too_long), full.clone()), 1));
    let kept_for = |ttl| {
        let attributes = Attributes { tombstone_ttl: Some(ttl), ..Attributes::default() };
        Command::Client(Write::Save {
            request: request(ClientId(1), 1, 1, 1),
            id: id("a"),
            change: full.clone(),
            attributes,
            fence: None,
        })
    };
    assert!(codec::is_proposable(&kept_for(TOMBSTONE_TTL_MAX), 2));
    assert!(!codec::is_proposable(&kept_for(TOMBSTONE_TTL_MAX), 1), "version 1 has no such field");
    assert!(!codec::is_proposable(&kept_for(TOMBSTONE_TTL_MAX + Duration::from_millis(1)), 2));
    let chunks = |count| vec![Chunk::default(); count];
    let many = |count| Change::Full { chunks: chunks(count), head: Blob::default(), counters: Counters::default() };
    assert!(codec::is_proposable(&write(Expiry::Keep, many(codec::ENTRY_CHUNKS_MAX)), 1));
    assert!(!codec::is_proposable(&write(Expiry::Keep, many(codec::ENTRY_CHUNKS_MAX + 1)), 1));
}
