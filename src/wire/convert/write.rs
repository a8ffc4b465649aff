//! Writes.

use std::time::Duration;

use bytes::Bytes;

use super::super::v1;
use super::change::{
    addition_from, addition_to, change_from, change_to, chunks_from, chunks_to, expected_from, expected_to, expiry_from, expiry_to,
    form_from, form_to, millis, on_conflict_from, on_conflict_to, require_from, require_to, tombstone_ttl_from,
};
use super::{fence_from, holder_from, in_range, label_from, missing, nonce, required, sequence, session_id};
use crate::limits::{LEASES_RENEWED_MAX, NUMBER_MAX, TRANSACTION_OPERATIONS_MAX};
use crate::types::{
    Addition, Attributes, ChunkSum, ClientId, Fence, Holder, InvalidRenewals, LeaseTtl, Nonce, Operation, Operations, Refusal,
    Renewals, Repack, Request, Require, Revision, Sequence, SessionId, Write,
};

/// A validated write. Checksums are not looked at: call [`verify_blobs`] before proposing.
///
/// Errors: `Invalid`, naming the field. Nothing changed.
pub fn write_from(operation: v1::WriteOperation) -> Result<Write, Refusal> {
    use v1::write_operation::Write as Message;
    match required("write", operation.write)? {
        Message::Transaction(transaction) => transaction_from(transaction),
        Message::Save(save) => Ok(Write::Save {
            request: request_from(save.request)?,
            id: session_id("save.id", &save.id)?,
            change: change_from(save.change)?,
            attributes: attributes_from(save.expiry, save.form, save.tombstone_ttl_ms, save.label)?,
            fence: optional_fence(save.fence)?,
        }),
        Message::SaveIfVersion(save) => Ok(Write::SaveIfVersion {
            request: request_from(save.request)?,
            id: session_id("save_if_version.id", &save.id)?,
            expected: expected_from(required("save_if_version.expected", save.expected)?)?,
            change: change_from(save.change)?,
            on_conflict: on_conflict_from(save.on_conflict)?,
            attributes: attributes_from(save.expiry, save.form, save.tombstone_ttl_ms, save.label)?,
            fence: optional_fence(save.fence)?,
        }),
        Message::Append(append) => {
            let require = require_from(append.require)?;
            Ok(Write::Append {
                request: request_from(append.request)?,
                id: session_id("append.id", &append.id)?,
                require,
                addition: addition_from(require, append.chunks, append.head_if_created, append.counters)?,
                attributes: attributes_from(append.expiry, 0, append.tombstone_ttl_ms, append.label)?,
                fence: optional_fence(append.fence)?,
            })
        }
        Message::Touch(touch) => Ok(Write::Touch {
            request: request_from(touch.request)?,
            id: session_id("touch.id", &touch.id)?,
            expiry: expiry_from(touch.expiry)?,
            fence: optional_fence(touch.fence)?,
        }),
        Message::Delete(delete) => Ok(Write::Delete {
            request: request_from(delete.request)?,
            id: session_id("delete.id", &delete.id)?,
            expected: delete.expected.map(expected_from).transpose()?,
            fence: optional_fence(delete.fence)?,
        }),
        Message::Repack(repack) => repack_from(repack),
        Message::AcquireLease(acquire) => Ok(Write::AcquireLease {
            request: request_from(acquire.request)?,
            id: session_id("acquire_lease.id", &acquire.id)?,
            holder: holder_from("acquire_lease.holder", &acquire.holder)?,
            ttl: lease_ttl("acquire_lease.ttl_ms", acquire.ttl_ms)?,
            steal: acquire.steal,
        }),
        Message::RenewLeases(renew) => Ok(Write::RenewLeases {
            request: request_from(renew.request)?,
            leases: renewals_from(renew.leases)?,
            ttl: lease_ttl("renew_leases.ttl_ms", renew.ttl_ms)?,
        }),
        Message::ReleaseLease(release) => Ok(Write::ReleaseLease {
            request: request_from(release.request)?,
            id: session_id("release_lease.id", &release.id)?,
            fence: fence_from("release_lease.fence", release.fence)?,
        }),
        Message::OpenClient(open) => Ok(Write::OpenClient { nonce: nonce(&open.nonce)? }),
        Message::KeepAlive(keep) => Ok(Write::KeepAlive {
            client: ClientId(keep.client),
            nonce: nonce(&keep.nonce)?,
            acknowledged_below: sequence("acknowledged_below", keep.acknowledged_below, 0)?,
        }),
        Message::CloseClient(close) => Ok(Write::CloseClient { client: ClientId(close.client), nonce: nonce(&close.nonce)? }),
    }
}

fn repack_from(repack: v1::write_operation::Repack) -> Result<Write, Refusal> {
    let old = required("repack.old", repack.old)?;
    let v1::write_operation::ChunkSum { items, raw_bytes, stored_bytes, hash } = old;
    let chunks = chunks_from(repack.chunks)?;
    if chunks.is_empty() {
        return Err(missing("repack.chunks"));
    }
    let first_chunk = in_range("repack.first_chunk", repack.first_chunk, 0, NUMBER_MAX)?;
    Ok(Write::Repack {
        request: request_from(repack.request)?,
        repack: Repack {
            id: session_id("repack.id", &repack.id)?,
            create_revision: Revision(in_range("repack.create_revision", repack.create_revision, 1, u64::MAX)?),
            first_chunk,
            until_chunk: in_range("repack.until_chunk", repack.until_chunk, first_chunk + 1, u64::MAX)?,
            old: ChunkSum { items, raw_bytes, stored_bytes, hash },
            chunks,
        },
    })
}

fn repack_to(request: &Request, repack: &Repack) -> v1::write_operation::Write {
    let ChunkSum { items, raw_bytes, stored_bytes, hash } = repack.old;
    v1::write_operation::Write::Repack(v1::write_operation::Repack {
        request: Some(request_to(request)),
        id: repack.id.as_str().to_owned(),
        create_revision: repack.create_revision.0,
        first_chunk: repack.first_chunk,
        until_chunk: repack.until_chunk,
        old: Some(v1::write_operation::ChunkSum { items, raw_bytes, stored_bytes, hash }),
        chunks: chunks_to(&repack.chunks),
    })
}

fn transaction_from(transaction: v1::write_operation::Transaction) -> Result<Write, Refusal> {
    let request = request_from(transaction.request)?;
    in_range("transaction.operations", transaction.operations.len() as u64, 1, TRANSACTION_OPERATIONS_MAX as u64)?;
    let operations = transaction.operations.into_iter().enumerate().map(|(index, operation)| {
        operation_from(operation).map_err(|mut refusal| {
            refusal.message += &format!(" in=transaction.operations[{index}]");
            refusal
        })
    });
    let operations = Operations::new(operations.collect::<Result<_, _>>()?);
    Ok(Write::Transaction { request, operations: operations.map_err(|error| Refusal::invalid(error.to_string()))? })
}

/// A validated operation of a transaction: of the messages of writes, all but the request, of which it has none.
fn operation_from(operation: v1::write_operation::transaction::Operation) -> Result<Operation, Refusal> {
    use v1::write_operation::Write as Alone;
    use v1::write_operation::transaction::operation::Operation as Message;
    let (write, request) = match required("operation", operation.operation)? {
        Message::Require(require) => {
            if require.expected.is_none() && require.fence.is_none() {
                return Err(Refusal::invalid("one of expected and fence must be given field=require.expected"));
            }
            return Ok(Operation::Require {
                id: session_id("require.id", &require.id)?,
                expected: require.expected.map(expected_from).transpose()?,
                fence: optional_fence(require.fence)?,
            });
        }
        Message::Save(mut save) => {
            let request = save.request.replace(request_to(&NO_REQUEST));
            (Alone::Save(save), request)
        }
        Message::SaveIfVersion(mut save) => {
            let request = save.request.replace(request_to(&NO_REQUEST));
            (Alone::SaveIfVersion(save), request)
        }
        Message::Append(mut append) => {
            let request = append.request.replace(request_to(&NO_REQUEST));
            (Alone::Append(append), request)
        }
        Message::Delete(mut delete) => {
            let request = delete.request.replace(request_to(&NO_REQUEST));
            (Alone::Delete(delete), request)
        }
    };
    if request.is_some() {
        return Err(Refusal::invalid("an operation of a transaction has no request: the transaction has it field=request"));
    }
    let write = write_from(v1::WriteOperation { write: Some(write) })?;
    Operation::of(write).ok_or_else(|| missing("operation"))
}

/// The message of a write.
pub fn write_to(write: &Write) -> v1::WriteOperation {
    use v1::write_operation::{self as message, Write as Message};
    let write = match write {
        Write::Save { request, id, change, attributes, fence } => Message::Save(message::Save {
            request: Some(request_to(request)),
            id: id.as_str().to_owned(),
            change: Some(change_to(change)),
            expiry: expiry_to(attributes.expiry),
            form: form_to(attributes.form),
            tombstone_ttl_ms: attributes.tombstone_ttl.map(millis),
            label: attributes.label.as_ref().map(|label| label.as_str().to_owned()),
            fence: fence.map(|fence| fence.0),
        }),
        Write::Append { request, id, require, addition, attributes, fence } => {
            append_to(request, id, *require, addition, attributes, *fence)
        }
        Write::SaveIfVersion { request, id, expected, change, on_conflict, attributes, fence } => {
            Message::SaveIfVersion(message::SaveIfVersion {
                request: Some(request_to(request)),
                id: id.as_str().to_owned(),
                expected: Some(expected_to(*expected)),
                change: Some(change_to(change)),
                on_conflict: on_conflict_to(*on_conflict),
                expiry: expiry_to(attributes.expiry),
                form: form_to(attributes.form),
                tombstone_ttl_ms: attributes.tombstone_ttl.map(millis),
                label: attributes.label.as_ref().map(|label| label.as_str().to_owned()),
                fence: fence.map(|fence| fence.0),
            })
        }
        Write::Repack { request, repack } => repack_to(request, repack),
        Write::Transaction { request, operations } => Message::Transaction(message::Transaction {
            request: Some(request_to(request)),
            operations: operations.iter().map(operation_to).collect(),
        }),
        Write::Touch { request, id, expiry, fence } => Message::Touch(message::Touch {
            request: Some(request_to(request)),
            id: id.as_str().to_owned(),
            expiry: expiry_to(*expiry),
            fence: fence.map(|fence| fence.0),
        }),
        Write::Delete { request, id, expected, fence } => Message::Delete(message::Delete {
            request: Some(request_to(request)),
            id: id.as_str().to_owned(),
            expected: expected.map(expected_to),
            fence: fence.map(|fence| fence.0),
        }),
        Write::AcquireLease { request, id, holder, ttl, steal } => acquire_to(request, id, holder, *ttl, *steal),
        Write::RenewLeases { request, leases, ttl } => renew_to(request, leases, *ttl),
        Write::ReleaseLease { request, id, fence } => {
            let (request, id) = (Some(request_to(request)), id.as_str().to_owned());
            Message::ReleaseLease(message::ReleaseLease { request, id, fence: fence.0 })
        }
        Write::OpenClient { nonce } => Message::OpenClient(message::OpenClient { nonce: nonce_to(nonce) }),
        Write::KeepAlive { client, nonce, acknowledged_below } => Message::KeepAlive(message::KeepAlive {
            client: client.0,
            nonce: nonce_to(nonce),
            acknowledged_below: acknowledged_below.0,
        }),
        Write::CloseClient { client, nonce } => {
            Message::CloseClient(message::CloseClient { client: client.0, nonce: nonce_to(nonce) })
        }
    };
    v1::WriteOperation { write: Some(write) }
}

fn append_to(
    request: &Request,
    id: &SessionId,
    require: Require,
    addition: &Addition,
    attributes: &Attributes,
    fence: Option<Fence>,
) -> v1::write_operation::Write {
    let (chunks, head_if_created, counters) = addition_to(addition);
    v1::write_operation::Write::Append(v1::write_operation::Append {
        request: Some(request_to(request)),
        id: id.as_str().to_owned(),
        require: require_to(require),
        chunks,
        head_if_created,
        counters,
        expiry: expiry_to(attributes.expiry),
        tombstone_ttl_ms: attributes.tombstone_ttl.map(millis),
        label: attributes.label.as_ref().map(|label| label.as_str().to_owned()),
        fence: fence.map(|fence| fence.0),
    })
}

fn acquire_to(request: &Request, id: &SessionId, holder: &Holder, ttl: LeaseTtl, steal: bool) -> v1::write_operation::Write {
    v1::write_operation::Write::AcquireLease(v1::write_operation::AcquireLease {
        request: Some(request_to(request)),
        id: id.as_str().to_owned(),
        holder: holder.as_str().to_owned(),
        ttl_ms: ttl.millis(),
        steal,
    })
}

fn renew_to(request: &Request, leases: &Renewals, ttl: LeaseTtl) -> v1::write_operation::Write {
    use v1::write_operation::{RenewLeases, Renewal};
    let renewal = |(id, fence): &(SessionId, Fence)| Renewal { id: id.as_str().to_owned(), fence: fence.0 };
    v1::write_operation::Write::RenewLeases(RenewLeases {
        request: Some(request_to(request)),
        leases: leases.as_slice().iter().map(renewal).collect(),
        ttl_ms: ttl.millis(),
    })
}

fn operation_to(operation: &Operation) -> v1::write_operation::transaction::Operation {
    use v1::write_operation::Write as Alone;
    use v1::write_operation::transaction::{self as message, operation::Operation as Message};
    let write = operation.clone().alone(NO_REQUEST).and_then(|write| write_to(&write).write);
    let operation = match (operation, write) {
        (Operation::Require { id, expected, fence }, _) => Some(Message::Require(message::RequireStored {
            id: id.as_str().to_owned(),
            expected: expected.map(expected_to),
            fence: fence.map(|fence| fence.0),
        })),
        (_, Some(Alone::Save(save))) => Some(Message::Save(v1::write_operation::Save { request: None, ..save })),
        (_, Some(Alone::SaveIfVersion(save))) => {
            Some(Message::SaveIfVersion(v1::write_operation::SaveIfVersion { request: None, ..save }))
        }
        (_, Some(Alone::Append(append))) => Some(Message::Append(v1::write_operation::Append { request: None, ..append })),
        (_, Some(Alone::Delete(delete))) => Some(Message::Delete(v1::write_operation::Delete { request: None, ..delete })),
        (_, None | Some(_)) => None,
    };
    message::Operation { operation }
}

/// Whether every blob a write brings still is what its checksum was made from. It reads all the data: do it once, before proposing.
///
/// Errors: `Invalid`, with the position of the first damaged blob (the head comes after the chunks). Nothing changed.
pub fn verify_blobs(write: &Write) -> Result<(), Refusal> {
    match write.blobs().position(|blob| !blob.is_intact()) {
        None => Ok(()),
        Some(at) => Err(Refusal::invalid(format!("data does not match its checksum field=change.blobs position={at}"))),
    }
}

fn attributes_from(
    expiry: Option<v1::Expiry>,
    form: i32,
    tombstone_ttl_ms: Option<u64>,
    label: Option<String>,
) -> Result<Attributes, Refusal> {
    let tombstone_ttl = tombstone_ttl_ms.map(tombstone_ttl_from).transpose()?;
    Ok(Attributes {
        expiry: expiry_from(expiry)?,
        form: form_from(form)?,
        tombstone_ttl,
        label: label.as_deref().map(label_from).transpose()?,
    })
}

fn optional_fence(fence: Option<u64>) -> Result<Option<Fence>, Refusal> {
    fence.map(|fence| fence_from("fence", fence)).transpose()
}

fn lease_ttl(field: &str, ttl_ms: u64) -> Result<LeaseTtl, Refusal> {
    LeaseTtl::new(Duration::from_millis(ttl_ms)).map_err(|error| Refusal::invalid(format!("{error} field={field}")))
}

fn renewals_from(leases: Vec<v1::write_operation::Renewal>) -> Result<Renewals, Refusal> {
    // Looked at in full only as far as they may be there.
    let renewal = |renewal: v1::write_operation::Renewal| {
        Ok((session_id("renew_leases.id", &renewal.id)?, fence_from("renew_leases.fence", renewal.fence)?))
    };
    let count = leases.len();
    let leases = leases.into_iter().take(LEASES_RENEWED_MAX).map(renewal).collect::<Result<Vec<_>, Refusal>>()?;
    let renewals = if count > LEASES_RENEWED_MAX { Err(InvalidRenewals::Count { count }) } else { Renewals::new(leases) };
    renewals.map_err(|error| Refusal::invalid(format!("{error} field=renew_leases.leases")))
}

fn request_from(request: Option<v1::Request>) -> Result<Request, Refusal> {
    let request = required("request", request)?;
    Ok(Request {
        client: ClientId(request.client),
        nonce: nonce(&request.nonce)?,
        sequence: sequence("request.sequence", request.sequence, 1)?,
        acknowledged_below: sequence("request.acknowledged_below", request.acknowledged_below, 0)?,
    })
}

fn request_to(request: &Request) -> v1::Request {
    v1::Request {
        client: request.client.0,
        nonce: nonce_to(&request.nonce),
        sequence: request.sequence.0,
        acknowledged_below: request.acknowledged_below.0,
    }
}

/// The request of a write that is made of an operation of a transaction, which has none.
const NO_REQUEST: Request =
    Request { client: ClientId(0), nonce: Nonce([0; 16]), sequence: Sequence(1), acknowledged_below: Sequence(0) };

fn nonce_to(nonce: &Nonce) -> Bytes {
    Bytes::copy_from_slice(&nonce.0)
}
