//! [`Difference`]: the spans that a change takes from devices and gives to devices.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::{
    bus::{BusId, Handlers},
    mapping::Mapping,
    refusal::Refusal,
    reserve::reserve,
    tables::Tables,
};

/// The difference that a change makes to the owners of addresses, on all buses.
///
/// It is exact, because it compares the tables before the change with those after it. A span that a batch takes from a
/// device and gives back to it is in neither list. A span that changes its owner is unmapped with the old id and mapped
/// with the new one. If a span grows, shrinks or moves, the old span is unmapped and the new one mapped. A removed
/// device loses all its spans. Each list is sorted by bus (MMIO, ports, system registers), then by address, and has no
/// duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    unmapped: Vec<Mapping>,
    mapped: Vec<Mapping>,
}

impl Difference {
    /// No difference.
    pub(crate) const fn none() -> Self {
        Self {
            unmapped: Vec::new(),
            mapped: Vec::new(),
        }
    }

    /// The difference between two sets of tables.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub(crate) fn between<F: Handlers>(old: &Tables<F>, new: &Tables<F>) -> Result<Self, Refusal> {
        let (mut old, mut new) = (old.mappings().peekable(), new.mappings().peekable());
        let mut difference = Self::none();
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return Ok(difference),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => place(old).cmp(&place(new)),
            };
            let was = old.next_if(|_| order.is_le());
            let is = new.next_if(|_| order.is_ge());
            if was != is {
                push(&mut difference.unmapped, was)?;
                push(&mut difference.mapped, is)?;
            }
        }
    }

    /// The spans that devices lose.
    pub fn unmapped(&self) -> &[Mapping] {
        &self.unmapped
    }

    /// The spans that devices get.
    pub fn mapped(&self) -> &[Mapping] {
        &self.mapped
    }

    /// Whether no device loses or gets a span.
    pub fn is_empty(&self) -> bool {
        self.unmapped.is_empty() && self.mapped.is_empty()
    }
}

/// The sort key of mappings. No two mappings of the same tables have the same key.
fn place(mapping: &Mapping) -> (u8, u64) {
    let bus = match mapping.bus {
        BusId::Mmio => 0,
        BusId::Port => 1,
        BusId::SysReg => 2,
    };
    (bus, mapping.span.first())
}

fn push(to: &mut Vec<Mapping>, mapping: Option<Mapping>) -> Result<(), Refusal> {
    if let Some(mapping) = mapping {
        reserve(to, 1)?;
        to.push(mapping);
    }
    Ok(())
}
