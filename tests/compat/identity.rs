//! `identity`: as drawn, and as an initialized node has it.

use std::path::Path;

use quorate::storage::identity::Identity;
use quorate::testing::disk::SimDisk;
use quorate::testing::inline::SimEnv;
use quorate::types::{ClusterId, NodeId};

use crate::compat::{assert_same, golden, put};

const DIR: &str = "/data/3";
const FILE: &str = "/data/3/identity";
const CLUSTER: ClusterId = ClusterId([0xc7; 16]);

fn load(disk: &SimDisk) -> Identity {
    Identity::load_or_create(&SimEnv::new(disk, 1).env, Path::new(DIR), NodeId(3)).expect("a good identity")
}

fn file(disk: &SimDisk) -> Vec<u8> {
    disk.contents(Path::new(FILE)).expect("there is an identity")
}

#[test]
fn golden_identities_are_read_and_written_the_same() {
    let disk = SimDisk::new();
    let mut identity = load(&disk);
    let drawn = golden("identity_drawn", &file(&disk));
    assert_same("a drawn identity", &file(&disk), &drawn);
    identity.adopt(CLUSTER).expect("it has no cluster");
    identity.mark_initialized().expect("no fault is set");
    let initialized = golden("identity_initialized", &file(&disk));
    assert_same("an initialized identity", &file(&disk), &initialized);

    let (disk, other) = (SimDisk::new(), SimDisk::new());
    put(&disk, Path::new(FILE), &drawn);
    put(&other, Path::new(FILE), &initialized);
    let (mut before, after) = (load(&disk), load(&other));
    assert_eq!((before.node(), before.cluster(), before.was_initialized()), (NodeId(3), None, false));
    assert_eq!((after.node(), after.cluster(), after.was_initialized()), (NodeId(3), Some(CLUSTER), true));
    assert_eq!((before.instance(), before.log_hash_key()), (after.instance(), after.log_hash_key()));
    assert_eq!((before.instance(), before.log_hash_key()), (identity.instance(), identity.log_hash_key()));
    before.adopt(CLUSTER).expect("it has no cluster");
    before.mark_initialized().expect("no fault is set");
    assert_same("a golden identity that went on", &file(&disk), &initialized);
}
