//! [`Replaceable`]: the registry of [`busmap`], whose devices `iter_mut_*` can replace.
//!
//! `iter_mut_*` withdraws the devices into a plain list, which the caller edits; the first use afterwards puts them
//! back. Other code reaches the registry through [`as_is`](Replaceable::as_is) if it can detect withdrawn devices, and
//! through [`restored`](Replaceable::restored) if it cannot.

use alloc::vec::Vec;

use axdevice_base::BaseDeviceOps;
use busmap::{BusId, Listener, Registry, Span, Withdrawn};

use crate::{
    bus::{BusRange, Device, DeviceBound, Entry},
    context,
    limited_log::LimitedLog,
    refusal::Refusal,
    sync::Arc,
};

/// See the [module](self).
pub(crate) struct Replaceable<B: DeviceBound> {
    registry: Registry<B::Handlers>,
    /// The devices that `iter_mut_*` has withdrawn last. Edited through `&mut`, and read through `&` when they are put
    /// back.
    places: Vec<Place<B>>,
    refusals: LimitedLog,
}

/// The former registration of a device, and the device that is now in its place.
struct Place<B: DeviceBound> {
    before: Withdrawn<B::Handlers>,
    device: Device<B>,
}

impl<B: DeviceBound> Replaceable<B> {
    pub(crate) fn new(registry: Registry<B::Handlers>) -> Self {
        Self {
            registry,
            places: Vec::new(),
            refusals: LimitedLog::new("devices are put back as they were"),
        }
    }

    pub(crate) fn with_listener(self, listener: Arc<dyn Listener>) -> Self {
        let registry = self.registry;
        Self {
            registry: registry.with_listener_and_context_id(listener, context::identity),
            ..self
        }
    }

    /// The registry. Its devices may be withdrawn.
    #[inline(always)]
    pub(crate) fn as_is(&self) -> &Registry<B::Handlers> {
        &self.registry
    }

    /// The registry, with its devices in it.
    ///
    /// A dispatch may call this, so it frees only memory that it has allocated itself.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`], or [`Refusal::Reentrant`] from inside the listener, which is called for the devices that
    /// are put back; they stay withdrawn.
    pub(crate) fn restored(&self) -> Result<&Registry<B::Handlers>, Refusal> {
        if self.registry.view(|view| view.is_withdrawn()) {
            self.restore()?;
        }
        Ok(&self.registry)
    }

    /// The registry, with its devices in it if they can be put back.
    pub(crate) fn visible(&self) -> &Registry<B::Handlers> {
        self.restored().unwrap_or(&self.registry)
    }

    /// Publishes the devices as they are or, if their ranges conflict or the listener refuses the difference, as they
    /// were.
    fn restore(&self) -> Result<(), Refusal> {
        let now = self.devices(|place| place.now(&self.places));
        let restored = now.and_then(|now| Ok(self.registry.restore(&now)?));
        match restored {
            Err(Refusal::NoMemory | Refusal::Reentrant) | Ok(()) => restored,
            Err(refusal) => {
                self.refusals.error(refusal);
                let before = self.devices(|place| Ok(place.before.clone()))?;
                Ok(self.registry.restore(&before)?)
            }
        }
    }

    fn devices(
        &self,
        of: impl Fn(&Place<B>) -> Result<Withdrawn<B::Handlers>, Refusal>,
    ) -> Result<Vec<Withdrawn<B::Handlers>>, Refusal> {
        let mut devices = Vec::new();
        let reserved = devices.try_reserve_exact(self.places.len());
        reserved.map_err(|_| Refusal::NoMemory)?;
        for place in &self.places {
            devices.push(of(place)?);
        }
        Ok(devices)
    }

    /// The devices of one bus, to be replaced, in the order of their registration. If this call withdraws the devices,
    /// it calls `withdrawing` first.
    pub(crate) fn iter_mut<R: BusRange>(
        &mut self,
        withdrawing: impl FnOnce(),
    ) -> impl Iterator<Item = &mut Arc<B::Dev<R>>> {
        if !self.registry.view(|view| view.is_withdrawn()) {
            withdrawing();
            let withdrawn = self.registry.withdraw().into_iter().map(|before| Place {
                device: before.device().tag().device.clone(),
                before,
            });
            self.places = withdrawn.collect();
            self.registry.reclaim();
        }
        let places = self.places.iter_mut();
        places.filter_map(|place| R::of_mut(&mut place.device))
    }
}

impl<B: DeviceBound> Place<B> {
    /// The entry before the withdrawal.
    fn entry(&self) -> &Entry<B> {
        self.before.device().tag()
    }

    /// The device to be registered here.
    fn now(&self, places: &[Self]) -> Result<Withdrawn<B::Handlers>, Refusal> {
        match &self.device {
            now if now.is(&self.entry().device) => Ok(self.before.clone()),
            Device::Mmio(device) => self.replaced(device, places),
            Device::SysReg(device) => self.replaced(device, places),
            Device::Port(device) => self.replaced(device, places),
        }
    }

    /// The same place with another device. A device from another place keeps its handler; a new device is called
    /// directly.
    fn replaced<R: BusRange>(
        &self,
        device: &Arc<B::Dev<R>>,
        places: &[Self],
    ) -> Result<Withdrawn<B::Handlers>, Refusal> {
        // A device without spans stays without them; its range is not read.
        let spans: Vec<(BusId, Span)> = match self.before.spans() {
            [] => Vec::new(),
            _ => [(R::ID, device.address_range().span()?)].into(),
        };
        let from = places
            .iter()
            .find(|from| self.device.is(&from.entry().device));
        let handler = from.and_then(|from| from.before.device().handler::<R::Bus>().cloned());
        let entry = Entry::new(self.entry().name.clone(), R::device(device.clone()));
        let handler = handler.unwrap_or_else(|| R::handler::<B>(device.clone()));
        let device = busmap::Device::new(entry).on::<R::Bus>(handler);
        Ok(self.before.replaced(device, spans))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

    use axaddrspace::device::{AccessWidth, Port, PortRange};

    use super::*;
    use crate::{
        batch::Batch,
        bus::{Unbound, sealed::Bus},
        mount,
        registry::AxVmDevices,
        testing::Echo,
        unmapped::Unmapped,
    };

    fn echo(first: u64, last: u64) -> Arc<Echo<PortRange>> {
        Echo::shared(Span::new(first, last).unwrap())
    }

    /// Two port devices and one on MMIO.
    fn devices() -> AxVmDevices {
        let devices = AxVmDevices::default().with_unmapped(Unmapped::Error);
        devices.add_port_dev(echo(8, 9)).unwrap();
        devices.add_port_dev(echo(0, 1)).unwrap();
        devices
            .add_mmio_dev(Echo::shared(Span::new(0, 1).unwrap()))
            .unwrap();
        devices
    }

    fn answers(devices: &AxVmDevices, port: u16) -> bool {
        devices
            .handle_port_read(Port(port), AccessWidth::Byte)
            .is_ok()
    }

    #[test]
    fn a_replaced_device_takes_effect_at_the_first_use() {
        let mut devices = devices();
        let before: Vec<_> = devices.snapshot().port().map(|row| row.0).collect();
        *devices.iter_mut_port_dev().next().unwrap() = echo(0x20, 0x21);
        assert!(answers(&devices, 0x20) && answers(&devices, 0));
        assert!(!answers(&devices, 8));
        let mut after: Vec<_> = devices.snapshot().port().map(|row| row.0).collect();
        after.sort_unstable_by_key(|id| core::cmp::Reverse(*id));
        assert_eq!(before, after, "a place keeps its id");
        assert_eq!(
            devices.iter_mmio_dev().count(),
            1,
            "the other buses are back too"
        );
    }

    #[test]
    fn several_buses_can_be_changed_before_the_first_use() {
        let mut devices = devices();
        for device in devices.iter_mut_port_dev() {
            let range = device.address_range();
            let (first, last) = (range.start.0 + 0x40, range.end.0 + 0x40);
            *device = echo(first.into(), last.into());
        }
        let moved = Span::new(0x1000, 0x1fff).unwrap();
        *devices.iter_mut_mmio_dev().next().unwrap() = Echo::shared(moved);
        assert_eq!(devices.iter_mut_sys_reg_dev().count(), 0);
        assert!(answers(&devices, 0x48) && answers(&devices, 0x40));
        assert!(devices.find_mmio_dev(0x1000.into()).is_some());
    }

    #[test]
    fn ranges_that_do_not_fit_together_are_all_put_back() {
        let mut devices = devices();
        for device in devices.iter_mut_port_dev() {
            *device = echo(4, 5);
        }
        assert!(devices.find_port_dev(Port(4)).is_none());
        assert!(answers(&devices, 8) && answers(&devices, 0));
        *devices.iter_mut_port_dev().next().unwrap() = echo(4, 5);
        assert!(answers(&devices, 4), "and can be changed again");
    }

    #[test]
    fn a_change_after_iter_mut_loses_nothing() {
        let mut devices = devices();
        devices.iter_mut_port_dev().for_each(drop);
        let refused = devices.add_port_dev(echo(9, 10)).unwrap_err();
        assert!(matches!(refused.refusal(), Refusal::Overlap { .. }));
        devices.add_port_dev(echo(2, 3)).unwrap();
        assert_eq!(devices.iter_port_dev().count(), 3);
    }

    #[test]
    fn iter_mut_drops_lent_devices() {
        let mut devices = devices();
        let device = echo(0x30, 0x31);
        devices.add_port_dev(device.clone()).unwrap();
        assert_eq!(devices.iter_port_dev().count(), 3);
        // The last item of `iter_mut` is replaced; the first use, `iter_port_dev`, publishes it.
        *devices.iter_mut_port_dev().last().unwrap() = echo(0x40, 0x41);
        assert_eq!(devices.iter_port_dev().count(), 3);
        // Once more, so that nothing remembers the first device.
        devices.iter_mut_port_dev().for_each(drop);
        assert_eq!(Arc::strong_count(&device), 1);
    }

    #[test]
    fn a_device_keeps_its_lock_wherever_it_moves() {
        let mut devices = devices();
        let mut batch = Batch::<Unbound>::new(devices.core().batch(), None);
        for first in [0x20, 0x30] {
            let echo = Echo::new(PortRange::new(Port(first), Port(first + 1)));
            batch
                .mount::<PortRange>(mount::serialized::<Unbound, _, _, _>(echo, ()))
                .unwrap();
        }
        batch.publish().unwrap();
        let gated = |devices: &AxVmDevices| {
            let mut gated = 0;
            devices.devices.visible().for_each::<busmap::Port>(|hit| {
                let bare = <PortRange as Bus>::of(&hit.tag().device).unwrap();
                let handler = hit.owner().device().handler::<busmap::Port>().unwrap();
                gated += usize::from(!Arc::ptr_eq(bare, handler));
            });
            gated
        };
        assert_eq!(gated(&devices), 2);
        let mut items: Vec<_> = devices.iter_mut_port_dev().collect();
        items.reverse();
        let (last, rest) = items.split_first_mut().unwrap();
        core::mem::swap(*last, rest[0]);
        assert_eq!(gated(&devices), 2);
    }

    #[test]
    fn a_device_that_stays_is_not_asked_for_its_range() {
        let mut devices = devices();
        let fickle = Arc::new(Fickle::default());
        devices.add_port_dev(fickle.clone()).unwrap();
        devices.iter_mut_mmio_dev().for_each(drop);
        assert!(devices.find_port_dev(Port(0x50)).is_some());
        assert_eq!(fickle.0.load(Relaxed), 1);
    }

    /// A device that returns a different range at each call.
    #[derive(Default)]
    struct Fickle(AtomicU16);

    impl BaseDeviceOps<PortRange> for Fickle {
        fn emu_type(&self) -> axvmconfig::EmulatedDeviceType {
            axvmconfig::EmulatedDeviceType::Dummy
        }

        fn address_range(&self) -> PortRange {
            let port = Port(0x50 + self.0.fetch_add(1, Relaxed));
            PortRange::new(port, port)
        }

        fn handle_read(&self, _: Port, _: AccessWidth) -> ax_errno::AxResult<usize> {
            Ok(0)
        }

        fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> ax_errno::AxResult {
            Ok(())
        }
    }
}
