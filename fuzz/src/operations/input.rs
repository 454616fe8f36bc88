//! The operations on the registry, as the fuzzer generates them.

use arbitrary::Arbitrary;
use axaddrspace::device::AccessWidth;
use axdevice::Unmapped;
use support::{Bus, WIDTHS};

use crate::on::{On, OnBus, range};

/// The whole input.
#[derive(Arbitrary, Debug)]
pub struct Input {
    pub(crate) unmapped: Policy,
    /// The length of the range for IVC channels, in pages. With zero pages there is no range.
    pub(crate) ivc_pages: u8,
    /// Whether the registry is dropped before the devices removed from it, or after.
    pub(crate) registry_first: bool,
    pub(crate) ops: Vec<Op>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Policy {
    Panic,
    Error,
    Float,
}

impl From<Policy> for Unmapped {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Panic => Self::Panic,
            Policy::Error => Self::Error,
            Policy::Float => Self::Float,
        }
    }
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Op {
    Add(On, Extent),
    Remove(Which),
    Move(Which, On, Extent),
    /// The device changes its own range, and the registry reads the range again.
    Reindex(Which, Extent),
    Update(Vec<Change>, Ending),
    Access(By, On, Place, Access),
    Find(On, Place),
    Iter(On),
    /// Through `iter_mut_*`, by their places; then a first use.
    Replace(Vec<(On, u8, Extent)>, FirstUse),
    /// Checks the listed devices and the living ones.
    Check,
    /// Takes a snapshot, which replaces the previous one.
    KeepSnapshot,
    Refresh(u8),
    Park(u8),
    /// Waits for one of the removed devices, with this number of checks.
    Wait(u8, u8),
    Alloc(Size),
    /// From an offset into the IVC range, in pages and bytes.
    Release(i8, Odd, Size),
}

/// A step of an update.
#[derive(Arbitrary, Debug)]
pub(crate) enum Change {
    Add(On, Extent),
    Remove(Which),
    Move(Which, On, Extent),
}

/// The end of an update's recording.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ending {
    /// It ends at the first change that cannot be recorded, if there is one.
    Strict,
    /// It skips the changes that cannot be recorded.
    Lenient,
    /// It fails after all changes are recorded.
    Abandoned,
}

/// One of all ids that were given.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Which(pub(crate) u8);

/// The way of an access: through the registry itself, or through a vCPU's handle.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum By {
    Registry,
    Vcpu(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Access {
    Read(Width),
    Write(Width, usize),
    ReadBytes(u8),
    WriteBytes(u8, u128),
    /// This number of bytes, in items of a width.
    ReadRepeated(Width, u8),
    WriteRepeated(Width, u8, u128),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Width(u8);

impl From<Width> for AccessWidth {
    fn from(width: Width) -> Self {
        WIDTHS[usize::from(width.0) % WIDTHS.len()]
    }
}

/// The operation after a replacement by `iter_mut_*`, which puts the devices back.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum FirstUse {
    Access(By, On, Place, Access),
    Find(On, Place),
    Snapshot,
}

/// An address: one of four regions, and the offset in it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Place(u8);

impl Place {
    pub(crate) fn number<R: Bus>(self) -> usize {
        let offset = usize::from(self.0 % 64);
        // The highest address, which no MMIO device can own.
        let end = R::place(R::at(usize::MAX));
        match self.0 / 64 {
            0 => offset,
            1 => 0x1000 - 32 + offset,
            2 => end / 2 - 31 + offset,
            _ => end - offset,
        }
    }
}

/// A range: its start, and its number of addresses, possibly zero.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Extent(Place, u8);

impl Extent {
    /// The range in its bus's own terms.
    pub(crate) fn range<R: OnBus>(self) -> (usize, usize) {
        let length = match self.1 {
            short @ 0..240 => usize::from(short % 24),
            // From one region into the next.
            long => usize::from(long - 239) * 0x200,
        };
        range::<R>(self.0.number::<R>(), length)
    }
}

/// A size for the IVC allocator.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Size {
    Pages(u8, Odd),
    Any(usize),
}

/// A few bytes, rarely more than a page.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Odd(u8);

impl Odd {
    pub(crate) fn bytes(self) -> usize {
        usize::from(self.0.saturating_sub(224))
    }
}
