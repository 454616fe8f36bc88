//! The accesses of the vCPUs, by device: each hands over the profile of its own handle on request and at its end,
//! outside any dispatch.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axdevice::Profile;
use crossbeam_utils::CachePadded;

/// The profiles of a VM's vCPUs.
#[derive(Debug)]
pub(crate) struct Profiles {
    handed: Box<[CachePadded<Handed>]>,
    /// The collected part.
    all: Mutex<Profile>,
}

/// The part that a vCPU has handed over and that is not yet collected.
#[derive(Debug, Default)]
struct Handed {
    wanted: AtomicBool,
    profile: Mutex<Profile>,
}

fn lock(profile: &Mutex<Profile>) -> MutexGuard<'_, Profile> {
    profile.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Profiles {
    /// Empty profiles, for `vcpus` vCPUs.
    pub(crate) fn new(vcpus: u32) -> Self {
        Self {
            handed: (0..vcpus).map(|_| CachePadded::default()).collect(),
            all: Mutex::default(),
        }
    }

    /// Requests the profiles of all vCPUs.
    pub(crate) fn ask(&self) {
        let wanted = self.handed.iter().map(|handed| &handed.wanted);
        wanted.for_each(|wanted| wanted.store(true, Ordering::Relaxed));
    }

    /// Takes over the recent profile of `vcpu`, if it was requested.
    #[inline]
    pub(crate) fn hand_over_if_asked(&self, vcpu: usize, profile: impl FnOnce() -> Profile) {
        let wanted = &self.handed[vcpu].wanted;
        if wanted.load(Ordering::Relaxed) {
            wanted.store(false, Ordering::Relaxed);
            self.hand_over(vcpu, profile());
        }
    }

    /// Takes over the recent profile of `vcpu`.
    #[cold]
    pub(crate) fn hand_over(&self, vcpu: usize, profile: Profile) {
        lock(&self.handed[vcpu].profile).merge(&profile);
    }

    /// The profile of all vCPUs since the last call.
    pub(crate) fn collect(&self) -> Profile {
        let mut recent = Profile::default();
        for handed in &self.handed {
            let handed = mem::take(&mut *lock(&handed.profile));
            recent.merge(&handed);
        }
        lock(&self.all).merge(&recent);
        recent
    }

    /// The profile of all vCPUs since the start.
    pub(crate) fn all(&self) -> Profile {
        self.collect();
        lock(&self.all).clone()
    }
}

#[cfg(test)]
mod tests {
    use axdevice::{AccessWidth, Port, SharedVmDevices, Unmapped};

    use super::*;

    #[test]
    fn a_vcpu_hands_over_once_each_time_it_is_asked() {
        let devices = SharedVmDevices::default().with_unmapped(Unmapped::Float);
        let mut handle = devices.dispatcher();
        let profiles = Profiles::new(2);
        let mut read = || {
            let read = handle.handle_port_read(Port(1), AccessWidth::Byte);
            assert_eq!(read, Ok(0xff));
            handle.take_profile()
        };
        profiles.hand_over_if_asked(1, || unreachable!("not asked for"));
        for collected in [1, 1, 2] {
            for _ in 0..collected {
                profiles.ask();
                profiles.hand_over_if_asked(1, &mut read);
                profiles.hand_over_if_asked(1, || unreachable!("not asked for again"));
            }
            assert_eq!(profiles.collect().port.total, collected);
        }
        profiles.hand_over(0, read());
        assert_eq!(profiles.all().port.total, 5);
        assert_eq!(profiles.collect().port.total, 0);
    }
}
