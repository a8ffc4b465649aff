//! The README's code for an embedder, as an embedder has it: a crate with these dependencies and no others, of the package's files alone.

use std::path::Path;
use std::process::Command;

use crate::cli::package;

/// The first fenced block in this language behind a heading.
fn block<'a>(text: &'a str, heading: &str, language: &str) -> &'a str {
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no chapter {heading}"));
    let (_, block) = section.split_once(&format!("\n```{language}\n")).unwrap_or_else(|| panic!("no {language} in {heading}"));
    block.split_once("\n```").expect("it ends").0
}

/// Checked by the compiler, in a directory of the build that the next run finds again; nothing is fetched. The first time that takes a
/// minute of two cores, so the gate runs it (`scripts/check.sh`).
#[test]
fn what_the_readme_has_an_embedder_write_compiles_with_only_what_it_names() {
    if std::env::var_os("QUORATE_EMBEDDER").is_none() {
        println!("SKIPPED: it builds a client's dependencies once more: QUORATE_EMBEDDER=1 runs it");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).expect("it is there");
    let dependencies = block(&readme, "Embed it", "toml");
    let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
    package::unpack(&package);
    let here = format!("path = \"{}\"", package.display());
    assert!(dependencies.contains("path = \"../quorate\""), "{dependencies}");
    let manifest = format!(
        "[package]\nname = \"embedder\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n{}\n\n[workspace]\n",
        dependencies.replace("path = \"../quorate\"", &here)
    );
    let embedder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("embedder");
    std::fs::create_dir_all(embedder.join("src")).expect("a writable directory");
    std::fs::write(embedder.join("Cargo.toml"), manifest).expect("a writable directory");
    std::fs::write(embedder.join("src/main.rs"), block(&readme, "Embed it", "rust,no_run")).expect("a writable directory");
    // The versions that are here already: what the program is built and tested with.
    std::fs::copy(root.join("Cargo.lock"), embedder.join("Cargo.lock")).expect("a writable directory");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_")) {
        command.env_remove(name);
    }
    command.args(["check", "--offline", "--quiet"]).current_dir(&embedder).env("CARGO_TARGET_DIR", embedder.join("target"));
    let output = command.env_remove("RUSTFLAGS").output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
