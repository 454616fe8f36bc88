//! [`SlotCell`]: a snapshot that loads protect by slots.

use core::{fmt, marker::PhantomData, ops::Deref};

use super::{counted::Counted, retire::SlotRetireList, slot::Slot};
use crate::sync::{
    Arc, AtomicPtr, Ordering, mutant, ordering, reader_fence, reader_seq_cst, step, step_unless,
};

/// The number of guards above which loads use the slower path: small where every step is slow.
pub(crate) const SLOTS: usize = match () {
    () if cfg!(loom) => 2,
    () if cfg!(miri) => 8,
    () => 64,
};

/// A published snapshot behind a counted pointer `P`. See the [module](super).
pub(crate) struct SlotCell<P: Counted, const N: usize = SLOTS> {
    current: AtomicPtr<P::Target>,
    /// The replaced snapshots, and the slots, which a sweep inspects even after the cell is dropped.
    retired: Arc<SlotRetireList<P, N>>,
    /// The cell owns references, and shares their snapshots between threads.
    owns: PhantomData<P>,
}

impl<P: Counted, const N: usize> SlotCell<P, N> {
    pub(crate) fn new(snapshot: P) -> Self {
        Self {
            current: AtomicPtr::new(snapshot.into_raw()),
            retired: Arc::new(SlotRetireList::new()),
            owns: PhantomData,
        }
    }

    /// The current snapshot, protected until the guard is dropped.
    #[inline]
    pub(crate) fn load(&self) -> SlotGuard<'_, P> {
        let slot = self.retired.slots.get(start(N));
        match slot.and_then(|slot| self.load_with(slot)) {
            Some(guard) => guard,
            None => self.load_otherwise(),
        }
    }

    /// Loads with this slot, if it is free and the snapshot is not replaced before the slot notes it.
    #[inline]
    fn load_with<'c>(&self, slot: &'c Slot<P::Target>) -> Option<SlotGuard<'c, P>> {
        step();
        // Only a guess, which the second look confirms: hence `Relaxed`.
        let guess = self.current.load(Ordering::Relaxed);
        step();
        if !slot.claim(guess) {
            return None;
        }
        step();
        // Together with the claim and the second look, pairs with the fence of a sweep: see the module.
        step_unless!("load-fence", reader_fence());
        step();
        // Acquires what the publication released: the snapshot's content.
        let now = self.current.load(reader_seq_cst(
            ordering!(Acquire, "load-confirm" => Relaxed),
        ));
        step();
        if now != guess && !mutant("load-unconfirmed") {
            slot.clear();
            step();
            return None;
        }
        // INVARIANT (Protected): `now` was current after it was noted.
        Some(SlotGuard {
            ptr: now,
            slot: Some(slot),
            of: PhantomData,
        })
    }

    /// Tries each free slot except the first once, and otherwise loads without a slot.
    #[cold]
    fn load_otherwise(&self) -> SlotGuard<'_, P> {
        let (before, from) = self.retired.slots.split_at(start(N));
        (from.iter().skip(1).chain(before))
            .filter(|slot| slot.is_free())
            .find_map(|slot| self.load_with(slot))
            .unwrap_or_else(|| self.load_counted())
    }

    /// Loads without a slot, counting a reference.
    fn load_counted(&self) -> SlotGuard<'_, P> {
        let pass = self.retired.gate.enter();
        step();
        // Acquires the snapshot's content.
        let ptr = self
            .current
            .load(ordering!(Acquire, "load-counted" => Relaxed));
        step();
        // SAFETY: `ptr` is from `into_raw` by *One truth*. It is not freed yet: it was current when it was read inside
        // the gate, and by *Gated* it is freed only after the pass is dropped.
        unsafe { P::count(ptr) };
        step();
        drop(pass);
        SlotGuard {
            ptr,
            slot: None,
            of: PhantomData,
        }
    }

    /// The current snapshot, with a reference that the caller owns.
    pub(crate) fn load_full(&self) -> P {
        let guard = self.load();
        let ptr = guard.ptr;
        let _guard = (!mutant("hold-late")).then_some(guard);
        // SAFETY: by *Protected* the snapshot is not freed while the guard exists, and so the cell or
        // its retire list holds a reference.
        unsafe { P::count(ptr) };
        // SAFETY: the reference was counted just now.
        unsafe { P::from_raw(ptr) }
    }

    /// Publishes `next` if `expected` is still current; returns whether it was.
    pub(crate) fn publish(&self, expected: &SlotGuard<'_, P>, next: P) -> bool {
        let next = next.into_raw();
        // While the guard exists, no other snapshot has its address: equal pointers mean the same snapshot.
        // Releases the content of `next`. The content of the old one was acquired with the guard; on failure nothing
        // is read.
        let exchanged = (self.current).compare_exchange(
            expected.ptr,
            next,
            ordering!(Release, "publish-release" => Relaxed),
            Ordering::Relaxed,
        );
        match exchanged {
            // SAFETY: the cell's reference to `old` has become ours (*Counted*).
            Ok(old) => self.retired.push(unsafe { P::from_raw(old) }),
            // SAFETY: `next` was not published, so its reference is still ours.
            Err(_) => drop(unsafe { P::from_raw(next) }),
        }
        exchanged.is_ok()
    }

    /// Publishes `next`, regardless of the current snapshot.
    pub(crate) fn replace(&self, next: P) {
        // Releases the content of `next`, and acquires that of the old one, to drop it.
        let order = ordering!(
            AcqRel, "replace-release" => Acquire, "replace-acquire" => Release
        );
        let old = self.current.swap(next.into_raw(), order);
        // SAFETY: the cell's reference to `old` has become ours (*Counted*).
        self.retired.push(unsafe { P::from_raw(old) });
    }

    /// The replaced snapshots.
    pub(crate) fn retired(&self) -> &Arc<SlotRetireList<P, N>> {
        &self.retired
    }
}

impl<P: Counted, const N: usize> Drop for SlotCell<P, N> {
    fn drop(&mut self) {
        // `Relaxed`: all uses of the cell happen before its drop.
        let current = self.current.load(Ordering::Relaxed);
        // SAFETY: by *Counted* the cell owns the reference, and gives it up here.
        drop(unsafe { P::from_raw(current) });
    }
}

impl<P: Counted, const N: usize> fmt::Debug for SlotCell<P, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotCell").finish_non_exhaustive()
    }
}

/// Protects a snapshot from being freed.
pub(crate) struct SlotGuard<'c, P: Counted> {
    ptr: *mut P::Target,
    /// The slot that protects it; without one the guard owns a reference.
    slot: Option<&'c Slot<P::Target>>,
    of: PhantomData<&'c P>,
}

// SAFETY: a guard is a shared or a counted reference to the snapshot, and any thread may clear its slot. Both kinds of
// reference may be sent if `P` may be sent and shared.
unsafe impl<P: Counted + Send + Sync> Send for SlotGuard<'_, P> {}

impl<P: Counted> Deref for SlotGuard<'_, P> {
    type Target = P::Target;

    #[inline]
    fn deref(&self) -> &P::Target {
        // SAFETY: by *Protected* the snapshot is not freed while the guard exists.
        unsafe { &*self.ptr }
    }
}

impl<P: Counted> Drop for SlotGuard<'_, P> {
    #[inline]
    fn drop(&mut self) {
        match self.slot {
            Some(slot) => slot.clear(),
            // SAFETY: by *Protected* the guard has a reference. It is not the last: by *Counted* the
            // cell has one, or its retire list, and the cell is borrowed.
            None => unsafe { P::give_up(self.ptr) },
        }
    }
}

/// The index of the slot to try first: vCPUs that run on different stacks start at different slots.
///
/// Only a hint that spreads the accesses: any slot is correct.
#[inline]
fn start(slots: usize) -> usize {
    if cfg!(loom) {
        return 0;
    }
    let local = 0_u8;
    spread((&raw const local).addr() >> STACK_SHIFT, slots)
}

/// Spreads numbers over `0..places`; numbers at equal distances are spread evenly.
///
/// Fibonacci hashing. Only the *top* bits of the product do so: the middle bits give threads' stacks, which are 2 MiB
/// apart, places that are 63 or 64 apart.
#[inline]
const fn spread(number: usize, places: usize) -> usize {
    let hash = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (hash as usize * places) >> 32
}

/// Stacks are at least this far apart, in powers of two of bytes.
const STACK_SHIFT: u32 = 14;

/// A load and the drop of a guard under names that `.ci/objects.sh` finds in the object file.
#[cfg(object_code)]
mod object_code {
    use super::{super::counted::CountedBox, SlotCell, SlotGuard};

    type Cell = SlotCell<CountedBox<usize>>;

    /// As vCPUs load.
    #[unsafe(no_mangle)]
    fn busmap_load(cell: &Cell) -> SlotGuard<'_, CountedBox<usize>> {
        cell.load()
    }

    /// As vCPUs drop their guards.
    #[unsafe(no_mangle)]
    fn busmap_drop(guard: SlotGuard<'_, CountedBox<usize>>) {
        drop(guard);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Stacks of threads, with a guard page each, and of vCPUs on bare metal.
    #[test]
    fn neighbouring_stacks_begin_at_different_slots() {
        for size in [0x4000, 0x1_0000, 0x4_0000, 0x20_1000, 0x80_1000] {
            let slots = |stack: usize| spread((0x7f00_0000_0000 + stack * size) >> STACK_SHIFT, 64);
            // Miri tries a few only.
            for first in (0..1_000).step_by(if cfg!(miri) { 500 } else { 1 }) {
                let vcpus = (first..first + 16).map(slots);
                let different: BTreeSet<_> = vcpus.collect();
                assert!(different.len() >= 8, "{size:#x}, {first}: {different:?}");
                assert_ne!(slots(first), slots(first + 1), "{size:#x}, {first}");
            }
        }
    }
}
