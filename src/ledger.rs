//! [`Ledger`]: the devices that `iter_*` has lent.
//!
//! `iter_*` lends `&Arc<D>` for as long as the registry is borrowed, though the table that it read
//! may be replaced and freed in the meantime. So what was lent is kept here, once for each
//! registration ever lent. Lending takes no lock.

use crate::{
    bus::{BusRange, Family, PerBus},
    device::DeviceBound,
    stack::{Node, Stack},
    sync::{Arc, AtomicBool, Ordering},
};

/// A ledger for every bus.
pub(crate) type Ledgers<B> = PerBus<LedgerOf<B>>;

/// The family of ledgers.
pub(crate) struct LedgerOf<B>(B);

impl<B: DeviceBound> Family for LedgerOf<B> {
    type Of<R: BusRange> = Ledger<B::Dev<R>>;
}

impl<B: DeviceBound> Ledgers<B> {
    pub(crate) fn new() -> Self {
        Self {
            mmio: Ledger::new(),
            sys_reg: Ledger::new(),
            port: Ledger::new(),
        }
    }

    /// Lets go of everything that was lent.
    pub(crate) fn give_back(&mut self) {
        self.mmio.give_back();
        self.sys_reg.give_back();
        self.port.give_back();
    }
}

/// The devices of one bus that were lent since the ledger was made.
///
/// # Invariants
///
/// - *One ledger*: a [`Loan`] is lent by one ledger only, that of the registry and the bus which it
///   was registered with.
/// - *Kept*: of every loan that is marked as lent, a count is on the ledger or in the hands of a
///   thread that is just putting some there. Marks and counts go together, in
///   [`give_back`](Self::give_back), or with the ledger; both have the ledger to themselves.
pub(crate) struct Ledger<D: ?Sized>(Stack<Arc<Loan<D>>>);

/// A device that can be lent, by one ledger: its registry's.
pub(crate) struct Loan<D: ?Sized> {
    device: Arc<D>,
    lent: AtomicBool,
}

impl<D: ?Sized> Loan<D> {
    pub(crate) fn new(device: Arc<D>) -> Arc<Self> {
        Arc::new(Self {
            device,
            lent: AtomicBool::new(false),
        })
    }

    pub(crate) fn device(&self) -> &Arc<D> {
        &self.device
    }
}

impl<D: ?Sized> Ledger<D> {
    pub(crate) fn new() -> Self {
        Self(Stack::new())
    }

    /// Lets go of everything that was lent.
    pub(crate) fn give_back(&mut self) {
        for node in self.0.take() {
            // INVARIANT (Kept): the mark goes, then the count. Whoever lends it next comes after
            // this, as after everything that is done with the ledger alone: `Relaxed`.
            node.value.lent.store(false, Ordering::Relaxed);
        }
    }

    /// Lends a device for as long as the ledger is borrowed.
    ///
    /// The mark is a read-modify-write, so that of many threads one puts the loan on the ledger.
    /// It orders nothing (`Relaxed`): what the reference leads to was read through the table, and
    /// who drops the ledger has it to itself, thus comes after every lender.
    pub(crate) fn lend<'a>(&'a self, loan: &Arc<Loan<D>>) -> &'a Arc<D> {
        if !loan.lent.load(Ordering::Relaxed) {
            let kept = Node::new(loan.clone());
            if !loan.lent.swap(true, Ordering::Relaxed) {
                // INVARIANT: `kept` was in hand before the mark was set, and nothing between the
                // two can fail.
                self.0.push(kept);
            }
        }
        // SAFETY: by *Kept* the loan lives as long as the ledger does, which `'a` is within.
        unsafe { &*Arc::as_ptr(loan) }.device()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn keeps_what_it_lent_and_once_only() {
        let ledger = Ledger::new();
        let loan = Loan::new(Arc::new(7));
        let lent = [ledger.lend(&loan), ledger.lend(&loan)];
        assert_eq!(Arc::strong_count(&loan), 2);
        drop(loan);
        assert_eq!(lent.map(|device| **device), [7, 7]);
    }

    #[test]
    fn gives_everything_back_when_dropped() {
        let ledger = Ledger::new();
        let device = Arc::new(());
        ledger.lend(&Loan::new(device.clone()));
        assert_eq!(Arc::strong_count(&device), 2);
        drop(ledger);
        assert_eq!(Arc::strong_count(&device), 1);
    }

    #[test]
    fn what_was_given_back_can_be_lent_again() {
        let mut ledger = Ledger::new();
        let loan = Loan::new(Arc::new(7));
        ledger.lend(&loan);
        ledger.give_back();
        assert_eq!(Arc::strong_count(&loan), 1);
        let lent = ledger.lend(&loan);
        drop(loan);
        assert_eq!(**lent, 7);
    }

    #[test]
    fn threads_that_lend_the_same_keep_it_once() {
        const LOANS: usize = if cfg!(miri) { 6 } else { 1_000 };
        let ledger = Ledger::new();
        let loans: Vec<_> = (0..LOANS).map(|n| Loan::new(Arc::new(n))).collect();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let lent = loans.iter().map(|loan| **ledger.lend(loan));
                    assert!(lent.eq(0..LOANS));
                });
            }
        });
        assert!(loans.iter().all(|loan| Arc::strong_count(loan) == 2));
    }
}
