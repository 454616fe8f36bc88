//! The registry as a whole: what its documentation promises of handlers, threads and lifetimes, and
//! crate `axdevice` 0.4.10, whose place it takes.

mod handlers;
mod lifetimes;
mod oracle;
mod threads;
mod upstream;
mod visits;
