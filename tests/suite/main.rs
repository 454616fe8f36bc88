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
