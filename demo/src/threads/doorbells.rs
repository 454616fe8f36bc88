//! Doorbells without KVM: a list of their addresses, which a guest's write consults before it exits.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Result;

use guest::contract::{BARS, BELL_SEED, pattern};

use crate::doorbells::Bells;

/// The stand-in for KVM's list.
pub(super) struct StandIn {
    /// The address and the vCPU of each bell.
    bells: RwLock<Vec<(u64, u32)>>,
    /// The number of rings of each since the last call of [`Bells::rung`].
    rung: Box<[AtomicU64]>,
}

/// No such bell is there.
const ENOENT: i32 = 2;
/// One is there already.
const EEXIST: i32 = 17;

impl StandIn {
    pub(super) fn new(vcpus: u32) -> Self {
        Self {
            bells: RwLock::default(),
            rung: (0..vcpus).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Rings the bell at an address, if there is one for the written value.
    pub(super) fn ring(&self, at: u32, datum: u32) -> bool {
        // Above them are the slots.
        if at < BARS {
            return false;
        }
        let bells = self.bells.read().unwrap_or_else(PoisonError::into_inner);
        let is_here =
            |&&(there, vcpu): &&_| there == u64::from(at) && pattern(BELL_SEED, vcpu) == datum;
        let Some((_, vcpu)) = bells.iter().find(is_here) else {
            return false;
        };
        self.rung[*vcpu as usize].fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Bells for Arc<StandIn> {
    fn register(&self, vcpu: u32, at: u64) -> Result<(), i32> {
        let mut bells = self.bells.write().unwrap_or_else(PoisonError::into_inner);
        if bells.contains(&(at, vcpu)) {
            return Err(EEXIST);
        }
        bells.push((at, vcpu));
        Ok(())
    }

    fn unregister(&self, vcpu: u32, at: u64) -> Result<(), i32> {
        let mut bells = self.bells.write().unwrap_or_else(PoisonError::into_inner);
        let here = bells.iter().position(|bell| *bell == (at, vcpu));
        bells.swap_remove(here.ok_or(ENOENT)?);
        Ok(())
    }

    fn rung(&self, vcpu: u32) -> u64 {
        self.rung[vcpu as usize].swap(0, Ordering::Relaxed)
    }
}
