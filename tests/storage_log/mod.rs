//! The log against a disk that loses, tears, reorders and refuses.

mod crash;
mod damage;
mod driver;
mod faults;
mod model;
mod threads;
