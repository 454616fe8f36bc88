//! Models of the crate's lock-free parts.
//!
//! Under `--cfg loom` every model runs in each execution that loom finds for it (`.ci/loom.sh`);
//! under plain `cargo test` it runs many times with real threads. The models are part of the
//! crate's unit tests, so that they see its inner parts.

mod cell;
mod check;
mod listener;
mod nodes;
mod ports;
mod registry;
mod removal;
mod snapshot;
mod stack;
mod watched;

use self::check::{Bound, check, thread};
