//! Hand-written halves: types that check themselves when they are decoded, and content, which is sliced and not copied.

use super::{
    Aborted, Addition, Attributes, Base, Blob, BorrowDecode, BorrowDecoder, Bytes, COUNTERS_MAX, Change, Chunk, Counters,
    DecodeError, Duration, ENTRY_CHUNKS_MAX, Encode, EncodeError, Encoder, Expiry, FORMAT, Holder, LEASES_RENEWED_MAX, Label,
    LeaseTtl, Lost, Operations, Renewals, Repack, SESSION_TTL_MAX, SessionId, Source, TOMBSTONE_TTL_MAX,
    TRANSACTION_OPERATIONS_MAX, Transacted, Verdict, read,
};

/// Two values, one after the other.
pub(super) struct Pair<A, B>(pub A, pub B);

impl<'de, 'c, A, B> BorrowDecode<'de, Source<'c>> for Pair<A, B>
where
    A: BorrowDecode<'de, Source<'c>>,
    B: BorrowDecode<'de, Source<'c>>,
{
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Self(read(decoder, "Entry")?, read(decoder, "Entry")?))
    }
}

impl Encode for SessionId {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_str().encode(encoder)
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for SessionId {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let id: &str = read(decoder, "SessionId")?;
        SessionId::new(id).map_err(|error| DecodeError::OtherString(error.to_string()))
    }
}

impl Encode for Label {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_str().encode(encoder)
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Label {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let label: &str = read(decoder, "Label")?;
        Label::new(label).map_err(|error| DecodeError::OtherString(error.to_string()))
    }
}

impl Encode for Holder {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_str().encode(encoder)
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Holder {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let holder: &str = read(decoder, "Holder")?;
        Holder::new(holder).map_err(|error| DecodeError::OtherString(error.to_string()))
    }
}

impl Encode for LeaseTtl {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.millis().encode(encoder)
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for LeaseTtl {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let ttl_ms: u64 = read(decoder, "LeaseTtl")?;
        LeaseTtl::new(Duration::from_millis(ttl_ms)).map_err(|error| DecodeError::OtherString(error.to_string()))
    }
}

impl Encode for Lost {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.bits().encode(encoder)
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Lost {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        read(decoder, "Lost").map(Lost::from_bits)
    }
}

impl Encode for Renewals {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.as_slice().len() as u64).encode(encoder)?;
        self.as_slice().iter().try_for_each(|lease| lease.encode(encoder))
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Renewals {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let count: u64 = read(decoder, "Renewals")?;
        if count > LEASES_RENEWED_MAX as u64 {
            return Err(DecodeError::OtherString(format!("too many leases count={count} limit={LEASES_RENEWED_MAX}")));
        }
        let leases = (0..count).map(|_| Ok((read(decoder, "Renewals.id")?, read(decoder, "Renewals.fence")?)));
        Renewals::new(leases.collect::<Result<_, DecodeError>>()?).map_err(|error| DecodeError::OtherString(error.to_string()))
    }
}

impl Encode for Counters {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.as_slice().len() as u64).encode(encoder)?;
        self.as_slice().iter().try_for_each(|value| value.encode(encoder))
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Counters {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let count: u64 = read(decoder, "Counters")?;
        if count > COUNTERS_MAX as u64 {
            return Err(DecodeError::OtherString(format!("too many counters count={count} limit={COUNTERS_MAX}")));
        }
        let values = (0..count).map(|_| read(decoder, "Counters")).collect::<Result<Vec<u64>, _>>()?;
        Counters::new(values).ok_or(DecodeError::Other("too many counters"))
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

/// A time to live within its bound.
fn ttl<'de, 'c, D: BorrowDecoder<'de, Context = Source<'c>>>(
    decoder: &mut D,
    field: &'static str,
) -> Result<Duration, DecodeError> {
    within(read(decoder, field)?, SESSION_TTL_MAX)
}

fn within(ttl_ms: u64, max: Duration) -> Result<Duration, DecodeError> {
    let ttl = Duration::from_millis(ttl_ms);
    if ttl > max {
        return Err(DecodeError::OtherString(format!("time to live is too long ms={ttl_ms} limit={}", max.as_millis())));
    }
    Ok(ttl)
}

impl Encode for Expiry {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        match self {
            Expiry::Keep => 0u8.encode(encoder),
            Expiry::Never => 1u8.encode(encoder),
            Expiry::After(ttl) => (2u8, millis(*ttl)).encode(encoder),
            Expiry::Idle(ttl) => (3u8, millis(*ttl)).encode(encoder),
        }
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Expiry {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        match read::<u8, D>(decoder, "Expiry")? {
            0 => Ok(Expiry::Keep),
            1 => Ok(Expiry::Never),
            2 => ttl(decoder, "Expiry.After").map(Expiry::After),
            3 if decoder.context().format != FORMAT => ttl(decoder, "Expiry.Idle").map(Expiry::Idle),
            other => Err(DecodeError::OtherString(format!("unknown discriminant={other}"))),
        }
    }
}

impl Encode for Attributes {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let Self { expiry, form, tombstone_ttl, label } = self;
        expiry.encode(encoder)?;
        form.encode(encoder)?;
        tombstone_ttl.map(millis).encode(encoder)?;
        label.encode(encoder)
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Attributes {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let expiry: Expiry = read(decoder, "Attributes.expiry")?;
        if decoder.context().format == FORMAT {
            return Ok(expiry.into());
        }
        let form = read(decoder, "Attributes.form")?;
        let tombstone_ms: Option<u64> = read(decoder, "Attributes.tombstone_ttl")?;
        let tombstone_ttl = tombstone_ms.map(|ms| within(ms, TOMBSTONE_TTL_MAX)).transpose()?;
        Ok(Attributes { expiry, form, tombstone_ttl, label: read(decoder, "Attributes.label")? })
    }
}

impl Encode for Blob {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.codec.encode(encoder)?;
        self.raw_bytes.encode(encoder)?;
        self.crc32c.encode(encoder)?;
        self.data.as_ref().encode(encoder)
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Blob {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Blob {
            codec: read(decoder, "Blob.codec")?,
            raw_bytes: read(decoder, "Blob.raw_bytes")?,
            crc32c: read(decoder, "Blob.crc32c")?,
            data: slice(decoder, "Blob.data")?,
        })
    }
}

/// A byte string as a slice of the payload: shared, not copied.
fn slice<'de, 'c, D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D, field: &'static str) -> Result<Bytes, DecodeError> {
    let bytes: &'de [u8] = read(decoder, field)?;
    Ok(decoder.context().payload.slice_ref(bytes))
}

/// A list of chunks, which grows as chunks are really there: a false length costs nothing.
pub(super) struct Chunks(pub Vec<Chunk>);

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Chunks {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let count: u64 = read(decoder, "Change.chunks")?;
        if count > ENTRY_CHUNKS_MAX as u64 {
            return Err(DecodeError::OtherString(format!("too many chunks count={count} limit={ENTRY_CHUNKS_MAX}")));
        }
        (0..count).map(|_| read(decoder, "Change.chunks")).collect::<Result<Vec<_>, _>>().map(Chunks)
    }
}

fn encode_chunks<E: Encoder>(chunks: &[Chunk], encoder: &mut E) -> Result<(), EncodeError> {
    (chunks.len() as u64).encode(encoder)?;
    chunks.iter().try_for_each(|chunk| chunk.encode(encoder))
}

impl Encode for Addition {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        encode_chunks(&self.chunks, encoder)?;
        self.head_if_created.encode(encoder)?;
        self.counters.encode(encoder)
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Addition {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let Chunks(chunks) = read(decoder, "Addition.chunks")?;
        let head_if_created = read(decoder, "Addition.head_if_created")?;
        Ok(Addition { chunks, head_if_created, counters: read(decoder, "Addition.counters")? })
    }
}

impl Encode for Repack {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.id.encode(encoder)?;
        self.create_revision.encode(encoder)?;
        (self.first_chunk, self.until_chunk).encode(encoder)?;
        self.old.encode(encoder)?;
        encode_chunks(&self.chunks, encoder)
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Repack {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let id = read(decoder, "Repack.id")?;
        let create_revision = read(decoder, "Repack.create_revision")?;
        let first_chunk = read(decoder, "Repack.first_chunk")?;
        let until_chunk = read(decoder, "Repack.until_chunk")?;
        let old = read(decoder, "Repack.old")?;
        let Chunks(chunks) = read(decoder, "Repack.chunks")?;
        Ok(Repack { id, create_revision, first_chunk, until_chunk, old, chunks })
    }
}

impl Encode for Change {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        match self {
            Change::Full { chunks, head, counters } => {
                0u8.encode(encoder)?;
                encode_chunks(chunks, encoder)?;
                head.encode(encoder)?;
                counters.encode(encoder)
            }
            Change::Delta { base, chunks, head, counters } => {
                1u8.encode(encoder)?;
                base.encode(encoder)?;
                encode_chunks(chunks, encoder)?;
                head.encode(encoder)?;
                counters.encode(encoder)
            }
        }
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Change {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        match read::<u8, D>(decoder, "Change")? {
            0 => {
                let Chunks(chunks) = read(decoder, "Change.chunks")?;
                Ok(Change::Full { chunks, head: read(decoder, "Change.head")?, counters: read(decoder, "Change.counters")? })
            }
            1 => {
                let base: Base = read(decoder, "Change.base")?;
                let Chunks(chunks) = read(decoder, "Change.chunks")?;
                Ok(Change::Delta { base, chunks, head: read(decoder, "Change.head")?, counters: read(decoder, "Change.counters")? })
            }
            other => Err(DecodeError::OtherString(format!("unknown discriminant={other}"))),
        }
    }
}

impl Encode for Operations {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.len() as u64).encode(encoder)?;
        self.iter().try_for_each(|operation| operation.encode(encoder))
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Operations {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let count = operation_count(decoder, "Transaction.operations")?;
        let operations = (0..count).map(|_| read(decoder, "Transaction.operations")).collect::<Result<Vec<_>, _>>()?;
        decoder.context().field.set("Transaction.operations");
        Operations::new(operations).map_err(|error| DecodeError::OtherString(error.to_string()))
    }
}

/// A number of operations within its bound.
fn operation_count<'de, 'c, D: BorrowDecoder<'de, Context = Source<'c>>>(
    decoder: &mut D,
    field: &'static str,
) -> Result<u64, DecodeError> {
    let count: u64 = read(decoder, field)?;
    if count == 0 || count > TRANSACTION_OPERATIONS_MAX as u64 {
        let why = format!("wrong number of operations count={count} min=1 limit={TRANSACTION_OPERATIONS_MAX}");
        return Err(DecodeError::OtherString(why));
    }
    Ok(count)
}

impl Encode for Transacted {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.results.len() as u64).encode(encoder)?;
        self.results.iter().try_for_each(|verdict| verdict.encode(encoder))
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Transacted {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let count = operation_count(decoder, "Transacted.results")?;
        let results = (0..count).map(|_| verdict_within(decoder, true)).collect::<Result<Vec<_>, _>>()?;
        Ok(Transacted { results })
    }
}

impl Encode for Aborted {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.index.encode(encoder)?;
        self.verdict.encode(encoder)
    }
}

impl<'de, 'c> BorrowDecode<'de, Source<'c>> for Aborted {
    fn borrow_decode<D: BorrowDecoder<'de, Context = Source<'c>>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let index: u32 = read(decoder, "Aborted.index")?;
        Ok(Aborted { index, verdict: Box::new(verdict_within(decoder, false)?) })
    }
}

/// The verdict on an operation that is done, or not. One that holds others is none: before it would be read, reading ends.
fn verdict_within<'de, 'c, D: BorrowDecoder<'de, Context = Source<'c>>>(
    decoder: &mut D,
    is_done: bool,
) -> Result<Verdict, DecodeError> {
    if decoder.context().within.replace(true) {
        return Err(DecodeError::Other("a verdict within a verdict holds no further one"));
    }
    let verdict: Verdict = read(decoder, "Verdict.within")?;
    decoder.context().within.set(false);
    if verdict.of_operation() != Some(is_done) {
        return Err(DecodeError::Other("the verdict is given on no operation"));
    }
    Ok(verdict)
}
