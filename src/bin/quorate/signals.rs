//! SIGINT and SIGTERM, and the pipe a parent holds.

use std::io::Read;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Both signals that ask a process to stop.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves. Errors: the operating system refuses.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next of either. Dropping the future loses none.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// SIGHUP, which service managers send to have files read again, and terminals when they close.
pub use tokio::signal::unix::Signal as Hangups;

/// From here on SIGHUP does not end the process. Errors: the operating system refuses.
pub fn hangups() -> std::io::Result<Hangups> {
    signal(SignalKind::hangup())
}

/// Resolves when stdin ends: the holder of its other end has gone, or wants us to.
///
/// Read by a separate thread: a read can't be cancelled, and the process must not wait for it.
pub fn stdin_ended() -> std::io::Result<oneshot::Receiver<()>> {
    let (ended, wait) = oneshot::channel();
    std::thread::Builder::new().name("parent-pipe".into()).spawn(move || {
        let mut buffer = [0; 64];
        let mut stdin = std::io::stdin();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        let _ = ended.send(());
    })?;
    Ok(wait)
}
