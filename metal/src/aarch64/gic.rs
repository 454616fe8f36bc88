//! The machine's GICv3, by crate arm-gic.

use core::ptr::{NonNull, with_exposed_provenance_mut};

use arm_gic::{
    IntId, InterruptGroup, UniqueMmioPointer,
    gicv3::{GicCpuInterface, GicV3, registers::GicrSgi},
};
use spin::Mutex;

use crate::contract::GICD;

/// The redistributor of CPU 0. The others follow it.
const GICR: usize = 0x80a_0000;
/// The interrupt of the hypervisor's physical timer.
const TIMER: IntId = IntId::ppi(10);
/// The priority of the timer's interrupt.
const PRIORITY: u8 = 0x80;

static GIC: Mutex<Option<GicV3<'static>>> = Mutex::new(None);

/// Calls a function with the GIC, which is set up first.
fn with_gic<T>(cpus: usize, work: impl FnOnce(&mut GicV3<'static>) -> T) -> T {
    let mut gic = GIC.lock();
    let gic = gic.get_or_insert_with(|| {
        let mut gic = open(cpus);
        gic.setup(0);
        gic
    });
    work(gic)
}

fn open(cpus: usize) -> GicV3<'static> {
    let distributor = NonNull::new(with_exposed_provenance_mut(GICD as usize)).expect("an address");
    let redistributors =
        NonNull::new(with_exposed_provenance_mut::<GicrSgi>(GICR)).expect("an address");
    // SAFETY: the registers are there. The virtual distributor also accesses some, of interrupts that the hypervisor
    // does not use, and each access is volatile.
    let distributor = unsafe { UniqueMmioPointer::new(distributor) };
    // SAFETY: there is this number of redistributors, and only this uses them.
    let gic = unsafe { GicV3::new(distributor, redistributors, cpus) };
    gic.expect("a GICv3")
}

/// Prepares this CPU's interface, with its number.
pub(super) fn init_cpu(index: usize, cpus: usize) {
    GicCpuInterface::enable_system_register_el2(true);
    with_gic(cpus, |gic| gic.init_cpu(index));
    GicCpuInterface::set_priority_mask(0xff);
    GicCpuInterface::enable_group1(true);
}

/// Enables this CPU's timer interrupt.
pub(super) fn enable_timer(index: usize) {
    with_gic(0, |gic| {
        let set = gic.set_interrupt_priority(TIMER, Some(index), PRIORITY);
        set.expect("a private interrupt");
        let enabled = gic.enable_interrupt(TIMER, Some(index), true);
        enabled.expect("a private interrupt");
    });
}

/// Handles an interrupt, and ends it.
///
/// # Panics
///
/// If it is not the timer's interrupt.
pub(super) fn handle(timer: impl FnOnce()) {
    GicCpuInterface::handle_interrupt(InterruptGroup::Group1, |interrupt| {
        assert_eq!(interrupt, TIMER, "an interrupt");
        timer();
    });
}
