//! [`Recent`]: where in the tables a vCPU has found its last devices.

use alloc::boxed::Box;

use crate::bus::{BusRange, Family, PerBus};

/// How many places are remembered for each bus, as a power of two: enough for a thousand devices,
/// and 4 KiB.
const BITS: u32 = 11;

/// What is remembered of a place where no access was. Also the index of a row, which is guessed
/// there then, as wrongly as any other.
const NOWHERE: u16 = u16::MAX;

/// A [`Recent`] for every bus.
pub(crate) type Recents = PerBus<RecentOf>;

/// The family of recent places.
pub(crate) struct RecentOf;

impl Family for RecentOf {
    type Of<R: BusRange> = Recent;
}

impl Recents {
    pub(crate) fn new() -> Self {
        Self {
            mmio: Recent::new(),
            sys_reg: Recent::new(),
            port: Recent::new(),
        }
    }
}

/// The indices of the rows that accesses were for, by where the accesses were.
///
/// Only ever a guess, which the row's own span confirms. So a place may be overwritten by another
/// one's, and tables may be replaced: a wrong guess costs a search, and nothing needs clearing. An
/// index that does not fit is not remembered right; such a device is always searched.
pub(crate) struct Recent(Box<[u16; 1 << BITS]>);

impl Recent {
    fn new() -> Self {
        Self(Box::new([NOWHERE; _]))
    }

    /// The index of the row that accesses near `addr` were for.
    #[inline]
    pub(crate) fn guess<R: BusRange>(&self, addr: usize) -> usize {
        usize::from(self.0[place::<R>(addr)])
    }

    /// Remembers the index of the row that an access at `addr` was for.
    #[inline]
    pub(crate) fn remember<R: BusRange>(&mut self, addr: usize, index: usize) {
        self.0[place::<R>(addr)] = index as u16;
    }
}

/// Where to look for `addr`.
///
/// Fibonacci hashing: runs that lie at even distances, as devices like to, get different places, and
/// the top bits of the product depend on all of the address.
#[inline]
fn place<R: BusRange>(addr: usize) -> usize {
    let hash = (addr as u64 >> R::GRAIN).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (hash >> (u64::BITS - BITS)) as usize
}
