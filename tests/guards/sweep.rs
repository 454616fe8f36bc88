//! Makes every access to a guarded device, and makes the access that the guard should forward to a bare
//! twin. Afterwards the registers of both hosts must be equal.

use std::{
    env,
    ops::Range,
    process,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::AccessWidth::{self, Byte, Dword, Qword, Word},
};
use axdevice::{AxVmDevices, DeviceBound, VmDevices};
use axdevice_base::BaseDeviceOps;

use crate::host;

pub(crate) const WIDTHS: [AccessWidth; 4] = [Byte, Word, Dword, Qword];

pub(crate) type Bare = Arc<dyn BaseDeviceOps<GuestPhysAddrRange>>;

/// Some registers, and the accesses that a guest may make to them.
pub(crate) struct Row {
    pub(crate) offsets: Range<usize>,
    /// The widths of its reads.
    pub(crate) read: &'static [AccessWidth],
    pub(crate) write: Write,
    /// The widths of its writes.
    pub(crate) written: &'static [AccessWidth],
}

/// The possible effects of a write.
#[derive(Clone, Copy)]
pub(crate) enum Write {
    /// The device's own effect.
    Pass,
    /// The device's effect of another value, computed from the register and the written value.
    #[cfg_attr(
        target_arch = "riscv64",
        expect(dead_code, reason = "the PLIC has no such register")
    )]
    As(fn(usize, usize) -> usize),
    /// The device's own effect if this returns true for the bare twin and the value; otherwise none.
    If(fn(&Twin, usize) -> bool),
}

/// A register that is only read.
pub(crate) const fn read_only(offsets: Range<usize>, read: &'static [AccessWidth]) -> Row {
    row(offsets, read, Write::Pass, &[])
}

/// A register with the same widths for reads and writes.
pub(crate) const fn plain(offsets: Range<usize>, widths: &'static [AccessWidth]) -> Row {
    row(offsets, widths, Write::Pass, widths)
}

pub(crate) const fn row(
    offsets: Range<usize>,
    read: &'static [AccessWidth],
    write: Write,
    written: &'static [AccessWidth],
) -> Row {
    Row {
        offsets,
        read,
        write,
        written,
    }
}

/// A device, and its host's registers.
pub(crate) struct Twin {
    pub(crate) base: usize,
    pub(crate) host: usize,
    pub(crate) device: Bare,
}

impl Twin {
    /// The bare device at `base` in `devices`.
    pub(crate) fn new(devices: &AxVmDevices, base: usize, host: usize) -> Self {
        let device = devices.find_mmio_dev(base.into()).expect("a device");
        Self { base, host, device }
    }

    fn addr(&self, offset: usize) -> GuestPhysAddr {
        (self.base + offset).into()
    }

    pub(crate) fn read(&self, offset: usize, width: AccessWidth) -> usize {
        let value = self.device.handle_read(self.addr(offset), width).unwrap();
        value & mask(width)
    }

    pub(crate) fn write(&self, offset: usize, width: AccessWidth, value: usize) {
        self.device
            .handle_write(self.addr(offset), width, value)
            .unwrap();
    }
}

/// A guarded device and an identical device without a guard.
pub(crate) struct Twins<'a> {
    pub(crate) devices: &'a AxVmDevices,
    pub(crate) guarded: Twin,
    pub(crate) bare: Twin,
    /// The length of the device, and of its host's registers.
    pub(crate) length: usize,
    pub(crate) host_length: usize,
    /// The registers that are not reserved.
    pub(crate) rows: &'a [Row],
    /// Values of interest to the device.
    pub(crate) values: &'a [usize],
}

impl Twins<'_> {
    /// Makes every access, but only at each `far`th of the reserved offsets that are far from any register.
    pub(crate) fn sweep(&self, far: usize) {
        let _watched = watch();
        let mut accesses = 0;
        for offset in offsets(self.length, self.rows, far) {
            for width in WIDTHS {
                if offset + width.size() <= self.length {
                    accesses += self.access(offset, width);
                }
            }
            if offset.is_multiple_of(0x400) {
                assert!(host::is_whole(), "after {offset:#x}");
            }
        }
        self.compare(0..self.host_length);
        assert!(host::is_whole());
        println!("{accesses} accesses");
    }

    /// Makes the accesses in one width at one offset.
    fn access(&self, offset: usize, width: AccessWidth) -> u64 {
        let row = self.row(offset, width);
        let name = format_args!("{width:?} at {offset:#x}").to_string();
        let read = || {
            let addr = (self.guarded.base + offset).into();
            let got = self.devices.handle_mmio_read(addr, width).unwrap();
            let wanted = match row {
                Some(row) if row.read.contains(&width) => self.read(offset, width),
                _ => 0,
            };
            assert_eq!(got, wanted, "read of {name}");
            step();
        };
        read();
        let values = if is_near(self.rows, offset) {
            values(width, self.values)
        } else {
            [0, usize::MAX].map(|value| value & mask(width)).into()
        };
        for &value in &values {
            let addr = (self.guarded.base + offset).into();
            self.devices.handle_mmio_write(addr, width, value).unwrap();
            if let Some(row) = row.filter(|row| row.written.contains(&width)) {
                self.write(row.write, offset, width, value);
            }
            step();
            let window = offset & !31;
            self.compare(window..(window + 64).min(self.host_length));
            if row.is_some() {
                read();
            }
        }
        1 + values.len() as u64
    }

    fn row(&self, offset: usize, width: AccessWidth) -> Option<&Row> {
        let aligned = offset.is_multiple_of(width.size());
        let mut rows = self.rows.iter();
        rows.find(|row| aligned && row.offsets.contains(&offset))
    }

    /// The expected value of a read. For half of a register of eight bytes, it is taken from the whole.
    fn read(&self, offset: usize, width: AccessWidth) -> usize {
        match self.is_half(offset, width) {
            true => self.bare.read(offset & !7, Qword) >> (offset % 8 * 8) & mask(Dword),
            false => self.bare.read(offset, width),
        }
    }

    /// Makes the expected write to the bare twin.
    fn write(&self, write: Write, offset: usize, width: AccessWidth, value: usize) {
        let value = match write {
            Write::Pass if self.is_half(offset, width) => {
                let (whole, shift) = (offset & !7, offset % 8 * 8);
                let others = self.bare.read(whole, Qword) & !(mask(Dword) << shift);
                return self.bare.write(whole, Qword, others | value << shift);
            }
            Write::Pass => value,
            Write::As(other) => other(self.bare.read(offset, width), value) & mask(width),
            Write::If(check) if check(&self.bare, value) => value,
            Write::If(_) => return,
        };
        self.bare.write(offset, width, value);
    }

    /// Whether the access is half of a register that the device accesses only as eight bytes.
    fn is_half(&self, offset: usize, width: AccessWidth) -> bool {
        let row = self.row(offset, width);
        width == Dword && row.is_some_and(|row| row.read == [Dword, Qword])
    }

    /// Asserts that the registers of both hosts are equal.
    fn compare(&self, offsets: Range<usize>) {
        for at in offsets.step_by(8) {
            let (got, wanted) = (
                host::peek(self.guarded.host + at),
                host::peek(self.bare.host + at),
            );
            assert_eq!(got, wanted, "the host's {at:#x}");
        }
    }
}

/// A registry that vCPUs share, as axvm shares it although the registry's type is not `Sync`.
struct Shared<'r, B: DeviceBound>(&'r VmDevices<B>);

// SAFETY: a registry of devices that are not `Sync` is accessed only through `handle_*`, which
// separates accesses that reach the same state of a device. No thread takes a device out of it while it is
// shared.
unsafe impl<B: DeviceBound> Sync for Shared<'_, B> {}

impl<B: DeviceBound> Shared<'_, B> {
    fn get(&self) -> &VmDevices<B> {
        self.0
    }
}

/// Makes every access from each of two vCPUs, in different orders.
pub(crate) fn from_two_vcpus<B: DeviceBound>(
    devices: &VmDevices<B>,
    base: usize,
    length: usize,
    rows: &[Row],
    special: &[usize],
) {
    let _watched = watch();
    let offsets: Vec<_> = offsets(length, rows, 61).collect();
    let devices = &Shared(devices);
    let vcpu = |backwards: bool| {
        let devices = devices.get();
        for i in 0..offsets.len() {
            let offset = offsets[if backwards { offsets.len() - 1 - i } else { i }];
            for width in WIDTHS {
                if offset + width.size() > length {
                    continue;
                }
                let addr = (base + offset).into();
                let read = || devices.handle_mmio_read(addr, width);
                read().unwrap();
                for value in values(width, special) {
                    devices.handle_mmio_write(addr, width, value).unwrap();
                    read().unwrap();
                    step();
                }
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| vcpu(true));
        vcpu(false);
    });
    assert!(host::is_whole());
}

/// Whether every reserved offset is tested, which takes minutes.
pub(crate) fn in_full() -> bool {
    env::var_os("GUARDS_IN_FULL").is_some()
}

/// The offsets to test: of registers, of 64 bytes around them, and each `far`th of the others, or all.
fn offsets(length: usize, rows: &[Row], far: usize) -> impl Iterator<Item = usize> {
    let far = if in_full() { 1 } else { far };
    (0..length).filter(move |&offset| {
        let last = length - offset <= 64;
        last || offset.is_multiple_of(far) || is_near(rows, offset)
    })
}

/// Whether a register is within 64 bytes.
fn is_near(rows: &[Row], offset: usize) -> bool {
    let near = |row: &Row| row.offsets.start.saturating_sub(64)..row.offsets.end + 64;
    rows.iter().any(|row| near(row).contains(&offset))
}

/// Boundary values and those of interest to the device, truncated to the width.
pub(crate) fn values(width: AccessWidth, special: &[usize]) -> Vec<usize> {
    let common = [
        0,
        1,
        usize::MAX,
        usize::MAX - 1,
        0x7fff_ffff,
        0x8000_0000,
        1 << 63,
        0xaaaa_aaaa_aaaa_aaaa,
    ];
    let all = common.iter().chain(special);
    let mut values: Vec<_> = all.map(|value| value & mask(width)).collect();
    values.sort_unstable();
    values.dedup();
    // The last write leaves a register with some bits set and some clear.
    values.push(0x1234_5678_9abc_def0 & mask(width));
    values
}

pub(crate) const fn mask(width: AccessWidth) -> usize {
    match width {
        Byte => 0xff,
        Word => 0xffff,
        Dword => 0xffff_ffff,
        Qword => usize::MAX,
    }
}

static STEPS: AtomicU64 = AtomicU64::new(0);
static SWEEPS: AtomicU64 = AtomicU64::new(0);

/// Reports to the watchdog that an access has returned.
pub(crate) fn step() {
    STEPS.fetch_add(1, Relaxed);
}

/// A running sweep.
pub(crate) struct Watched(());

impl Drop for Watched {
    fn drop(&mut self) {
        SWEEPS.fetch_sub(1, Relaxed);
    }
}

/// Until the returned value is dropped, aborts the process if no access returns for a minute.
pub(crate) fn watch() -> Watched {
    static WATCHDOG: Once = Once::new();
    WATCHDOG.call_once(|| {
        thread::spawn(watchdog);
    });
    step();
    SWEEPS.fetch_add(1, Relaxed);
    Watched(())
}

fn watchdog() {
    loop {
        let before = STEPS.load(Relaxed);
        thread::sleep(Duration::from_secs(60));
        if STEPS.load(Relaxed) == before && SWEEPS.load(Relaxed) > 0 {
            eprintln!("an access does not return");
            process::abort();
        }
    }
}
