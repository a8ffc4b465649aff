//! The checkers against histories whose verdict is known: a checker that finds nothing proves nothing.

mod files;
mod leases;
mod named;
mod random;
