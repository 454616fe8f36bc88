//! The three buses, and the handler type of each.

use core::fmt;

/// An address space of a guest: [`Mmio`], [`Port`] or [`SysReg`].
///
/// Sealed: the registry has these three buses and no others.
pub trait Bus: sealed::Bus {}

impl<K: sealed::Bus> Bus for K {}

/// Guest physical memory: 64-bit addresses.
#[derive(Debug)]
pub enum Mmio {}

/// Ports: 16-bit addresses on x86. The registry allows 64 bits.
#[derive(Debug)]
pub enum Port {}

/// System registers, including the MSRs of x86. Each register is one address.
#[derive(Debug)]
pub enum SysReg {}

/// A bus, known at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BusId {
    /// [`Mmio`].
    Mmio,
    /// [`Port`].
    Port,
    /// [`SysReg`].
    SysReg,
}

impl fmt::Display for BusId {
    /// `mmio`, `port` or `sys_reg`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mmio => "mmio",
            Self::Port => "port",
            Self::SysReg => "sys_reg",
        })
    }
}

/// The types that an embedder registers. An implementation names four types; the implementing type
/// needs no values, so an empty enum suffices.
///
/// A registry is `Send + Sync` if all four are. A handler is usually a trait object, such as
/// `dyn Device + Send + Sync`. It may be the same on all buses.
pub trait Handlers: 'static {
    /// The handler of accesses to guest physical memory.
    type Mmio: ?Sized + 'static;
    /// The handler of accesses to ports.
    type Port: ?Sized + 'static;
    /// The handler of accesses to system registers.
    type SysReg: ?Sized + 'static;
    /// Data that is stored beside a device's handlers while it is registered: a name, grants, state.
    type Tag: 'static;
}

/// The handler of accesses on bus `K`, one of the handlers `F`.
///
/// Code that is generic over the bus puts a bound on this type: `where On<F, K>: MyDevice`.
pub type On<F, K> = <K as sealed::Bus>::Handler<F>;

/// A family of types with one member for each bus, such as its table: `Of<K>` is the member of bus `K`.
pub trait Family {
    /// The member of bus `K`.
    type Of<K: Bus>;
}

/// A member of a [`Family`] for every bus.
pub struct PerBus<M: Family> {
    pub(crate) mmio: M::Of<Mmio>,
    pub(crate) port: M::Of<Port>,
    pub(crate) sys_reg: M::Of<SysReg>,
}

impl<M: Family> fmt::Debug for PerBus<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerBus").finish_non_exhaustive()
    }
}

pub(crate) mod sealed {
    use super::{BusId, Family, Handlers, PerBus};

    pub trait Bus: Sized + 'static {
        /// The bus as a value.
        const ID: BusId;

        /// Accesses in the same block of `1 << GRAIN` addresses are likely to be to the same
        /// device.
        const GRAIN: u32;

        /// The handler of accesses on this bus.
        type Handler<F: Handlers>: ?Sized + 'static;

        /// This bus's member of the family.
        fn of<M: Family>(all: &PerBus<M>) -> &M::Of<Self>;

        /// This bus's member of the family.
        fn of_mut<M: Family>(all: &mut PerBus<M>) -> &mut M::Of<Self>;
    }

    macro_rules! bus {
        ($bus:ident, $field:ident, $grain:literal) => {
            impl Bus for super::$bus {
                const ID: BusId = BusId::$bus;
                const GRAIN: u32 = $grain;
                type Handler<F: Handlers> = F::$bus;

                #[inline(always)]
                fn of<M: Family>(all: &PerBus<M>) -> &M::Of<Self> {
                    &all.$field
                }

                #[inline(always)]
                fn of_mut<M: Family>(all: &mut PerBus<M>) -> &mut M::Of<Self> {
                    &mut all.$field
                }
            }
        };
    }

    // 512 bytes: the distance between virtio-mmio devices.
    bus!(Mmio, mmio, 9);
    bus!(Port, port, 0);
    bus!(SysReg, sys_reg, 0);
}
