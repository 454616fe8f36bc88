//! [`Iter`]: devices that are lent one by one.

use alloc::vec::{self, Vec};
use core::{fmt, iter::FusedIterator, marker::PhantomData};

use busmap::View;

use crate::{
    bus::{BusRange, DeviceBound, Entry},
    lent::Lent,
    sync::Arc,
};

/// The devices of the bus with range type `R`, in the order of their registration. Each is lent
/// when the iterator returns it.
pub(crate) struct Iter<'a, B: DeviceBound, R> {
    entries: vec::IntoIter<Arc<Entry<B>>>,
    lent: &'a Lent<B>,
    of: PhantomData<R>,
}

impl<'a, B: DeviceBound, R: BusRange> Iter<'a, B, R> {
    /// Returns an iterator over the devices of `view`.
    pub(crate) fn new(view: View<'_, B::Handlers>, lent: &'a Lent<B>) -> Self {
        let mut entries: Vec<_> = (view.devices())
            .map(|of| (of.id(), of.device().tag()))
            .filter(|(_, entry)| R::of(&entry.device).is_some())
            .collect();
        entries.sort_unstable_by_key(|(id, _)| *id);
        let entries: Vec<_> = entries
            .into_iter()
            .map(|(_, entry)| entry.clone())
            .collect();
        Self {
            entries: entries.into_iter(),
            lent,
            of: PhantomData,
        }
    }
}

impl<'a, B: DeviceBound, R: BusRange> Iterator for Iter<'a, B, R> {
    type Item = &'a Arc<B::Dev<R>>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        R::of(self.lent.lend(&entry))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }

    /// Lends nothing.
    fn count(self) -> usize {
        self.entries.len()
    }
}

impl<B: DeviceBound, R: BusRange> FusedIterator for Iter<'_, B, R> {}

impl<B: DeviceBound, R> fmt::Debug for Iter<'_, B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use axaddrspace::device::PortRange;
    use busmap::Span;

    use super::*;
    use crate::{registry::AxVmDevices, testing::Echo};

    fn add(devices: &AxVmDevices, first: u64) -> Arc<Echo<PortRange>> {
        let device = Echo::shared(Span::new(first, first + 1).unwrap());
        devices.add_port_dev(device.clone()).unwrap();
        device
    }

    #[test]
    fn lent_devices_live_while_the_registry_is_borrowed() {
        let devices = AxVmDevices::default();
        drop((add(&devices, 8), add(&devices, 0)));
        let ids: Vec<_> = devices.snapshot().port().map(|row| row.0).collect();
        let lent: Vec<_> = devices.iter_port_dev().collect();
        ids.into_iter().for_each(|id| drop(devices.remove(id)));
        add(&devices, 2);
        let starts = lent.iter().map(|device| device.address_range().start.0);
        assert!(starts.eq([8, 0]));
        assert_eq!(devices.iter_port_dev().count(), 1);
    }

    #[test]
    fn counting_devices_lends_none_and_iterating_lends_each_once() {
        let devices = AxVmDevices::default();
        let device = add(&devices, 8);
        let counts = [(); 2].map(|()| {
            assert_eq!(devices.iter_port_dev().count(), 1);
            Arc::strong_count(&device)
        });
        let given = [(); 2].map(|()| {
            assert!(devices.iter_port_dev().next().is_some());
            Arc::strong_count(&device)
        });
        let here = counts[0];
        assert_eq!((counts, given), ([here; 2], [here + 1; 2]));
    }
}
