//! Round trips of everything, and refusals of what is hostile.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::{Assembled, AssembledMany, LoadAssembler, LoadFrames, ManyAssembler, ManyFrames, v1};
use super::*;
use crate::limits::{
    FRAME_BYTES_MAX, HOLDER_BYTES_MAX, LABEL_BYTES_MAX, LEASE_TTL_MAX, LEASE_TTL_MIN, LEASES_RENEWED_MAX, LIST_PAGE_MAX,
    NUMBER_MAX, SESSION_CHUNKS_MAX, SESSION_ID_BYTES_MAX, SESSION_RAW_BYTES_MAX, SESSION_TTL_MAX, TOMBSTONE_TTL_MAX,
};
use crate::types::*;

fn blob() -> impl Strategy<Value = Blob> {
    let bytes = proptest::collection::vec(any::<u8>(), 1..200);
    (bytes, any::<bool>(), 0..=SESSION_RAW_BYTES_MAX).prop_map(|(data, packed, raw_bytes)| match packed {
        false => Blob::plain(data.into()),
        true => Blob { codec: Codec::Zstd, raw_bytes, ..Blob::plain(data.into()) },
    })
}

fn chunks() -> impl Strategy<Value = Vec<Chunk>> {
    proptest::collection::vec((1..=u64::from(u32::MAX), blob()).prop_map(|(item_count, blob)| Chunk { item_count, blob }), 0..5)
}

fn some_counters() -> impl Strategy<Value = Counters> {
    proptest::collection::vec(any::<u64>(), 0..=COUNTERS_MAX).prop_map(|values| Counters::new(values).expect("within the bound"))
}

fn base() -> impl Strategy<Value = Base> {
    (any::<u64>(), 1u64.., any::<u64>()).prop_map(|(create, version, items)| Base::At {
        create_revision: Revision(create),
        version: Version(version),
        items,
    })
}

fn change() -> impl Strategy<Value = Change> {
    let full = (chunks(), blob(), some_counters()).prop_map(|(chunks, head, counters)| Change::Full { chunks, head, counters });
    let delta = (base(), chunks(), proptest::option::of(blob()), some_counters())
        .prop_map(|(base, chunks, head, counters)| Change::Delta { base, chunks, head, counters });
    let creation = (chunks(), blob(), some_counters()).prop_map(|(chunks, head, counters)| Change::Delta {
        base: Base::Absent,
        chunks,
        head: Some(head),
        counters,
    });
    prop_oneof![full, delta, creation]
}

fn expected() -> impl Strategy<Value = Expected> {
    let at = (1u64.., proptest::option::of(1u64..))
        .prop_map(|(version, create)| Expected::At { version: Version(version), create_revision: create.map(Revision) });
    let of = (1u64..).prop_map(|created| Expected::Incarnation { create_revision: Revision(created) });
    prop_oneof![Just(Expected::Absent), at, of].boxed()
}

fn expiry() -> impl Strategy<Value = Expiry> {
    let after = (1..=SESSION_TTL_MAX.as_millis() as u64).prop_map(|ms| Expiry::After(Duration::from_millis(ms)));
    let idle = (1..=SESSION_TTL_MAX.as_millis() as u64).prop_map(|ms| Expiry::Idle(Duration::from_millis(ms)));
    prop_oneof![Just(Expiry::Keep), Just(Expiry::Never), after, idle]
}

fn request() -> impl Strategy<Value = Request> {
    (any::<u64>(), any::<[u8; 16]>(), 1..=SEQUENCE_MAX, 0..=SEQUENCE_MAX).prop_map(|(client, nonce, sequence, below)| Request {
        client: ClientId(client),
        nonce: Nonce(nonce),
        sequence: Sequence(sequence),
        acknowledged_below: Sequence(below),
    })
}

fn id() -> impl Strategy<Value = SessionId> {
    "[a-zé/?. ]{0,40}".prop_map(|id| SessionId::new(&id).expect("short"))
}

fn require() -> impl Strategy<Value = Require> {
    let at = (any::<Option<u64>>(), proptest::option::of(1u64..), any::<u64>()).prop_map(|(created, version, items)| Require::At {
        create_revision: created.map(Revision),
        version: version.map(Version),
        items: Some(items),
    });
    let only = (1u64.., 1u64..)
        .prop_map(|(created, since)| Require::AppendedOnly { create_revision: Revision(created), since: Version(since) });
    prop_oneof![Just(Require::Any), Just(Require::Present), Just(Require::Absent), at, only].boxed()
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let tombstone_ttl = (0..=TOMBSTONE_TTL_MAX.as_millis() as u64).prop_map(Duration::from_millis);
    let label = "[a-zé ]{0,40}".prop_map(|text| Label::new(&text).expect("short"));
    let optional = (proptest::option::of(tombstone_ttl), proptest::option::of(label));
    (expiry(), optional).prop_map(|(expiry, (tombstone_ttl, label))| Attributes {
        expiry,
        tombstone_ttl,
        label,
        ..Attributes::default()
    })
}

fn fence() -> impl Strategy<Value = Fence> {
    (1..=NUMBER_MAX).prop_map(Fence)
}

fn holder() -> impl Strategy<Value = Holder> {
    "[a-zé/?. ]{0,40}".prop_map(|holder| Holder::new(&holder).expect("short"))
}

fn lease_ttl() -> impl Strategy<Value = LeaseTtl> {
    let millis = LEASE_TTL_MIN.as_millis() as u64..=LEASE_TTL_MAX.as_millis() as u64;
    millis.prop_map(|ms| LeaseTtl::new(Duration::from_millis(ms)).expect("within"))
}

fn lease() -> impl Strategy<Value = Lease> {
    (fence(), holder(), any::<u64>()).prop_map(|(fence, holder, deadline_ms)| Lease { fence, holder, deadline_ms })
}

/// A write to a lease, or under one.
fn write_of_a_turn() -> impl Strategy<Value = Write> {
    prop_oneof![
        (request(), id(), holder(), lease_ttl(), any::<bool>()).prop_map(|(request, id, holder, ttl, steal)| Write::AcquireLease {
            request,
            id,
            holder,
            ttl,
            steal
        }),
        (request(), proptest::collection::btree_map("[a-z]{0,9}", fence(), 1..=LEASES_RENEWED_MAX), lease_ttl()).prop_map(
            |(request, leases, ttl)| {
                let leases = leases.into_iter().map(|(id, fence)| (SessionId::new(&id).expect("short"), fence));
                Write::RenewLeases { request, leases: Renewals::new(leases.collect()).expect("some, each once"), ttl }
            }
        ),
        (request(), id(), fence()).prop_map(|(request, id, fence)| Write::ReleaseLease { request, id, fence }),
        (request(), id(), expected(), fence()).prop_map(|(request, id, expected, fence)| Write::Delete {
            request,
            id,
            expected: Some(expected),
            fence: Some(fence)
        }),
        (request(), id(), change(), expected(), fence()).prop_map(|(request, id, change, expected, fence)| Write::SaveIfVersion {
            request,
            id,
            expected,
            change,
            on_conflict: OnConflict::Rebase,
            attributes: Attributes::default(),
            fence: Some(fence)
        }),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let many = proptest::collection::vec(single(), 1..5);
    let transaction = (request(), many, expected()).prop_map(|(request, writes, expected)| {
        let name = |n: usize| SessionId::new(&format!("s{n}")).expect("short");
        let mut operations = vec![Operation::Require { id: name(9), expected: Some(expected), fence: None }];
        operations.extend(writes.into_iter().filter_map(Operation::of).enumerate().map(|(n, mut operation)| {
            match &mut operation {
                Operation::Save { id, .. }
                | Operation::SaveIfVersion { id, .. }
                | Operation::Append { id, .. }
                | Operation::Delete { id, .. }
                | Operation::Require { id, .. } => *id = name(n),
            }
            operation
        }));
        Write::Transaction { request, operations: Operations::new(operations).expect("few") }
    });
    prop_oneof![4 => single(), 1 => transaction]
}

fn single() -> impl Strategy<Value = Write> {
    let client = || any::<u64>().prop_map(ClientId);
    let nonce = || any::<[u8; 16]>().prop_map(Nonce);
    let on_conflict = prop_oneof![Just(OnConflict::Reject), Just(OnConflict::Rebase)];
    prop_oneof![
        (request(), id(), change(), expiry()).prop_map(|(request, id, change, expiry)| Write::Save {
            request,
            id,
            change,
            attributes: expiry.into(),
            fence: None
        }),
        (request(), id(), expected(), change(), on_conflict, expiry()).prop_map(
            |(request, id, expected, change, on_conflict, expiry)| Write::SaveIfVersion {
                request,
                id,
                expected,
                change,
                on_conflict,
                attributes: expiry.into(),
                fence: None
            }
        ),
        (request(), id(), change(), attributes(), prop_oneof![Just(Form::Value), Just(Form::Transcript)]).prop_map(
            |(request, id, change, attributes, form)| Write::Save {
                request,
                id,
                change,
                attributes: Attributes { form, ..attributes },
                fence: Some(Fence(7))
            }
        ),
        (request(), id(), require(), change(), attributes()).prop_map(|(request, id, require, change, attributes)| {
            let head_if_created = require.may_create().then(|| Blob::plain(Bytes::from_static(b"head")));
            let addition = Addition { chunks: change.chunks().to_vec(), head_if_created, counters: Counters::default() };
            Write::Append { request, id, require, addition, attributes, fence: Some(Fence(NUMBER_MAX)) }
        }),
        write_of_a_turn(),
        (request(), id(), chunks(), 0..=NUMBER_MAX, 1..=NUMBER_MAX, any::<[u64; 4]>()).prop_filter_map(
            "chunks, and above the first",
            |(request, id, chunks, first_chunk, until_chunk, [items, raw_bytes, stored_bytes, hash])| {
                let old = ChunkSum { items, raw_bytes, stored_bytes, hash };
                let create_revision = Revision(until_chunk);
                let is_one = !chunks.is_empty() && first_chunk < until_chunk;
                is_one.then(|| Write::Repack {
                    request,
                    repack: Repack { id, create_revision, first_chunk, until_chunk, old, chunks },
                })
            },
        ),
        (request(), id(), expiry(), proptest::option::of(fence())).prop_map(|(request, id, expiry, fence)| Write::Touch {
            request,
            id,
            expiry,
            fence
        }),
        (request(), id(), proptest::option::of(expected())).prop_map(|(request, id, expected)| Write::Delete {
            request,
            id,
            expected,
            fence: None
        }),
        nonce().prop_map(|nonce| Write::OpenClient { nonce }),
        (client(), nonce(), 0..=SEQUENCE_MAX).prop_map(|(client, nonce, below)| Write::KeepAlive {
            client,
            nonce,
            acknowledged_below: Sequence(below)
        }),
        (client(), nonce()).prop_map(|(client, nonce)| Write::CloseClient { client, nonce }),
    ]
}

fn info() -> impl Strategy<Value = SessionInfo> {
    (any::<[u64; 8]>(), 1u64.., some_counters(), proptest::option::of(any::<u64>()), proptest::option::of(lease())).prop_map(
        |(n, version, counters, deadline_ms, lease)| SessionInfo {
            lease,
            create_revision: Revision(n[0]),
            version: Version(version),
            mod_revision: Revision(n[1]),
            items: n[2],
            first_chunk: n[3] / 2,
            next_chunk: n[3],
            chunks: n[2] % 4096,
            raw_bytes: n[4],
            stored_bytes: n[5],
            counters,
            created_ms: n[6],
            updated_ms: n[7],
            deadline_ms,
            idle_ttl_ms: deadline_ms.filter(|ms| ms % 2 == 1),
            tombstone_ttl_ms: deadline_ms.filter(|ms| ms % 3 == 1),
            label: Label::new(if n[0] % 2 == 1 { "a title" } else { "" }).expect("short"),
            remaining_ms: deadline_ms.map(|ms| ms / 2),
        },
    )
}

fn loaded() -> impl Strategy<Value = Loaded> {
    let tail = (info(), chunks(), proptest::option::of(blob()))
        .prop_map(|(info, chunks, head)| Loaded::Tail(LoadedContent { info, chunks, head }));
    let full = (info(), chunks(), blob()).prop_map(|(mut info, chunks, head)| {
        info.items = chunks.iter().map(|chunk| chunk.item_count).sum();
        Loaded::Full(LoadedContent { info, chunks, head: Some(head) })
    });
    let not_found = any::<u64>().prop_map(|version| Loaded::NotFound { tombstone: Version(version) });
    let suffix =
        (info(), chunks(), proptest::option::of(blob()), 0..=u64::MAX >> 1).prop_map(|(mut info, chunks, head, first_item)| {
            info.items = chunks.iter().map(|chunk| chunk.item_count).fold(first_item, u64::saturating_add);
            Loaded::Suffix { first_item, content: LoadedContent { info, chunks, head } }
        });
    prop_oneof![not_found, Just(Loaded::NotModified), tail, full, suffix]
}

fn part() -> impl Strategy<Value = Part> {
    let items = 1..=crate::limits::SESSION_ITEMS_MAX;
    let from = (any::<u64>(), items.clone()).prop_map(|(item, limit)| Part::From { item, limit });
    prop_oneof![Just(Part::Whole), Just(Part::Info), Just(Part::Head), items.prop_map(Part::Last), from]
}

fn repacked_or_fenced() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::NotRepacked),
        any::<(u64, u64)>().prop_map(|(first_chunk, chunks)| Verdict::Repacked { first_chunk, chunks }),
        proptest::option::of(fence()).prop_map(|current| Verdict::Fenced { current }),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    let number = any::<u64>;
    let content = || {
        (1u64.., number(), number(), number()).prop_map(|(version, create, items, next_chunk)| ContentVersion {
            version: Version(version),
            create_revision: Revision(create),
            items,
            next_chunk,
        })
    };
    let saved = (content(), any::<bool>()).prop_map(|(content, rebased)| Verdict::Saved(Saved { content, rebased }));
    let too_large = (0..5, number(), number()).prop_map(|(what, now, limit)| {
        Verdict::TooLarge(match what {
            0 => TooLarge::StoredBytes { now, limit },
            1 => TooLarge::RawBytes { now, limit },
            2 => TooLarge::Items { now, limit },
            3 => TooLarge::Chunks { now, limit },
            _ => TooLarge::Write { now, limit },
        })
    });
    let plain = proptest::sample::select(vec![
        Verdict::BaseMismatch,
        Verdict::TooManySessions,
        Verdict::ClientKept,
        Verdict::ClientClosed,
        Verdict::TooManyClients,
        Verdict::ClientUnknown,
        Verdict::Stale,
        Verdict::WindowExceeded,
        Verdict::Busy,
        Verdict::LeaseReleased,
        Verdict::LeaseLost,
        Verdict::TooManyLeases,
    ]);
    prop_oneof![
        saved,
        too_large,
        plain,
        (number(), number())
            .prop_map(|(actual, tombstone)| Verdict::Conflict { actual: Version(actual), tombstone: Version(tombstone) }),
        (1u64..).prop_map(|version| Verdict::Deleted { version: Version(version) }),
        number().prop_map(|version| Verdict::NotFound { tombstone: Version(version) }),
        number().prop_map(|client| Verdict::ClientOpened { client: ClientId(client) }),
        (content(), number(), some_counters())
            .prop_map(|(content, chunks, counters)| { Verdict::Appended(Appended { content, chunks, counters }) }),
        prop_oneof![Just(Form::Unknown), Just(Form::Value), Just(Form::Transcript)].prop_map(|form| Verdict::WrongForm { form }),
        proptest::option::of(number()).prop_map(|deadline_ms| Verdict::Touched { deadline_ms }),
        (fence(), number()).prop_map(|(fence, deadline_ms)| Verdict::LeaseGranted { fence, deadline_ms }),
        (holder(), number()).prop_map(|(holder, deadline_ms)| Verdict::LeaseHeld { holder, deadline_ms }),
        (holder(), number()).prop_map(|(holder, deadline_ms)| Verdict::Leased { holder, deadline_ms }),
        (number(), number()).prop_map(|(deadline_ms, bits)| Verdict::LeasesRenewed { deadline_ms, lost: Lost::from_bits(bits) }),
        repacked_or_fenced(),
        (content(), 1..5usize).prop_map(|(content, count)| {
            let done = [
                Verdict::Saved(Saved { content, rebased: true }),
                Verdict::Met,
                Verdict::NotFound { tombstone: Version(3) },
                Verdict::Deleted { version: Version(4) },
            ];
            Verdict::Transacted(Transacted { results: done[..count.min(4)].to_vec() })
        }),
        (any::<u32>(), number()).prop_map(|(index, actual)| {
            let verdict = Box::new(Verdict::Conflict { actual: Version(actual), tombstone: Version(0) });
            Verdict::Aborted(Aborted { index, verdict })
        }),
        (any::<u32>(), number()).prop_map(|(index, now)| {
            let verdict = Box::new(Verdict::TooLarge(TooLarge::Rows { now, limit: 8192 }));
            Verdict::Aborted(Aborted { index, verdict })
        }),
        any::<u32>().prop_map(|index| Verdict::BaseMismatchAt { index }),
    ]
}

fn assemble(frames: impl Iterator<Item = v1::LoadFrame>) -> Result<Option<Assembled>, Refusal> {
    let mut assembler = LoadAssembler::default();
    for frame in frames {
        if let Some(assembled) = assembler.push(frame)? {
            return Ok(Some(assembled));
        }
    }
    Ok(None)
}

proptest! {
    #[test]
    fn every_write_survives_the_wire(write in write()) {
        prop_assert_eq!(write_from(write_to(&write)), Ok(write));
    }

    #[test]
    fn every_outcome_survives_the_wire(revision: u64, verdict in verdict()) {
        let outcome = Outcome { revision: Revision(revision), verdict };
        prop_assert_eq!(outcome_from(outcome_to(&outcome)), Ok(outcome));
    }

    #[test]
    fn every_load_survives_its_frames(revision: u64, loaded in loaded(), age_ms: Option<u64>) {
        let assembled = assemble(LoadFrames::new(Revision(revision), loaded.clone(), age_ms));
        let damaged = match &loaded {
            Loaded::Tail(content) | Loaded::Full(content) | Loaded::Suffix { content, .. } => {
                content.chunks.iter().map(|chunk| &chunk.blob).chain(&content.head).any(|blob| !blob.is_intact())
            }
            _ => false,
        };
        prop_assert!(!damaged, "the generator makes intact blobs only");
        prop_assert_eq!(assembled, Ok(Some(Assembled { revision: Revision(revision), loaded, age_ms })));
    }

    #[test]
    fn every_load_of_several_survives_its_frames(revision: u64, loaded in proptest::collection::vec(loaded(), 1..9), age_ms: Option<u64>) {
        let (mut assembler, mut answer) = (ManyAssembler::default(), None);
        for frame in ManyFrames::new(Revision(revision), loaded.clone(), age_ms) {
            prop_assert!(answer.is_none());
            answer = assembler.push(frame).expect("our own");
        }
        prop_assert_eq!(answer, Some(AssembledMany { revision: Revision(revision), loaded, age_ms }));
    }

    #[test]
    fn every_read_survives_the_wire(id in id(), have: Option<[u64; 4]>, part in part(), stale: bool, limit in 1..=LIST_PAGE_MAX, info in info()) {
        let consistency = if stale { Consistency::Stale } else { Consistency::Linearizable };
        let have = have.map(|[create, version, items, next_chunk]| ContentVersion {
            create_revision: Revision(create), version: Version(version), items, next_chunk,
        });
        let load = Load { id: id.clone(), have, part, consistency };
        prop_assert_eq!(load_from(load_to(&load)), Ok(load));
        let many = LoadMany::new([(id.clone(), have, part), (id.clone(), None, Part::Whole)], consistency).expect("two");
        prop_assert_eq!(load_many_from(load_many_to(&many)), Ok(many));
        let order = match limit % 3 {
            0 => Order::Ids,
            1 => Order::Leases,
            _ => Order::Recent { after: have.map(|have| have.create_revision) },
        };
        let leases = info.lease.clone().map(|lease| (id.clone(), lease)).into_iter().collect();
        let list = List { prefix: id.as_str().to_owned(), after: Some(id.clone()), limit, consistency, order };
        prop_assert_eq!(list_from(list_to(&list)), Ok(list));
        let page = ListPage { revision: Revision(7), sessions: vec![Listed { id, info }], more: stale, age_ms: stale.then_some(9), since: stale.then_some(Revision(3)), machine_time_ms: stale.then_some(5), leases };
        prop_assert_eq!(list_page_from(list_page_to(&page)), Ok(page));
    }

    /// Whatever bytes arrive, there is a write or a refusal, never a panic.
    #[test]
    fn hostile_bytes_are_a_write_or_a_refusal(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), write in write(), at: usize) {
        use prost::Message;
        if at % 2 == 0 {
            let mut valid = write_to(&write).encode_to_vec();
            let at = at % valid.len().max(1);
            for (to, from) in valid.iter_mut().skip(at).zip(bytes.drain(..).take(3)) {
                *to = from;
            }
            bytes = valid;
        }
        if let Ok(Ok(write)) = v1::WriteOperation::decode(bytes.as_slice()).map(write_from) {
            prop_assert_eq!(write_from(write_to(&write)), Ok(write));
        }
        if let Ok(frame) = v1::LoadFrame::decode(bytes.as_slice()) {
            let _ = LoadAssembler::default().push(frame);
        }
    }
}

fn save_message() -> v1::write_operation::Save {
    let write = Write::Save {
        request: Request { client: ClientId(1), nonce: Nonce([1; 16]), sequence: Sequence(1), acknowledged_below: Sequence(1) },
        id: SessionId::new("a").expect("short"),
        change: Change::Full {
            chunks: vec![Chunk { item_count: 1, blob: Blob::plain(Bytes::from_static(b"item")) }],
            head: Blob::plain(Bytes::from_static(b"head")),
            counters: Counters::default(),
        },
        attributes: Expiry::Keep.into(),
        fence: None,
    };
    match write_to(&write).write {
        Some(v1::write_operation::Write::Save(save)) => save,
        other => panic!("a save became {other:?}"),
    }
}

fn refused(change: impl FnOnce(&mut v1::write_operation::Save)) -> String {
    let mut save = save_message();
    change(&mut save);
    let refusal = write_from(v1::WriteOperation { write: Some(v1::write_operation::Write::Save(save)) }).expect_err("hostile");
    assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Invalid, Applied::No));
    refusal.message
}

fn full(save: &mut v1::write_operation::Save) -> &mut v1::change::Full {
    match save.change.as_mut().and_then(|change| change.change.as_mut()) {
        Some(v1::change::Change::Full(full)) => full,
        other => panic!("a full change became {other:?}"),
    }
}

#[test]
fn every_field_of_an_append_that_is_wrong_is_refused_by_name() {
    let write = Write::Append {
        request: Request { client: ClientId(1), nonce: Nonce([1; 16]), sequence: Sequence(1), acknowledged_below: Sequence(1) },
        id: SessionId::new("a").expect("short"),
        require: Require::Any,
        addition: Addition {
            chunks: vec![Chunk { item_count: 1, blob: Blob::plain(Bytes::from_static(b"item")) }],
            head_if_created: Some(Blob::plain(Bytes::from_static(b"head"))),
            counters: Counters::default(),
        },
        attributes: Attributes::default(),
        fence: None,
    };
    let Some(v1::write_operation::Write::Append(message)) = write_to(&write).write else { panic!("an append is another message") };
    let refused = |change: &dyn Fn(&mut v1::write_operation::Append)| {
        let mut append = message.clone();
        change(&mut append);
        let write = v1::WriteOperation { write: Some(v1::write_operation::Write::Append(append)) };
        let refusal = write_from(write).expect_err("hostile");
        assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Invalid, Applied::No));
        refusal.message
    };
    let require = |require| Some(v1::Require { require });
    let at = |at| require(Some(v1::require::Require::At(at)));
    assert!(refused(&|append| append.id = "x".repeat(SESSION_ID_BYTES_MAX + 1)).contains("field=append.id"));
    assert!(refused(&|append| append.head_if_created = None).contains("field=append.head_if_created"));
    assert!(
        refused(&|append| append.head_if_created.as_mut().expect("set").codec = 9).contains("field=append.head_if_created.codec")
    );
    assert!(refused(&|append| append.chunks[0].item_count = 0).contains("field=chunk.item_count value=0 min=1"));
    assert!(refused(&|append| append.require = require(None)).contains("field=append.require"));
    assert!(refused(&|append| append.require = at(v1::require::At::default())).contains("field=append.require.at"));
    let version = v1::require::At { version: Some(0), ..Default::default() };
    assert!(refused(&|append| append.require = at(version)).contains("field=append.require.version value=0 min=1"));
    assert!(refused(&|append| append.counters = vec![1; 17]).contains("counters"));
    let label = "x".repeat(LABEL_BYTES_MAX + 1);
    assert!(refused(&|append| append.label = Some(label.clone())).contains("label is too long bytes=257 limit=256 field=label"));
    let too_long = TOMBSTONE_TTL_MAX.as_millis() as u64 + 1;
    assert!(refused(&|append| append.tombstone_ttl_ms = Some(too_long)).contains("field=tombstone_ttl_ms value=604800001 min=0"));
}

#[test]
fn every_field_of_a_lease_that_is_wrong_is_refused_by_name() {
    use v1::write_operation::{AcquireLease, ReleaseLease, RenewLeases, Renewal, Write as Message};
    let refused = |message: Message| {
        let refusal = write_from(v1::WriteOperation { write: Some(message) }).expect_err("hostile");
        assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Invalid, Applied::No));
        refusal.message
    };
    let request = save_message().request;
    let acquire = |change: &dyn Fn(&mut AcquireLease)| {
        let mut acquire = AcquireLease { request: request.clone(), id: "a".into(), holder: "h".into(), ttl_ms: 5000, steal: false };
        change(&mut acquire);
        refused(Message::AcquireLease(acquire))
    };
    assert!(acquire(&|acquire| acquire.request = None).contains("field=request"));
    assert!(acquire(&|acquire| acquire.id = "x".repeat(SESSION_ID_BYTES_MAX + 1)).contains("field=acquire_lease.id"));
    let holder = "x".repeat(HOLDER_BYTES_MAX + 1);
    let message = acquire(&|acquire| acquire.holder = holder.clone());
    assert_eq!(message, "holder is too long bytes=257 limit=256 field=acquire_lease.holder");
    for ttl_ms in [0, 4999, 600_001, u64::MAX] {
        let message = acquire(&|acquire| acquire.ttl_ms = ttl_ms);
        let expected = format!("time of a lease is out of range ms={ttl_ms} min=5000 max=600000 field=acquire_lease.ttl_ms");
        assert_eq!(message, expected);
    }
    let renew = |leases: Vec<(&str, u64)>, ttl_ms| {
        let leases = leases.into_iter().map(|(id, fence)| Renewal { id: id.into(), fence }).collect();
        refused(Message::RenewLeases(RenewLeases { request: request.clone(), leases, ttl_ms }))
    };
    assert!(renew(vec![("a", 1)], 4999).contains("field=renew_leases.ttl_ms"));
    assert!(renew(vec![], 5000).contains("count=0 min=1 limit=64 field=renew_leases.leases"));
    assert!(renew(vec![("a", 1); 65], 5000).contains("count=65 min=1 limit=64 field=renew_leases.leases"));
    assert!(renew(vec![("a", 1), ("a", 2)], 5000).contains("leases name one session twice field=renew_leases.leases"));
    assert!(renew(vec![("a", 0)], 5000).contains("field=renew_leases.fence value=0 min=1"));
    let release = ReleaseLease { request, id: "a".into(), fence: 0 };
    assert!(refused(Message::ReleaseLease(release)).contains("field=release_lease.fence value=0 min=1"));
}

#[test]
fn every_field_that_is_wrong_is_refused_by_name() {
    let long = "x".repeat(SESSION_ID_BYTES_MAX + 1);
    assert!(refused(|save| save.id = long).contains("field=save.id"));
    assert!(refused(|save| save.request = None).contains("field=request"));
    assert!(
        refused(|save| save.request.as_mut().expect("set").nonce = Bytes::from_static(b"short")).contains("field=nonce bytes=5")
    );
    assert!(refused(|save| save.request.as_mut().expect("set").sequence = 0).contains("field=request.sequence value=0 min=1"));
    assert!(refused(|save| save.request.as_mut().expect("set").sequence = u64::MAX).contains("field=request.sequence"));
    assert!(refused(|save| save.change = None).contains("field=change"));
    assert!(refused(|save| save.change = Some(v1::Change { change: None })).contains("field=change"));
    assert!(refused(|save| save.expiry = Some(v1::Expiry { expiry: None })).contains("field=expiry"));
    for fence in [0, NUMBER_MAX + 1] {
        assert!(refused(|save| save.fence = Some(fence)).contains(&format!("field=fence value={fence} min=1")));
    }
    assert!(refused(|save| save.form = 7).contains("field=form value=7"));
    for ms in [0, u64::MAX] {
        let after = v1::Expiry { expiry: Some(v1::expiry::Expiry::AfterMs(ms)) };
        assert!(refused(|save| save.expiry = Some(after)).contains("field=expiry.after_ms"));
    }
    assert!(refused(|save| full(save).head = None).contains("field=full.head"));
    assert!(refused(|save| full(save).head.as_mut().expect("set").codec = 0).contains("field=full.head.codec value=0"));
    assert!(refused(|save| full(save).head.as_mut().expect("set").codec = 77).contains("field=full.head.codec value=77"));
    assert!(
        refused(|save| full(save).head.as_mut().expect("set").raw_bytes = 5).contains("field=full.head.raw_bytes value=5 min=4")
    );
    assert!(refused(|save| full(save).counters = vec![1; COUNTERS_MAX + 1]).contains("field=counters value=17"));
    assert!(refused(|save| full(save).chunks[0].item_count = 0).contains("field=chunk.item_count value=0 min=1"));
    assert!(refused(|save| full(save).chunks[0].item_count = u64::MAX).contains("field=chunk.item_count"));
    assert!(refused(|save| full(save).chunks[0].blob = None).contains("field=chunk.blob"));
    assert!(
        refused(|save| {
            let chunk = full(save).chunks[0].clone();
            full(save).chunks = vec![chunk; SESSION_CHUNKS_MAX as usize + 1];
        })
        .contains("field=chunks")
    );
    let creation = v1::change::Delta { base: None, chunks: vec![], head: None, counters: vec![] };
    let creation = v1::Change { change: Some(v1::change::Change::Delta(creation)) };
    assert!(refused(|save| save.change = Some(creation)).contains("field=delta.head"));
    assert!(cluster_id_from(&[0; 15]).is_err());
    assert_eq!(cluster_id_from(&[]), Ok(None));
}

#[test]
fn damaged_data_is_found_by_verify_blobs() {
    let mut save = save_message();
    let operation = |save| write_from(v1::WriteOperation { write: Some(v1::write_operation::Write::Save(save)) }).expect("valid");
    assert_eq!(verify_blobs(&operation(save.clone())), Ok(()));
    full(&mut save).head.as_mut().expect("set").data = Bytes::from_static(b"heab");
    let refusal = verify_blobs(&operation(save)).expect_err("damaged");
    assert!(refusal.message.contains("position=1"), "{refusal}");
}

fn big_content() -> LoadedContent {
    let data: Vec<u8> = (0..3 * FRAME_BYTES_MAX + 17).map(|at| at as u8).collect();
    let tiny = Chunk { item_count: 1, blob: Blob::plain(Bytes::new()) };
    let mut chunks = vec![tiny; SESSION_CHUNKS_MAX as usize - 1];
    chunks.push(Chunk { item_count: 9, blob: Blob::plain(data.into()) });
    let items = chunks.iter().map(|chunk| chunk.item_count).sum();
    let info = SessionInfo { version: Version(1), items, ..SessionInfo::default() };
    LoadedContent { info, chunks, head: Some(Blob::plain(Bytes::from_static(b"head"))) }
}

#[test]
fn a_large_load_travels_in_frames_within_the_bound() {
    use prost::Message;
    let loaded = Loaded::Full(big_content());
    let frames: Vec<_> = LoadFrames::new(Revision(5), loaded.clone(), None).collect();
    assert!(frames.len() >= 4, "got {}", frames.len());
    assert!(frames.iter().all(|frame| frame.encoded_len() <= FRAME_BYTES_MAX));
    assert_eq!(frames.iter().filter(|frame| frame.last).count(), 1);
    assert_eq!(assemble(frames.into_iter()), Ok(Some(Assembled { revision: Revision(5), loaded, age_ms: None })));
}

#[test]
fn a_load_that_is_cut_doubled_or_damaged_is_no_answer() {
    let frames: Vec<_> = LoadFrames::new(Revision(5), Loaded::Full(big_content()), None).collect();
    let without = |at: usize| frames.iter().enumerate().filter(move |(index, _)| *index != at).map(|(_, frame)| frame.clone());
    assert!(assemble(without(0)).is_err());
    assert!(assemble(without(1)).is_err());
    assert_eq!(assemble(without(frames.len() - 1)), Ok(None));
    let twice = frames[..1].iter().chain(&frames).cloned();
    assert!(assemble(twice).is_err());
    let mut damaged = frames.clone();
    let piece = damaged[2].pieces.last_mut().expect("data");
    let mut data = piece.data.to_vec();
    data[0] ^= 1;
    piece.data = data.into();
    assert_eq!(assemble(damaged.into_iter()).expect_err("damaged").kind, RefusalKind::Corrupt);
}

#[test]
fn a_load_that_declares_too_much_is_refused_before_it_is_held() {
    let blob = v1::BlobStart { codec: 1, raw_bytes: u64::MAX, crc32c: 0, stored_bytes: u64::MAX };
    let piece = v1::LoadPiece { begin: Some(v1::load_piece::Begin::Head(blob)), data: Bytes::new() };
    let start = Some(v1::LoadStart { revision: 1, loaded: Some(v1::load_start::Loaded::NotModified(v1::Empty {})), age_ms: None });
    let refusal = LoadAssembler::default().push(v1::LoadFrame { start, pieces: vec![piece], last: false }).expect_err("too much");
    assert!(refusal.message.contains("field=load.stored_bytes"), "{refusal}");
}

/// Of as many sessions as there may be, with as much content as there may be: each frame is one, and together they hold it once.
#[test]
fn several_sessions_share_frames_and_none_is_larger_than_one_may_be() {
    use prost::Message;
    let content = |bytes: usize| {
        let info = SessionInfo {
            version: Version(1),
            items: 2,
            counters: Counters::new(vec![u64::MAX; COUNTERS_MAX]).expect("few"),
            label: Label::new(&"x".repeat(LABEL_BYTES_MAX)).expect("within the bound"),
            ..SessionInfo::default()
        };
        let chunk = || Chunk { item_count: 1, blob: Blob::plain(vec![7; bytes / 2].into()) };
        Loaded::Full(LoadedContent { info, chunks: vec![chunk(), chunk()], head: Some(Blob::plain(Bytes::from_static(b"head"))) })
    };
    for (sessions, bytes, frames) in [(64, 100, 1..=1), (64, 200_000, 12..=14), (1, 15 << 20, 15..=16), (2, 0, 1..=1)] {
        let loaded: Vec<_> = (0..sessions).map(|_| content(bytes)).collect();
        let sent: Vec<_> = ManyFrames::new(Revision(9), loaded.clone(), Some(3)).collect();
        assert!(frames.contains(&sent.len()), "{sessions} of {bytes} in {}", sent.len());
        assert!(sent.iter().all(|frame| frame.encoded_len() <= FRAME_BYTES_MAX), "{sessions} of {bytes}");
        assert!(sent.iter().rev().skip(1).all(|frame| !frame.last && frame.encoded_len() > FRAME_BYTES_MAX / 2));
        let mut assembler = ManyAssembler::default();
        let answers: Vec<_> = sent.into_iter().filter_map(|frame| assembler.push(frame).expect("our own")).collect();
        assert_eq!(answers, [AssembledMany { revision: Revision(9), loaded, age_ms: Some(3) }]);
    }
}

#[test]
fn answers_of_several_that_are_not_one_are_refused_by_name() {
    let frame = |revision, count: usize, last| {
        let loads = (0..count).map(|_| LoadFrames::new(Revision(revision), Loaded::NotModified, None).next().expect("one"));
        v1::LoadManyFrame { loads: loads.collect(), last }
    };
    let refused = |frames: Vec<v1::LoadManyFrame>| {
        let mut assembler = ManyAssembler::default();
        frames.into_iter().find_map(|frame| assembler.push(frame).err()).expect("hostile").message
    };
    assert!(refused(vec![frame(1, 65, true)]).contains("load_many.loads value=65 min=1 max=64"));
    assert!(refused(vec![frame(1, 1, false), frame(2, 1, true)]).contains("not of one instant"));
    assert!(refused(vec![frame(1, 0, true)]).contains("field=load_many.loads"));
    let mut open = frame(1, 1, true);
    open.loads[0].last = false;
    assert!(refused(vec![open]).contains("field=load_many.loads.last"));
    let large = |data: usize| {
        let head = Some(Blob::plain(vec![1; data].into()));
        let info = SessionInfo { version: Version(1), ..SessionInfo::default() };
        LoadFrames::new(Revision(1), Loaded::Full(LoadedContent { info, chunks: Vec::new(), head }), None)
    };
    let loads: Vec<_> = large(9 << 20).chain(large(9 << 20)).collect();
    let sum = refused(vec![v1::LoadManyFrame { loads, last: true }]);
    assert!(sum.contains("load_many.stored_bytes value=18874368 min=0 max=16777216"), "{sum}");
}

#[test]
fn no_session_or_too_many_of_them_are_refused_by_name() {
    let id = SessionId::new("a").expect("short");
    let many = |count| LoadMany::new(vec![(id.clone(), None, Part::Whole); count], Consistency::Stale);
    assert!(many(0).expect_err("none").contains("min=1"));
    assert!(many(65).expect_err("too many").contains("max=64"));
    let one = || v1::load_many_operation::One { id: "a".into(), have: None, part: None };
    for count in [0, 65, 1000] {
        let message = v1::LoadManyOperation { loads: (0..count).map(|_| one()).collect(), consistency: 0 };
        assert_eq!(load_many_from(message).expect_err("hostile").kind, RefusalKind::Invalid, "{count}");
    }
    assert_eq!(many(64).expect("as many as may be").consistency(), Consistency::Stale);
}

/// What a reader of 64 sessions with the longest ids sends is no larger than a read may be.
#[test]
fn the_longest_ids_fit_into_a_request() {
    use prost::Message;
    let id = SessionId::new(&"x".repeat(SESSION_ID_BYTES_MAX)).expect("within the bound");
    let have =
        ContentVersion { create_revision: Revision(u64::MAX), version: Version(u64::MAX), items: u64::MAX, next_chunk: u64::MAX };
    let load = (id, Some(have), Part::From { item: u64::MAX, limit: crate::limits::SESSION_ITEMS_MAX });
    let many = LoadMany::new(vec![load; crate::limits::LOAD_MANY_IDS_MAX], Consistency::Stale).expect("as many as may be");
    let operation = Some(v1::submit_request::Operation::LoadMany(load_many_to(&many)));
    let request = v1::SubmitRequest {
        tag: u64::MAX,
        timeout_ms: u32::MAX,
        cluster_id: vec![1; 16].into(),
        cluster_version: u32::MAX,
        operation,
    };
    let bytes = request.encoded_len() as u64;
    assert!(bytes > 64 * crate::limits::KIB && bytes <= crate::limits::READ_MESSAGE_BYTES_MAX, "{bytes}");
}
