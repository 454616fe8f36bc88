//! The three buses under one trait: a test is written once for all of them.

use std::{
    ops::{Deref, Range},
    sync::Arc,
};

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange, SysRegAddr, SysRegAddrRange},
};
use axdevice::{
    AddError, Batch, BusAddr, BusCounters, BusId, BusRange, Device, DeviceBound, DeviceId,
    Dispatcher, DispatcherCounters, Refusal, Snapshot, VmDevices,
};

/// All widths of an access.
pub const WIDTHS: [AccessWidth; 4] = [
    AccessWidth::Byte,
    AccessWidth::Word,
    AccessWidth::Dword,
    AccessWidth::Qword,
];

/// The result of `add_*`.
pub type Added<B, R> = Result<DeviceId, AddError<<B as DeviceBound>::Dev<R>>>;

/// A device of a snapshot: id, range, device.
pub type Listed<B, R> = (DeviceId, R, Arc<<B as DeviceBound>::Dev<R>>);

/// A bus, named by its range type: its constants, and the registry's methods for it.
pub trait Bus: BusRange<Addr = Self::Address> + PartialEq {
    /// Its addresses: `Self::Addr` under a name that has bounds.
    type Address: BusAddr<Range = Self>;

    /// The highest address that a device can own.
    const HIGHEST: usize;

    /// Whether an access has a width, on which its extent and its value depend.
    const WIDE: bool;

    /// The bus, as a value.
    const BUS: BusId;

    /// The address with this number.
    fn at(number: usize) -> Self::Address;

    /// The number of an address.
    fn place(addr: Self::Address) -> usize;

    /// A range with these two fields, even if they are not a valid range.
    fn raw(start: usize, end: usize) -> Self;

    /// The addresses `first ..= last`.
    fn covering(first: usize, last: usize) -> Self;

    /// Adds a device.
    ///
    /// # Errors
    ///
    /// Those of `add_*`.
    fn add<B: DeviceBound>(on: &VmDevices<B>, device: Arc<B::Dev<Self>>) -> Added<B, Self>;

    /// Adds a device to a batch.
    ///
    /// # Errors
    ///
    /// Those of `add_*`.
    fn record<B: DeviceBound>(
        in_: &mut Batch<'_, B>,
        device: Arc<B::Dev<Self>>,
    ) -> Result<DeviceId, Refusal>;

    /// The device, if it is of this bus.
    fn unwrapped<B: DeviceBound>(device: Device<B>) -> Option<Arc<B::Dev<Self>>>;

    /// The device that owns the address.
    fn find<B: DeviceBound>(on: &VmDevices<B>, number: usize) -> Option<Arc<B::Dev<Self>>>;

    /// Calls `iter_*`.
    fn iter<B: DeviceBound>(on: &VmDevices<B>) -> impl Iterator<Item = &Arc<B::Dev<Self>>>;

    /// The devices, in the order in which they were added; all are lent.
    fn all<B: DeviceBound>(on: &VmDevices<B>) -> Vec<&Arc<B::Dev<Self>>> {
        Self::iter(on).collect()
    }

    /// The number of devices; none is lent.
    fn count<B: DeviceBound>(on: &VmDevices<B>) -> usize {
        Self::iter(on).count()
    }

    /// Calls `for_each_*`.
    fn for_each<B: DeviceBound>(
        on: &VmDevices<B>,
        visit: impl FnMut(DeviceId, Self, &Arc<B::Dev<Self>>),
    );

    /// The items of `iter_mut_*`.
    fn all_mut<B: DeviceBound>(on: &mut VmDevices<B>) -> Vec<&mut Arc<B::Dev<Self>>>;

    /// Reads through the registry.
    ///
    /// # Errors
    ///
    /// Those of `handle_*`.
    fn read<B: DeviceBound>(
        on: &VmDevices<B>,
        number: usize,
        width: AccessWidth,
    ) -> AxResult<usize>;

    /// Writes through the registry.
    ///
    /// # Errors
    ///
    /// Those of `handle_*`.
    fn write<B: DeviceBound>(
        on: &VmDevices<B>,
        number: usize,
        width: AccessWidth,
        value: usize,
    ) -> AxResult;

    /// Reads through a vCPU's handle.
    ///
    /// # Errors
    ///
    /// Those of `handle_*`.
    fn vcpu_read<B: DeviceBound, V: Deref<Target = VmDevices<B>> + Clone>(
        by: &mut Dispatcher<V>,
        number: usize,
        width: AccessWidth,
    ) -> AxResult<usize>;

    /// Writes through a vCPU's handle.
    ///
    /// # Errors
    ///
    /// Those of `handle_*`.
    fn vcpu_write<B: DeviceBound, V: Deref<Target = VmDevices<B>> + Clone>(
        by: &mut Dispatcher<V>,
        number: usize,
        width: AccessWidth,
        value: usize,
    ) -> AxResult;

    /// The counters of this bus.
    fn counters(of: DispatcherCounters) -> BusCounters;

    /// The devices of a snapshot, by address.
    fn listed<B: DeviceBound>(snapshot: &Snapshot<B>) -> Vec<Listed<B, Self>>;
}

/// The bits of `value` that an access carries.
pub fn carried<R: Bus>(value: usize, width: AccessWidth) -> usize {
    if R::WIDE {
        value & (usize::MAX >> (usize::BITS as usize - 8 * width.size()))
    } else {
        value
    }
}

/// The number of addresses that an access covers.
pub fn extent<R: Bus>(width: AccessWidth) -> usize {
    if R::WIDE { width.size() } else { 1 }
}

/// The value of a read if no device drives the bus.
pub fn floating<R: Bus>(width: AccessWidth) -> usize {
    if R::WIDE {
        carried::<R>(usize::MAX, width)
    } else {
        0
    }
}

/// One of the accesses into which bytes are split: its address, its width, and its bytes.
pub type Piece = (usize, AccessWidth, Range<usize>);

/// The accesses into which `length` bytes at `at` are split, if a guest can make them: 1, 2, 4 or 8 bytes are one
/// access; others are split into aligned accesses, if the bus has widths and contains all the addresses.
pub fn pieces<R: Bus>(at: usize, length: usize) -> Option<Vec<Piece>> {
    let width = |size| AccessWidth::try_from(size).unwrap();
    let last = at.checked_add(length.saturating_sub(1));
    let is_split = R::WIDE && last.is_some_and(|last| R::place(R::at(last)) == last);
    let whole = |size| Some(vec![(at, width(size), 0..length)]);
    match length {
        1 | 2 | 4 | 8 => whole(length),
        3 if !is_split => whole(4),
        5..=7 if !is_split => whole(8),
        3 | 5..=7 => {
            let mut pieces = Vec::new();
            let mut done = 0;
            while done < length {
                let fits =
                    |size: &usize| (at + done).is_multiple_of(*size) && done + size <= length;
                let size = [4, 2, 1].into_iter().find(fits).unwrap();
                pieces.push((at + done, width(size), done..done + size));
                done += size;
            }
            Some(pieces)
        }
        _ => None,
    }
}

/// The accesses of string I/O on `length` bytes, if these are whole items.
pub fn items(at: usize, width: AccessWidth, length: usize) -> Option<Vec<Piece>> {
    let size = width.size();
    let item = |start| (at, width, start..start + size);
    length
        .is_multiple_of(size)
        .then(|| (0..length).step_by(size).map(item).collect())
}

/// The methods of [`Bus`] that call the registry's method for the bus.
macro_rules! calls {
    (
        $device:ident $add:ident $find:ident $iter:ident $for_each:ident $iter_mut:ident $read:ident
        $write:ident $listed:ident
    ) => {
        const BUS: BusId = BusId::$device;

        fn add<B: DeviceBound>(on: &VmDevices<B>, device: Arc<B::Dev<Self>>) -> Added<B, Self> {
            on.$add(device)
        }

        fn record<B: DeviceBound>(
            in_: &mut Batch<'_, B>,
            device: Arc<B::Dev<Self>>,
        ) -> Result<DeviceId, Refusal> {
            in_.$add(device)
        }

        fn unwrapped<B: DeviceBound>(device: Device<B>) -> Option<Arc<B::Dev<Self>>> {
            match device {
                Device::$device(device) => Some(device),
                _ => None,
            }
        }

        fn find<B: DeviceBound>(on: &VmDevices<B>, number: usize) -> Option<Arc<B::Dev<Self>>> {
            on.$find(Self::at(number))
        }

        fn iter<B: DeviceBound>(on: &VmDevices<B>) -> impl Iterator<Item = &Arc<B::Dev<Self>>> {
            on.$iter()
        }

        fn for_each<B: DeviceBound>(
            on: &VmDevices<B>,
            visit: impl FnMut(DeviceId, Self, &Arc<B::Dev<Self>>),
        ) {
            on.$for_each(visit);
        }

        fn all_mut<B: DeviceBound>(on: &mut VmDevices<B>) -> Vec<&mut Arc<B::Dev<Self>>> {
            on.$iter_mut().collect()
        }

        #[inline]
        fn read<B: DeviceBound>(
            on: &VmDevices<B>,
            number: usize,
            width: AccessWidth,
        ) -> AxResult<usize> {
            on.$read(Self::at(number), width)
        }

        #[inline]
        fn write<B: DeviceBound>(
            on: &VmDevices<B>,
            number: usize,
            width: AccessWidth,
            value: usize,
        ) -> AxResult {
            on.$write(Self::at(number), width, value)
        }

        #[inline]
        fn vcpu_read<B: DeviceBound, V: Deref<Target = VmDevices<B>> + Clone>(
            by: &mut Dispatcher<V>,
            number: usize,
            width: AccessWidth,
        ) -> AxResult<usize> {
            by.$read(Self::at(number), width)
        }

        #[inline]
        fn vcpu_write<B: DeviceBound, V: Deref<Target = VmDevices<B>> + Clone>(
            by: &mut Dispatcher<V>,
            number: usize,
            width: AccessWidth,
            value: usize,
        ) -> AxResult {
            by.$write(Self::at(number), width, value)
        }

        fn counters(of: DispatcherCounters) -> BusCounters {
            of.$listed
        }

        fn listed<B: DeviceBound>(snapshot: &Snapshot<B>) -> Vec<Listed<B, Self>> {
            let rows = snapshot.$listed();
            rows.map(|(id, range, device)| (id, range, device.clone()))
                .collect()
        }
    };
}

impl Bus for GuestPhysAddrRange {
    type Address = GuestPhysAddr;

    const HIGHEST: usize = usize::MAX - 1;
    const WIDE: bool = true;

    #[inline]
    fn at(number: usize) -> GuestPhysAddr {
        number.into()
    }

    #[inline]
    fn place(addr: GuestPhysAddr) -> usize {
        addr.into()
    }

    fn raw(start: usize, end: usize) -> Self {
        Self {
            start: start.into(),
            end: end.into(),
        }
    }

    fn covering(first: usize, last: usize) -> Self {
        Self::raw(first, last + 1)
    }

    calls!(
        Mmio add_mmio_dev find_mmio_dev iter_mmio_dev for_each_mmio_dev iter_mut_mmio_dev
        handle_mmio_read handle_mmio_write mmio
    );
}

impl Bus for SysRegAddrRange {
    type Address = SysRegAddr;

    const HIGHEST: usize = usize::MAX;
    const WIDE: bool = false;

    #[inline]
    fn at(number: usize) -> SysRegAddr {
        SysRegAddr(number)
    }

    #[inline]
    fn place(addr: SysRegAddr) -> usize {
        addr.0
    }

    fn raw(start: usize, end: usize) -> Self {
        Self::new(SysRegAddr(start), SysRegAddr(end))
    }

    fn covering(first: usize, last: usize) -> Self {
        Self::raw(first, last)
    }

    calls!(
        SysReg add_sys_reg_dev find_sys_reg_dev iter_sys_reg_dev for_each_sys_reg_dev
        iter_mut_sys_reg_dev handle_sys_reg_read handle_sys_reg_write sys_reg
    );
}

impl Bus for PortRange {
    type Address = Port;

    const HIGHEST: usize = 0xffff;
    const WIDE: bool = true;

    #[inline]
    fn at(number: usize) -> Port {
        Port(number as u16)
    }

    #[inline]
    fn place(addr: Port) -> usize {
        addr.0.into()
    }

    fn raw(start: usize, end: usize) -> Self {
        Self::new(Port(start as u16), Port(end as u16))
    }

    fn covering(first: usize, last: usize) -> Self {
        Self::raw(first, last)
    }

    calls!(
        Port add_port_dev find_port_dev iter_port_dev for_each_port_dev iter_mut_port_dev
        handle_port_read handle_port_write port
    );
}
