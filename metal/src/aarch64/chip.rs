//! The devices that only this architecture has: a GICv3 distributor, the registers of a timer, and a system register.

use alloc::{sync::Arc, vec, vec::Vec};

use arm_vgic::v3::vgicd::VGicD;
use axaddrspace::device::SysRegAddr;
use axdevice::{Serialized, SharedVmDevices, ThreadSafe, VmDevicesBuilder};
use axdevice_base::map_device_of_type;
use axvisor_api::{arch::ArchIf, memory::PhysAddr, vmm::InterruptVector};
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};

use crate::{
    contract::{FIRST_SPI, GICD, GICD_LENGTH, GICD_VCPUS},
    devices::SysLatch,
    options::Sabotage,
};

/// CONTEXTIDR_EL1, as the syndrome of a trap names it.
const CONTEXTIDR_EL1: SysRegAddr = SysRegAddr(0x32_3400);

/// The devices that the crate builds itself.
pub(crate) fn config(_vcpus: u32, _sabotage: Option<Sabotage>) -> Vec<EmulatedDeviceConfig> {
    vec![EmulatedDeviceConfig {
        name: "gicd".into(),
        base_gpa: GICD as usize,
        length: GICD_LENGTH as usize,
        irq_id: 0,
        emu_type: EmulatedDeviceType::GPPTDistributor,
        cfg_list: vec![],
    }]
}

/// The devices that the crate builds without an entry.
pub(crate) fn builder(
    builder: VmDevicesBuilder<'_, ThreadSafe>,
) -> VmDevicesBuilder<'_, ThreadSafe> {
    builder.with_virtual_timer()
}

/// Gives each vCPU that uses the distributor a shared interrupt.
///
/// # Panics
///
/// If there is no distributor.
fn assign(devices: &SharedVmDevices, vcpus: u32) {
    let device = devices
        .find_mmio_dev((GICD as usize).into())
        .expect("a distributor");
    let device: Arc<dyn axdevice_base::BaseMmioDeviceOps> = device;
    let assign = |gicd: &VGicD| {
        for vcpu in 0..vcpus.min(GICD_VCPUS) {
            gicd.assign_irq(FIRST_SPI + vcpu, 0, (0, 0, 0, 0));
        }
    };
    let assigned = map_device_of_type(&device, |gicd: &Serialized<VGicD>| gicd.enter(assign));
    assigned.expect("a VGicD").expect("no vCPU is in it");
}

/// Sets up the devices of the configuration, and adds those that it does not contain.
pub(crate) fn set_up(devices: &SharedVmDevices, vcpus: u32, sabotage: Option<Sabotage>) {
    if sabotage != Some(Sabotage::Chip) {
        assign(devices, vcpus);
    }
    let latch = SysLatch::new(CONTEXTIDR_EL1, vcpus, sabotage == Some(Sabotage::SysReg));
    devices
        .add_sys_reg_dev(Arc::new(latch))
        .expect("a free register");
}

/// Raises an interrupt of `vcpu`: here none, because this distributor's interrupts are those of the machine.
pub(crate) fn interrupt(_devices: &SharedVmDevices, _vcpu: u32) {}

struct Arch;

#[axvisor_api::api_impl]
impl ArchIf for Arch {
    fn hardware_inject_virtual_interrupt(vector: InterruptVector) {
        panic!("interrupt {vector} for a guest that has none")
    }

    fn read_vgicd_typer() -> u32 {
        0
    }

    fn read_vgicd_iidr() -> u32 {
        0
    }

    fn get_host_gicd_base() -> PhysAddr {
        PhysAddr::from_usize(GICD as usize)
    }

    fn get_host_gicr_base() -> PhysAddr {
        panic!("a redistributor for a guest that has none")
    }

    fn fetch_irq() -> u64 {
        0
    }

    fn handle_irq() {}
}
