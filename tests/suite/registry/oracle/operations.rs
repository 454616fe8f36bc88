//! Random operations, on so few addresses that ranges often touch, overlap and reach an end of the bus.

use axaddrspace::device::AccessWidth;
use proptest::{collection::vec, prelude::*};

use support::{Bus, WIDTHS};

/// The lengths of the three stretches of a bus that are used: its start, a piece in the middle, its
/// end. They are short, so that ranges often touch and overlap.
pub(super) const STRETCH: usize = 64;

/// An address: the stretch, and the offset in it. In the last stretch the offset counts down from the end of the bus.
pub(super) type Place = (u8, usize);

pub(super) fn number<R: Bus>((stretch, offset): Place) -> usize {
    match stretch {
        0 => offset,
        1 => 0x3f8 + offset,
        // The address after the last one that an MMIO device can own is an address too.
        _ => end::<R>() - offset,
    }
}

/// The highest address.
pub(super) fn end<R: Bus>() -> usize {
    if R::HIGHEST == 0xffff {
        0xffff
    } else {
        usize::MAX
    }
}

/// Every address that a range made here can own, and some more.
pub(super) fn places<R: Bus>() -> impl Iterator<Item = usize> {
    let below = STRETCH + LONGEST;
    let stretches = [0, 0x3f8].map(|from| from..=from + below);
    let last = end::<R>() - below..=end::<R>();
    stretches.into_iter().chain([last]).flatten()
}

/// The longest range.
pub(super) const LONGEST: usize = 20;

pub(super) fn place() -> impl Strategy<Value = Place> {
    (0..3_u8, 0..STRETCH)
}

/// A range: its start and its number of addresses, which may be zero.
pub(super) type Extent = (Place, usize);

pub(super) fn lengths() -> impl Strategy<Value = Extent> {
    let length = prop_oneof![4 => 1..=LONGEST, 1 => 0..=2_usize, 2 => Just(8)];
    (place(), length)
}

/// The range as a type of the bus. A range that goes past the end of the bus wraps.
pub(super) fn range<R: Bus>((place, length): Extent) -> R {
    let start = number::<R>(place);
    let empty = R::raw(start, start);
    let end = start.wrapping_add(length);
    // A half-open range from an address to itself is empty.
    if !empty.contains(R::at(start)) {
        return R::raw(start, end);
    }
    match (start, length) {
        // The one empty range that an inclusive range cannot express is at 0.
        (0, 0) => R::raw(1, 0),
        _ => R::raw(start, end.wrapping_sub(1)),
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum On {
    Mmio,
    SysReg,
    Port,
}

pub(super) fn on() -> impl Strategy<Value = On> {
    prop_oneof![Just(On::Mmio), Just(On::SysReg), Just(On::Port)]
}

pub(super) fn width() -> impl Strategy<Value = AccessWidth> {
    (0..4_usize).prop_map(|n| WIDTHS[n])
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Add(On, Extent),
    Find(On, Place),
    Read(On, Place, AccessWidth),
    Write(On, Place, AccessWidth, usize),
    Iter(On),
    /// Replaces, one after the other, the items at these places in the order of registration.
    Replace(Vec<(On, usize, Extent)>),
    /// Removes the item at this place in the order of registration.
    Remove(On, usize),
    /// Moves it.
    Move(On, usize, Extent),
    /// Makes several changes at one instant, or none.
    Update(Vec<Step>),
}

/// A step of an update.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Add(On, Extent),
    Remove(On, usize),
    Move(On, usize, Extent),
}

impl Step {
    pub(super) fn on(&self) -> On {
        match *self {
            Self::Add(on, _) | Self::Remove(on, _) | Self::Move(on, ..) => on,
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (on(), lengths()).prop_map(|(on, extent)| Step::Add(on, extent)),
        2 => (on(), 0..40_usize).prop_map(|(on, index)| Step::Remove(on, index)),
        2 => (on(), 0..40_usize, lengths())
            .prop_map(|(on, index, extent)| Step::Move(on, index, extent)),
    ]
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (on(), lengths()).prop_map(|(on, extent)| Op::Add(on, extent)),
        4 => (on(), place()).prop_map(|(on, at)| Op::Find(on, at)),
        8 => (on(), place(), width()).prop_map(|(on, at, width)| Op::Read(on, at, width)),
        8 => (on(), place(), width(), any::<usize>())
            .prop_map(|(on, at, width, value)| Op::Write(on, at, width, value)),
        1 => on().prop_map(Op::Iter),
        2 => vec((on(), 0..40_usize, lengths()), 0..4).prop_map(Op::Replace),
        2 => (on(), 0..40_usize).prop_map(|(on, index)| Op::Remove(on, index)),
        3 => (on(), 0..40_usize, lengths())
            .prop_map(|(on, index, extent)| Op::Move(on, index, extent)),
        2 => vec(step(), 0..5).prop_map(Op::Update),
    ]
}
