//! The registry as a whole: the documented guarantees for handlers, threads and lifetimes, and the
//! comparison with crate `axdevice` 0.4.10, which it replaces.

mod handlers;
mod lifetimes;
mod oracle;
mod threads;
mod upstream;
mod visits;
