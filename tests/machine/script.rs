//! The language of transcripts: one command per line, words `key=value`.
//!
//! ```text
//! open nonce=7                      keep-alive client=1 nonce=7 below=3      close client=1 nonce=7
//! save id=a data=x items=2,1        full change: head x, one chunk for each number of items; `counters=1,2`, `expire=never|<ms>|idle/<ms>`
//! save id=a base=1/2/3 items=1      delta on create_revision/version/items, or `base=absent`; the head only with data=
//! save id=a if=2 …                  conditional: a version, version@create_revision, or `absent`; `rebase=yes`; `form=value|transcript`
//! append id=a data=x items=1        data= is the head if it is created; if=present, absent or created/version/items; `counters=`, `expire=`
//! touch id=a expire=<ms>            moves the deadline and nothing else
//! delete id=a                       perhaps with if=
//! repack id=a created=2 first=0 until=4 into=3,1   packs the first 3 of the chunks before number 4 into one, and the next; `bad=items|raw|old`
//! txn do=save;id=a;data=x|require;id=b;if=2|…    a transaction of the others, their words divided by `;`
//! load id=a have=1/2/3/4            have = create_revision/version/items/next_chunk
//! list prefix=a after=b limit=2     sweep limit=9     version to=2     skip     rebuild     counts
//! ```
//!
//! Writes take `request=client/sequence/acknowledged_below`, of the client's own nonce unless `nonce=` says otherwise. `at=` is the stamp.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use quorate::machine::{Command, Plan};
use quorate::types::{
    Aborted, Addition, Appended, Attributes, Base, Blob, Change, Chunk, ChunkSum, ClientId, ContentVersion, Counters, Expected,
    Expiry, Fence, Form, Holder, Label, Lease, LeaseTtl, Load, OnConflict, Operation, Operations, Outcome, Part, Renewals, Repack,
    Request, Require, Revision, Saved, Sequence, SessionInfo, Transacted, Verdict, Version, Write,
};

use crate::machine::lab::{Lab, blob, chunk, id, nonce};

type Words<'a> = BTreeMap<&'a str, &'a str>;

/// Runs scripts against one machine.
pub struct Runner {
    lab: Lab,
    at_ms: u64,
    nonces: BTreeMap<u64, u8>,
}

impl Runner {
    /// At time 1000, with an empty machine.
    pub fn new() -> Self {
        Self { lab: Lab::new(), at_ms: 1000, nonces: BTreeMap::new() }
    }

    /// Runs one line; what it prints is one or more lines.
    pub fn run(&mut self, line: &str) -> String {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Words = rest.split_whitespace().map(|word| word.split_once('=').expect("key=value")).collect();
        self.at_ms = words.get("at").map_or(self.at_ms, |at| number(at));
        let text = match verb {
            "load" => self.load(&words),
            "list" => self.list(&words),
            "skip" => {
                self.lab.skip();
                "skipped\n".to_owned()
            }
            "rebuild" => {
                self.lab.rebuild();
                "the same\n".to_owned()
            }
            "leases" => self.leases(&words),
            "counts" => format!(
                "{:?} due={:?} now={}\n",
                self.lab.machine.counts(),
                self.lab.machine.due_at_ms(),
                self.lab.machine.now_ms()
            ),
            _ => {
                let command = self.command(verb, &words);
                let index = self.lab.next_index;
                let outcome = self.lab.apply(self.at_ms, command);
                if let (Verdict::ClientOpened { client }, "open") = (&outcome.verdict, verb) {
                    self.nonces.insert(client.0, number(words["nonce"]) as u8);
                }
                show(&outcome, index)
            }
        };
        self.lab.check_content();
        text
    }

    fn command(&self, verb: &str, words: &Words) -> Command {
        let own_nonce = || nonce(words.get("nonce").map_or(0, |text| number(text)) as u8);
        let client = || ClientId(number(words["client"]));
        Command::Client(match verb {
            "sweep" => return Command::Sweep { limit: number(words["limit"]) as u32 },
            "version" => return Command::SetClusterVersion { version: number(words["to"]) as u16 },
            "open" => Write::OpenClient { nonce: own_nonce() },
            "close" => Write::CloseClient { client: client(), nonce: own_nonce() },
            "keep-alive" => Write::KeepAlive {
                client: client(),
                nonce: own_nonce(),
                acknowledged_below: Sequence(words.get("below").map_or(0, |text| number(text))),
            },
            "delete" => Write::Delete {
                request: self.request(words),
                id: id(words["id"]),
                expected: words.get("if").map(|text| expected(text)),
                fence: fence(words),
            },
            "touch" => {
                Write::Touch { request: self.request(words), id: id(words["id"]), expiry: expiry(words), fence: fence(words) }
            }
            "save" => match words.get("if") {
                None => Write::Save {
                    request: self.request(words),
                    id: id(words["id"]),
                    change: change(words),
                    attributes: attributes(words),
                    fence: fence(words),
                },
                Some(text) => Write::SaveIfVersion {
                    request: self.request(words),
                    id: id(words["id"]),
                    expected: expected(text),
                    change: change(words),
                    on_conflict: if words.contains_key("rebase") { OnConflict::Rebase } else { OnConflict::Reject },
                    attributes: attributes(words),
                    fence: fence(words),
                },
            },
            "append" => {
                let Change::Full { chunks, counters, .. } = change(words) else { panic!("an append has no base") };
                let head_if_created = words.get("data").map(|text| blob(text));
                Write::Append {
                    request: self.request(words),
                    id: id(words["id"]),
                    require: words.get("if").map_or(Require::Any, |text| require(text)),
                    addition: Addition { chunks, head_if_created, counters },
                    attributes: attributes(words),
                    fence: fence(words),
                }
            }
            "repack" => Write::Repack { request: self.request(words), repack: self.repack(words) },
            "txn" => {
                let operations = words["do"].split('|').map(|text| self.operation(text)).collect();
                Write::Transaction {
                    request: self.request(words),
                    operations: Operations::new(operations).expect("within the bounds"),
                }
            }
            other => self.of_leases(other, words),
        })
    }

    /// As a client that has read what is stored would send it.
    fn repack(&self, words: &Words) -> Repack {
        let (id, first_chunk, until_chunk) = (id(words["id"]), number(words["first"]), number(words["until"]));
        let (mut stored, _) = self.lab.content(&id).unwrap_or_default();
        let behind = self.lab.machine.info(&id).map_or(0, |info| info.next_chunk.saturating_sub(until_chunk));
        stored.truncate(stored.len().saturating_sub(behind as usize));
        let (mut old, mut left) = (ChunkSum::of(&stored), stored.into_iter());
        let merged = |group: Vec<Chunk>| {
            let data: Vec<u8> = group.iter().flat_map(|chunk| chunk.blob.data.to_vec()).collect();
            let blob = Blob { raw_bytes: group.iter().map(|chunk| chunk.blob.raw_bytes).sum(), ..Blob::plain(data.into()) };
            Chunk { item_count: group.iter().map(|chunk| chunk.item_count).sum(), blob }
        };
        let sizes = numbers(words["into"], ',').into_iter();
        let mut chunks: Vec<_> = sizes.map(|size| merged(left.by_ref().take(size as usize).collect())).collect();
        match (words.get("bad").copied(), chunks.first_mut()) {
            (Some("items"), Some(first)) => first.item_count += 1,
            (Some("raw"), Some(first)) => first.blob.raw_bytes += 1,
            (Some("old"), _) => old.items += 1,
            _ => {}
        }
        Repack { id, create_revision: Revision(number(words["created"])), first_chunk, until_chunk, old, chunks }
    }

    fn operation(&self, text: &str) -> Operation {
        let (verb, rest) = text.split_once(';').expect("a verb and words");
        let mut words: Words = rest.split(';').map(|word| word.split_once('=').expect("key=value")).collect();
        if verb == "require" {
            return Operation::Require {
                id: id(words["id"]),
                expected: words.get("if").map(|text| expected(text)),
                fence: fence(&words),
            };
        }
        words.insert("request", "0/1");
        let Command::Client(write) = self.command(verb, &words) else { panic!("no write {verb}") };
        Operation::of(write).expect("an operation")
    }

    fn of_leases(&self, verb: &str, words: &Words) -> Write {
        match verb {
            "acquire" => Write::AcquireLease {
                request: self.request(words),
                id: id(words["id"]),
                holder: Holder::new(words["holder"]).expect("short"),
                ttl: lease_ttl(words),
                steal: words.contains_key("steal"),
            },
            "renew" => {
                let lease = |text: &str| {
                    let (of, fence) = text.split_once('/').expect("id/fence");
                    (id(of), Fence(number(fence)))
                };
                let leases = Renewals::new(words["leases"].split(',').map(lease).collect()).expect("some, each once");
                Write::RenewLeases { request: self.request(words), leases, ttl: lease_ttl(words) }
            }
            "release" => {
                Write::ReleaseLease { request: self.request(words), id: id(words["id"]), fence: fence(words).expect("a fence") }
            }
            other => panic!("unknown command {other}"),
        }
    }

    fn request(&self, words: &Words) -> Request {
        let parts = numbers(words["request"], '/');
        let own = self.nonces.get(&parts[0]).copied().unwrap_or(0);
        Request {
            client: ClientId(parts[0]),
            nonce: nonce(words.get("nonce").map_or(own, |text| number(text) as u8)),
            sequence: Sequence(parts[1]),
            acknowledged_below: Sequence(parts.get(2).copied().unwrap_or(0)),
        }
    }

    fn load(&self, words: &Words) -> String {
        let have = words.get("have").map(|text| {
            let parts = numbers(text, '/');
            ContentVersion {
                create_revision: Revision(parts[0]),
                version: Version(parts[1]),
                items: parts[2],
                next_chunk: parts[3],
            }
        });
        let part = words.get("part").map_or(Part::Whole, |text| part(text));
        let load = Load { have, part, ..Load::whole(id(words["id"])) };
        match self.lab.machine.plan(&load) {
            Plan::NotFound { tombstone } => format!("NotFound tombstone={tombstone}\n"),
            Plan::NotModified => "NotModified\n".to_owned(),
            Plan::Part { info, head, .. } => {
                let (first_item, chunks, read) = self.lab.part(&load.id, part);
                let held: Vec<_> = chunks.iter().map(|chunk| chunk.item_count.to_string()).collect();
                let held = held.join(",");
                format!("Suffix {} first_item={first_item} items={held} read_chunks={read} read_head={head}\n", show_info(&info))
            }
            Plan::Read { info, tail, places, chunks, head } => {
                let (all, stored_head) = self.lab.content(&load.id).expect("live");
                let held: Vec<_> = all.iter().map(|chunk| chunk.item_count.to_string()).collect();
                let name = if tail { "Tail" } else { "Full" };
                let data = String::from_utf8_lossy(&stored_head.data);
                format!(
                    "{name} {} chunks={} read_head={head} all_items={} head={data:?}\n",
                    show_info(&info),
                    show_rows(&places.keys(&chunks), info.create_revision),
                    held.join(",")
                )
            }
        }
    }

    fn leases(&self, words: &Words) -> String {
        let limit = words.get("limit").map_or(1000, |text| number(text)) as u32;
        let (page, more) = self.lab.machine.leases(words.get("prefix").copied().unwrap_or(""), words.get("after").copied(), limit);
        let mut text = String::new();
        for (id, lease) in page {
            writeln!(text, "{:?} {}", id.as_str(), show_lease(&lease)).expect("string");
        }
        text + &format!("more={more}\n")
    }

    fn list(&self, words: &Words) -> String {
        let limit = words.get("limit").map_or(1000, |text| number(text)) as u32;
        let (page, more) = self.lab.machine.list(words.get("prefix").copied().unwrap_or(""), words.get("after").copied(), limit);
        let mut text = String::new();
        for listed in page {
            writeln!(text, "{:?} {}", listed.id.as_str(), show_info(&listed.info)).expect("string");
        }
        text + &format!("more={more}\n")
    }
}

fn fence(words: &Words) -> Option<Fence> {
    words.get("fence").map(|text| Fence(number(text)))
}

fn lease_ttl(words: &Words) -> LeaseTtl {
    LeaseTtl::new(Duration::from_millis(number(words["ttl"]))).expect("within")
}

/// `info`, `head`, `last/N`, `from/ITEM/LIMIT`.
fn part(text: &str) -> Part {
    let (name, rest) = text.split_once('/').unwrap_or((text, ""));
    match (name, numbers(rest, '/').as_slice()) {
        ("info", []) => Part::Info,
        ("head", []) => Part::Head,
        ("last", [last]) => Part::Last(*last),
        ("from", [item, limit]) => Part::From { item: *item, limit: *limit },
        _ => panic!("not a part: {text}"),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn numbers(text: &str, separator: char) -> Vec<u64> {
    text.split(separator).filter(|part| !part.is_empty()).map(number).collect()
}

fn expected(text: &str) -> Expected {
    match text.split_once('@') {
        _ if text == "absent" => Expected::Absent,
        Some(("", created)) => Expected::Incarnation { create_revision: Revision(number(created)) },
        Some((version, created)) => {
            Expected::At { version: Version(number(version)), create_revision: Some(Revision(number(created))) }
        }
        None => Expected::At { version: Version(number(text)), create_revision: None },
    }
}

/// `present`, `absent`, parts of created/version/items, e.g. `//3`, or `only/` created/version: nothing but appends since.
fn require(text: &str) -> Require {
    let part = |nth: usize| text.split('/').nth(nth).filter(|part| !part.is_empty()).map(number);
    match text {
        "present" => Require::Present,
        "absent" => Require::Absent,
        _ if text.starts_with("only/") => Require::AppendedOnly {
            create_revision: Revision(part(1).expect("created")),
            since: Version(part(2).expect("a version")),
        },
        _ => Require::At { create_revision: part(0).map(Revision), version: part(1).map(Version), items: part(2) },
    }
}

fn attributes(words: &Words) -> Attributes {
    let form = match words.get("form").copied() {
        None => Form::Unknown,
        Some("value") => Form::Value,
        Some("transcript") => Form::Transcript,
        Some(other) => panic!("unknown form {other}"),
    };
    let tombstone_ttl = words.get("tombstone").map(|ms| Duration::from_millis(number(ms)));
    let label = words.get("label").map(|text| Label::new(text.trim_matches('"')).expect("short"));
    Attributes { expiry: expiry(words), form, tombstone_ttl, label }
}

fn expiry(words: &Words) -> Expiry {
    match words.get("expire").copied() {
        None => Expiry::Keep,
        Some("never") => Expiry::Never,
        Some(text) if text.starts_with("idle/") => Expiry::Idle(Duration::from_millis(number(&text["idle/".len()..]))),
        Some(ms) => Expiry::After(Duration::from_millis(number(ms))),
    }
}

fn change(words: &Words) -> Change {
    let items = words.get("items").map_or(Vec::new(), |text| numbers(text, ','));
    let mut chunks: Vec<_> = items.iter().map(|count| chunk(*count, &format!("{count} items"))).collect();
    if let (Some(raw), Some(first)) = (words.get("raw"), chunks.first_mut()) {
        first.blob.raw_bytes = number(raw);
    }
    let counters = Counters::new(words.get("counters").map_or(Vec::new(), |text| numbers(text, ','))).expect("few");
    let head = words.get("data").map(|text| blob(text));
    let base = match words.get("base").copied() {
        None => return Change::Full { chunks, head: head.unwrap_or_default(), counters },
        Some("absent") => Base::Absent,
        Some(text) => {
            let parts = numbers(text, '/');
            Base::At { create_revision: Revision(parts[0]), version: Version(parts[1]), items: parts[2] }
        }
    };
    Change::Delta { base, chunks, head, counters }
}

fn show(outcome: &Outcome, index: u64) -> String {
    let verdict = show_verdict(&outcome.verdict);
    let repeated = if outcome.revision.0 == index { "" } else { " (repeated)" };
    format!("{verdict} revision={}{repeated}\n", outcome.revision)
}

fn show_verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Saved(Saved { content, rebased }) => {
            let rebased = if *rebased { " rebased" } else { "" };
            format!(
                "Saved version={} created={} items={} next_chunk={}{rebased}",
                content.version, content.create_revision, content.items, content.next_chunk
            )
        }
        Verdict::Appended(Appended { content, chunks, counters }) => format!(
            "Appended version={} created={} items={} next_chunk={} chunks={chunks} counters={:?}",
            content.version,
            content.create_revision,
            content.items,
            content.next_chunk,
            counters.as_slice()
        ),
        Verdict::Conflict { actual, tombstone } => format!("Conflict actual={actual} tombstone={tombstone}"),
        Verdict::Deleted { version } => format!("Deleted version={version}"),
        Verdict::NotFound { tombstone } => format!("NotFound tombstone={tombstone}"),
        Verdict::ClientOpened { client } => format!("ClientOpened client={client}"),
        Verdict::LeaseHeld { holder, deadline_ms } => format!("LeaseHeld holder={:?} until={deadline_ms}", holder.as_str()),
        Verdict::Leased { holder, deadline_ms } => format!("Leased holder={:?} until={deadline_ms}", holder.as_str()),
        Verdict::LeasesRenewed { deadline_ms, lost } => {
            format!("LeasesRenewed until={deadline_ms} lost={:?}", lost.positions().collect::<Vec<_>>())
        }
        Verdict::Transacted(Transacted { results }) => {
            let each: String = results.iter().map(|verdict| format!("\n  {}", show_verdict(verdict))).collect();
            format!("Transacted{each}\n ")
        }
        Verdict::Aborted(Aborted { index, verdict }) => format!("Aborted index={index} by {}", show_verdict(verdict)),
        other => format!("{other:?}"),
    }
}

/// Numbers of rows; those of another revision than the session's with it.
fn show_rows(keys: &[Range<Bytes>], created: Revision) -> String {
    let half = |key: &Bytes, at: usize| u64::from_be_bytes(key[at..at + 8].try_into().expect("two numbers"));
    let show = |keys: &Range<Bytes>| {
        let numbers = half(&keys.start, 8)..half(&keys.end, 8);
        let revision = half(&keys.start, 0);
        if revision == created.0 { format!("{numbers:?}") } else { format!("{revision}/{numbers:?}") }
    };
    keys.iter().map(show).collect::<Vec<_>>().join("+")
}

fn show_lease(Lease { fence, holder, deadline_ms }: &Lease) -> String {
    format!("fence={fence} holder={:?} until={deadline_ms}", holder.as_str())
}

fn show_info(info: &SessionInfo) -> String {
    let lease = info.lease.as_ref().map_or_else(String::new, |lease| format!(" lease=({})", show_lease(lease)));
    let idle = info.idle_ttl_ms.map_or_else(String::new, |idle_ms| format!(" idle={idle_ms}"));
    let label = Some(&info.label).filter(|label| !label.is_empty());
    let label = label.map_or_else(String::new, |label| format!(" label={:?}", label.as_str()));
    let tombstone = info.tombstone_ttl_ms.map_or_else(String::new, |ttl_ms| format!(" tombstone={ttl_ms}"));
    format!(
        "version={} created={} modified={} items={} next_chunk={} raw={} counters={:?} deadline={:?}{idle}{tombstone}{label}{lease}",
        info.version,
        info.create_revision,
        info.mod_revision,
        info.items,
        info.next_chunk,
        info.raw_bytes,
        info.counters.as_slice(),
        info.deadline_ms
    )
}
