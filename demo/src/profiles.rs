//! What vCPUs tell of the devices that they access most: each adds the profile of its own handle to what
//! is here when it is asked to, and when it ends, outside of any dispatch.

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
    told: Box<[CachePadded<Told>]>,
    /// All that was collected.
    all: Mutex<Profile>,
}

/// What a vCPU told since it was collected last.
#[derive(Debug, Default)]
struct Told {
    wanted: AtomicBool,
    profile: Mutex<Profile>,
}

fn lock(profile: &Mutex<Profile>) -> MutexGuard<'_, Profile> {
    profile.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Profiles {
    /// Empty ones, for so many vCPUs.
    pub(crate) fn new(vcpus: u32) -> Self {
        Self {
            told: (0..vcpus).map(|_| CachePadded::default()).collect(),
            all: Mutex::default(),
        }
    }

    /// Asks all vCPUs for their profiles.
    pub(crate) fn ask(&self) {
        let wanted = self.told.iter().map(|told| &told.wanted);
        wanted.for_each(|wanted| wanted.store(true, Ordering::Relaxed));
    }

    /// Takes the profile of `vcpu` since it told last, if it is asked for.
    #[inline]
    pub(crate) fn tell_if_asked(&self, vcpu: usize, profile: impl FnOnce() -> Profile) {
        let wanted = &self.told[vcpu].wanted;
        if wanted.load(Ordering::Relaxed) {
            wanted.store(false, Ordering::Relaxed);
            self.tell(vcpu, profile());
        }
    }

    /// Takes the profile of `vcpu` since it told last.
    #[cold]
    pub(crate) fn tell(&self, vcpu: usize, profile: Profile) {
        lock(&self.told[vcpu].profile).merge(&profile);
    }

    /// What all vCPUs told since the last call.
    pub(crate) fn collect(&self) -> Profile {
        let mut recent = Profile::default();
        for told in &self.told {
            let told = mem::take(&mut *lock(&told.profile));
            recent.merge(&told);
        }
        lock(&self.all).merge(&recent);
        recent
    }

    /// What all vCPUs told.
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
    fn a_vcpu_tells_once_each_time_it_is_asked() {
        let devices = SharedVmDevices::default().with_unmapped(Unmapped::Float);
        let mut handle = devices.dispatcher();
        let profiles = Profiles::new(2);
        let mut read = || {
            let read = handle.handle_port_read(Port(1), AccessWidth::Byte);
            assert_eq!(read, Ok(0xff));
            handle.take_profile()
        };
        profiles.tell_if_asked(1, || unreachable!("nobody asked"));
        for collected in [1, 1, 2] {
            for _ in 0..collected {
                profiles.ask();
                profiles.tell_if_asked(1, &mut read);
                profiles.tell_if_asked(1, || unreachable!("nobody asked again"));
            }
            assert_eq!(profiles.collect().port.total, collected);
        }
        profiles.tell(0, read());
        assert_eq!(profiles.all().port.total, 5);
        assert_eq!(profiles.collect().port.total, 0);
    }
}
