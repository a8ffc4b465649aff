//! `quorate help`.

use clap::Args;

/// `quorate help`.
#[derive(Debug, Args)]
#[command(after_help = "quorate help                     what `quorate --help` prints
quorate help session put         a command's help
quorate help topics              the chapters of the guides in this binary
quorate help lost majority       a chapter, by its heading or a part of it
quorate help disk full           what the guides say about words that are no heading")]
pub struct Help {
    /// A command, a chapter, or words to look for
    pub words: Vec<String>,
}
