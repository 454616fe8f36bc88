//! Models of the fair lock and of the IVC allocator.
//!
//! Under `--cfg loom` every model runs in each execution that loom finds for it (`.ci/loom.sh`);
//! under plain `cargo test` it runs many times with real threads. The models are unit tests of the
//! crate, because they use its private items. The models of the registry are in `busmap`.

#[path = "../busmap/loom-tests/check.rs"]
mod check;
mod fair_lock;
mod ivc;
#[path = "../busmap/loom-tests/watched.rs"]
mod watched;

use self::check::{Bound, check, thread};
