//! The buses, where the devices lie on them, and the device that does nothing.

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

/// How wide all accesses are.
pub(crate) const WIDTH: AccessWidth = AccessWidth::Dword;

/// A bus, by the type of its ranges.
pub trait Bus: DeviceAddrRange<Addr: Send + Sync> + Copy + Debug + Send + Sync + 'static {
    /// The bus's name.
    const NAME: &'static str;
    /// How far apart two devices are. Each has the first half of that, and nobody the second.
    const STRIDE: usize;
    /// What a read gives where there is no device.
    const FLOATING: usize;

    /// The address `offset` above the first device's.
    fn address(offset: usize) -> Self::Addr;

    /// The `len` addresses from there on.
    fn range(offset: usize, len: usize) -> Self;

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

/// Implements what is the same for all buses but for the names.
macro_rules! calls {
    ($add:ident, $read:ident) => {
        fn add(devices: &SharedVmDevices, device: Nothing<Self>) {
            let added = devices.$add(Arc::new(device));
            added.expect("the devices do not overlap");
        }

        #[inline]
        fn read(devices: &SharedVmDevices, addr: Self::Addr) -> AxResult<usize> {
            devices.$read(addr, WIDTH)
        }

        #[inline]
        fn read_by(
            dispatcher: &mut Dispatcher<&SharedVmDevices>,
            addr: Self::Addr,
        ) -> AxResult<usize> {
            dispatcher.$read(addr, WIDTH)
        }

        fn add_published(devices: &mut Published, device: Nothing<Self>) {
            devices.$add(Arc::new(device));
        }

        #[inline]
        fn read_published(devices: &Published, addr: Self::Addr) -> AxResult<usize> {
            devices.$read(addr, WIDTH)
        }
    };
}

impl Bus for GuestPhysAddrRange {
    const NAME: &'static str = "mmio";
    const STRIDE: usize = 0x2000;
    const FLOATING: usize = 0xffff_ffff;

    fn address(offset: usize) -> GuestPhysAddr {
        GuestPhysAddr::from_usize(0x1000_0000 + offset)
    }

    fn range(offset: usize, len: usize) -> Self {
        Self::from_start_size(Self::address(offset), len)
    }

    calls!(add_mmio_dev, handle_mmio_read);
}

impl Bus for SysRegAddrRange {
    const NAME: &'static str = "sys_reg";
    const STRIDE: usize = 0x10;
    const FLOATING: usize = 0;

    fn address(offset: usize) -> SysRegAddr {
        SysRegAddr(0x30_0000 + offset)
    }

    fn range(offset: usize, len: usize) -> Self {
        Self::new(Self::address(offset), Self::address(offset + len - 1))
    }

    calls!(add_sys_reg_dev, handle_sys_reg_read);
}

impl Bus for PortRange {
    const NAME: &'static str = "port";
    const STRIDE: usize = 0x10;
    const FLOATING: usize = 0xffff_ffff;

    fn address(offset: usize) -> Port {
        Port::new(u16::try_from(0x100 + offset).expect("that many devices have ports"))
    }

    fn range(offset: usize, len: usize) -> Self {
        Self::new(Self::address(offset), Self::address(offset + len - 1))
    }

    calls!(add_port_dev, handle_port_read);
}

/// A device that does nothing: what remains is the cost of getting there. It reads as its number,
/// counted from one, from its own memory, as the least of real devices would.
#[derive(Debug)]
pub struct Nothing<R> {
    range: R,
    reads_as: usize,
}

impl<R: Bus> Nothing<R> {
    /// Device `i`.
    pub fn new(i: usize) -> Self {
        Self {
            range: R::range(i * R::STRIDE, R::STRIDE / 2),
            reads_as: i + 1,
        }
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
