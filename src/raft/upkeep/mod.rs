//! A node's upkeep beside consensus, for as long as it runs: its disk, its log, its state, its version.

pub mod ahead;
pub mod disk_space;
pub mod hung_disk;
pub mod purge;
pub mod room;
pub mod scrub;
pub mod upgrade;
