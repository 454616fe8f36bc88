//! [`Removed`]: a device that was removed and may still be in use.

use core::fmt;

use crossbeam_utils::Backoff;

use crate::{
    bus::Handlers,
    device::{Device, DeviceId},
    publish::RetireList,
    sync::{Arc, Ordering, Weak, fence, mutant, step_unless},
    tables::{Registration, Tables},
};

/// A device that is no longer registered. vCPUs may still be inside it.
///
/// The current tables do not list the device. Older tables may: a vCPU holds them while it dispatches through them, and
/// a [`Vcpu`](crate::Vcpu) holds them until its next dispatch, `refresh` or `park`. When no tables list the device any
/// more, it is *quiescent*: no vCPU is inside it through `dispatch`, and none will enter. Everything that vCPUs did in
/// the device happens before that.
///
/// A vCPU in guest mode holds its `Vcpu`'s tables for as long as it runs there. To end the wait, kick every vCPU
/// out of its guest, and let each refresh or park.
///
/// A handler that [`find`](crate::Registry::find) has returned belongs to the caller, and does not delay quiescence.
///
/// A `Removed` may be dropped at any time. The device is then dropped with the last tables that list it, by a thread
/// that changes the registry, or with the registry. A device must not own the `Removed` of its own removal.
#[must_use = "a device that was removed may still be in use"]
pub struct Removed<F: Handlers> {
    /// Each table that lists the device has a count of the same registration.
    registration: Arc<Registration<F>>,
    /// The list of the older tables. A sweep drops the unused ones.
    retired: Weak<RetireList<Tables<F>>>,
}

impl<F: Handlers> Removed<F> {
    pub(crate) fn new(
        registration: Arc<Registration<F>>,
        retired: &Arc<RetireList<Tables<F>>>,
    ) -> Self {
        Self {
            registration,
            retired: Arc::downgrade(retired),
        }
    }

    /// The id that the device had.
    pub fn id(&self) -> DeviceId {
        self.registration.id
    }

    /// The tag beside the device's handlers.
    pub fn tag(&self) -> &F::Tag {
        &self.registration.device.tag
    }

    /// Whether every vCPU has left the device on all buses, and none will enter it again.
    ///
    /// Sweeps the registry's older tables, and drops those that no vCPU holds.
    pub fn is_quiescent(&self) -> bool {
        self.holders() == 0 || mutant("removed-early")
    }

    /// The number of times that older tables list the device; 0 when it is quiescent. Sweeps, as
    /// [`is_quiescent`](Self::is_quiescent) does.
    ///
    /// Several tables may share one listing, and several vCPUs may hold the same tables.
    pub fn holders(&self) -> usize {
        // Without a registry there is nothing left to sweep.
        if let Some(retired) = self.retired.upgrade() {
            retired.sweep();
        }
        self.listings()
    }

    /// The number of times that older tables list the device, as of the last sweep.
    fn listings(&self) -> usize {
        let listings = Arc::strong_count(&self.registration) - 1;
        // The count was read relaxed. The thread that dropped a table, and with it the listing, released
        // its use of the device; this acquires it.
        step_unless!("removed-fence", fence(Ordering::Acquire));
        listings
    }

    /// Waits until the device is quiescent, and returns the device. Checks once, and up to `spins` times more. Between
    /// two checks it backs off, and yields to the scheduler if there is one. So each check may take from nanoseconds to
    /// a scheduler's time slice. [`wait_timeout`](Self::wait_timeout) uses the clock.
    ///
    /// # Errors
    ///
    /// `self`, if vCPUs are still inside the device or may enter it. From inside the device's own handler this is
    /// always the case.
    pub fn wait(self, spins: usize) -> Result<Device<F>, Self> {
        let backoff = Backoff::new();
        for _ in 0..spins {
            if self.is_quiescent() {
                break;
            }
            backoff.snooze();
        }
        self.into_device()
    }

    /// Waits until the device is quiescent, and returns the device. Gives up at the first check after `timeout`. Spins
    /// at first, then sleeps between two checks, at most a millisecond.
    ///
    /// Not available on bare metal, where there is no clock.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    #[cfg(not(target_os = "none"))]
    pub fn wait_timeout(self, timeout: core::time::Duration) -> Result<Device<F>, Self> {
        let start = std::time::Instant::now();
        let backoff = Backoff::new();
        loop {
            // Read before the check, so that the last check comes after the timeout.
            let left = timeout.checked_sub(start.elapsed());
            if self.is_quiescent() {
                return self.into_device();
            }
            match left {
                None => return Err(self),
                Some(left) if backoff.is_completed() => {
                    std::thread::sleep(left.min(core::time::Duration::from_millis(1)));
                }
                Some(_) => backoff.snooze(),
            }
        }
    }

    /// The device, if it is quiescent.
    fn into_device(self) -> Result<Device<F>, Self> {
        if !self.is_quiescent() {
            return Err(self);
        }
        let Self {
            registration,
            retired,
        } = self;
        // No thread can make another count of it: all tables that listed it are gone.
        match Arc::try_unwrap(registration) {
            Ok(registration) => Ok(registration.device),
            Err(registration) => Err(Self {
                registration,
                retired,
            }),
        }
    }
}

impl<F: Handlers> fmt::Display for Removed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id();
        write!(f, "device {id} was removed and is ")?;
        match self.listings() {
            0 => write!(f, "no longer in use"),
            1 => write!(f, "still in use: 1 older table lists it"),
            n => write!(f, "still in use: {n} older tables list it"),
        }
    }
}

/// The error of a wait that failed.
impl<F: Handlers> core::error::Error for Removed<F> {}

impl<F: Handlers> fmt::Debug for Removed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Removed")
            .field("id", &self.id())
            .field("holders", &self.listings())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::{
        bus::Port,
        registry::Registry,
        span::Span,
        testing::{Named, named},
    };

    fn with_one() -> (Registry<Named>, DeviceId) {
        let devices = Registry::new();
        let span = Span::new(1, 1).unwrap();
        let id = devices.add::<Port>(named("one"), span).unwrap();
        (devices, id)
    }

    #[test]
    fn says_whether_it_is_in_use() {
        let (devices, id) = with_one();
        let mut vcpu = devices.vcpu();
        vcpu.refresh();
        let removed = devices.remove(id).unwrap();
        assert_eq!((removed.id(), *removed.tag()), (id, "one"));
        assert_eq!((removed.is_quiescent(), removed.holders()), (false, 1));
        assert_eq!(
            removed.to_string(),
            "device #1 was removed and is still in use: 1 older table lists it"
        );
        vcpu.park();
        assert_eq!((removed.is_quiescent(), removed.holders()), (true, 0));
        assert_eq!(
            removed.to_string(),
            "device #1 was removed and is no longer in use"
        );
        let text = format!("{removed:?}");
        assert!(text.starts_with("Removed {") && text.ends_with("holders: 0, .. }"));
    }

    /// Tables share a listing unless the devices beside it have changed.
    #[test]
    fn counts_the_listings_of_older_tables() {
        let (devices, id) = with_one();
        let mut one = devices.vcpu();
        one.refresh();
        let span = Span::new(2, 2).unwrap();
        let other = devices.add::<Port>(named("other"), span).unwrap();
        let mut two = devices.vcpu();
        two.refresh();
        let removed = devices.remove(id).unwrap();
        drop(devices.remove(other).unwrap());
        assert_eq!(removed.holders(), 2);
        let text = removed.to_string();
        assert!(
            text.ends_with("still in use: 2 older tables list it"),
            "{text}"
        );
        one.refresh();
        assert_eq!(removed.holders(), 1);
        two.refresh();
        assert_eq!(removed.holders(), 0);
    }

    #[test]
    fn a_wait_that_fails_returns_the_removal_and_the_reason() {
        let (devices, id) = with_one();
        let mut vcpu = devices.vcpu();
        vcpu.refresh();
        let removed = devices.remove(id).unwrap();
        let start = std::time::Instant::now();
        let timeout = Duration::from_millis(20);
        let removed = removed.wait_timeout(timeout).expect_err("a vCPU holds it");
        assert!(start.elapsed() >= timeout);
        let error: &dyn core::error::Error = &removed;
        assert!(error.to_string().contains("still in use"));
        let removed = removed.wait_timeout(Duration::ZERO).unwrap_err();
        let removed = removed.wait(0).unwrap_err();
        let removed = removed.wait(10).unwrap_err();
        vcpu.park();
        assert!(removed.wait_timeout(Duration::ZERO).is_ok());
    }

    #[test]
    fn gives_the_device_alone() {
        let (devices, id) = with_one();
        let handler = devices.find::<Port>(1).unwrap().1;
        let removed = devices.remove(id).unwrap();
        let device = removed.wait(0).expect("no vCPU is inside");
        // One count for each of three buses, and one in this test.
        assert_eq!(Arc::strong_count(&handler), 4);
        assert_eq!(device.into_tag(), "one");
        assert_eq!(Arc::strong_count(&handler), 1);
    }

    #[test]
    fn outlives_the_registry() {
        let (devices, id) = with_one();
        let removed = devices.remove(id).unwrap();
        drop(devices);
        assert!(removed.is_quiescent());
        assert_eq!(removed.wait(0).map(Device::into_tag).ok(), Some("one"));
    }

    #[test]
    fn a_device_that_no_thread_waits_for_is_dropped_by_a_later_sweep() {
        let (devices, id) = with_one();
        let handler = devices.find::<Port>(1).unwrap().1;
        let mut vcpu = devices.vcpu();
        vcpu.refresh();
        drop(devices.remove(id).unwrap());
        vcpu.park();
        assert_eq!(Arc::strong_count(&handler), 4, "a vCPU frees nothing");
        devices.reclaim();
        assert_eq!(Arc::strong_count(&handler), 1);
    }
}
