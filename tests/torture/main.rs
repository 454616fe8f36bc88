//! Long, hard use of the registry under many threads: devices come, move and go as fast as they can
//! while vCPUs access them, and none is ever called when no vCPU should be inside it.
//!
//! Each test takes a second or two; with `AXDEVICE_TORTURE_SECONDS` it takes as long as that says
//! (`.ci/torture.sh`). `census` and `budget` are what the tests share; every other module is one way
//! of use.
//!
//! Every device is overwritten with poison as soon as its removal says that it is quiescent, and
//! looks at each access whether it is. When a test ends, every device that it made has been dropped
//! once, and none by a thread that only reads.

mod budget;
mod census;
mod controls;
mod cores;
mod mutual;
mod nested;
mod publication;
mod race;
mod reuse;
mod serialized;
mod two_vms;
mod watchdog;
