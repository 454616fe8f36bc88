//! The devices that a test makes: accesses to them that come too late, and the threads that drop them.

use std::{
    any::Any,
    cell::Cell,
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread,
};

use ax_errno::AxResult;
use axaddrspace::{GuestPhysAddrRange, device::AccessWidth};
use axdevice::{Dispatcher, Removed, SharedVmDevices, ThreadSafe};
use axdevice_base::BaseDeviceOps;
use support::{Access, Device, size};

/// The width of every access: a generation fits in it.
const WIDTH: AccessWidth = AccessWidth::Qword;

thread_local! {
    /// Whether this thread never changes the registry, and so must never drop a device.
    static READS_ONLY: Cell<bool> = const { Cell::new(false) };
}

/// This thread must drop no device from now on.
pub(crate) fn only_reads() {
    READS_ONLY.set(true);
}

/// A poisoned device.
type Body = Arc<dyn BaseDeviceOps<GuestPhysAddrRange> + Send + Sync>;

/// Counts devices, and errors with them.
#[derive(Default)]
pub(crate) struct Census {
    born: AtomicU64,
    dead: AtomicU64,
    /// Accesses that saw poison.
    late: AtomicUsize,
    /// Devices that were dropped by a thread that only reads.
    misplaced: AtomicUsize,
    /// The number of removals that were left.
    left: AtomicUsize,
    /// Removed devices that may not be quiescent yet.
    leaving: Mutex<Vec<Removed<ThreadSafe>>>,
    /// Poisoned devices, which stay for a while, to detect late accesses.
    morgue: Mutex<VecDeque<Body>>,
}

/// The number of poisoned devices that stay.
const MORGUE: usize = 64;

impl Census {
    pub(crate) fn late(&self) -> usize {
        self.late.load(Acquire)
    }

    pub(crate) fn misplaced(&self) -> usize {
        self.misplaced.load(Acquire)
    }

    /// The number of devices that were made and not dropped.
    pub(crate) fn alive(&self) -> u64 {
        self.born.load(Acquire) - self.dead.load(Acquire)
    }

    /// Leaves a removed device to [`bury_left`](Self::bury_left): for a thread that cannot wait. Every third device is
    /// not kept, so it is dropped with the last table that lists it.
    pub(crate) fn leave(&self, removed: Removed<ThreadSafe>) {
        if !self.left.fetch_add(1, Relaxed).is_multiple_of(3) {
            self.leaving.lock().unwrap().push(removed);
        }
    }

    /// Poisons the devices that were left and are quiescent by now; returns how many are not.
    pub(crate) fn bury_left(&self) -> usize {
        // Not under the lock: a sweep drops devices.
        let mut leaving = mem::take(&mut *self.leaving.lock().unwrap());
        let quiescent = leaving.extract_if(.., |removed| removed.is_quiescent());
        for removed in quiescent {
            self.poison(removed.wait(0).expect("it remains quiescent"));
        }
        let mut left = self.leaving.lock().unwrap();
        left.append(&mut leaving);
        left.len()
    }

    fn poison(&self, device: axdevice::Device<ThreadSafe>) {
        let body = poisoned(device);
        let mut morgue = self.morgue.lock().unwrap();
        morgue.push_back(body);
        let oldest = (morgue.len() > MORGUE).then(|| morgue.pop_front());
        drop(morgue);
        drop(oldest);
    }

    /// Asserts that all went well, now that the registry is gone.
    pub(crate) fn close(&self) {
        assert_eq!(self.bury_left(), 0, "no vCPU can be inside a device");
        self.morgue.lock().unwrap().clear();
        assert_eq!(self.late(), 0, "accesses to devices that were quiescent");
        assert_eq!(self.misplaced(), 0, "devices dropped by readers");
        assert_eq!(self.alive(), 0, "devices never dropped");
        assert!(self.born.load(Acquire) > 0, "nothing was tested");
    }
}

/// The marks of a living device.
const ALIVE: u64 = 0xa11e_a11e_a11e_a11e;
const POISON: u64 = 0xdead_dead_dead_dead;

/// A device's own action in an access, with the address and the value of a write.
type Act = dyn Fn(usize, Option<usize>) + Send + Sync;

/// A device whose state is a [`Victim`].
pub(crate) type Doomed =
    Device<Victim, fn(&Victim) -> GuestPhysAddrRange, fn(&Victim, Access) -> AxResult<usize>>;

/// The state of a device: it counts the accesses to the device after it was poisoned.
pub(crate) struct Victim {
    first: usize,
    length: usize,
    /// The value of a read.
    generation: usize,
    mark: AtomicU64,
    /// The same without atomics: tools then report a race if an access is not ordered before the poison.
    plain: u64,
    census: Arc<Census>,
    act: Box<Act>,
}

impl Victim {
    /// A device that a vCPU enters and leaves after a while, with no other action.
    pub(crate) fn idle(
        first: usize,
        length: usize,
        generation: usize,
        census: &Arc<Census>,
    ) -> Arc<Doomed> {
        Self::new(first, length, generation, census, |at, _| {
            // Some stay longer.
            if at % 4 == 3 {
                thread::yield_now();
            }
        })
    }

    pub(crate) fn new(
        first: usize,
        length: usize,
        generation: usize,
        census: &Arc<Census>,
        act: impl Fn(usize, Option<usize>) + Send + Sync + 'static,
    ) -> Arc<Doomed> {
        census.born.fetch_add(1, Relaxed);
        let victim = Self {
            first,
            length,
            generation,
            mark: ALIVE.into(),
            plain: ALIVE,
            census: census.clone(),
            act: Box::new(act),
        };
        Arc::new(Doomed::new(victim, Self::range, Self::access))
    }

    fn look(&self) {
        if self.mark.load(Acquire) != ALIVE || self.plain != ALIVE {
            self.census.late.fetch_add(1, Relaxed);
        }
    }

    fn access(&self, Access { at, written, .. }: Access) -> AxResult<usize> {
        self.look();
        (self.act)(at, written);
        self.look();
        Ok(self.generation)
    }

    fn range(&self) -> GuestPhysAddrRange {
        range(self.first, self.length)
    }

    /// Poisons the device although others may be inside it.
    pub(crate) fn poison_early(&self) {
        self.mark.store(POISON, Release);
    }
}

/// Poisons a device that is quiescent, and returns it.
fn poisoned(device: axdevice::Device<ThreadSafe>) -> Body {
    let axdevice::Device::Mmio(mut device) = device else {
        panic!("all victims are on one bus");
    };
    let alone: &mut dyn Any = Arc::get_mut(&mut device).expect("no vCPU has it");
    let victim = alone
        .downcast_mut::<Doomed>()
        .expect("a victim")
        .state_mut();
    victim.plain = POISON;
    victim.mark = POISON.into();
    device
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.census.dead.fetch_add(1, Release);
        let misplaced = usize::from(READS_ONLY.get());
        self.census.misplaced.fetch_add(misplaced, Release);
    }
}

/// The `length` addresses from `first` on.
pub(crate) fn range(first: usize, length: usize) -> GuestPhysAddrRange {
    GuestPhysAddrRange::from_start_size(first.into(), length)
}

/// The kinds of vCPU, by the object that each dispatches through.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each thread, and it stays where it is"
)]
pub(crate) enum Vcpu<'r> {
    /// The registry itself.
    Registry(&'r SharedVmDevices),
    /// A handle of its own.
    Handle(Dispatcher<&'r SharedVmDevices>),
}

impl<'r> Vcpu<'r> {
    /// The `nth` vCPU: the two kinds alternate.
    pub(crate) fn new(devices: &'r SharedVmDevices, nth: usize) -> Self {
        match nth % 2 {
            0 => Self::Registry(devices),
            _ => Self::Handle(devices.dispatcher()),
        }
    }

    pub(crate) fn read(&mut self, at: usize) -> AxResult<usize> {
        match self {
            Self::Registry(devices) => devices.handle_mmio_read(at.into(), WIDTH),
            Self::Handle(vcpu) => vcpu.handle_mmio_read(at.into(), WIDTH),
        }
    }

    pub(crate) fn write(&mut self, at: usize, value: usize) -> AxResult {
        match self {
            Self::Registry(devices) => devices.handle_mmio_write(at.into(), WIDTH, value),
            Self::Handle(vcpu) => vcpu.handle_mmio_write(at.into(), WIDTH, value),
        }
    }

    /// Parks the handle, as after a run in the guest.
    pub(crate) fn park(&mut self) {
        if let Self::Handle(vcpu) = self {
            vcpu.park();
        }
    }
}

/// The number of vCPUs, half of each kind.
pub(crate) const VCPUS: usize = size(4, 2);
