//! The log level of this process: shown and changed through the admin port.
//!
//! The program that set its logging up says here how to change it; a process that embeds the server need not.

use std::sync::OnceLock;

/// Longest filter that is looked at, in bytes.
pub const FILTER_BYTES_MAX: usize = 1024;

static CONTROL: OnceLock<Box<dyn LogControl>> = OnceLock::new();

/// The filter of a process's log.
pub trait LogControl: Send + Sync {
    /// The one in force.
    fn filter(&self) -> String;

    /// Puts another in force, and gives it as it is from then on. Errors: it is none; nothing changed.
    fn set(&self, wanted: &str) -> Result<String, String>;
}

/// Says how this process's log is changed. The first to say so does.
pub fn set_log_control(control: impl LogControl + 'static) {
    let _ = CONTROL.set(Box::new(control));
}

pub(super) fn control() -> Option<&'static dyn LogControl> {
    CONTROL.get().map(|control| &**control)
}
