//! What we depend on: licences that permit our own, no crate that needs a foreign compiler or library, exact versions where a format or
//! safety hangs on them.

use std::process::Command;

use serde_json::Value;

/// Licences whose terms ours can carry.
const LICENCES: [&str; 14] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "BSL-1.0",
    "CC0-1.0",
    "Unlicense",
    "MIT-0",
];

/// Crates that would bring in another language's library, another TLS, or a known hole.
const BANNED: [&str; 8] =
    ["openssl-sys", "native-tls", "librocksdb-sys", "libsqlite3-sys", "lmdb-sys", "async-std", "sled", "yaml-rust"];

/// Dependencies whose bytes lie on disks, or whose behaviour the proofs rest on.
const PINNED: [&str; 7] = ["openraft", "openraft-macros", "openraft-rt", "openraft-rt-tokio", "quorum-set", "redb", "bincode"];

/// The dependency graph of this platform, without asking a registry.
fn metadata() -> Value {
    let version = Command::new(env!("CARGO")).arg("-vV").output().expect("cargo runs");
    let version = String::from_utf8(version.stdout).expect("UTF-8");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo names its host");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

fn packages(metadata: &Value) -> &[Value] {
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 50, "the graph holds only {} packages", packages.len());
    packages
}

/// Whether an SPDX expression can be met with [`LICENCES`] alone: any side of an `OR`, every side of an `AND`.
fn permitted(expression: &str) -> bool {
    let is_met = |flat: &str| flat.split(" OR ").any(|side| side.split(" AND ").all(|name| LICENCES.contains(&name.trim())));
    let mut rest = expression.replace('/', " OR ");
    // From the innermost brackets outwards, each stands for what is in it.
    while let Some(close) = rest.find(')') {
        let Some(open) = rest[..close].rfind('(') else { return false };
        let stands_for = if is_met(&rest[open + 1..close]) { LICENCES[0] } else { "none" };
        rest.replace_range(open..=close, stands_for);
    }
    is_met(&rest)
}

#[test]
fn every_dependency_has_a_licence_that_permits_ours() {
    let metadata = metadata();
    let bad: Vec<String> = packages(&metadata)
        .iter()
        .filter(|package| !permitted(text(package, "license")))
        .map(|package| format!("{} {}: {:?}", text(package, "name"), text(package, "version"), package["license"]))
        .collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn no_banned_crate_is_in_the_graph() {
    let metadata = metadata();
    let hits: Vec<&str> =
        packages(&metadata).iter().map(|package| text(package, "name")).filter(|name| BANNED.contains(name)).collect();
    assert!(hits.is_empty(), "{hits:?}");
}

#[test]
fn what_a_format_or_safety_hangs_on_is_pinned_exactly() {
    let metadata = metadata();
    let ours = packages(&metadata).iter().find(|package| text(package, "name") == "quorate").expect("our own package");
    let dependencies = ours["dependencies"].as_array().expect("dependencies");
    for name in PINNED {
        let dependency = dependencies.iter().find(|dependency| text(dependency, "name") == name).expect(name);
        assert!(text(dependency, "req").starts_with('='), "{name} {}", dependency["req"]);
    }
    // 0.9.21 to 0.9.24 and 0.10 before alpha.25 can commit without a quorum.
    let openraft = packages(&metadata).iter().find(|package| text(package, "name") == "openraft").expect("openraft");
    assert_eq!(text(openraft, "version"), "0.10.0-alpha.37", "a new version needs its own look at the proofs first");
}

#[test]
fn an_expression_is_met_by_any_side_of_or_and_every_side_of_and() {
    for good in ["MIT", "MIT OR GPL-3.0", "GPL-3.0 OR (MIT AND ISC)", "Apache-2.0 WITH LLVM-exception OR X", "MIT/Apache-2.0"] {
        assert!(permitted(good), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND X", "GPL-3.0 WITH LLVM-exception", "(MIT", "MIT MIT"] {
        assert!(!permitted(bad), "{bad}");
    }
}
