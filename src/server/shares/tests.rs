use bytes::Bytes;

use super::*;
use crate::limits::LEASE_TTL_MIN;
use crate::machine::{Command, Effects, Entry, Machine, Rules, rules};
use crate::server::auth::{Tokens, hash_of};
use crate::types::{Applied, Blob, ClientId, Counters, Expiry, LeaseTtl, LogId, Nonce, Sequence, Verdict};

const TENANTS: &str = "scopes = [\"read\", \"write\"]";

/// A machine with tables that a test can fill: room for 50 clients and 100 outcomes, of which 2 each are kept for operators, and 4 000 bytes of
/// leases.
struct Small {
    machine: Machine,
    index: u64,
}

impl Small {
    fn new() -> Self {
        let own = Rules { clients_max: 50, outcomes_max: 100, leases_bytes_max: 4000, ..*rules(1).expect("version 1") };
        Self { machine: Machine::with_rules(Box::leak(Box::new(own))), index: 0 }
    }

    /// Judges a write, and applies it if it may be proposed.
    fn write(&mut self, share: &Share, write: Write) -> Result<Verdict, Refusal> {
        let at = Circumstances { now: Duration::from_secs(100), disk_bytes: 1000, is_contested: false };
        let hold = share.judge(&write, &mut self.machine.metered(), at)?;
        self.index += 1;
        let log_id = LogId { index: self.index, ..LogId::default() };
        let verdict =
            self.machine.apply(log_id, &Entry { stamp_ms: 1, command: Command::Client(write) }, &mut Effects::default()).verdict;
        drop(hold);
        Ok(verdict)
    }

    fn open(&mut self, share: &Share, nonce: u8) -> Result<Client, Refusal> {
        match self.write(share, Write::OpenClient { nonce: Nonce([nonce; 16]) })? {
            Verdict::ClientOpened { client } => Ok(Client { client, nonce: Nonce([nonce; 16]), sequence: 0, acknowledged: 1 }),
            other => panic!("{other:?}"),
        }
    }

    fn counted(mut self, shares: &[&Share]) -> Self {
        let prefixes = shares.iter().flat_map(|share| share.prefixes().map(Box::from)).collect::<Vec<_>>();
        self.machine.metered().set_prefixes(1, prefixes.into_iter());
        while self.machine.metered().count_on(2) {}
        self
    }
}

#[derive(Clone, Copy)]
struct Client {
    client: ClientId,
    nonce: Nonce,
    sequence: u64,
    acknowledged: u64,
}

impl Client {
    fn request(&mut self) -> Request {
        self.sequence += 1;
        self.again()
    }

    fn again(&self) -> Request {
        let (sequence, acknowledged_below) = (Sequence(self.sequence), Sequence(self.acknowledged));
        Request { client: self.client, nonce: self.nonce, sequence, acknowledged_below }
    }

    fn save(&mut self, id: &str, bytes: usize) -> Write {
        let change = Change::Full { chunks: vec![], head: Blob::plain(Bytes::from(vec![0; bytes])), counters: Counters::default() };
        Write::Save { request: self.request(), id: session(id), change, attributes: Expiry::Keep.into(), fence: None }
    }

    fn acquire(&mut self, id: &str, holder: &str) -> Write {
        let (holder, ttl) = (Holder::new(holder).expect("short"), LeaseTtl::new(LEASE_TTL_MIN).expect("within"));
        Write::AcquireLease { request: self.request(), id: session(id), holder, ttl, steal: true }
    }

    fn delete(&mut self, id: &str) -> Write {
        Write::Delete { request: self.request(), id: session(id), expected: None, fence: None }
    }
}

fn session(id: &str) -> SessionId {
    SessionId::new(id).expect("short")
}

fn share(name: &str, rest: &str) -> Share {
    let hash: String = hash_of(name).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n");
    let tokens = Tokens::parse(&text).expect(&text);
    Share::new(tokens.named(name).expect("it is there"), None)
}

fn refused<T>(result: Result<T, Refusal>) -> String {
    let refusal = result.err().expect("refused");
    assert_eq!(refusal.applied, Applied::No);
    assert!(matches!(refusal.kind, RefusalKind::Overloaded { retry_after } if retry_after == SHARE_RETRY_AFTER), "{refusal:?}");
    assert!(refusal.message.contains("nothing changed"), "{refusal}");
    refusal.message
}

#[test]
fn a_token_takes_no_more_than_a_quarter_of_the_clients_and_the_last_places_are_the_operators() {
    let mut small = Small::new();
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| share(name, TENANTS));
    for nonce in 0..12 {
        small.open(&a, nonce).expect("its share");
    }
    let why = refused(small.open(&a, 12));
    assert!(why.ends_with("token=\"a\" share=clients used=12 limit=12"), "{why}");
    small.open(&a, 3).expect("the same client again takes no place");
    for (share, first) in [(&b, 20), (&c, 40), (&d, 60)] {
        for nonce in first..first + 12 {
            small.open(share, nonce).expect("what one token holds is no other's");
        }
    }
    let why = refused(small.open(&e, 80));
    assert!(why.contains("kept for tokens with scope admin") && why.ends_with("table=clients used=48 limit=48"), "{why}");
    let operator = share("operator", "scopes = [\"admin\", \"write\"]");
    small.open(&operator, 90).expect("the reserve");
    let client = small.open(&operator, 91).expect("the reserve");
    // A place that is given back is the token's again.
    small.write(&operator, Write::CloseClient { client: client.client, nonce: client.nonce }).expect("closing is always allowed");
    assert_eq!((a.live.held.clients(), operator.live.held.clients()), (12, 1));
}

#[test]
fn a_token_holds_no_more_than_its_share_of_outcomes_and_what_acknowledges_or_repeats_goes_on() {
    let mut small = Small::new();
    let (a, b) = (share("a", TENANTS), share("b", TENANTS));
    let mut own = small.open(&a, 1).expect("room");
    for _ in 0..25 {
        let save = own.save("a", 1);
        assert!(matches!(small.write(&a, save), Ok(Verdict::Saved(_))));
    }
    let (save, last) = (own.save("a", 1), own);
    let why = refused(small.write(&a, save));
    assert!(why.ends_with("token=\"a\" share=outcomes used=25 limit=25"), "{why}");
    own = Client { sequence: last.sequence - 1, ..last };
    let again = Write::Delete { request: own.again(), id: session("a"), expected: None, fence: None };
    assert!(matches!(small.write(&a, again), Ok(Verdict::Saved(_))), "answered as the first time");
    let mut other = small.open(&b, 2).expect("room");
    let save = other.save("b", 1);
    assert!(matches!(small.write(&b, save), Ok(Verdict::Saved(_))), "another token's share is untouched");
    own.acknowledged = 20;
    let save = own.save("a", 1);
    assert!(matches!(small.write(&a, save), Ok(Verdict::Saved(_))), "it closes 19 of its own");
    assert_eq!((a.live.held.outcomes(), b.live.held.outcomes()), (7, 1));
}

/// A new leader knows nobody's clients: each is its token's again when it calls, and one beyond the share can't call any more, so it ends.
#[test]
fn after_a_change_of_the_leader_a_client_counts_again_once_it_calls_and_one_beyond_the_share_is_refused() {
    let mut small = Small::new();
    let a = share("a", &format!("{TENANTS}\nshares = {{ clients = 3 }}"));
    let before: Vec<Client> = (0..3).map(|nonce| small.open(&a, nonce).expect("its share")).collect();
    // A copy is what another node has: the same rows, and nobody's.
    small.machine = small.machine.clone();
    assert_eq!(a.live.held.clients(), 0);
    small.open(&a, 10).expect("the new leader knows none of them");
    for client in &before[..2] {
        let keep = Write::KeepAlive { client: client.client, nonce: client.nonce, acknowledged_below: Sequence(1) };
        assert_eq!(small.write(&a, keep), Ok(Verdict::ClientKept));
    }
    let mut last = before[2];
    let save = last.save("a", 1);
    let why = refused(small.write(&a, save));
    assert!(why.ends_with("share=clients used=3 limit=3"), "{why}");
    let stolen = Write::KeepAlive { client: before[0].client, nonce: Nonce([99; 16]), acknowledged_below: Sequence(1) };
    let b = share("b", TENANTS);
    assert_eq!(small.write(&b, stolen), Ok(Verdict::ClientUnknown));
    assert_eq!((a.live.held.clients(), b.live.held.clients()), (3, 0), "a client is nobody's without its nonce");
}

#[test]
fn sessions_and_tombstones_under_a_tokens_prefixes_stay_within_its_share() {
    let a = share("a", &format!("{TENANTS}\nprefixes = [\"a/\", \"a/b/\"]\nshares = {{ sessions = 3 }}"));
    let b = share("b", &format!("{TENANTS}\nprefixes = [\"b/\"]\nshares = {{ sessions = 3 }}"));
    let mut small = Small::new().counted(&[&a, &b]);
    let (mut own, mut other) = (small.open(&a, 1).expect("room"), small.open(&b, 2).expect("room"));
    for id in ["a/1", "a/b/2", "a/3"] {
        let save = own.save(id, 1);
        assert!(matches!(small.write(&a, save), Ok(Verdict::Saved(_))), "{id}");
    }
    let delete = own.delete("a/1");
    assert!(matches!(small.write(&a, delete), Ok(Verdict::Deleted { .. })));
    let save = own.save("a/4", 1);
    let why = refused(small.write(&a, save));
    assert!(why.ends_with("token=\"a\" share=sessions used=3 limit=3") && why.contains("tombstones"), "{why}");
    for id in ["a/1", "a/3"] {
        let save = own.save(id, 1);
        assert!(matches!(small.write(&a, save), Ok(Verdict::Saved(_))), "what is there, or was, takes no other place: {id}");
    }
    let save = other.save("b/1", 1);
    assert!(matches!(small.write(&b, save), Ok(Verdict::Saved(_))));
}

#[test]
fn stored_bytes_stay_within_the_share_and_a_session_may_always_shrink() {
    let a = share("a", &format!("{TENANTS}\nprefixes = [\"a/\"]"));
    let mut small = Small::new().counted(&[&a]);
    let mut own = small.open(&a, 1).expect("room");
    for (id, bytes) in [("a/1", 200), ("a/2", 50)] {
        let save = own.save(id, bytes);
        assert!(matches!(small.write(&a, save), Ok(Verdict::Saved(_))));
    }
    let save = own.save("a/3", 1);
    let why = refused(small.write(&a, save));
    assert!(why.ends_with("share=stored_bytes used=251 limit=250"), "{why}");
    let save = own.save("a/2", 60);
    assert!(refused(small.write(&a, save)).ends_with("used=260 limit=250"));
    for bytes in [50, 10] {
        let save = own.save("a/2", bytes);
        assert!(matches!(small.write(&a, save), Ok(Verdict::Saved(_))), "{bytes}");
    }
    let save = own.save("a/3", 1);
    assert!(matches!(small.write(&a, save), Ok(Verdict::Saved(_))), "there is room again");
}

/// Each counts 256 bytes, its id and its holder; 1 000 are the quarter.
#[test]
fn leases_under_a_tokens_prefixes_stay_within_its_share() {
    let [a, b] = ["a", "b"].map(|name| share(name, &format!("{TENANTS}\nprefixes = [\"{name}/\"]")));
    let mut small = Small::new().counted(&[&a, &b]);
    let (mut own, mut other) = (small.open(&a, 1).expect("room"), small.open(&b, 2).expect("room"));
    let mut fences = Vec::new();
    for id in ["a/1", "a/2", "a/3"] {
        let acquire = own.acquire(id, "h");
        let Ok(Verdict::LeaseGranted { fence, .. }) = small.write(&a, acquire) else { panic!("it is within: {id}") };
        fences.push(fence);
    }
    let acquire = own.acquire("a/4", "h");
    let why = refused(small.write(&a, acquire));
    assert!(why.ends_with("token=\"a\" share=lease_bytes used=1040 limit=1000") && why.contains("release leases"), "{why}");
    let acquire = own.acquire("a/1", &"h".repeat(200));
    assert!(matches!(small.write(&a, acquire), Ok(Verdict::LeaseGranted { .. })), "it adds what its holder is longer");
    let acquire = own.acquire("a/2", &"h".repeat(100));
    let why = refused(small.write(&a, acquire));
    assert!(why.ends_with("used=1078 limit=1000"), "{why}");
    for id in ["b/1", "b/2", "b/3"] {
        let acquire = other.acquire(id, "h");
        assert!(matches!(small.write(&b, acquire), Ok(Verdict::LeaseGranted { .. })), "another token's share is untouched: {id}");
    }
    let release = Write::ReleaseLease { request: own.request(), id: session("a/2"), fence: fences[1] };
    assert_eq!(small.write(&a, release), Ok(Verdict::LeaseReleased));
    let acquire = own.acquire("a/5", "");
    assert!(matches!(small.write(&a, acquire), Ok(Verdict::LeaseGranted { .. })), "there is room again");
    // Nothing is refused for a token that may write every id, nor for an operator.
    let any = share("any", TENANTS);
    assert_eq!(any.portions.of(Resource::LeaseBytes), Portion::ALL);
}

#[test]
fn new_ids_come_at_their_rate_after_a_burst_of_ten_seconds() {
    let a = share("a", &format!("{TENANTS}\nshares = {{ new_ids_per_second = 2 }}"));
    let at = |ms| a.take_new_ids(1, 2, Duration::from_millis(ms));
    for _ in 0..20 {
        at(100_000).expect("the burst");
    }
    let why = refused(at(100_000));
    assert!(why.contains("share=new_ids_per_second") && why.ends_with("limit=2"), "{why}");
    refused(at(100_499));
    at(100_500).expect("one more is due");
    refused(at(100_501));
    let none = share("none", &format!("{TENANTS}\nshares = {{ new_ids_per_second = 0 }}"));
    refused(none.take_new_ids(1, 0, Duration::from_secs(1)));
}

#[test]
fn a_large_write_is_due_when_those_before_it_are_paid_for_at_the_rate_of_the_token() {
    let a = share("a", &format!("{TENANTS}\nshares = {{ large_bytes_per_second = \"1 MiB\" }}"));
    let at = Duration::from_millis;
    let mut small = Small::new();
    let mut own = small.open(&a, 1).expect("room");
    let mut write = |own: &mut Client, is_contested| {
        let (write, mut machine) = (own.save("a", 3 << 20), small.machine.metered());
        let at = Circumstances { now: at(100_000), disk_bytes: 1 << 40, is_contested };
        a.judge(&write, &mut machine, at).expect("it is within its shares");
    };
    write(&mut own, false);
    assert!(a.large_is_due(at(100_000)), "alone it is not held back");
    write(&mut own, true);
    assert!(!a.large_is_due(at(102_999)));
    let why = refused::<()>(Err(a.refuse_held_back(3 << 20)));
    assert!(why.ends_with("token=\"a\" share=large_bytes_per_second used=3145728 limit=1048576"), "{why}");
    assert!(a.large_is_due(at(103_000)));
    let none = share("none", &format!("{TENANTS}\nshares = {{ large_bytes_per_second = 0 }}"));
    assert!(!none.large_is_due(at(100_000)), "only while it is alone");
    assert!(share("operator", "scopes = [\"admin\"]").large_is_due(at(100_000)));
}

#[test]
fn a_token_may_have_more_in_flight_than_its_share_while_half_of_all_is_free() {
    let total = Arc::new(AtomicU64::new(0));
    let [a, b] = ["a", "b"].map(|name| share(name, TENANTS));
    let part = IN_FLIGHT_BYTES_MAX / 8;
    let held: Vec<BytePermit> = (0..4).map(|_| a.charge(&total, part).expect("half of all was free").expect("room")).collect();
    let why = refused(a.charge(&total, part).map(drop));
    assert!(why.contains("share=in_flight_bytes"), "{why}");
    let others: Vec<BytePermit> = (0..2).map(|_| b.charge(&total, part).expect("its own share").expect("room")).collect();
    refused(b.charge(&total, part).map(drop));
    assert_eq!(total.load(Ordering::Relaxed), 6 * part);
    drop((held, others));
    assert_eq!((total.load(Ordering::Relaxed), a.live.in_flight.load(Ordering::Relaxed)), (0, 0));
    assert!(a.charge(&total, 2 * IN_FLIGHT_BYTES_MAX).expect("alone").is_some(), "a single one always fits, alone");
}

/// Stored records are counted in steps while writes go on; at the end the counts are those of a count from the start.
#[test]
fn what_was_there_before_is_counted_once_whatever_is_written_meanwhile() {
    let shares = ["a/", "b/", ""].map(|prefix| {
        let prefixes = if prefix.is_empty() { String::new() } else { format!("\nprefixes = [{prefix:?}]") };
        share(&format!("t{}", prefix.len() + usize::from(prefix == "b/")), &format!("{TENANTS}{prefixes}"))
    });
    let all: Vec<&Share> = shares.iter().collect();
    let operator = share("operator", "scopes = [\"admin\", \"write\"]");
    let mut whole = Small::new().counted(&all);
    let mut client = whole.open(&operator, 1).expect("room");
    let write = |small: &mut Small, client: &mut Client, n: usize| {
        let id = format!("{}/{}", ["a", "b", "c"][n % 3], n % 7);
        client.acknowledged = client.sequence + 1;
        let write = match n % 10 {
            3 => client.acquire(&format!("{id}/leased"), "h"),
            4 | 9 => client.delete(&id),
            _ => client.save(&id, n),
        };
        small.write(&operator, write).expect("nothing is refused");
    };
    for n in 0..40 {
        write(&mut whole, &mut client, n);
    }
    let mut late = Small { machine: whole.machine.clone(), index: whole.index };
    let mut second = client;
    late.machine.metered().set_prefixes(2, all.iter().flat_map(|share| share.prefixes().map(Box::from)));
    for n in 40..80 {
        assert_eq!(late.machine.prefix_usage(["a/"]).is_none(), n < 50, "an incomplete count is none");
        if n % 3 == 0 || n > 47 {
            late.machine.metered().count_on(1);
        }
        if n >= 49 {
            while late.machine.metered().count_on(1) {}
        }
        write(&mut late, &mut second, n);
        write(&mut whole, &mut client, n);
    }
    for prefix in ["a/", "b/", ""] {
        let usage = whole.machine.prefix_usage([prefix]).expect("counted");
        assert_eq!(late.machine.prefix_usage([prefix]), Some(usage), "{prefix:?}");
        assert!(usage.records > 0 && usage.stored_bytes > 0 && usage.leases > 0);
    }
    let counts = whole.machine.counts();
    let usage = whole.machine.prefix_usage([""]).expect("counted");
    assert_eq!(usage.records, counts.sessions + counts.tombstones);
    assert_eq!(usage.metadata_bytes(whole.machine.rules()), counts.metadata_bytes);
    assert_eq!(usage.lease_bytes(whole.machine.rules()), counts.lease_bytes);
    assert_eq!(whole.machine.prefix_usage(["d/"]), None, "nobody asked for it");
}
