//! The registry through its public API, and only that.
//!
//! `bus` and `device` are what the tests share; every other module shows one side of the contract.

/// Makes tests of functions that are generic over the bus: one for each bus.
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

/// How many random cases a test tries, of `many`: few where every step is slow.
const fn cases(many: u32) -> u32 {
    match option_env!("AXDEVICE_FEW_ROUNDS") {
        _ if cfg!(miri) => 4,
        Some(_) => many / 8,
        None => many,
    }
}

// The published crate builds interrupt controllers, which call their hypervisor.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
use mock_host as _;

mod bounds;
mod bus;
mod bytes;
mod device;
mod dispatcher;
mod handlers;
mod ivc_oracle;
mod lifetimes;
mod moves;
mod oracle;
mod policy;
mod refusals;
mod removal;
mod replacing;
mod serialized;
mod snapshots;
mod threads;
mod types;
mod updates;
mod upstream;
