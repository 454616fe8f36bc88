//! Long, heavy use of the registry by many threads. Devices are added, moved and removed as fast as possible while
//! vCPUs access them. No device is ever called when no vCPU should be inside it.
//!
//! Each test takes one or two seconds, or the number of seconds in `AXDEVICE_TORTURE_SECONDS` (`.ci/torture.sh`). The
//! tests share `census` and `budget`; every other module is one kind of use.
//!
//! Every device is overwritten with poison as soon as its removal reports that it is quiescent, and checks for poison
//! at each access. When a test ends, every device that it made has been dropped once, and never by a thread that only
//! reads.

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
