//! How a command ends when it does not succeed: an exit code and one line for people.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// How a line begins that is no error.
const WARNING: &str = "warning: ";

/// Why by exit code. The numbers are an interface: scripts branch on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The reader of our output has gone: not a failure.
    OutputClosed = 0,
    /// Anything else.
    Failed = 1,
    /// The command line, the configuration or the data directory must be fixed first.
    Usage = 2,
    /// The stored version is not the expected one.
    Conflict = 3,
    /// No node answered or there is no leader.
    Unavailable = 4,
    /// There is no such session.
    NotFound = 5,
    /// The user ended it by a signal; as a shell says of one that SIGINT ended.
    Interrupted = 130,
}

/// The failure that `main` reports: what happened, whether anything changed, what to do. One line, and perhaps more for the parts.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: Code,
    /// The lines.
    pub message: String,
}

impl Failure {
    /// Any failure without a more specific code.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self { code: Code::Failed, message: message.to_string() }
    }

    /// A finding, not a failure of the command: it did its work, and found something.
    pub fn warning(message: impl fmt::Display) -> Self {
        Self { code: Code::Failed, message: format!("{WARNING}{message}") }
    }

    /// The user must fix something before it can work.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { code: Code::Usage, message: message.to_string() }
    }

    /// The lines on stderr, those after the first indented, and the code for the operating system.
    pub fn report(&self) -> ExitCode {
        if self.code != Code::OutputClosed {
            use io::Write;
            // With stderr gone as well, the exit code is all that is left to tell.
            let kind = if self.message.starts_with(WARNING) { "" } else { "error: " };
            let _ = writeln!(io::stderr(), "{kind}{}", self.message.trim_end().replace('\n', "\n  "));
        }
        ExitCode::from(self.code as u8)
    }
}

/// Output that can't be written: a closed pipe (`| head`) ends the command quietly.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { code: Code::OutputClosed, message: String::new() },
            _ => Self::failed(format!("can't write the output: {error}")),
        }
    }
}
