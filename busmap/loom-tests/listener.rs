//! The listener, on the slot cell: two changes against each other, and one against a dispatch.

use std::sync::{Arc, Mutex, OnceLock, Weak};

use super::{Bound::Preemptions, check, ports::Ports, thread, watched::Watched};
use crate::{
    Device, Difference, Listener, Port, Refusal, Registry, Span, Veto,
    sync::{AtomicUsize, Ordering::Relaxed},
};

type Devices = Registry<Ports<()>>;

/// Records the ports of the differences that it gets, and compares them with the registry.
struct Scribe {
    devices: OnceLock<Weak<Devices>>,
    /// The number of changes between `before` and the end of `after`.
    inside: AtomicUsize,
    /// The ports of the calls of `before`. It is watched, because only turns order the accesses to it.
    reported: Watched,
    /// The ports whose addition is over. It is the model's own bookkeeping, which loom need not see.
    added: Mutex<Vec<u64>>,
}

const PORTS: [u64; 2] = [1, 2];

impl Scribe {
    fn port(difference: &Difference) -> u64 {
        assert!(difference.unmapped().is_empty());
        match difference.mapped() {
            [new] => new.span.first(),
            all => panic!("not one port: {all:?}"),
        }
    }

    /// Checks that the registry has the recorded ports, and no others.
    fn check(&self) {
        let Some(devices) = self.devices.get().and_then(Weak::upgrade) else {
            return;
        };
        let added = self.added.lock().unwrap().clone();
        let there = |port: &u64| has(&devices, *port);
        let mut there: Vec<_> = PORTS.into_iter().filter(there).collect();
        there.sort_by_key(|port| added.iter().position(|added| added == port));
        assert_eq!(there, added, "another change was published");
    }
}

impl Listener for Scribe {
    fn before(&self, difference: &Difference) -> Result<(), Veto> {
        let inside = self.inside.fetch_add(1, Relaxed);
        assert_eq!(inside, 0, "another change is between `before` and `after`");
        self.check();
        let port = Self::port(difference);
        self.reported.write(self.reported.read() | 1 << port);
        Ok(())
    }

    fn after(&self, difference: &Difference) {
        let port = Self::port(difference);
        assert_ne!(self.reported.read() & (1 << port), 0);
        self.added.lock().unwrap().push(port);
        self.check();
        let inside = self.inside.fetch_sub(1, Relaxed);
        assert_eq!(inside, 1, "another change is between `before` and `after`");
    }
}

fn listened() -> (Arc<Devices>, Arc<Scribe>) {
    let scribe = Arc::new(Scribe {
        devices: OnceLock::new(),
        inside: AtomicUsize::new(0),
        reported: Watched::new(0),
        added: Mutex::default(),
    });
    let devices = Arc::new(Devices::new().with_listener(scribe.clone()));
    let set = scribe.devices.set(Arc::downgrade(&devices));
    assert!(set.is_ok());
    (devices, scribe)
}

fn add(devices: &Devices, port: u64) {
    let device = Device::new(()).on::<Port>(Arc::new(()));
    let span = Span::new(port, port).unwrap();
    let added: Result<_, Refusal> = devices.add::<Port>(device, span).map_err(Into::into);
    assert!(added.is_ok());
}

fn has(devices: &Devices, port: u64) -> bool {
    devices.dispatch::<Port, _>(port, 0, |_| ()).is_ok()
}

/// Neither change is reported or published between the calls of `before` and `after` for the other.
#[test]
fn two_changes_are_made_one_at_a_time() {
    check("listener, add, add", 1_000, Preemptions(5), || {
        let (devices, scribe) = listened();
        let other = devices.clone();
        let adder = thread::spawn(move || add(&other, PORTS[0]));
        add(&devices, PORTS[1]);
        adder.join().expect("the adder panicked");
        let mut added = scribe.added.lock().unwrap().clone();
        added.sort_unstable();
        assert_eq!(added, PORTS, "the listener missed a change");
    });
}

/// A dispatch that finds the device comes after all that the listener did in `before`.
#[test]
fn a_dispatch_finds_a_device_only_after_it_was_reported() {
    check("listener, add, dispatch", 100, Preemptions(3), || {
        let (devices, scribe) = listened();
        let other = devices.clone();
        let vcpu = thread::spawn(move || {
            if has(&other, PORTS[0]) {
                assert_ne!(scribe.reported.read(), 0, "`before` was not called first");
            }
        });
        add(&devices, PORTS[0]);
        vcpu.join().expect("the vCPU panicked");
    });
}
