//! The user ends a run early.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Context as _, Result};

/// The reason to end a run early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Ctrl-C.
    Interrupted,
    /// The key `q`.
    Quit,
}

/// Whether the run must end, and the reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<[AtomicBool; 2]>);

impl Stop {
    /// A stop that Ctrl-C sets. A process can have one.
    pub(crate) fn on_ctrl_c() -> Result<Self> {
        let stop = Self::default();
        let interrupted = stop.clone();
        ctrlc::set_handler(move || interrupted.set(Reason::Interrupted)).context("Ctrl-C")?;
        Ok(stop)
    }

    /// Ends the run.
    pub(crate) fn set(&self, reason: Reason) {
        self.0[reason as usize].store(true, Ordering::Relaxed);
    }

    /// The reason to end the run, if there is one. An interrupt takes precedence.
    pub(crate) fn reason(&self) -> Option<Reason> {
        let reasons = [Reason::Interrupted, Reason::Quit];
        let is_set = |reason: &Reason| self.0[*reason as usize].load(Ordering::Relaxed);
        reasons.into_iter().find(is_set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_takes_precedence_over_q() {
        let stop = Stop::default();
        assert_eq!(stop.reason(), None);
        stop.set(Reason::Quit);
        assert_eq!(stop.clone().reason(), Some(Reason::Quit));
        stop.set(Reason::Interrupted);
        assert_eq!(stop.reason(), Some(Reason::Interrupted));
    }
}
