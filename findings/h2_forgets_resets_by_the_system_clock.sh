#!/usr/bin/env bash
# h2 0.4.20 with tokio's paused time (crates.io), looked at on 2026-11-30.
#
# A stream that this side reset is remembered for `reset_stream_duration`, and frames of the peer that were under way are ignored so long;
# later ones are answered with RST_STREAM. That time is measured by std's clock, not by the runtime's: under tokio's paused time an hour
# may pass and nothing is forgotten, while one second of the machine's time forgets all. A test or a simulation with virtual time
# therefore takes another course on a slower machine. Seen, with half a second of `reset_stream_duration`:
#
#   at once: nothing
#   after an hour of virtual time: nothing
#   after a second of the system's: RST_STREAM of stream 1, error 5
#
# Fails once that changes. Needs cargo and crates.io.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/src"
cat >"$dir/Cargo.toml" <<'TOML'
[package]
name = "seen"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
bytes = "1"
h2 = "=0.4.20"
http = "1"
tokio = { version = "1", features = ["rt", "macros", "io-util", "time", "test-util"] }
TOML
cat >"$dir/src/main.rs" <<'RUST'
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

async fn read(io: &mut DuplexStream) -> (u8, u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.expect("a frame");
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    io.read_exact(&mut payload).await.expect("a payload");
    (head[3], head[4], u32::from_be_bytes(head[5..9].try_into().unwrap()), payload)
}

/// What a server answers to data on a stream that it reset, once so much time has passed by each clock.
async fn answer(virtual_time: Duration, real_time: Duration) -> String {
    let (mut client, server) = tokio::io::duplex(65_536);
    let serve = tokio::spawn(async move {
        let mut connection = h2::server::Builder::new()
            .reset_stream_duration(Duration::from_millis(500))
            .handshake::<_, bytes::Bytes>(server)
            .await
            .expect("a handshake");
        while let Some(Ok((_request, mut respond))) = connection.accept().await {
            respond.send_reset(h2::Reason::CANCEL);
        }
    });
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    // POST / over http, by indexes of the static table, and the host `a`.
    client.write_all(&frame(1, 4, 1, &[0x83, 0x86, 0x84, 0x41, 1, b'a'])).await.unwrap();
    loop {
        let (kind, _, stream, _) = read(&mut client).await;
        if kind == 3 && stream == 1 {
            break;
        }
    }
    tokio::time::advance(virtual_time).await;
    std::thread::sleep(real_time);
    client.write_all(&frame(0, 1, 1, b"late")).await.unwrap();
    client.write_all(&frame(6, 0, 0, &[0; 8])).await.unwrap();
    let mut pongs = 0;
    let said = loop {
        match read(&mut client).await {
            (3, _, stream, payload) => break format!("RST_STREAM of stream {stream}, error {}", payload[3]),
            (7, _, _, payload) => break format!("GOAWAY, error {}", payload[7]),
            // What the data is answered may leave after the first answer to a ping, not after the second.
            (6, 1, ..) if pongs == 1 => break "nothing".to_owned(),
            (6, 1, ..) => {
                pongs += 1;
                client.write_all(&frame(6, 0, 0, &[0; 8])).await.unwrap();
            }
            _ => {}
        }
    };
    serve.abort();
    said
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let zero = Duration::ZERO;
    println!("at once: {}", answer(zero, zero).await);
    println!("after an hour of virtual time: {}", answer(Duration::from_secs(3600), zero).await);
    println!("after a second of the system's: {}", answer(zero, Duration::from_secs(1)).await);
}
RUST
seen=$(cargo run --quiet --manifest-path "$dir/Cargo.toml" --target-dir "$dir/target")
echo "$seen"
[ "$seen" = "at once: nothing
after an hour of virtual time: nothing
after a second of the system's: RST_STREAM of stream 1, error 5" ]
