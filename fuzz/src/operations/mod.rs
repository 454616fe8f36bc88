//! Sequences of the registry's operations, each result compared with a model: a `BTreeMap` for each bus.
//!
//! Addresses are few, so that ranges collide. They are at both ends of a bus, in its middle and near a page's end.
//! Everything runs on one thread; the models under loom cover concurrency.

mod change;
mod dispatch;
mod input;
mod pages;
mod session;

pub use self::input::Input;
use self::session::Session;

/// Runs the operations of the input.
pub fn run(input: Input) {
    let mut session = Session::new(&input);
    for op in input.ops {
        session.run(op);
    }
    session.end(input.registry_first);
}
