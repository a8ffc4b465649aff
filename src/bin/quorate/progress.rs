//! How far a long command is, on stderr and on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};

/// One bar; gone when dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// Of `total` bytes.
    pub fn bytes(what: &'static str, total: u64) -> Self {
        Self::new(what, total, "{msg} {wide_bar} {bytes}/{total_bytes} {eta}")
    }

    /// Of so many things; 0: not known yet.
    pub fn count(what: &'static str, total: u64) -> Self {
        Self::new(what, total, "{msg} {wide_bar} {pos}/{len} {eta}")
    }

    fn new(what: &'static str, total: u64, template: &str) -> Self {
        // Hidden by itself where stderr is no terminal.
        let bar = ProgressBar::new(total).with_message(what);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// So far.
    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// So far, of so many.
    pub fn set_of(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
