//! [`Last`]: whether a guest's redistributor is the last of a contiguous series.
//!
//! GICR_TYPER.Last reports whether a redistributor is "the highest-numbered Redistributor in a series of
//! contiguous Redistributor pages" (Arm GIC architecture specification, GICv3 and GICv4, IHI 0069,
//! "GICR_TYPER"). A guest that looks for its own redistributor walks from the first one to the one with
//! this bit.
//!
//! A redistributor is not the last if another one starts where it ends, regardless of the entries of the
//! configuration. This is determined after all entries are built, so an entry that was left out does not
//! count. It does not change when devices are added or removed later.

#[cfg(any(all(test, not(loom)), target_arch = "aarch64"))]
use alloc::vec::Vec;

#[cfg(any(all(test, not(loom)), target_arch = "aarch64"))]
use crate::refusal::Refusal;
use crate::sync::{Arc, AtomicBool, Ordering};

/// Whether a redistributor is the last of its series.
///
/// `Relaxed`: it is written before the registry can be shared, and the operation that shares the registry
/// orders the write before the reads.
#[derive(Clone, Debug)]
pub(crate) struct Last(Arc<AtomicBool>);

impl Last {
    /// The value for a redistributor that is alone in its series.
    pub(crate) fn alone() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    #[inline]
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    #[cfg(any(all(test, not(loom)), target_arch = "aarch64"))]
    pub(crate) fn set(&self, last: bool) {
        self.0.store(last, Ordering::Relaxed);
    }
}

/// The redistributors of a configuration: the exclusive end of each, and its [`Last`].
#[cfg(any(all(test, not(loom)), target_arch = "aarch64"))]
#[derive(Debug, Default)]
pub(crate) struct Series(Vec<(usize, Last)>);

#[cfg(any(all(test, not(loom)), target_arch = "aarch64"))]
impl Series {
    /// Adds a redistributor that ends at `end`.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub(crate) fn join(&mut self, end: usize) -> Result<Last, Refusal> {
        (self.0.try_reserve(1)).map_err(|_| Refusal::NoMemory)?;
        let last = Last::alone();
        self.0.push((end, last.clone()));
        Ok(last)
    }

    /// Sets each [`Last`]. `starts` returns whether a redistributor starts at an address.
    pub(crate) fn close(&self, starts: impl Fn(usize) -> bool) {
        for (end, last) in &self.0 {
            last.set(!starts(*end));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_redistributor_that_no_other_follows_is_the_last() {
        let mut series = Series::default();
        let ends = [0x10, 0x20, 0x30, 0x80];
        let all = ends.map(|end| series.join(end).unwrap());
        assert!(all.iter().all(Last::get), "each by itself");
        series.close(|start| [0x0, 0x10, 0x20, 0x70].contains(&start));
        assert_eq!(all.each_ref().map(Last::get), [false, false, true, true]);
        series.close(|start| start == 0x80);
        assert_eq!(all.each_ref().map(Last::get), [true, true, true, false]);
    }
}
