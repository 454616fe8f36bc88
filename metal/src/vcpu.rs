//! A vCPU: its accesses go alternately through its handle and through the registry itself, with interrupts enabled.

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddr,
    device::{AccessWidth, Port, SysRegAddr},
};
use axdevice::{Dispatcher, SharedVmDevices};

use crate::{
    contract::{PORT_COUNT, PORTS},
    cpu::{Cpu, Doing},
    vm::Vm,
};

/// The number of successive accesses that take the same way.
const TURN: u32 = 8;

/// The vCPU of a CPU.
pub(crate) struct Vcpu {
    cpu: &'static Cpu,
    devices: Dispatcher<&'static SharedVmDevices>,
    by_handle: bool,
    /// The remaining accesses that take this way.
    left: u32,
}

/// The target of an access.
#[derive(Clone, Copy)]
enum Target {
    Mmio(GuestPhysAddr),
    Port(Port),
    #[cfg_attr(
        target_arch = "riscv64",
        expect(dead_code, reason = "none is trapped there")
    )]
    SysReg(SysRegAddr),
}

impl Target {
    /// The target at a guest physical address.
    fn of(address: usize) -> Self {
        let port = address.checked_sub(PORTS as usize);
        match port.filter(|port| *port < PORT_COUNT as usize) {
            Some(port) => Self::Port(Port(port as u16)),
            None => Self::Mmio(GuestPhysAddr::from_usize(address)),
        }
    }
}

impl Vcpu {
    /// The vCPU of the CPU that this runs on.
    pub(crate) fn new(vm: &'static Vm) -> Self {
        Self {
            cpu: Cpu::current(),
            devices: vm.devices.dispatcher(),
            by_handle: true,
            left: TURN,
        }
    }

    /// Handles a read of an unmapped address.
    pub(crate) fn read_memory(&mut self, address: usize, width: AccessWidth) -> usize {
        self.read(Target::of(address), width)
    }

    /// Handles a write of an unmapped address.
    pub(crate) fn write_memory(&mut self, address: usize, width: AccessWidth, value: usize) {
        self.write(Target::of(address), width, value);
    }

    /// Handles a read of a trapped system register.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn read_sys_reg(&mut self, address: usize) -> usize {
        self.read(Target::SysReg(SysRegAddr(address)), AccessWidth::Qword)
    }

    /// Handles a write of a trapped system register.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn write_sys_reg(&mut self, address: usize, value: usize) {
        self.write(
            Target::SysReg(SysRegAddr(address)),
            AccessWidth::Qword,
            value,
        );
    }

    /// Drops the reference to older tables.
    pub(crate) fn refresh(&mut self) {
        self.devices.refresh();
    }

    /// Drops the reference to all tables.
    pub(crate) fn park(&mut self) {
        self.devices.park();
    }

    fn read(&mut self, target: Target, width: AccessWidth) -> usize {
        let by_handle = self.begin(target);
        let answer = self.cpu.while_doing(Doing::Dispatch, || {
            let handle = &mut self.devices;
            let registry = *handle.registry();
            match (target, by_handle) {
                (Target::Mmio(at), true) => handle.handle_mmio_read(at, width),
                (Target::Mmio(at), false) => registry.handle_mmio_read(at, width),
                (Target::Port(at), true) => handle.handle_port_read(at, width),
                (Target::Port(at), false) => registry.handle_port_read(at, width),
                (Target::SysReg(at), true) => handle.handle_sys_reg_read(at, width),
                (Target::SysReg(at), false) => registry.handle_sys_reg_read(at, width),
            }
        });
        self.answered(answer).unwrap_or(usize::MAX)
    }

    fn write(&mut self, target: Target, width: AccessWidth, value: usize) {
        let by_handle = self.begin(target);
        let answer = self.cpu.while_doing(Doing::Dispatch, || {
            let handle = &mut self.devices;
            let registry = *handle.registry();
            match (target, by_handle) {
                (Target::Mmio(at), true) => handle.handle_mmio_write(at, width, value),
                (Target::Mmio(at), false) => registry.handle_mmio_write(at, width, value),
                (Target::Port(at), true) => handle.handle_port_write(at, width, value),
                (Target::Port(at), false) => registry.handle_port_write(at, width, value),
                (Target::SysReg(at), true) => handle.handle_sys_reg_write(at, width, value),
                (Target::SysReg(at), false) => registry.handle_sys_reg_write(at, width, value),
            }
        });
        self.answered(answer);
    }

    /// Counts an access, and returns whether it goes through the handle.
    fn begin(&mut self, target: Target) -> bool {
        match target {
            Target::Mmio(_) => self.cpu.mmio.add_one(),
            Target::Port(_) => self.cpu.port.add_one(),
            Target::SysReg(_) => self.cpu.sys_reg.add_one(),
        }
        self.left -= 1;
        if self.left == 0 {
            self.turn();
        }
        self.by_handle
    }

    /// Switches the way. The handle finds each change that the registry has shown, even if the change has not returned yet.
    fn turn(&mut self) {
        self.by_handle = !self.by_handle;
        self.left = TURN;
    }

    /// Records the result of an access. A device that fails does not end the vCPU.
    fn answered<T>(&self, answer: AxResult<T>) -> Option<T> {
        if answer.is_err() {
            self.cpu.failed.add_one();
        }
        answer.ok()
    }
}
