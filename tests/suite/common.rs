//! A macro that makes tests for every bus, the numbers of random cases, and devices whose drop is recorded.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    thread::{self, ThreadId},
};

use axaddrspace::device::PortRange;
use axdevice_base::BaseDeviceOps;
use support::{mortal, size_emulated};

/// Makes a test for each bus of each of these functions, which are generic over the bus.
macro_rules! on_every_bus {
    ($($test:ident),+ $(,)?) => {
        mod mmio {
            $(
                #[test]
                fn $test() {
                    super::$test::<axaddrspace::GuestPhysAddrRange>();
                }
            )+
        }

        mod sys_reg {
            $(
                #[test]
                fn $test() {
                    super::$test::<axaddrspace::device::SysRegAddrRange>();
                }
            )+
        }

        mod port {
            $(
                #[test]
                fn $test() {
                    super::$test::<axaddrspace::device::PortRange>();
                }
            )+
        }
    };
}

/// The number of random cases of a test, at most `many`.
pub(crate) const fn cases(many: u32) -> u32 {
    size_emulated(many as usize, many as usize / 8, 4) as u32
}

/// The threads on which the devices that share it were dropped.
#[derive(Clone, Default)]
pub(crate) struct Graves(Arc<Mutex<Vec<ThreadId>>>);

impl Graves {
    /// A device with eight ports.
    pub(crate) fn mortal(
        &self,
        first: usize,
    ) -> Arc<impl BaseDeviceOps<PortRange> + Send + Sync + use<>> {
        let graves = self.0.clone();
        mortal::<PortRange>(first, first + 7, move || {
            graves.lock().unwrap().push(thread::current().id());
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Vec<ThreadId>> {
        self.0.lock().unwrap()
    }
}
