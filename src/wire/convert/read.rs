//! Loads, listings and what is known of a session.

use super::super::v1;
use super::{counters, fence_from, holder_from, in_range, label_from, out_of_range, required, session_id, unknown_value};
use crate::limits::{LIST_PAGE_MAX, LOAD_MANY_IDS_MAX, SESSION_ID_BYTES_MAX};
use crate::types::{
    Consistency, ContentVersion, Lease, List, ListPage, Listed, Load, LoadMany, Order, Part, Refusal, Revision, SessionId,
    SessionInfo, Version,
};

/// Unspecified is `Linearizable`, the stronger one.
fn consistency_from(value: i32) -> Result<Consistency, Refusal> {
    match v1::Consistency::try_from(value) {
        Ok(v1::Consistency::Unspecified | v1::Consistency::Linearizable) => Ok(Consistency::Linearizable),
        Ok(v1::Consistency::Stale) => Ok(Consistency::Stale),
        Err(_) => Err(unknown_value("consistency", value)),
    }
}

fn consistency_to(consistency: Consistency) -> i32 {
    match consistency {
        Consistency::Linearizable => v1::Consistency::Linearizable.into(),
        Consistency::Stale => v1::Consistency::Stale.into(),
    }
}

/// A validated load. Errors: `Invalid`, naming the field.
pub fn load_from(load: v1::LoadOperation) -> Result<Load, Refusal> {
    Ok(Load {
        id: session_id("load.id", &load.id)?,
        have: load.have.map(have_from),
        part: part_from(load.part)?,
        consistency: consistency_from(load.consistency)?,
    })
}

/// Validated loads of several sessions. Errors: `Invalid`, naming the field.
pub fn load_many_from(many: v1::LoadManyOperation) -> Result<LoadMany, Refusal> {
    let consistency = consistency_from(many.consistency)?;
    let one = |one: v1::load_many_operation::One| {
        Ok((session_id("load_many.id", &one.id)?, one.have.map(have_from), part_from(one.part)?))
    };
    // Looked at in full only as far as they may be there.
    let loads = many.loads.into_iter().take(LOAD_MANY_IDS_MAX + 1).map(one).collect::<Result<Vec<_>, Refusal>>()?;
    LoadMany::new(loads, consistency).map_err(Refusal::invalid)
}

/// The message of loads of several sessions.
pub fn load_many_to(many: &LoadMany) -> v1::LoadManyOperation {
    let one = |load: &Load| v1::load_many_operation::One {
        id: load.id.as_str().to_owned(),
        have: load.have.map(have_to),
        part: part_to(load.part),
    };
    v1::LoadManyOperation { loads: many.loads().iter().map(one).collect(), consistency: consistency_to(many.consistency()) }
}

fn have_from(have: v1::Have) -> ContentVersion {
    ContentVersion {
        create_revision: Revision(have.create_revision),
        version: Version(have.version),
        items: have.items,
        next_chunk: have.next_chunk,
    }
}

fn have_to(have: ContentVersion) -> v1::Have {
    v1::Have { create_revision: have.create_revision.0, version: have.version.0, items: have.items, next_chunk: have.next_chunk }
}

/// A part that says nothing is the whole: so says a later release that names one we do not know, and cuts what it gets.
fn part_from(part: Option<v1::Part>) -> Result<Part, Refusal> {
    use v1::part::Part as Message;
    let part = match part.and_then(|part| part.part) {
        None => Part::Whole,
        Some(Message::Info(_)) => Part::Info,
        Some(Message::Head(_)) => Part::Head,
        Some(Message::Last(last)) => Part::Last(last),
        Some(Message::From(v1::part::From { item, limit })) => Part::From { item, limit },
    };
    part.bounded().map_err(Refusal::invalid)
}

fn part_to(part: Part) -> Option<v1::Part> {
    use v1::part::Part as Message;
    let part = match part {
        Part::Whole => return None,
        Part::Info => Message::Info(v1::Empty {}),
        Part::Head => Message::Head(v1::Empty {}),
        Part::Last(last) => Message::Last(last),
        Part::From { item, limit } => Message::From(v1::part::From { item, limit }),
    };
    Some(v1::Part { part: Some(part) })
}

/// The message of a load.
pub fn load_to(load: &Load) -> v1::LoadOperation {
    v1::LoadOperation {
        id: load.id.as_str().to_owned(),
        have: load.have.map(have_to),
        consistency: consistency_to(load.consistency),
        part: part_to(load.part),
    }
}

/// A validated listing; a limit of 0 is the largest. Errors: `Invalid`, naming the field.
pub fn list_from(list: v1::ListOperation) -> Result<List, Refusal> {
    if list.prefix.len() > SESSION_ID_BYTES_MAX {
        return Err(out_of_range("list.prefix.bytes", list.prefix.len(), 0, SESSION_ID_BYTES_MAX));
    }
    let limit = if list.limit == 0 { LIST_PAGE_MAX } else { list.limit };
    in_range("list.limit", limit.into(), 1, LIST_PAGE_MAX.into())?;
    Ok(List {
        prefix: list.prefix,
        after: list.after.map(|id| session_id("list.after", &id)).transpose()?,
        limit,
        consistency: consistency_from(list.consistency)?,
        order: order_from(list.order, list.after_revision)?,
    })
}

fn order_from(order: i32, after: Option<u64>) -> Result<Order, Refusal> {
    match v1::Order::try_from(order) {
        Ok(v1::Order::Unspecified | v1::Order::Ids) => Ok(Order::Ids),
        Ok(v1::Order::Leases) => Ok(Order::Leases),
        Ok(v1::Order::Recent) => Ok(Order::Recent { after: after.map(Revision) }),
        Err(_) => Err(unknown_value("list.order", order)),
    }
}

/// The message of a listing.
pub fn list_to(list: &List) -> v1::ListOperation {
    v1::ListOperation {
        prefix: list.prefix.clone(),
        after: list.after.as_ref().map(|id| id.as_str().to_owned()),
        limit: list.limit,
        consistency: consistency_to(list.consistency),
        order: match list.order {
            Order::Ids => v1::Order::Unspecified.into(),
            Order::Recent { .. } => v1::Order::Recent.into(),
            Order::Leases => v1::Order::Leases.into(),
        },
        after_revision: match list.order {
            Order::Recent { after } => after.map(|after| after.0),
            Order::Ids | Order::Leases => None,
        },
    }
}

fn lease_from(lease: v1::Lease) -> Result<Lease, Refusal> {
    let v1::Lease { fence, holder, deadline_ms } = lease;
    Ok(Lease { fence: fence_from("lease.fence", fence)?, holder: holder_from("lease.holder", &holder)?, deadline_ms })
}

fn lease_to(lease: &Lease) -> v1::Lease {
    v1::Lease { fence: lease.fence.0, holder: lease.holder.as_str().to_owned(), deadline_ms: lease.deadline_ms }
}

pub(crate) fn info_from(info: v1::SessionInfo) -> Result<SessionInfo, Refusal> {
    Ok(SessionInfo {
        label: label_from(&info.label)?,
        lease: info.lease.map(lease_from).transpose()?,
        create_revision: Revision(info.create_revision),
        version: Version(in_range("info.version", info.version, 1, u64::MAX)?),
        mod_revision: Revision(info.mod_revision),
        items: info.items,
        first_chunk: info.first_chunk,
        next_chunk: info.next_chunk,
        chunks: info.chunks,
        raw_bytes: info.raw_bytes,
        stored_bytes: info.stored_bytes,
        counters: counters(info.counters)?,
        created_ms: info.created_ms,
        updated_ms: info.updated_ms,
        deadline_ms: info.deadline_ms,
        idle_ttl_ms: info.idle_ttl_ms,
        tombstone_ttl_ms: info.tombstone_ttl_ms,
        remaining_ms: info.remaining_ms,
    })
}

pub(crate) fn info_to(info: &SessionInfo) -> v1::SessionInfo {
    v1::SessionInfo {
        label: info.label.as_str().to_owned(),
        lease: info.lease.as_ref().map(lease_to),
        create_revision: info.create_revision.0,
        version: info.version.0,
        mod_revision: info.mod_revision.0,
        items: info.items,
        first_chunk: info.first_chunk,
        next_chunk: info.next_chunk,
        chunks: info.chunks,
        raw_bytes: info.raw_bytes,
        stored_bytes: info.stored_bytes,
        counters: info.counters.as_slice().to_vec(),
        created_ms: info.created_ms,
        updated_ms: info.updated_ms,
        deadline_ms: info.deadline_ms,
        idle_ttl_ms: info.idle_ttl_ms,
        tombstone_ttl_ms: info.tombstone_ttl_ms,
        remaining_ms: info.remaining_ms,
    }
}

/// A validated page. Errors: `Invalid`, naming the field.
pub fn list_page_from(page: v1::ListPage) -> Result<ListPage, Refusal> {
    if page.sessions.len() > LIST_PAGE_MAX as usize {
        return Err(out_of_range("page.sessions", page.sessions.len(), 0, LIST_PAGE_MAX));
    }
    if page.leases.len() > LIST_PAGE_MAX as usize {
        return Err(out_of_range("page.leases", page.leases.len(), 0, LIST_PAGE_MAX));
    }
    let leased =
        |leased: v1::ListedLease| Ok((session_id("leased.id", &leased.id)?, lease_from(required("leased.lease", leased.lease)?)?));
    let leases = page.leases.into_iter().map(leased).collect::<Result<_, Refusal>>()?;
    let listed = |listed: v1::Listed| {
        Ok(Listed { id: session_id("listed.id", &listed.id)?, info: info_from(required("listed.info", listed.info)?)? })
    };
    let sessions = page.sessions.into_iter().map(listed).collect::<Result<_, Refusal>>()?;
    Ok(ListPage {
        revision: Revision(page.revision),
        sessions,
        more: page.more,
        age_ms: page.age_ms,
        since: page.since.map(Revision),
        machine_time_ms: page.machine_time_ms,
        leases,
    })
}

/// The message of a page.
pub fn list_page_to(page: &ListPage) -> v1::ListPage {
    let listed = |listed: &Listed| v1::Listed { id: listed.id.as_str().to_owned(), info: Some(info_to(&listed.info)) };
    let sessions = page.sessions.iter().map(listed).collect();
    let leased = |(id, lease): &(SessionId, Lease)| v1::ListedLease { id: id.as_str().to_owned(), lease: Some(lease_to(lease)) };
    v1::ListPage {
        revision: page.revision.0,
        sessions,
        more: page.more,
        age_ms: page.age_ms,
        since: page.since.map(|since| since.0),
        machine_time_ms: page.machine_time_ms,
        leases: page.leases.iter().map(leased).collect(),
    }
}
