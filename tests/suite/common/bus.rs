//! The three buses under one name each, so that a test is written once for all of them.

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

pub(crate) const WIDTHS: [AccessWidth; 4] = [
    AccessWidth::Byte,
    AccessWidth::Word,
    AccessWidth::Dword,
    AccessWidth::Qword,
];

/// What `add_*` gives.
pub(crate) type Added<B, R> = Result<DeviceId, AddError<<B as DeviceBound>::Dev<R>>>;

/// A device of a snapshot: id, range, device.
pub(crate) type Listed<B, R> = (DeviceId, R, Arc<<B as DeviceBound>::Dev<R>>);

/// A bus, named by its range type: its numbers, and the registry's methods for it.
pub(crate) trait Bus: BusRange<Addr = Self::Address> + PartialEq {
    type Address: BusAddr<Range = Self>;

    /// The highest address that a device can own.
    const HIGHEST: usize;

    /// Whether the width of an access means anything.
    const WIDE: bool;

    /// The bus, told at run time.
    const BUS: BusId;

    /// The address with this number.
    fn at(number: usize) -> Self::Address;

    /// The number of an address.
    fn place(addr: Self::Address) -> usize;

    /// A range with the two fields as they are, whether or not that is a range.
    fn raw(start: usize, end: usize) -> Self;

    /// The addresses `first ..= last`.
    fn covering(first: usize, last: usize) -> Self;

    fn add<B: DeviceBound>(on: &VmDevices<B>, device: Arc<B::Dev<Self>>) -> Added<B, Self>;

    /// Records in a batch.
    fn record<B: DeviceBound>(
        in_: &mut Batch<'_, B>,
        device: Arc<B::Dev<Self>>,
    ) -> Result<DeviceId, Refusal>;

    /// The device, if it is of this bus.
    fn unwrapped<B: DeviceBound>(device: Device<B>) -> Option<Arc<B::Dev<Self>>>;

    fn find<B: DeviceBound>(on: &VmDevices<B>, number: usize) -> Option<Arc<B::Dev<Self>>>;

    fn iter<B: DeviceBound>(on: &VmDevices<B>) -> impl Iterator<Item = &Arc<B::Dev<Self>>>;

    fn all<B: DeviceBound>(on: &VmDevices<B>) -> Vec<&Arc<B::Dev<Self>>> {
        Self::iter(on).collect()
    }

    /// How many devices there are; none is lent for that.
    fn count<B: DeviceBound>(on: &VmDevices<B>) -> usize {
        Self::iter(on).count()
    }

    fn for_each<B: DeviceBound>(
        on: &VmDevices<B>,
        visit: impl FnMut(DeviceId, Self, &Arc<B::Dev<Self>>),
    );

    fn all_mut<B: DeviceBound>(on: &mut VmDevices<B>) -> Vec<&mut Arc<B::Dev<Self>>>;

    fn read<B: DeviceBound>(
        on: &VmDevices<B>,
        number: usize,
        width: AccessWidth,
    ) -> AxResult<usize>;

    fn write<B: DeviceBound>(
        on: &VmDevices<B>,
        number: usize,
        width: AccessWidth,
        value: usize,
    ) -> AxResult;

    fn vcpu_read<B: DeviceBound, V: Deref<Target = VmDevices<B>> + Clone>(
        by: &mut Dispatcher<V>,
        number: usize,
        width: AccessWidth,
    ) -> AxResult<usize>;

    fn vcpu_write<B: DeviceBound, V: Deref<Target = VmDevices<B>> + Clone>(
        by: &mut Dispatcher<V>,
        number: usize,
        width: AccessWidth,
        value: usize,
    ) -> AxResult;

    fn counters(of: DispatcherCounters) -> BusCounters;

    fn listed<B: DeviceBound>(snapshot: &Snapshot<B>) -> Vec<Listed<B, Self>>;
}

/// What of `value` an access carries.
pub(crate) fn carried<R: Bus>(value: usize, width: AccessWidth) -> usize {
    if R::WIDE {
        value & (usize::MAX >> (usize::BITS as usize - 8 * width.size()))
    } else {
        value
    }
}

/// How many addresses an access takes.
pub(crate) fn extent<R: Bus>(width: AccessWidth) -> usize {
    if R::WIDE { width.size() } else { 1 }
}

/// What a read gives where nothing drives the bus.
pub(crate) fn floating<R: Bus>(width: AccessWidth) -> usize {
    if R::WIDE {
        carried::<R>(usize::MAX, width)
    } else {
        0
    }
}

/// An access of those that bytes are for: its address, its width, and which of the bytes.
pub(crate) type Piece = (usize, AccessWidth, Range<usize>);

/// The accesses that `length` bytes at `at` are, if a guest can make such: one of 1, 2, 4 or 8 bytes; others
/// are split into aligned ones where the bus has bytes and goes that far.
pub(crate) fn pieces<R: Bus>(at: usize, length: usize) -> Option<Vec<Piece>> {
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

/// The accesses of string I/O on so many bytes, if they are whole items.
pub(crate) fn items(at: usize, width: AccessWidth, length: usize) -> Option<Vec<Piece>> {
    let size = width.size();
    let item = |start| (at, width, start..start + size);
    length
        .is_multiple_of(size)
        .then(|| (0..length).step_by(size).map(item).collect())
}

/// The methods of [`Bus`] that only pass a call on.
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

        fn read<B: DeviceBound>(
            on: &VmDevices<B>,
            number: usize,
            width: AccessWidth,
        ) -> AxResult<usize> {
            on.$read(Self::at(number), width)
        }

        fn write<B: DeviceBound>(
            on: &VmDevices<B>,
            number: usize,
            width: AccessWidth,
            value: usize,
        ) -> AxResult {
            on.$write(Self::at(number), width, value)
        }

        fn vcpu_read<B: DeviceBound, V: Deref<Target = VmDevices<B>> + Clone>(
            by: &mut Dispatcher<V>,
            number: usize,
            width: AccessWidth,
        ) -> AxResult<usize> {
            by.$read(Self::at(number), width)
        }

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

    fn at(number: usize) -> GuestPhysAddr {
        number.into()
    }

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

    fn at(number: usize) -> SysRegAddr {
        SysRegAddr(number)
    }

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

    fn at(number: usize) -> Port {
        Port(number as u16)
    }

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
