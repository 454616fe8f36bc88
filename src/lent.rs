//! [`Lent`]: the devices that `iter_*` has lent.
//!
//! `iter_*` lends `&Arc<D>` for as long as the registry is borrowed, even if the device is removed earlier. So lent
//! devices are kept here, usually once for each registration that was ever lent. Lending takes no lock.

use core::fmt;

use crate::{
    bus::{Device, DeviceBound, Entry},
    sync::Ordering,
};

/// The devices that were lent since the list was made.
pub(crate) struct Lent<B: DeviceBound>(boxcar::Vec<Device<B>>);

impl<B: DeviceBound> Lent<B> {
    pub(crate) fn new() -> Self {
        Self(boxcar::Vec::new())
    }

    /// Lends the device of an entry for as long as the list is borrowed.
    ///
    /// The position of the device on the list is a hint (`Relaxed`). A thread appends the device again if it does not
    /// see the hint, does not yet see the entry there, or finds another device there because the hint belongs to an
    /// older list.
    pub(crate) fn lend(&self, entry: &Entry<B>) -> &Device<B> {
        if let Some(lent) = self.0.get(entry.lent_at.load(Ordering::Relaxed))
            && lent.is(&entry.device)
        {
            return lent;
        }
        let index = self.0.push(entry.device.clone());
        entry.lent_at.store(index, Ordering::Relaxed);
        &self.0[index]
    }
}

impl<B: DeviceBound> fmt::Debug for Lent<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent")
            .field("count", &self.0.count())
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use axaddrspace::device::PortRange;
    use busmap::Span;

    use super::*;
    use crate::{
        bus::{ThreadSafe, sealed::Bus},
        sync::Arc,
        testing::Echo,
    };

    fn entry(at: u64) -> Arc<Entry<ThreadSafe>> {
        let device = Echo::<PortRange>::shared(Span::new(at, at).unwrap());
        Entry::new(None, PortRange::device::<ThreadSafe>(device))
    }

    #[test]
    fn an_entry_of_an_older_list_is_lent_anew() {
        let (one, other) = (entry(1), entry(2));
        let older = Lent::new();
        assert!(older.lend(&one).is(&one.device));
        let list = Lent::new();
        assert!(list.lend(&other).is(&other.device));
        // On this list, its position on the older list holds the other device.
        assert!(list.lend(&one).is(&one.device));
        assert_eq!(list.0.count(), 2);
    }

    #[test]
    fn a_list_keeps_a_lent_device_once_until_it_is_dropped() {
        let device = Echo::<PortRange>::shared(Span::new(1, 1).unwrap());
        let entry = Entry::new(None, PortRange::device::<ThreadSafe>(device.clone()));
        let list = Lent::new();
        assert!(core::ptr::eq(list.lend(&entry), list.lend(&entry)));
        drop(entry);
        assert_eq!(Arc::strong_count(&device), 2);
        drop(list);
        assert_eq!(Arc::strong_count(&device), 1);
    }

    #[test]
    fn threads_that_lend_the_same_get_the_same_device() {
        const ENTRIES: u64 = support::size(1_000, 4) as u64;
        let list = Lent::new();
        let entries: Vec<_> = (0..ENTRIES).map(entry).collect();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let is_lent = |entry: &Arc<Entry<_>>| list.lend(entry).is(&entry.device);
                    assert!(entries.iter().all(is_lent));
                });
            }
        });
        assert!((entries.len()..=3 * entries.len()).contains(&list.0.count()));
    }
}
