//! Writes.

use bytes::Bytes;

use super::super::v1;
use super::change::{
    addition_from, addition_to, change_from, change_to, expected_from, expected_to, expiry_from, expiry_to, form_from, form_to,
    millis, on_conflict_from, on_conflict_to, require_from, require_to, tombstone_ttl_from,
};
use super::{label_from, nonce, required, sequence, session_id};
use crate::types::{Attributes, ClientId, Nonce, Refusal, Request, Write};

/// A validated write. Checksums are not looked at: call [`verify_blobs`] before proposing.
///
/// Errors: `Invalid`, naming the field. Nothing changed.
pub fn write_from(operation: v1::WriteOperation) -> Result<Write, Refusal> {
    use v1::write_operation::Write as Message;
    match required("write", operation.write)? {
        Message::Save(save) => Ok(Write::Save {
            request: request_from(save.request)?,
            id: session_id("save.id", &save.id)?,
            change: change_from(save.change)?,
            attributes: attributes_from(save.expiry, save.form, save.tombstone_ttl_ms, save.label)?,
        }),
        Message::SaveIfVersion(save) => Ok(Write::SaveIfVersion {
            request: request_from(save.request)?,
            id: session_id("save_if_version.id", &save.id)?,
            expected: expected_from(required("save_if_version.expected", save.expected)?)?,
            change: change_from(save.change)?,
            on_conflict: on_conflict_from(save.on_conflict)?,
            attributes: attributes_from(save.expiry, save.form, save.tombstone_ttl_ms, save.label)?,
        }),
        Message::Append(append) => {
            let require = require_from(append.require)?;
            Ok(Write::Append {
                request: request_from(append.request)?,
                id: session_id("append.id", &append.id)?,
                require,
                addition: addition_from(require, append.chunks, append.head_if_created, append.counters)?,
                attributes: attributes_from(append.expiry, 0, append.tombstone_ttl_ms, append.label)?,
            })
        }
        Message::Touch(touch) => Ok(Write::Touch {
            request: request_from(touch.request)?,
            id: session_id("touch.id", &touch.id)?,
            expiry: expiry_from(touch.expiry)?,
        }),
        Message::Delete(delete) => Ok(Write::Delete {
            request: request_from(delete.request)?,
            id: session_id("delete.id", &delete.id)?,
            expected: delete.expected.map(expected_from).transpose()?,
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

/// The message of a write.
pub fn write_to(write: &Write) -> v1::WriteOperation {
    use v1::write_operation::{self as message, Write as Message};
    let write = match write {
        Write::Save { request, id, change, attributes } => Message::Save(message::Save {
            request: Some(request_to(request)),
            id: id.as_str().to_owned(),
            change: Some(change_to(change)),
            expiry: expiry_to(attributes.expiry),
            form: form_to(attributes.form),
            tombstone_ttl_ms: attributes.tombstone_ttl.map(millis),
            label: attributes.label.as_ref().map(|label| label.as_str().to_owned()),
        }),
        Write::Append { request, id, require, addition, attributes } => {
            let (chunks, head_if_created, counters) = addition_to(addition);
            Message::Append(message::Append {
                request: Some(request_to(request)),
                id: id.as_str().to_owned(),
                require: require_to(*require),
                chunks,
                head_if_created,
                counters,
                expiry: expiry_to(attributes.expiry),
                tombstone_ttl_ms: attributes.tombstone_ttl.map(millis),
                label: attributes.label.as_ref().map(|label| label.as_str().to_owned()),
            })
        }
        Write::SaveIfVersion { request, id, expected, change, on_conflict, attributes } => {
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
            })
        }
        Write::Touch { request, id, expiry } => Message::Touch(message::Touch {
            request: Some(request_to(request)),
            id: id.as_str().to_owned(),
            expiry: expiry_to(*expiry),
        }),
        Write::Delete { request, id, expected } => Message::Delete(message::Delete {
            request: Some(request_to(request)),
            id: id.as_str().to_owned(),
            expected: expected.map(expected_to),
        }),
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

fn nonce_to(nonce: &Nonce) -> Bytes {
    Bytes::copy_from_slice(&nonce.0)
}
