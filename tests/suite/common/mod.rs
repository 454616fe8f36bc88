//! What the tests share: each bus under one name, devices, and registries to put them in.

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

pub(crate) mod bus;
pub(crate) mod device;

/// How many random cases a test tries, of `many`: few where every step is slow.
pub(crate) const fn cases(many: u32) -> u32 {
    match option_env!("AXDEVICE_FEW_ROUNDS") {
        _ if cfg!(miri) => 4,
        Some(_) => many / 8,
        None => many,
    }
}

/// The addresses `first ..= last`.
pub(crate) fn span(first: usize, last: usize) -> axdevice::Span {
    axdevice::Span::new(first as u64, last as u64).unwrap()
}
