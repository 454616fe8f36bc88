//! Devices for the tests, whose handlers are functions of the offset.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use busmap::{Device, Handlers, Miss, Mmio, Port, Registry, Span};

/// The same handlers on all buses, and a name.
pub(crate) enum Fns {}

pub(crate) type Handler = dyn Fn(u64) -> u64 + Send + Sync;

impl Handlers for Fns {
    type Mmio = Handler;
    type Port = Handler;
    type SysReg = Handler;
    type Tag = &'static str;
}

pub(crate) type Devices = Registry<Fns>;

pub(crate) fn span(first: u64, last: u64) -> Span {
    Span::new(first, last).expect("the last is not below the first")
}

/// A device that reads as `value` at ports and in memory.
pub(crate) fn reads_as(value: u64) -> Device<Fns> {
    let handler: Arc<Handler> = Arc::new(move |_| value);
    Device::new("device")
        .on::<Port>(handler.clone())
        .on::<Mmio>(handler)
}

/// The value of a byte at a port.
pub(crate) fn read(devices: &Devices, port: u64) -> Result<u64, Miss> {
    devices.dispatch::<Port, _>(port, 0, |hit| hit.handler()(port - hit.span().first()))
}

/// The size of a test, and its size under Miri.
pub(crate) const fn size(full: u64, miri: u64) -> u64 {
    if cfg!(miri) { miri } else { full }
}

/// The number of rounds to run instead of `n`: fewer if every step is slow.
pub(crate) const fn rounds(n: u64) -> u64 {
    match option_env!("BUSMAP_FEW_ROUNDS") {
        Some(_) => size(n.div_ceil(50), n.div_ceil(1_000)),
        None => size(n, n.div_ceil(1_000)),
    }
}

/// Calls `watch` on another thread, at least once and until `change` has returned.
pub(crate) fn while_changing(mut watch: impl FnMut() + Send, change: impl FnOnce()) {
    let (started, done) = (AtomicBool::new(false), AtomicBool::new(false));
    /// Sets the flag even if the change panics: otherwise the watcher would never end.
    struct Sets<'f>(&'f AtomicBool);
    impl Drop for Sets<'_> {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let _started = Sets(&started);
            loop {
                watch();
                started.store(true, SeqCst);
                if done.load(SeqCst) {
                    break;
                }
            }
        });
        let _done = Sets(&done);
        while !started.load(SeqCst) {
            thread::yield_now();
        }
        change();
    });
}
