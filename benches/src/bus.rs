//! The buses, and the device that does nothing.

use std::{fmt::Debug, sync::Arc};

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{AccessWidth, DeviceAddrRange, Port, PortRange, SysRegAddr, SysRegAddrRange},
};
use axdevice::{Dispatcher, SharedVmDevices};
use axdevice_0_4_10::AxVmDevices as Published;
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use busmap::Span;

use crate::layout::{Layout, mmio, port, sys_reg};

/// A bus, by the type of its ranges.
pub trait Bus: DeviceAddrRange<Addr: Send + Sync> + Copy + Debug + Send + Sync + 'static {
    /// The bus's name.
    const NAME: &'static str;
    /// The width of all accesses.
    const WIDTH: AccessWidth;
    /// The number of addresses of an access.
    const ACCESS: u64;
    /// The highest address that is accessed.
    const LAST: u64;
    /// The value of a read where there is no device.
    const FLOATING: usize;
    /// The number of different values that devices return.
    const VALUES: usize;

    /// The layouts on this bus. `seed` is the seed of the random ones.
    fn layouts(seed: u64) -> Vec<Layout>;

    /// The layout of the measurements that do not compare layouts. The address of a device in it does not depend on
    /// the number of devices.
    fn plain() -> Layout {
        Self::layouts(0)[0]
    }

    /// An address by its number.
    ///
    /// # Panics
    ///
    /// If the bus has no such address.
    fn address(at: u64) -> Self::Addr;

    /// The addresses of a span.
    ///
    /// # Panics
    ///
    /// If the bus does not have them.
    fn range(span: Span) -> Self;

    /// The value that the device with this number returns.
    fn value(device: usize) -> usize {
        1 + device % Self::VALUES
    }

    /// Adds a device to this bus.
    fn add(devices: &SharedVmDevices, device: Nothing<Self>);

    /// Reads from this bus.
    fn read(devices: &SharedVmDevices, addr: Self::Addr) -> AxResult<usize>;

    /// Reads from this bus through a vCPU's own handle.
    fn read_by(dispatcher: &mut Dispatcher<&SharedVmDevices>, addr: Self::Addr) -> AxResult<usize>;

    /// Adds a device to this bus of the published 0.4.10.
    fn add_published(devices: &mut Published, device: Nothing<Self>);

    /// Reads from this bus of the published 0.4.10.
    fn read_published(devices: &Published, addr: Self::Addr) -> AxResult<usize>;
}

/// Implements the methods that differ between buses only in the names of the functions that they call.
macro_rules! calls {
    ($add:ident, $read:ident) => {
        fn add(devices: &SharedVmDevices, device: Nothing<Self>) {
            let added = devices.$add(Arc::new(device));
            added.expect("the devices do not overlap");
        }

        #[inline]
        fn read(devices: &SharedVmDevices, addr: Self::Addr) -> AxResult<usize> {
            devices.$read(addr, Self::WIDTH)
        }

        #[inline]
        fn read_by(
            dispatcher: &mut Dispatcher<&SharedVmDevices>,
            addr: Self::Addr,
        ) -> AxResult<usize> {
            dispatcher.$read(addr, Self::WIDTH)
        }

        fn add_published(devices: &mut Published, device: Nothing<Self>) {
            devices.$add(Arc::new(device));
        }

        #[inline]
        fn read_published(devices: &Published, addr: Self::Addr) -> AxResult<usize> {
            devices.$read(addr, Self::WIDTH)
        }
    };
}

impl Bus for GuestPhysAddrRange {
    const NAME: &'static str = "mmio";
    const WIDTH: AccessWidth = AccessWidth::Dword;
    const ACCESS: u64 = 4;
    const LAST: u64 = (1 << 47) - 1;
    const FLOATING: usize = 0xffff_ffff;
    const VALUES: usize = 1 << 16;

    fn layouts(seed: u64) -> Vec<Layout> {
        mmio::layouts(seed)
    }

    fn address(at: u64) -> GuestPhysAddr {
        GuestPhysAddr::from_usize(at as usize)
    }

    fn range(span: Span) -> Self {
        Self::new(Self::address(span.first()), Self::address(span.last() + 1))
    }

    calls!(add_mmio_dev, handle_mmio_read);
}

impl Bus for SysRegAddrRange {
    const NAME: &'static str = "sys_reg";
    const WIDTH: AccessWidth = AccessWidth::Dword;
    const ACCESS: u64 = 1;
    const LAST: u64 = 0x3f_ffff;
    const FLOATING: usize = 0;
    const VALUES: usize = 1 << 16;

    fn layouts(seed: u64) -> Vec<Layout> {
        sys_reg::layouts(seed)
    }

    fn address(at: u64) -> SysRegAddr {
        SysRegAddr(at as usize)
    }

    fn range(span: Span) -> Self {
        Self::new(Self::address(span.first()), Self::address(span.last()))
    }

    calls!(add_sys_reg_dev, handle_sys_reg_read);
}

impl Bus for PortRange {
    const NAME: &'static str = "port";
    const WIDTH: AccessWidth = AccessWidth::Byte;
    const ACCESS: u64 = 1;
    const LAST: u64 = 0xffff;
    const FLOATING: usize = 0xff;
    const VALUES: usize = 0xfe;

    fn layouts(seed: u64) -> Vec<Layout> {
        port::layouts(seed)
    }

    fn address(at: u64) -> Port {
        Port::new(u16::try_from(at).expect("there is such a port"))
    }

    fn range(span: Span) -> Self {
        Self::new(Self::address(span.first()), Self::address(span.last()))
    }

    calls!(add_port_dev, handle_port_read);
}

/// A device that does nothing, so an access costs little more than the dispatch. A read returns the
/// device's [value](Bus::value) from its own memory, as even the simplest real device does.
#[derive(Debug)]
pub struct Nothing<R> {
    range: R,
    reads_as: usize,
}

impl<R: Bus> Nothing<R> {
    /// Device `i`, which owns the addresses of a span.
    pub fn new(i: usize, span: Span) -> Self {
        Self {
            range: R::range(span),
            reads_as: R::value(i),
        }
    }

    /// The devices that own these spans.
    pub fn all(spans: &[Span]) -> impl Iterator<Item = Self> {
        spans
            .iter()
            .enumerate()
            .map(|(i, &span)| Self::new(i, span))
    }
}

impl<R: Bus> BaseDeviceOps<R> for Nothing<R> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        self.range
    }

    fn handle_read(&self, _: R::Addr, _: AccessWidth) -> AxResult<usize> {
        Ok(self.reads_as)
    }

    fn handle_write(&self, _: R::Addr, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{SEED, seed};

    /// Checks that the devices are on the bus and do not overlap, and that an access fits into each.
    fn check<R: Bus>(layout: &Layout, n: usize) {
        let mut spans = layout.spans(n);
        assert_eq!(spans, layout.spans(n), "{layout:?}");
        assert_eq!(spans.len(), n, "{layout:?}");
        spans.sort_by_key(|span| span.first());
        let apart = |pair: &[Span]| pair[0].last() < pair[1].first();
        assert!(spans.windows(2).all(apart), "{layout:?} of {n}");
        let fits = |span: &Span| span.last() - span.first() >= R::ACCESS - 1;
        assert!(spans.iter().all(fits), "{layout:?} of {n}");
        assert!(spans[0].first() > 0 && spans[n - 1].last() < R::LAST);
    }

    fn check_all<R: Bus>() {
        let seed = seed();
        println!("{}: {SEED}={seed}", R::NAME);
        for layout in R::layouts(seed) {
            for n in [1, 8, 64, 1024, 4096] {
                check::<R>(&layout, n);
            }
        }
        let plain = R::plain();
        assert_eq!(plain.spans(64)[..8], plain.spans(8));
    }

    #[test]
    fn each_layout_places_as_many_as_are_asked_for_and_none_twice() {
        check_all::<GuestPhysAddrRange>();
        check_all::<SysRegAddrRange>();
        check_all::<PortRange>();
    }

    #[test]
    fn random_ranges_are_those_of_their_seed() {
        let spans = |seed| {
            let layouts = GuestPhysAddrRange::layouts(seed).into_iter();
            let random = layouts.filter(|layout| layout.name == "random ranges");
            random.map(|layout| layout.spans(8)).collect::<Vec<_>>()
        };
        assert_eq!(spans(1).len(), 1);
        assert_eq!(spans(1), spans(1));
        assert_ne!(spans(1), spans(2));
    }
}
