//! [`VmDevices`]: the registry, with the API of crate `axdevice` 0.4.10.

use core::fmt;

use ax_errno::{AxError, AxResult};
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange, SysRegAddr, SysRegAddrRange},
};

use crate::{
    AxVmDeviceConfig, ConfigError, VmDevicesBuilder,
    device::{DeviceBound, DeviceId, DeviceIds, ThreadSafe, Unbound},
    error::AddError,
    ivc::IvcChannels,
    ledger::Ledgers,
    limited_log::LimitedLog,
    loose::Loose,
    publish::SnapshotCell,
    snapshot::Snapshot,
    sync::Arc,
    tables::Tables,
    unmapped::Unmapped,
};

/// The registry of devices without thread bounds, as crate `axdevice` 0.4.10 has it. Neither `Send`
/// nor `Sync`: an embedder that shares it between threads promises that its devices allow that.
pub type AxVmDevices = VmDevices<Unbound>;

/// The registry of devices that are `Send + Sync`, and so is the registry.
pub type SharedVmDevices = VmDevices<ThreadSafe>;

/// The devices of one VM, on three buses: MMIO, system registers and port I/O.
///
/// Any number of vCPUs dispatch at once (`handle_*`), without a lock and without waiting for each
/// other or for a change. A change copies the tables, edits the copy and publishes it.
///
/// # Which accesses a device gets
///
/// Those that lie *wholly* in the range that it had when it was added: all the bytes from the
/// address on, `width` of them. An access that starts in a device and runs past its end is answered
/// as [`Unmapped`] says, and so is one that no device owns. Values are masked to the access's
/// width, both what a device returns and what it is given. On the system register bus the width
/// plays no part.
///
/// Ranges are read once, when a device is added. No MMIO device can own the address `usize::MAX`,
/// since MMIO ranges are half-open.
///
/// # Handlers
///
/// A device may use its registry from inside its own handler: look up, add, dispatch, nested to any
/// depth. It holds a [`Weak`](alloc::sync::Weak), not an [`Arc`](alloc::sync::Arc), to the registry, or neither is
/// ever freed. To bound a recursion from device to device is the devices' duty. A handler that
/// unwinds leaves the registry as it was.
///
/// The six `handle_*` methods never allocate, free or run a destructor themselves. Two exceptions:
/// the first dispatch of a thread may allocate a small node, which later threads use again; the
/// first miss after `iter_mut_*` makes new tables.
///
/// A device is dropped, unless somebody else holds it, by the thread that changes the registry, or
/// by [`reclaim`](Self::reclaim). If its destructor unwinds, so does the change that was just made.
///
/// # Memory ordering
///
/// What happens before a change happens before every dispatch that sees the change. When a method
/// that changes the registry returns, every vCPU that learns of it by any synchronisation sees the
/// change.
///
/// # Without memory
///
/// A change that finds no memory for what grows with the number of devices (the tables, the record
/// of an [`update`](Self::update), the list of what it removes) gives
/// [`Refusal::NoMemory`](crate::Refusal::NoMemory) and leaves everything as it was. These abort, or
/// do what the global allocator's error handler does:
///
/// - the objects of fixed size, of 300 bytes at most: for each device that is added two, for each
///   publication two, and one for each group of 32 devices in which something changes;
/// - [`Dispatcher::new`](crate::Dispatcher::new), and what makes a registry;
/// - the lists that `iter_*`, `iter_mut_*` and [`snapshot`](Self::snapshot) make, and one node for
///   each registration that `iter_*` lends.
pub struct VmDevices<B: DeviceBound> {
    pub(crate) tables: SnapshotCell<Tables<B>>,
    pub(crate) ids: DeviceIds,
    pub(crate) unmapped: Unmapped,
    pub(crate) misses: LimitedLog,
    pub(crate) refusals: LimitedLog,
    pub(crate) ledgers: Ledgers<B>,
    pub(crate) loose: Loose<B>,
    pub(crate) ivc: Option<IvcChannels>,
}

/// Making a registry.
impl<B: DeviceBound> VmDevices<B> {
    /// Makes the devices that `config` lists.
    ///
    /// An entry that 0.4.10 took although it is bad, such as one with an empty or an overlapping
    /// range, is left out whole and logged at `error!`. [`try_new`](Self::try_new) is strict.
    ///
    /// # Panics
    ///
    /// Where 0.4.10 did: if an entry lacks arguments that its type needs, or has some that do not
    /// fit into the address space, or if there is no memory.
    pub fn new(config: AxVmDeviceConfig) -> Self {
        Self::builder().config(config).build_leniently()
    }

    /// Makes the devices that `config` lists, or none of them.
    ///
    /// # Errors
    ///
    /// The first entry that cannot be made, and why.
    pub fn try_new(config: AxVmDeviceConfig) -> Result<Self, ConfigError> {
        Self::builder().config(config).build()
    }

    /// A builder, for a configuration with kinds of device that the crate does not build itself.
    pub fn builder<'f>() -> VmDevicesBuilder<'f, B> {
        VmDevicesBuilder::new()
    }

    /// Chooses what a miss does.
    #[must_use]
    pub fn with_unmapped(self, unmapped: Unmapped) -> Self {
        Self { unmapped, ..self }
    }

    pub(crate) fn from_parts(tables: Tables<B>, ids: DeviceIds, ivc: Option<IvcChannels>) -> Self {
        Self {
            tables: SnapshotCell::new(tables),
            ids,
            unmapped: Unmapped::default(),
            misses: LimitedLog::new("emu_device not found"),
            refusals: LimitedLog::new("device refused"),
            ledgers: Ledgers::new(),
            loose: Loose::new(),
            ivc,
        }
    }
}

impl<B: DeviceBound> Default for VmDevices<B> {
    /// A registry without devices.
    fn default() -> Self {
        Self::from_parts(Tables::new(), DeviceIds::new(), None)
    }
}

/// Hot-add.
///
/// Each of these reads the device's range, once, and publishes new tables that list it. The
/// methods take no lock and may run on many threads at once, from inside a device's handler too;
/// none is lost. The new tables cost time and memory in proportion to the number of devices.
///
/// # Errors
///
/// All give the device back, and say why it was [refused](crate::Refusal): for an empty or wrapping range,
/// an overlap with another device, or for want of memory for the tables. The tables are then as
/// they were. A refusal is logged at `error!` too, for callers written for 0.4.10, whose methods
/// returned nothing.
impl<B: DeviceBound> VmDevices<B> {
    /// Adds a device to guest physical memory.
    pub fn add_mmio_dev(
        &self,
        dev: Arc<B::Dev<GuestPhysAddrRange>>,
    ) -> Result<DeviceId, AddError<B::Dev<GuestPhysAddrRange>>> {
        self.add(dev)
    }

    /// Adds a system register device.
    pub fn add_sys_reg_dev(
        &self,
        dev: Arc<B::Dev<SysRegAddrRange>>,
    ) -> Result<DeviceId, AddError<B::Dev<SysRegAddrRange>>> {
        self.add(dev)
    }

    /// Adds a port I/O device.
    pub fn add_port_dev(
        &self,
        dev: Arc<B::Dev<PortRange>>,
    ) -> Result<DeviceId, AddError<B::Dev<PortRange>>> {
        self.add(dev)
    }
}

/// Looking devices up.
///
/// What these give is the device as it was added, without the lock or the guard that a dispatch
/// to some built-in devices goes through. It is the caller's own count: the device lives for as long.
impl<B: DeviceBound> VmDevices<B> {
    /// The device that owns `ipa`.
    pub fn find_mmio_dev(&self, ipa: GuestPhysAddr) -> Option<Arc<B::Dev<GuestPhysAddrRange>>> {
        self.find(ipa)
    }

    /// The device that owns `sys_reg_addr`.
    pub fn find_sys_reg_dev(
        &self,
        sys_reg_addr: SysRegAddr,
    ) -> Option<Arc<B::Dev<SysRegAddrRange>>> {
        self.find(sys_reg_addr)
    }

    /// The device that owns `port`.
    pub fn find_port_dev(&self, port: Port) -> Option<Arc<B::Dev<PortRange>>> {
        self.find(port)
    }

    /// A copy of all three tables as they are at one instant.
    pub fn snapshot(&self) -> Snapshot<B> {
        Snapshot::of(&self.current())
    }

    /// Frees the replaced tables that no vCPU holds any more, on this thread, and with them the
    /// devices that they alone held. Every change does so too; this is for a registry that rests.
    pub fn reclaim(&self) {
        self.tables.reclaim();
    }
}

/// Iterating over devices, in the order of their registration.
///
/// The devices are those of one instant; what is added later does not appear.
///
/// The references live as long as the registry is borrowed, although a device may leave the tables
/// in the meantime. Therefore the registry keeps one [`Arc`](alloc::sync::Arc) for each registration that it has ever
/// lent, until the next `iter_mut_*`, or until it is dropped.
impl<B: DeviceBound> VmDevices<B> {
    /// Iterates over the MMIO devices.
    pub fn iter_mmio_dev(&self) -> impl Iterator<Item = &Arc<B::Dev<GuestPhysAddrRange>>> {
        self.iter::<GuestPhysAddrRange>()
    }

    /// Iterates over the system register devices.
    pub fn iter_sys_reg_dev(&self) -> impl Iterator<Item = &Arc<B::Dev<SysRegAddrRange>>> {
        self.iter::<SysRegAddrRange>()
    }

    /// Iterates over the port I/O devices.
    pub fn iter_port_dev(&self) -> impl Iterator<Item = &Arc<B::Dev<PortRange>>> {
        self.iter::<PortRange>()
    }
}

/// Replacing devices in place, kept for parity with 0.4.10.
///
/// The items outlive the iterator, so the registry cannot tell when the last was changed. It
/// publishes empty tables, and the first use afterwards (a dispatch, which those tables do not
/// answer, a lookup, a change) asks each device that is new for its range and publishes tables of
/// what it finds. If the ranges do not fit together, all is as it was before the first `iter_mut_*`
/// since the last use, and `error!` says why. A new device must not use this registry in its
/// `address_range`, which would start the same again.
///
/// So that this can be done the registry holds the old devices and the new ones until the next such
/// round, or until it is dropped; an [`Arc::get_mut`] on an item therefore gives `None`. Replace the
/// item.
///
/// A place keeps its [`DeviceId`], its range too if its device stays. A device that is moved to
/// another place keeps the lock that a dispatch to it takes.
impl<B: DeviceBound> VmDevices<B> {
    /// Iterates over the MMIO devices, to replace them.
    pub fn iter_mut_mmio_dev(
        &mut self,
    ) -> impl Iterator<Item = &mut Arc<B::Dev<GuestPhysAddrRange>>> {
        self.iter_mut::<GuestPhysAddrRange>()
    }

    /// Iterates over the system register devices, to replace them.
    pub fn iter_mut_sys_reg_dev(
        &mut self,
    ) -> impl Iterator<Item = &mut Arc<B::Dev<SysRegAddrRange>>> {
        self.iter_mut::<SysRegAddrRange>()
    }

    /// Iterates over the port I/O devices, to replace them.
    pub fn iter_mut_port_dev(&mut self) -> impl Iterator<Item = &mut Arc<B::Dev<PortRange>>> {
        self.iter_mut::<PortRange>()
    }
}

/// Dispatch.
///
/// # Errors
///
/// What the device gives; [`ResourceBusy`](ax_errno::AxError::ResourceBusy) from a serialised
/// device whose own handler makes the access; what [`Unmapped`] says where no device answers;
/// [`NoMemory`](ax_errno::AxError::NoMemory) if this is the first use after `iter_mut_*`, and there is
/// none for the tables.
///
/// # Panics
///
/// Under [`Unmapped::Panic`], the default, where no device owns the address.
impl<B: DeviceBound> VmDevices<B> {
    /// Reads `width` bytes at `addr` of guest physical memory.
    #[inline]
    pub fn handle_mmio_read(&self, addr: GuestPhysAddr, width: AccessWidth) -> AxResult<usize> {
        self.read(addr, width)
    }

    /// Writes the low `width` bytes of `val` at `addr` of guest physical memory.
    #[inline]
    pub fn handle_mmio_write(
        &self,
        addr: GuestPhysAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        self.write(addr, width, val)
    }

    /// Reads the system register `addr`; `width` is passed on and otherwise ignored.
    #[inline]
    pub fn handle_sys_reg_read(&self, addr: SysRegAddr, width: AccessWidth) -> AxResult<usize> {
        self.read(addr, width)
    }

    /// Writes the system register `addr`; `width` is passed on and otherwise ignored.
    #[inline]
    pub fn handle_sys_reg_write(
        &self,
        addr: SysRegAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        self.write(addr, width, val)
    }

    /// Reads `width` bytes from the ports from `port` on.
    #[inline]
    pub fn handle_port_read(&self, port: Port, width: AccessWidth) -> AxResult<usize> {
        self.read(port, width)
    }

    /// Writes the low `width` bytes of `val` to the ports from `port` on.
    #[inline]
    pub fn handle_port_write(&self, port: Port, width: AccessWidth, val: usize) -> AxResult {
        self.write(port, width, val)
    }
}

/// Inter-VM-communication (IVC) channels: pieces of the one range of guest physical memory that
/// the configuration sets aside for them.
///
/// # Errors
///
/// [`InvalidInput`](ax_errno::AxError::InvalidInput) if there is no such range, or `size` is zero
/// or not a multiple of 4 KiB. An error changes nothing.
impl<B: DeviceBound> VmDevices<B> {
    /// Allocates `size` bytes, a multiple of 4 KiB: the best fit, and of equals the lowest.
    ///
    /// # Errors
    ///
    /// [`NoMemory`](ax_errno::AxError::NoMemory) if no free piece is that large, or as above.
    pub fn alloc_ivc_channel(&self, size: usize) -> AxResult<GuestPhysAddr> {
        self.ivc()?.alloc(size)
    }

    /// Releases the `size` bytes from `addr` on: a channel, several side by side, or a part of one.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if not all of them are allocated, or as above.
    pub fn release_ivc_channel(&self, addr: GuestPhysAddr, size: usize) -> AxResult {
        self.ivc()?.release(addr, size)
    }

    fn ivc(&self) -> AxResult<&IvcChannels> {
        self.ivc.as_ref().ok_or(AxError::InvalidInput)
    }
}

impl<B: DeviceBound> fmt::Debug for VmDevices<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmDevices")
            .field("tables", &self.tables)
            .field("unmapped", &self.unmapped)
            .field("ivc", &self.ivc)
            .finish_non_exhaustive()
    }
}
