//! Dragonball's serial device and keyboard controller, unchanged, on `busmap`'s front end for
//! rust-vmm's devices.
#![cfg(target_os = "linux")]

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use busmap::{
    Device, DeviceId, Miss, Mmio, Port, Refusal, Span,
    rust_vmm::{
        AccessError, IoManager, RustVmm,
        vm_device::{
            DeviceMmio, DevicePio,
            bus::{MmioAddress, MmioAddressOffset, PioAddress, PioAddressOffset},
        },
    },
};
use dbs_device::{DeviceIo, resources::Resource};
use dbs_legacy_devices::{ConsoleHandler, SerialDevice};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Dragonball's trait combines rust-vmm's two traits, with other types of addresses.
struct Dragonball(Arc<dyn DeviceIo>);

impl DeviceMmio for Dragonball {
    fn mmio_read(&self, base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.0.read(base.0.into(), offset.into(), data);
    }

    fn mmio_write(&self, base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        self.0.write(base.0.into(), offset.into(), data);
    }
}

impl DevicePio for Dragonball {
    fn pio_read(&self, base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        self.0.pio_read(base.0.into(), offset.into(), data);
    }

    fn pio_write(&self, base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        self.0.pio_write(base.0.into(), offset.into(), data);
    }
}

/// As Dragonball's `IoManager::register_device_io`, but shared, and at one instant on both buses.
fn register_device_io(
    io: &IoManager,
    device: Arc<dyn DeviceIo>,
    resources: &[Resource],
) -> Result<DeviceId, Refusal> {
    let device = Arc::new(Dragonball(device));
    let device = Device::<RustVmm>::new(())
        .on::<Mmio>(device.clone())
        .on::<Port>(device);
    let mut batch = io.batch();
    let id = batch.add(device)?;
    for resource in resources {
        match *resource {
            Resource::PioAddressRange { base, size } => {
                batch.map::<Port>(id, span(base.into(), size.into()))?;
            }
            Resource::MmioAddressRange { base, size } => {
                batch.map::<Mmio>(id, span(base, size))?;
            }
            _ => {}
        }
    }
    batch.publish()?;
    Ok(id)
}

fn span(base: u64, size: u64) -> Span {
    Span::with_length(base, size).expect("a resource is not empty")
}

fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

/// The output of a serial device.
struct Printer(mpsc::Sender<u8>);

impl io::Write for Printer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0.send(*byte).map_err(io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const COM1: u16 = 0x3f8;
const SERIAL: u64 = 0x4000_0000;

/// A serial device at its eight ports and in memory, and its output.
fn plug_in(io: &IoManager) -> (Arc<Mutex<SerialDevice>>, DeviceId, mpsc::Receiver<u8>) {
    let (printer, printed) = mpsc::channel();
    let mut serial = SerialDevice::new(event());
    serial.set_output_stream(Some(Box::new(Printer(printer))));
    let serial = Arc::new(Mutex::new(serial));
    let resources = [
        Resource::PioAddressRange {
            base: COM1,
            size: 8,
        },
        Resource::LegacyIrq(4),
        Resource::MmioAddressRange {
            base: SERIAL,
            size: 0x1000,
        },
    ];
    let id = register_device_io(io, serial.clone(), &resources).unwrap();
    (serial, id, printed)
}

#[test]
fn the_serial_device_answers_on_both_buses() {
    let io = IoManager::new();
    let (serial, id, printed) = plug_in(&io);
    let mut vcpu = io.vcpu();
    vcpu.pio_write(PioAddress(COM1), b"p").unwrap();
    vcpu.mmio_write(MmioAddress(SERIAL), b"m").unwrap();
    assert!(printed.try_iter().eq(*b"pm"));
    serial.lock().unwrap().raw_input(b"?").unwrap();
    let mut data = [0];
    vcpu.mmio_read(MmioAddress(SERIAL), &mut data).unwrap();
    assert_eq!(data, *b"?");
    // Three bytes are one access, which this device does not support.
    let mut three = [9; 3];
    vcpu.pio_read(PioAddress(COM1), &mut three).unwrap();
    assert_eq!(three, [9; 3]);

    let (here, there) = (span(SERIAL, 0x1000), span(SERIAL + 0x800, 0x1000));
    io.move_to::<Mmio>(id, here, there).unwrap();
    let unmapped = Err(AccessError::Miss(Miss::Unmapped));
    assert_eq!(vcpu.mmio_read(MmioAddress(SERIAL + 5), &mut data), unmapped);
    vcpu.mmio_read(MmioAddress(SERIAL + 0x805), &mut data)
        .unwrap();
    assert_eq!(data, [0x60], "it is ready to transmit");
    io.unmap::<Port>(id, span(COM1.into(), 8)).unwrap();
    assert_eq!(vcpu.pio_write(PioAddress(COM1), b"p"), unmapped);
}

/// Dragonball has this device only on x86.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_keyboard_controller_resets() {
    use dbs_legacy_devices::{EventFdTrigger, I8042Device};

    let io = IoManager::new();
    let reset = event();
    let trigger = EventFdTrigger::new(reset.try_clone().unwrap());
    let keyboard = I8042Device::new(trigger, Arc::default());
    let keyboard = Arc::new(Mutex::new(keyboard));
    let ports = Resource::PioAddressRange {
        base: 0x60,
        size: 5,
    };
    register_device_io(&io, keyboard, &[ports]).unwrap();
    let mut vcpu = io.vcpu();
    vcpu.pio_write(PioAddress(0x64), &[0xfe]).unwrap();
    assert_eq!(reset.read().unwrap(), 1);
}

/// Sets the flag when it is dropped, also by a panic.
struct Stop<'f>(&'f AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// vCPUs print all the time, on ports and in memory. Once a removed device is quiescent, only the
/// remover holds it. The byte of each write was printed by some device.
#[test]
fn serial_devices_come_and_go_while_vcpus_print() {
    const ROUNDS: usize = 200;
    let (io, stop) = (IoManager::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        let print = |by_port: bool| {
            let mut vcpu = io.vcpu();
            let mut written = 0;
            while !stop.load(SeqCst) {
                let made = if by_port {
                    vcpu.pio_write(PioAddress(COM1), b"p")
                } else {
                    vcpu.mmio_write(MmioAddress(SERIAL), b"m")
                };
                written += usize::from(made.is_ok());
                thread::yield_now();
            }
            written
        };
        let vcpus = [true, false].map(|by_port| scope.spawn(move || print(by_port)));
        let stop = Stop(&stop);
        let mut total = 0;
        for round in 0..ROUNDS {
            let (serial, _, printed) = plug_in(&io);
            printed.recv().expect("a vCPU prints");
            let removed = match round % 2 {
                0 => io.deregister_pio(PioAddress(COM1)),
                _ => io.deregister_mmio(MmioAddress(SERIAL)),
            };
            let removed = removed.unwrap().expect("it is there");
            let device = removed.wait_timeout(Duration::from_secs(60));
            drop(device.expect("the vCPUs leave it"));
            drop(Arc::into_inner(serial).expect("the only reference"));
            // The device's printer is dropped, so this loop ends.
            total += 1 + printed.iter().count();
        }
        drop(stop);
        let written: usize = vcpus.into_iter().map(|vcpu| vcpu.join().unwrap()).sum();
        assert_eq!(written, total);
    });
}
