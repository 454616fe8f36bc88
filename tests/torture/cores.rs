//! The core on which a thread runs.

use core_affinity::CoreId;

/// A core, if threads can choose one.
#[derive(Clone, Copy)]
pub(crate) struct Core(Option<CoreId>);

impl Core {
    /// The `nth` pair of the cores that this process may use, or an earlier one if there are fewer.
    ///
    /// If there is only one core, or no choice, threads run where the scheduler places them. The
    /// same applies under Miri, which interrupts them anywhere.
    pub(crate) fn pair(nth: usize) -> [Self; 2] {
        let cores = if cfg!(miri) {
            None
        } else {
            core_affinity::get_core_ids()
        };
        let cores = cores.unwrap_or_default();
        match cores.chunks_exact(2).cycle().nth(nth) {
            Some(&[one, other]) => [Some(one), Some(other)].map(Self),
            _ => [None; 2].map(Self),
        }
    }

    /// Keeps the calling thread on this core.
    pub(crate) fn pin(self) {
        if let Some(core) = self.0 {
            assert!(core_affinity::set_for_current(core), "{core:?}");
        }
    }
}
