//! rust-vmm's own UART, real-time clock and keyboard controller, unchanged, on `busmap`.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use busmap::rust_vmm::{
    IoManager,
    vm_device::{
        MutDeviceMmio, MutDevicePio,
        bus::{MmioAddress, MmioAddressOffset, MmioRange, PioAddress, PioAddressOffset, PioRange},
    },
};
use vm_superio::{
    I8042Device, Rtc, Serial, Trigger, rtc_pl031::NoEvents as NoRtcEvents, serial::NoEvents,
};

/// An interrupt or a reset that is counted.
#[derive(Clone, Default)]
struct Counted(Arc<AtomicU64>);

impl Trigger for Counted {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.fetch_add(1, SeqCst);
        Ok(())
    }
}

// The devices implement no trait of a bus. Each supports one width; other accesses have no effect.

struct Com1(Serial<Counted, NoEvents, Vec<u8>>);

impl MutDevicePio for Com1 {
    fn pio_read(&mut self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        if let [byte] = data {
            *byte = self.0.read(offset as u8);
        }
    }

    fn pio_write(&mut self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        if let &[byte] = data {
            self.0.write(offset as u8, byte).expect("a vector grows");
        }
    }
}

struct Pl031(Rtc<NoRtcEvents>);

impl MutDeviceMmio for Pl031 {
    fn mmio_read(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        if let Ok(data) = data.try_into() {
            self.0.read(offset as u16, data);
        }
    }

    fn mmio_write(&mut self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        if let Ok(data) = data.try_into() {
            self.0.write(offset as u16, data);
        }
    }
}

struct Keyboard(I8042Device<Counted>);

impl MutDevicePio for Keyboard {
    fn pio_read(&mut self, _: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        if let [byte] = data {
            *byte = self.0.read(offset as u8);
        }
    }

    fn pio_write(&mut self, _: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        if let &[byte] = data {
            let Ok(()) = self.0.write(offset as u8, byte);
        }
    }
}

const COM1: PioAddress = PioAddress(0x3f8);
const LINE_STATUS: PioAddress = PioAddress(0x3fd);

/// A UART, at its eight ports.
fn plug_in(io: &IoManager) -> Arc<Mutex<Com1>> {
    let uart = Serial::new(Counted::default(), Vec::new());
    let uart = Arc::new(Mutex::new(Com1(uart)));
    let ports = PioRange::new(COM1, 8).unwrap();
    io.register_pio(ports, uart.clone()).unwrap();
    uart
}

#[test]
fn the_uart_prints() {
    let io = IoManager::new();
    let uart = plug_in(&io);
    let mut vcpu = io.vcpu();
    let mut status = [0];
    vcpu.pio_read(LINE_STATUS, &mut status).unwrap();
    assert_eq!(status, [0x60], "it is ready to transmit");
    for byte in b"hello" {
        vcpu.pio_write(COM1, &[*byte]).unwrap();
    }
    assert_eq!(uart.lock().unwrap().0.writer(), b"hello");
    uart.lock().unwrap().0.enqueue_raw_bytes(b"!").unwrap();
    let mut typed = [0];
    io.pio_read(COM1, &mut typed).unwrap();
    assert_eq!(typed, *b"!");
}

#[test]
fn the_clock_can_be_set() {
    let base = 0x901_0000;
    let io = IoManager::new();
    let clock = Arc::new(Mutex::new(Pl031(Rtc::new())));
    let range = MmioRange::new(MmioAddress(base), 0x1000).unwrap();
    io.register_mmio(range, clock).unwrap();
    let mut vcpu = io.vcpu();
    let mut read = |offset| {
        let mut data = [0; 4];
        vcpu.mmio_read(MmioAddress(base + offset), &mut data)
            .unwrap();
        u32::from_le_bytes(data)
    };
    // The part number, in the identification registers of a PrimeCell.
    assert_eq!((read(0xfe0), read(0xfe4) & 0xf), (0x31, 0));
    io.mmio_write(MmioAddress(base + 8), &1_000_u32.to_le_bytes())
        .unwrap();
    assert_eq!(read(8), 1_000, "the load register");
    assert!(read(0) >= 1_000, "the data register counts from there");
}

#[test]
fn the_keyboard_controller_resets() {
    let io = IoManager::new();
    let reset = Counted::default();
    let keyboard = Keyboard(I8042Device::new(reset.clone()));
    let ports = PioRange::new(PioAddress(0x60), 5).unwrap();
    io.register_pio(ports, Arc::new(Mutex::new(keyboard)))
        .unwrap();
    let mut vcpu = io.vcpu();
    let mut status = [0xff];
    vcpu.pio_read(PioAddress(0x64), &mut status).unwrap();
    assert_eq!((status, reset.0.load(SeqCst)), ([0], 0));
    vcpu.pio_write(PioAddress(0x64), &[0xfe]).unwrap();
    assert_eq!(reset.0.load(SeqCst), 1);
}

/// Sets the flag when it is dropped, also by a panic.
struct Stop<'f>(&'f AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// vCPUs print all the time, with a handle and without. Once a removed UART is quiescent, only the remover holds it.
/// The byte of each write is in some UART's output.
#[test]
fn uarts_come_and_go_while_vcpus_print() {
    const ROUNDS: usize = 200;
    let (io, stop) = (IoManager::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        let print = || {
            let mut vcpu = io.vcpu();
            let mut written = 0;
            while !stop.load(SeqCst) {
                written += usize::from(vcpu.pio_write(COM1, b"x").is_ok());
                written += usize::from(io.pio_write(COM1, b"y").is_ok());
                thread::yield_now();
            }
            written
        };
        let vcpus = [(); 2].map(|()| scope.spawn(print));
        let stop = Stop(&stop);
        let mut printed = 0;
        for _ in 0..ROUNDS {
            let uart = plug_in(&io);
            while uart.lock().unwrap().0.writer().is_empty() {
                thread::yield_now();
            }
            let removed = io.deregister_pio(COM1).unwrap().expect("it is there");
            let device = removed.wait_timeout(Duration::from_secs(60));
            drop(device.expect("the vCPUs leave it"));
            let uart = Arc::into_inner(uart).expect("the only reference");
            printed += uart.into_inner().unwrap().0.into_writer().len();
        }
        drop(stop);
        let written: usize = vcpus.into_iter().map(|vcpu| vcpu.join().unwrap()).sum();
        assert_eq!(written, printed);
    });
}
