//! Sequences of the registry's operations, each result held against a model: a `BTreeMap` for each bus.
//!
//! Addresses are few, so that ranges collide, and lie at both ends of a bus, in its middle and about a
//! page's end. All is done on one thread: what threads do to each other is for the models under loom.

mod change;
mod dispatch;
mod input;
mod pages;
mod session;

pub use self::input::Input;
use self::session::Session;

/// Does what the input says.
pub fn run(input: Input) {
    let mut session = Session::new(&input);
    for op in input.ops {
        session.run(op);
    }
    session.end(input.registry_first);
}
