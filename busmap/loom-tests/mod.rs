//! Models of the crate's lock-free parts.
//!
//! Under `--cfg loom` every model runs in each execution that loom finds for it (`.ci/loom.sh`);
//! under plain `cargo test` it runs many times with real threads. The models are unit tests of the
//! crate, because they use its private items.

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
