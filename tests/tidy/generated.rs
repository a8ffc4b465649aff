//! The generated messages and services are what the files under `proto/` say.

use std::path::{Path, PathBuf};

use prost::Message;

const PROTOS: [&str; 3] = ["quorate/v1/sessions.proto", "quorate/v1/operations.proto", "quorate/peer/v1/peer.proto"];

/// Generates into a directory of its own, with no protocol compiler installed.
fn generate(out: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler = protox::Compiler::new([root.join("proto")]).expect("the proto directory");
    compiler.include_imports(true).include_source_info(true);
    for proto in PROTOS {
        compiler.open_file(proto).expect("a valid proto file");
    }
    let described = compiler.file_descriptor_set();
    tonic_prost_build::configure().out_dir(out).build_transport(false).bytes(".").compile_fds(described).expect("generation");
    let mut described = compiler.file_descriptor_set();
    described.file.iter_mut().for_each(|file| file.source_code_info = None);
    std::fs::write(out.join("descriptor.bin"), described.encode_to_vec()).expect("a writable directory");
}

/// `REWRITE=1` (as `scripts/genproto.sh` sets) writes what this test otherwise compares.
#[test]
fn generated_code_is_current() {
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire/generated");
    let fresh = tempfile::tempdir().expect("a directory");
    generate(fresh.path());
    let mut names: Vec<PathBuf> =
        std::fs::read_dir(fresh.path()).expect("listing").map(|entry| entry.expect("an entry").path()).collect();
    names.sort();
    assert!(names.len() >= 3, "two packages and a descriptor, got {names:?}");
    for path in names {
        let name = path.file_name().expect("a name");
        let new = std::fs::read(&path).expect("generated");
        if std::env::var_os("REWRITE").is_some() {
            std::fs::write(checked_in.join(name), new).expect("a writable checkout");
        } else {
            let old = std::fs::read(checked_in.join(name)).unwrap_or_default();
            assert!(old == new, "{} is not current: run scripts/genproto.sh", name.display());
        }
    }
}
