//! Repacks: compared with the rows that they replace before they are proposed, since the machine reads no rows (L49).

use super::Reply;
use super::content::Wanted;
use super::propose::{not_current, propose};
use super::read::{Reads, no_room};
use crate::machine::Command;
use crate::mutant::{self, Mutant};
use crate::types::{Chunk, ChunkSum, Loaded, Refusal, RefusalKind, Repack, Request, Write};

/// Proposes a repack if the rows that it replaces are what it says, and its own chunks hold as much. One at a time is compared; others wait. The
/// reply is called exactly once, and before anything is proposed if they are not. Dropping the future drops the reply.
pub async fn propose_repack(reads: &Reads, (command, reply): (Command, Reply)) {
    let turn = reads.repacks.acquire().await;
    let compared = match &command {
        Command::Client(Write::Repack { request, repack }) => compare(reads, command.cluster_version(), request, repack).await,
        _ => Ok(()),
    };
    drop(turn);
    match compared {
        Ok(()) => propose(&reads.context, vec![(command, reply)]).await,
        Err(refusal) => reply(Err(refusal)),
    }
}

/// Commands, each with the reply to its caller.
type Batch = Vec<(Command, Reply)>;

/// Takes the repacks out of a batch. One without any, as nearly all are, is looked through and not moved.
pub fn take_from(batch: &mut Batch) -> Batch {
    batch.extract_if(.., |(command, _)| matches!(command, Command::Client(Write::Repack { .. }))).collect()
}

/// Compares a repack with the rows of this node, which leads. One whose sequence has an outcome is answered by it, whatever the rows are by now;
/// and what the version in force does not have is refused where all such is. Errors: the refusal; nothing was proposed.
async fn compare(reads: &Reads, needs: u16, request: &Request, repack: &Repack) -> Result<(), Refusal> {
    let context = &reads.context;
    let wanted = context.state.view(|state, applied, pinner| {
        let machine = &state.machine;
        if machine.cluster_version() < needs || machine.has_outcome(request.client, request.sequence) {
            return Ok(None);
        }
        // Of an earlier term there may be entries that are not applied yet: an outcome of this very request, or an earlier repack.
        if applied.is_none_or(|applied| applied.term != context.leadership.term()) {
            return Err(not_current());
        }
        let plan = machine.plan_repack(repack).ok_or_else(|| differs("the session or its chunks are others"))?;
        Ok(Wanted::of(plan, pinner).ok())
    })?;
    let Some(wanted) = wanted.filter(|_| !mutant::is(Mutant::RepackNotCompared)) else { return Ok(()) };
    let bytes = wanted.expected_bytes();
    if !reads.loaded.has_room_for(bytes) {
        return Err(no_room());
    }
    let permit = reads.loaded.charge_loaded(bytes);
    let state = context.state.clone();
    let read = context.blocking.call(move || {
        wanted.read().map(chunks_of).inspect_err(|error| {
            if error.is_final() {
                state.fail(error.clone());
            }
        })
    });
    let rows = read.await.map_err(|error| {
        let kind = if error.is_final() { RefusalKind::Corrupt } else { RefusalKind::Unavailable };
        Refusal::not_applied(kind, format!("the chunks to be replaced can't be read: {error}"))
    })?;
    drop(permit);
    judge(repack, ChunkSum::of(&rows))
}

fn chunks_of(loaded: Loaded) -> Vec<Chunk> {
    match loaded {
        Loaded::Full(content) | Loaded::Tail(content) | Loaded::Suffix { content, .. } => content.chunks,
        Loaded::NotFound { .. } | Loaded::NotModified => Vec::new(),
    }
}

/// Whether what is stored is what a repack was made from, and what it brings holds as much.
fn judge(repack: &Repack, stored: ChunkSum) -> Result<(), Refusal> {
    let new = ChunkSum::of(&repack.chunks);
    if stored != repack.old {
        return Err(differs("the chunks to be replaced are not what it says of them"));
    }
    if (new.items, new.raw_bytes) != (stored.items, stored.raw_bytes) {
        let (items, raw_bytes) = (stored.items, stored.raw_bytes);
        return Err(differs(&format!(
            "the new chunks do not hold what the old ones do items={} old_items={items} raw_bytes={} old_raw_bytes={raw_bytes}",
            new.items, new.raw_bytes
        )));
    }
    Ok(())
}

fn differs(what: &str) -> Refusal {
    Refusal::invalid(format!("the repack is of another content: {what}; load the session and repack what it holds now"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Applied, Blob, Revision, SessionId};

    fn chunk(item_count: u64, data: &'static [u8]) -> Chunk {
        Chunk { item_count, blob: Blob::plain(data.into()) }
    }

    #[test]
    fn only_a_repack_of_what_is_stored_with_the_same_items_is_proposed() {
        let stored = [chunk(1, b"one"), chunk(2, b"two")];
        let of = |old: &[Chunk], chunks: Vec<Chunk>| Repack {
            id: SessionId::new("a").expect("short"),
            create_revision: Revision(3),
            first_chunk: 0,
            until_chunk: 2,
            old: ChunkSum::of(old),
            chunks,
        };
        let judged = |repack: &Repack| judge(repack, ChunkSum::of(&stored));
        assert_eq!(judged(&of(&stored, vec![chunk(3, b"onetwo")])), Ok(()));
        let other = [chunk(1, b"One"), chunk(2, b"two")];
        for wrong in [
            of(&other, vec![chunk(3, b"onetwo")]),
            of(&stored[..1], vec![chunk(1, b"one")]),
            of(&stored, vec![chunk(4, b"onetwo")]),
            of(&stored, vec![chunk(3, b"onetwo!")]),
        ] {
            let refusal = judged(&wrong).expect_err("refused");
            assert_eq!((refusal.kind, refusal.applied), (RefusalKind::Invalid, Applied::No));
        }
    }
}
