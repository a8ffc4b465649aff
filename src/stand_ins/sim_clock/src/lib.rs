//! The clocks of one thread, set by hand.
//!
//! Some libraries ask the system for the time and let nobody give it: h2 forgets a reset stream after a second by that clock, and what a
//! peer still sends on that stream is then answered in another way. In a simulation that second must be one of virtual time; otherwise a
//! seed takes another course on a machine that is faster or busier.
//!
//! The program's own `clock_gettime` takes precedence over the system library's. It is here, and not in a test, because the project
//! itself forbids unsafe code. Elsewhere than on Linux the clocks stay the system's, and not every seed replays.

use std::cell::Cell;
use std::time::Duration;

thread_local! {
    static NOW: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// From here on both clocks say `now` on this thread, the time since 1970; after `None` they are the system's again.
pub fn set(now: Option<Duration>) {
    NOW.set(now);
}

/// Takes the place of the system library's function, with its contract.
///
/// # Safety
///
/// `into` is valid for a write.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, into: *mut libc::timespec) -> libc::c_int {
    match (NOW.get(), clock) {
        (Some(now), libc::CLOCK_MONOTONIC | libc::CLOCK_REALTIME) => {
            let now =
                libc::timespec { tv_sec: now.as_secs() as libc::time_t, tv_nsec: libc::c_long::from(now.subsec_nanos() as i32) };
            // SAFETY: the caller promises that `into` is valid.
            unsafe { into.write(now) };
            0
        }
        // SAFETY: these are the arguments of that system call, from a caller that promises that they are valid.
        _ => unsafe { libc::syscall(libc::SYS_clock_gettime, clock, into) as libc::c_int },
    }
}
