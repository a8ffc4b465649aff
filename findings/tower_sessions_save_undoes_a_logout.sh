#!/usr/bin/env bash
# tower-sessions-core 0.15.0 with tower-sessions-memory-store 0.15.0 (crates.io), looked at on 2026-11-30.
#
# A request that loaded its session before another one logged the user out (`flush`, which deletes it) saves afterwards, and the session is
# there again under the same id, logged in. `save` is an upsert, and no call can say "only if it is still there". Seen:
#
#   there after the logout: false
#   the save of the request in flight: accepted
#   there after it: true
#   user: Some("alice")
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
tower-sessions-core = "=0.15.0"
tower-sessions-memory-store = "=0.15.0"
tokio = { version = "1", features = ["rt", "macros"] }
TOML
cat >"$dir/src/main.rs" <<'RUST'
use std::sync::Arc;
use tower_sessions_core::{Session, SessionStore};
use tower_sessions_memory_store::MemoryStore;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let store = Arc::new(MemoryStore::default());
    let login = Session::new(None, store.clone(), None);
    login.insert("user", "alice").await.expect("a value");
    login.save().await.expect("saved");
    let id = login.id().expect("saved");
    // One request is being answered while another logs the user out.
    let in_flight = Session::new(Some(id), store.clone(), None);
    in_flight.load().await.expect("loaded");
    let logout = Session::new(Some(id), store.clone(), None);
    logout.flush().await.expect("deleted");
    println!("there after the logout: {}", store.load(&id).await.expect("a store").is_some());
    in_flight.insert("page", 2).await.expect("a value");
    println!("the save of the request in flight: {}", if in_flight.save().await.is_ok() { "accepted" } else { "refused" });
    println!("there after it: {}", store.load(&id).await.expect("a store").is_some());
    let again = Session::new(Some(id), store, None);
    println!("user: {:?}", again.get::<String>("user").await.expect("a store"));
}
RUST
seen=$(cargo run --quiet --manifest-path "$dir/Cargo.toml" --target-dir "$dir/target")
echo "$seen"
[ "$seen" = "there after the logout: false
the save of the request in flight: accepted
there after it: true
user: Some(\"alice\")" ]
