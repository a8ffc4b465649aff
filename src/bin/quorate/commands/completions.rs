//! `quorate completions`: scripts for shells.

use clap::CommandFactory;

use crate::args::{Cli, Completions};
use crate::failure::Failure;
use crate::output;

/// Prints the script.
pub fn run(args: &Completions) -> Result<(), Failure> {
    // Into memory first: the generator panics on a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "quorate", &mut script);
    Ok(output::bytes(&script)?)
}
