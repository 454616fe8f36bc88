//! Models of the fair lock and of the IVC allocator.
//!
//! Under `--cfg loom` every model runs in each execution that loom finds for it (`.ci/loom.sh`);
//! under plain `cargo test` it runs many times with real threads. The models are part of the
//! crate's unit tests, so that they see its inner parts. The registry's are `busmap`'s.

#[path = "../busmap/loom-tests/check.rs"]
mod check;
mod fair_lock;
mod ivc;
#[path = "../busmap/loom-tests/watched.rs"]
mod watched;

use self::check::{Bound, check, thread};
