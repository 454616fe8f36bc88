//! A small virtual machine monitor. Its guest prints through a UART and waits for devices, which the main thread
//! adds, moves, swaps and removes while the guest runs.
//!
//! The guest runs on KVM. Where KVM is not available, or with `--no-kvm`, a thread makes the same accesses.

use std::{
    cell::RefCell,
    convert::Infallible,
    env,
    error::Error,
    io::{Stdout, stdout},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use axdevice::{
    AccessWidth, AxError, AxResult, BaseDeviceOps, EmulatedDeviceType, GuestPhysAddr,
    GuestPhysAddrRange, Port, PortRange, Serialized, SharedVmDevices, Unmapped,
};
use vm_superio::{Serial, Trigger, serial::NoEvents};

/// The first port of the first UART of a PC.
const UART: u16 = 0x3f8;
/// The port that takes the number of each step that the guest has done.
const PROGRESS: u16 = 0xf4;
/// Guest physical address of the devices, which a guest can access in real mode.
const DEVICES: usize = 0xd_0000;
/// The time limit of a step.
const PATIENCE: Duration = Duration::from_secs(10);

/// The guest's program, step by step: it reads four bytes at an offset from [`DEVICES`] until they have a value,
/// and prints a line. Addresses that no device owns read as ones.
const STEPS: [(u16, u32, &str); 4] = [
    // Three bytes on one page, one on the next: KVM splits this access into two exits.
    (0x0ffd, 0x2aff_ffff, "a device was added\n"),
    (0x2000, 42, "it has moved\n"),
    (0x2000, 43, "it has swapped places with another\n"),
    (0x2000, u32::MAX, "the other is gone\n"),
];

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let (done, steps) = mpsc::channel();
    let next_step = || steps.recv_timeout(PATIENCE);

    let devices = Arc::new(SharedVmDevices::default().with_unmapped(Unmapped::Float));
    // A device that is not `Sync`: one vCPU at a time is inside it.
    devices.add_port_dev(Arc::new(Serialized::new(Uart::new())))?;
    devices.add_port_dev(Arc::new(Progress(done)))?;
    let vcpu = thread::spawn({
        let devices = devices.clone();
        move || run_guest(&devices).inspect_err(|error| eprintln!("the guest: {error}"))
    });

    // From here on the guest runs.
    let first = devices.add_mmio_dev(Arc::new(Sensor::new(0x1000, 42)))?;
    next_step()?;
    devices.move_to(first, range(0x2000))?;
    next_step()?;
    let second = devices.add_mmio_dev(Arc::new(Sensor::new(0x3000, 43)))?;
    // Both changes take effect at the same time, or neither does.
    devices.update(|changes| {
        changes.move_to(first, range(0x3000))?;
        changes.move_to(second, range(0x2000))
    })?;
    next_step()?;
    print!("{}", devices.snapshot());
    // After this wait no vCPU is in the device, and its backing resources may be released.
    devices.remove(second)?.wait_timeout(PATIENCE)?;
    next_step()?;
    vcpu.join().expect("the vCPU's thread has not panicked")
}

/// Runs the guest until it halts.
fn run_guest(devices: &SharedVmDevices) -> Result<(), Failure> {
    let guest = match env::args().any(|argument| argument == "--no-kvm") {
        true => Err("--no-kvm".into()),
        false => kvm::create(),
    };
    match guest {
        Ok(mut guest) => guest.run(devices),
        Err(why) => {
            println!("no KVM ({why}): a thread makes the guest's accesses");
            stand_in(devices);
            Ok(())
        }
    }
}

/// Makes the guest's accesses.
fn stand_in(devices: &SharedVmDevices) {
    let mut devices = devices.dispatcher();
    for (step, (offset, awaited, text)) in STEPS.into_iter().enumerate() {
        let first = DEVICES + usize::from(offset);
        let here = (0x1000 - first % 0x1000).min(4);
        let mut data = [0; 4];
        while u32::from_le_bytes(data) != awaited {
            let exits = [(first, 0..here), (first + here, here..4)];
            for (addr, bytes) in exits.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
                goes_on(devices.read_bytes(GuestPhysAddr::from(addr), &mut data[bytes]));
            }
        }
        goes_on(devices.write_repeated(Port(UART), AccessWidth::Byte, text.as_bytes()));
        goes_on(devices.write_bytes(Port(PROGRESS), &[step as u8]));
    }
}

/// Reports that a device failed. The guest continues: a failed read returns the value of an undriven bus.
fn goes_on(answered: AxResult) {
    if let Err(error) = answered {
        eprintln!("a device failed: {error}");
    }
}

/// Four bytes at an offset from [`DEVICES`].
fn range(offset: usize) -> GuestPhysAddrRange {
    GuestPhysAddrRange::from_start_size(GuestPhysAddr::from(DEVICES + offset), 4)
}

/// A register of four bytes that reads as a value.
struct Sensor {
    first: GuestPhysAddrRange,
    value: u8,
}

impl Sensor {
    fn new(offset: usize, value: u8) -> Self {
        let first = range(offset);
        Self { first, value }
    }
}

impl BaseDeviceOps<GuestPhysAddrRange> for Sensor {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    /// The initial address. The registry knows the current one.
    fn address_range(&self) -> GuestPhysAddrRange {
        self.first
    }

    fn handle_read(&self, _: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
        Ok(self.value.into())
    }

    fn handle_write(&self, _: GuestPhysAddr, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}

/// A port that forwards the written values.
struct Progress(mpsc::Sender<usize>);

impl BaseDeviceOps<PortRange> for Progress {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        PortRange::new(Port(PROGRESS), Port(PROGRESS))
    }

    fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
        Ok(0)
    }

    fn handle_write(&self, _: Port, _: AccessWidth, step: usize) -> AxResult {
        self.0.send(step).map_err(|_| AxError::BrokenPipe)
    }
}

/// A 16550 UART that prints to the terminal.
struct Uart(RefCell<Serial<NoInterrupt, NoEvents, Stdout>>);

/// The guest does not enable interrupts.
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Uart {
    fn new() -> Self {
        Self(RefCell::new(Serial::new(NoInterrupt, stdout())))
    }
}

impl BaseDeviceOps<PortRange> for Uart {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Console
    }

    fn address_range(&self) -> PortRange {
        PortRange::new(Port(UART), Port(UART + 7))
    }

    fn handle_read(&self, port: Port, _: AccessWidth) -> AxResult<usize> {
        Ok(self.0.borrow_mut().read((port.0 - UART) as u8).into())
    }

    fn handle_write(&self, port: Port, _: AccessWidth, val: usize) -> AxResult {
        let written = self.0.borrow_mut().write((port.0 - UART) as u8, val as u8);
        written.map_err(|_| AxError::Io)
    }
}

/// A machine with one vCPU, in real mode.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kvm {
    use std::ptr;

    use axdevice::{AccessWidth, GuestPhysAddr, Port, SharedVmDevices};
    use kvm_bindings::{kvm_regs, kvm_userspace_memory_region};
    use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
    use libc::EINTR;
    use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

    use crate::{DEVICES, Failure, PROGRESS, STEPS, UART, goes_on};

    /// The size of the guest's memory, in bytes, and the address of its program.
    const MEMORY: usize = 0x1_0000;
    const CODE: u16 = 0x1000;
    /// Some processors need three pages there that the guest does not use.
    const TSS: usize = 0xfffb_d000;

    /// The fields are in the order in which they are dropped.
    pub(crate) struct Guest {
        vcpu: VcpuFd,
        _machine: VmFd,
        _memory: GuestMemoryMmap,
    }

    pub(crate) fn create() -> Result<Guest, Failure> {
        let machine = Kvm::new()?.create_vm()?;
        machine.set_tss_address(TSS)?;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)])?;
        memory.write_slice(&assemble(), GuestAddress(CODE.into()))?;
        let region = kvm_userspace_memory_region {
            memory_size: MEMORY as u64,
            userspace_addr: memory.get_host_address(GuestAddress(0))? as u64,
            ..Default::default()
        };
        // SAFETY: the mapping has that size, and lives as long as the machine does.
        unsafe { machine.set_user_memory_region(region) }?;
        let vcpu = machine.create_vcpu(0)?;
        let mut sregs = vcpu.get_sregs()?;
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        vcpu.set_sregs(&sregs)?;
        vcpu.set_regs(&kvm_regs {
            rip: CODE.into(),
            rflags: 2,
            ..Default::default()
        })?;
        Ok(Guest {
            vcpu,
            _machine: machine,
            _memory: memory,
        })
    }

    impl Guest {
        /// Runs the guest until it halts. Its device accesses cause exits, which the registry handles.
        pub(crate) fn run(&mut self, devices: &SharedVmDevices) -> Result<(), Failure> {
            let mut devices = devices.dispatcher();
            loop {
                goes_on(match self.vcpu.run() {
                    Ok(VcpuExit::MmioRead(addr, data)) => {
                        devices.read_bytes(GuestPhysAddr::from(addr as usize), data)
                    }
                    Ok(VcpuExit::MmioWrite(addr, data)) => {
                        devices.write_bytes(GuestPhysAddr::from(addr as usize), data)
                    }
                    Ok(VcpuExit::IoIn(port, data)) => {
                        let data = ptr::from_mut(data);
                        let width = item_width(&mut self.vcpu);
                        // SAFETY: the bytes are in the pages that the vCPU shares with the kernel. Until
                        // it runs again no other thread uses them.
                        devices.read_repeated(Port(port), width, unsafe { &mut *data })
                    }
                    Ok(VcpuExit::IoOut(port, data)) => {
                        let data = ptr::from_ref(data);
                        let width = item_width(&mut self.vcpu);
                        // SAFETY: as above.
                        devices.write_repeated(Port(port), width, unsafe { &*data })
                    }
                    Ok(VcpuExit::Hlt) => return Ok(()),
                    Ok(exit) => return Err(format!("the guest ended with {exit:?}").into()),
                    // A signal: another thread waits until the vCPU drops removed devices.
                    Err(error) if error.errno() == EINTR => {
                        devices.refresh();
                        Ok(())
                    }
                    Err(error) => return Err(error.into()),
                });
            }
        }
    }

    /// The width of an item of a port exit. String I/O has several in one buffer.
    fn item_width(vcpu: &mut VcpuFd) -> AccessWidth {
        // SAFETY: the union has integers there, and this exit has set them.
        let size = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.io.size };
        // The kernel gives 1, 2 or 4.
        AccessWidth::try_from(usize::from(size)).unwrap_or(AccessWidth::Byte)
    }

    /// The guest's program, in machine code.
    fn assemble() -> Vec<u8> {
        let mut code = vec![];
        // mov ax, DEVICES >> 4; mov es, ax
        code.push(0xb8);
        code.extend(((DEVICES >> 4) as u16).to_le_bytes());
        code.extend([0x8e, 0xc0]);
        for (step, (offset, awaited, text)) in STEPS.into_iter().enumerate() {
            // wait: mov eax, es:[offset]; cmp eax, awaited; jne wait
            code.extend([0x66, 0x26, 0xa1]);
            code.extend(offset.to_le_bytes());
            code.extend([0x66, 0x3d]);
            code.extend(awaited.to_le_bytes());
            code.extend([0x75, 0xf3]);
            // mov dx, UART; mov si, text; mov cx, its length; rep outsb; jmp over text
            code.push(0xba);
            code.extend(UART.to_le_bytes());
            code.push(0xbe);
            code.extend((CODE + code.len() as u16 + 9).to_le_bytes());
            code.push(0xb9);
            code.extend((text.len() as u16).to_le_bytes());
            code.extend([0xf3, 0x6e, 0xeb, text.len() as u8]);
            code.extend(text.bytes());
            // mov al, step; out PROGRESS, al
            code.extend([0xb0, step as u8, 0xe6, PROGRESS as u8]);
        }
        // hlt
        code.push(0xf4);
        code
    }
}

/// The guest exists for x86_64 only.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod kvm {
    use axdevice::SharedVmDevices;

    use crate::Failure;

    pub(crate) enum Guest {}

    pub(crate) fn create() -> Result<Guest, Failure> {
        Err("it is for x86_64 Linux".into())
    }

    impl Guest {
        pub(crate) fn run(&mut self, _: &SharedVmDevices) -> Result<(), Failure> {
            match *self {}
        }
    }
}
