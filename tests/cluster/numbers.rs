//! Numbers that no cluster counts to, from a member or a backup: each is refused by its field and both sides, and the node goes on.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use bytes::Bytes;
use quorate::client::Revision;
use quorate::limits::NUMBER_MAX;
use quorate::wire::peer::v1 as peer;
use tonic::Status;

use super::rig::{Cluster, PATIENCE};

const ABOVE: u64 = NUMBER_MAX + 1;

fn log_id(index: u64) -> Option<peer::LogId> {
    Some(peer::LogId { term: 1, node: 1, index })
}

/// Every call that carries one, by the field that is above the bound; what each answers.
async fn answers(cluster: &Cluster, from: u64, to: u64) -> Vec<(&'static str, Result<(), Status>)> {
    let route = Some(cluster.route(from, to).await);
    let vote = |term| Some(peer::Vote { term, node: from, committed: true });
    let append = peer::AppendRequest { route: route.clone(), vote: vote(1), ..Default::default() };
    let entry = |index, payload: &[u8]| peer::Entry { log_id: log_id(index), payload: Bytes::copy_from_slice(payload) };
    // Format 1, then a time of 8 bytes.
    let stamped = [&[1, 253][..], &ABOVE.to_le_bytes(), &[1, 0]].concat();
    let mut peer = cluster.peer(to);
    let mut answers = Vec::new();
    for (field, request) in [
        ("vote.term", peer::AppendRequest { vote: vote(ABOVE), ..append.clone() }),
        ("log_id.index", peer::AppendRequest { previous: log_id(ABOVE), ..append.clone() }),
        ("log_id.index", peer::AppendRequest { leader_commit: log_id(ABOVE), ..append.clone() }),
        ("log_id.index", peer::AppendRequest { entries: vec![entry(ABOVE, &[0])], ..append.clone() }),
        ("entry.stamp_ms", peer::AppendRequest { entries: vec![entry(0, &stamped)], ..append.clone() }),
    ] {
        answers.push((field, peer.append(request.clone()).await.map(drop)));
        let mut streamed = peer.append_stream(tokio_stream::iter([request])).await.expect("it begins").into_inner();
        answers.push((field, streamed.message().await.map(drop)));
    }
    let ask = peer::VoteRequest { route: route.clone(), vote: vote(1), ..Default::default() };
    answers.push(("vote.term", peer.vote(peer::VoteRequest { vote: vote(ABOVE), ..ask.clone() }).await.map(drop)));
    answers.push(("log_id.index", peer.vote(peer::VoteRequest { last_log: log_id(ABOVE), ..ask }).await.map(drop)));
    let transfer = peer::TransferLeaderRequest { route: route.clone(), from_leader: vote(1), to, last_log: log_id(ABOVE) };
    answers.push(("log_id.index", peer.transfer_leader(transfer).await.map(drop)));
    let start = peer::SnapshotStart { route: route.clone(), vote: vote(1), last_log: log_id(ABOVE), ..Default::default() };
    let start = peer::SnapshotFrame { frame: Some(peer::snapshot_frame::Frame::Start(start)) };
    answers.push(("log_id.index", peer.snapshot(tokio_stream::iter([start])).await.map(drop)));
    let lost = peer::LostLeaderRequest { route: route.clone(), vote: vote(1), last_log: log_id(ABOVE) };
    answers.push(("log_id.index", peer.lost_leader(lost).await.map(drop)));
    let rebuild = peer::RebuildRequest { route: route.clone(), last_index: ABOVE, ..Default::default() };
    answers.push(("last_index", peer.rebuild(rebuild).await.map(drop)));
    let status = peer::StatusRequest { route: route.clone(), digest_at: ABOVE, ..Default::default() };
    answers.push(("digest_at", peer.status(status).await.map(drop)));
    let presence = peer::PresenceMessage { route, wall_ms: ABOVE, ..Default::default() };
    answers.push(("wall_ms", peer.presence(tokio_stream::iter([presence])).await.map(drop)));
    answers
}

#[tokio::test]
async fn a_number_that_is_out_of_range_is_refused_by_name_in_every_call_of_a_member() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader(1).await;
    let (from, to) = ((1..=3).find(|node| *node != leader).expect("three nodes"), leader);
    let before = cluster.status_of(to).await.expect("it runs").term;
    for (field, answer) in answers(&cluster, from, to).await {
        let status = answer.expect_err(field);
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{field}: {status}");
        assert_eq!(status.message(), format!("a number is out of range field={field} value={ABOVE} limit={NUMBER_MAX}"));
    }
    assert_eq!(cluster.status_of(to).await.expect("it runs").term, before);
    cluster.caller(to).await;
}

/// A backup of a cluster, as it lies in a file.
async fn backup(cluster: &Cluster) -> Vec<u8> {
    let mut backup = cluster.client().backup(Revision(0), PATIENCE).await.expect("a node answers");
    let mut bytes = Vec::new();
    while let Some(piece) = backup.next().await.expect("it goes on to its end") {
        bytes.extend_from_slice(&piece.data);
    }
    bytes
}

fn quorate(args: &[&str], file: &Path, rest: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(args).arg(file).args(rest).output().expect("the binary under test")
}

/// Puts another machine time into a backup, with every checksum as it must be then.
fn with_machine_time(backup: &[u8], now_ms: u64) -> Vec<u8> {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |all, byte| all << 8 | usize::from(*byte));
    let header = 16 + number(&backup[8..12]);
    let (mut out, mut rest, mut sum) = (backup[..header].to_vec(), &backup[header..], 0);
    while !rest.is_empty() {
        let (frame, others) = rest[4..].split_at(number(&rest[..4]));
        // Behind its checksum: number, kind, payload.
        let mut body = frame[4..].to_vec();
        rest = others;
        match body[8] {
            // Table, length of key and value, checksum, key, value: the first row is the one with the machine's time.
            2 if body[9] == 0 => {
                let (key, value) = (9 + 17..9 + 17 + 6, 9 + 17 + 6..9 + 17 + 6 + number(&body[14..22]));
                assert_eq!(&body[key.clone()], b"global");
                // Format, an entry with its three small numbers, and then a time of 8 bytes.
                let at = body[value.clone()].iter().position(|byte| *byte == 253).expect("a time") + 1;
                body[value.start + at..value.start + at + 8].copy_from_slice(&now_ms.to_le_bytes());
                let parts = [&[0][..], &6u64.to_le_bytes(), &body[key], &body[value]].concat();
                body[22..26].copy_from_slice(&crc32c::crc32c(&parts).to_le_bytes());
            }
            3 => {
                let end = body.len() - 4;
                body[end..].copy_from_slice(&u32::to_le_bytes(sum));
            }
            _ => {}
        }
        let crc = crc32c::crc32c(&body).to_le_bytes();
        sum = crc32c::crc32c_append(sum, &crc);
        out.extend_from_slice(&(body.len() as u32 + 4).to_le_bytes());
        out.extend_from_slice(&crc);
        out.extend_from_slice(&body);
    }
    out
}

/// Every checksum is right. It is damaged all the same, to the command that looks and to the one that restores.
#[tokio::test]
async fn a_backup_with_a_number_that_is_out_of_range_is_damaged() {
    let cluster = Cluster::start(1).await;
    let whole = backup(&cluster).await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("backup");
    std::fs::write(&file, with_machine_time(&whole, NUMBER_MAX)).expect("a writable directory");
    let looked = quorate(&["snapshot", "inspect"], &file, &[]);
    assert!(looked.status.success(), "{}", String::from_utf8_lossy(&looked.stderr));
    std::fs::write(&file, with_machine_time(&whole, ABOVE)).expect("a writable directory");
    let looked = quorate(&["snapshot", "inspect"], &file, &[]);
    let text = String::from_utf8_lossy(&looked.stderr);
    let expected = format!("a number is out of range field=now_ms value={ABOVE} limit={NUMBER_MAX}");
    assert!(looked.status.code() == Some(1) && text.contains("the backup is damaged") && text.contains(&expected), "{text}");
}

/// The time that sessions expire by never goes back, so a wrong clock would stay in the new cluster for as long as it was ahead.
#[tokio::test]
async fn a_backup_whose_time_is_ahead_of_the_clock_by_more_than_a_day_is_restored_only_by_force() {
    let cluster = Cluster::start(1).await;
    let whole = backup(&cluster).await;
    let dir = tempfile::tempdir().expect("a directory");
    let (file, config) = (dir.path().join("backup"), dir.path().join("cluster.toml"));
    let node = "[[node]]\nid = 1\nclient = \"127.0.0.1:1\"\npeer = \"127.0.0.1:2\"\nadmin = \"127.0.0.1:3\"\n";
    std::fs::write(&config, format!("name = \"restored\"\n{node}")).expect("a writable directory");
    let data = dir.path().join("data");
    let day = Duration::from_secs(24 * 3600);
    let restore = |ahead: Duration, force: &[&str]| {
        let at = quorate::env::unix_ms(std::time::SystemTime::now() + ahead);
        std::fs::write(&file, with_machine_time(&whole, at)).expect("a writable directory");
        let (config, data) = (config.to_str().expect("UTF-8"), data.to_str().expect("UTF-8"));
        quorate(&["snapshot", "restore"], &file, &[&["--config", config, "--data-dir", data][..], force].concat())
    };
    let refused = restore(3 * day, &[]);
    let text = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(text.contains("ahead of this host's clock") && text.contains("--force") && text.contains("limit_hours=24"), "{text}");
    assert!(!data.exists(), "nothing was written");
    let forced = restore(3 * day, &["--force"]);
    assert!(forced.status.success(), "{}", String::from_utf8_lossy(&forced.stderr));
    std::fs::remove_dir_all(&data).expect("ours");
    let within = restore(day / 2, &[]);
    assert!(within.status.success(), "{}", String::from_utf8_lossy(&within.stderr));
}
