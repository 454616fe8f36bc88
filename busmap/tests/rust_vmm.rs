//! The front end for rust-vmm's devices, also compared with `vm-device`'s own `IoManager`.

use std::{
    error::Error,
    sync::{Arc, Barrier, Mutex},
    thread,
};

use busmap::{
    BusId, Device, Miss, Mmio, Port, Refusal, Span,
    rust_vmm::{
        AccessError, IoManager, RustVmm,
        vm_device::{
            DeviceMmio, MutDeviceMmio, MutDevicePio,
            bus::{
                MmioAddress, MmioAddressOffset, MmioRange, PioAddress, PioAddressOffset, PioRange,
            },
            device_manager::{self, MmioManager, PioManager},
        },
    },
};

/// The arguments of a call of a device: the base, the offset, and the bytes of a write or the length of a
/// read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Read(u64, u64, usize),
    Write(u64, u64, Vec<u8>),
}

/// A device that records the arguments of its calls. Each byte reads as its number.
#[derive(Debug)]
struct Recorder {
    number: u8,
    calls: Vec<Call>,
}

impl Recorder {
    fn new(number: u8) -> Arc<Mutex<Self>> {
        let calls = Vec::new();
        Arc::new(Mutex::new(Self { number, calls }))
    }

    fn read(&mut self, base: u64, offset: u64, data: &mut [u8]) {
        self.calls.push(Call::Read(base, offset, data.len()));
        data.fill(self.number);
    }

    fn write(&mut self, base: u64, offset: u64, data: &[u8]) {
        self.calls.push(Call::Write(base, offset, data.to_vec()));
    }
}

impl MutDeviceMmio for Recorder {
    fn mmio_read(&mut self, base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.read(base.0, offset, data);
    }

    fn mmio_write(&mut self, base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        self.write(base.0, offset, data);
    }
}

impl MutDevicePio for Recorder {
    fn pio_read(&mut self, base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        self.read(base.0.into(), offset.into(), data);
    }

    fn pio_write(&mut self, base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        self.write(base.0.into(), offset.into(), data);
    }
}

fn calls(of: &Mutex<Recorder>) -> Vec<Call> {
    std::mem::take(&mut of.lock().unwrap().calls)
}

fn mmio(base: u64, size: u64) -> MmioRange {
    MmioRange::new(MmioAddress(base), size).unwrap()
}

fn pio(base: u16, size: u16) -> PioRange {
    PioRange::new(PioAddress(base), size).unwrap()
}

fn span(first: u64, last: u64) -> Span {
    Span::new(first, last).unwrap()
}

/// Makes the same access by `&self`, and twice by a handle: without and with a hint.
macro_rules! each_way {
    ($io:expr, $vcpu:expr, $access:ident($($arg:expr),+)) => {{
        let results = [$io.$access($($arg),+), $vcpu.$access($($arg),+), $vcpu.$access($($arg),+)];
        assert!(results.iter().all(|result| *result == results[0]), "{results:?}");
        results[0]
    }};
}

#[test]
fn an_access_of_any_length_reaches_the_device_whole() {
    let (io, device) = (IoManager::new(), Recorder::new(7));
    io.register_mmio(mmio(0x1000, 0x2000), device.clone())
        .unwrap();
    io.register_pio(pio(0x100, 0x1000), device.clone()).unwrap();
    let mut vcpu = io.vcpu();
    for length in (1..=64).chain([0xff0]) {
        let mut data = vec![0; length];
        let bytes: Vec<_> = (0..length).map(|n| n as u8).collect();
        each_way!(io, vcpu, mmio_read(MmioAddress(0x1003), &mut data)).unwrap();
        assert_eq!(calls(&device), vec![Call::Read(0x1000, 3, length); 3]);
        assert!(data.iter().all(|byte| *byte == 7));
        each_way!(io, vcpu, mmio_write(MmioAddress(0x2001), &bytes)).unwrap();
        let wrote = Call::Write(0x1000, 0x1001, bytes.clone());
        assert_eq!(calls(&device), vec![wrote; 3]);
        data.fill(0);
        each_way!(io, vcpu, pio_read(PioAddress(0x105), &mut data)).unwrap();
        assert_eq!(calls(&device), vec![Call::Read(0x100, 5, length); 3]);
        assert!(data.iter().all(|byte| *byte == 7));
        each_way!(io, vcpu, pio_write(PioAddress(0x107), &bytes)).unwrap();
        assert_eq!(calls(&device), vec![Call::Write(0x100, 7, bytes); 3]);
    }
}

#[test]
fn an_access_that_is_not_made_says_why_and_leaves_the_buffer() {
    let (io, device) = (IoManager::new(), Recorder::new(7));
    for base in [0x1000, u64::MAX - 0xf] {
        io.register_mmio(mmio(base, 0x10), device.clone()).unwrap();
    }
    for base in [0x1000, 0xfff0] {
        io.register_pio(pio(base, 0x10), device.clone()).unwrap();
    }
    let mut vcpu = io.vcpu();
    let crosses = |first, last| Err(AccessError::Miss(Miss::Crosses(span(first, last))));
    let unmapped = Err(AccessError::Miss(Miss::Unmapped));
    let mmio = [
        (0x1000, 0, Err(AccessError::Empty)),
        (0x2000, 0, Err(AccessError::Empty)),
        (0x100f, 2, crosses(0x1000, 0x100f)),
        (0x1000, 0x11, crosses(0x1000, 0x100f)),
        (0xfff, 2, unmapped),
        (0x1010, 1, unmapped),
        (u64::MAX, 2, crosses(u64::MAX - 0xf, u64::MAX)),
        (u64::MAX - 0x10, 0x20, unmapped),
    ];
    for (addr, length, why) in mmio {
        let (addr, mut data) = (MmioAddress(addr), vec![0xa5; length]);
        assert_eq!(each_way!(io, vcpu, mmio_read(addr, &mut data)), why);
        assert_eq!(each_way!(io, vcpu, mmio_write(addr, &data)), why);
        assert!(data.iter().all(|byte| *byte == 0xa5));
    }
    let ports = [
        (0x1000, 0, Err(AccessError::Empty)),
        (0x100f, 2, crosses(0x1000, 0x100f)),
        (0xfff, 2, unmapped),
        (0xffff, 2, crosses(0xfff0, 0xffff)),
        (0xfff0, 0x1_0001, crosses(0xfff0, 0xffff)),
        (0xffef, 0x1_0000, unmapped),
    ];
    for (addr, length, why) in ports {
        let (addr, mut data) = (PioAddress(addr), vec![0xa5; length]);
        assert_eq!(each_way!(io, vcpu, pio_read(addr, &mut data)), why);
        assert_eq!(each_way!(io, vcpu, pio_write(addr, &data)), why);
        assert!(data.iter().all(|byte| *byte == 0xa5));
    }
    assert_eq!(calls(&device), []);
    // The last bytes of each bus are no special case.
    let mut last = [0];
    each_way!(io, vcpu, mmio_read(MmioAddress(u64::MAX), &mut last)).unwrap();
    each_way!(io, vcpu, pio_read(PioAddress(0xffff), &mut last)).unwrap();
    assert_eq!(last, [7]);
}

#[test]
fn errors_have_words() {
    let error: Box<dyn Error> = AccessError::Empty.into();
    assert_eq!(error.to_string(), "the access has no bytes");
    let error: Box<dyn Error> = AccessError::from(Miss::Crosses(span(0x3f8, 0x3ff))).into();
    assert_eq!(
        error.to_string(),
        "the access runs past the end of 0x3f8..=0x3ff"
    );
}

#[test]
fn any_device_of_vm_device_is_registered() {
    struct Silent;
    impl DeviceMmio for Silent {
        fn mmio_read(&self, _: MmioAddress, _: MmioAddressOffset, _: &mut [u8]) {}
        fn mmio_write(&self, _: MmioAddress, _: MmioAddressOffset, _: &[u8]) {}
    }
    let io = IoManager::new();
    let device: Arc<dyn DeviceMmio + Send + Sync> = Arc::new(Silent);
    io.register_mmio(mmio(0, 1), device.clone()).unwrap();
    io.register_mmio(mmio(1, 1), Arc::new(device)).unwrap();
    let boxed: Arc<Mutex<dyn MutDeviceMmio + Send>> = Recorder::new(3);
    io.register_mmio(mmio(2, 1), Arc::new(boxed)).unwrap();
    let mut data = [1];
    for (addr, reads_as) in [(0, 1), (1, 1), (2, 3)] {
        io.mmio_read(MmioAddress(addr), &mut data).unwrap();
        assert_eq!(data, [reads_as]);
    }
}

#[test]
fn a_range_in_the_way_is_named_and_the_device_given_back() {
    let (io, device) = (IoManager::new(), Recorder::new(1));
    let id = io.register_pio(pio(0x3f8, 8), Recorder::new(2)).unwrap();
    let refused = io.register_pio(pio(0x3ff, 2), device.clone()).unwrap_err();
    let (wanted, owned) = (span(0x3ff, 0x400), span(0x3f8, 0x3ff));
    let overlap = Refusal::Overlap {
        bus: BusId::Port,
        wanted,
        owner: id,
        owned,
    };
    assert_eq!(refused.refusal, overlap);
    assert_eq!(Arc::strong_count(&device), 2);
    drop(refused.device.into_handler::<Port>());
    assert_eq!(Arc::strong_count(&device), 1);
    // The same addresses of the other bus are free.
    io.register_mmio(mmio(0x3ff, 2), device).unwrap();
}

#[test]
fn a_device_is_found_by_its_addresses() {
    let io = IoManager::new();
    let id = io.register_mmio(mmio(8, 8), Recorder::new(1)).unwrap();
    let (found, device) = io.mmio_device(MmioAddress(0xf)).unwrap();
    let mut data = [0];
    device.mmio_read(MmioAddress(8), 7, &mut data);
    assert_eq!((found, data), (id, [1]));
    assert!(io.mmio_device(MmioAddress(0x10)).is_none());
    assert!(io.pio_device(PioAddress(8)).is_none());
    let id = io.register_pio(pio(8, 1), Recorder::new(1)).unwrap();
    let found = io.pio_device(PioAddress(8)).unwrap();
    assert_eq!(found.0, id);
}

#[test]
fn a_device_on_both_buses_is_deregistered_from_both() {
    let (io, device) = (IoManager::new(), Recorder::new(1));
    let both = Device::<RustVmm>::new(())
        .on::<Mmio>(device.clone())
        .on::<Port>(device.clone());
    let mut batch = io.batch();
    let id = batch.add(both).unwrap();
    batch.map::<Mmio>(id, span(0x1000, 0x1fff)).unwrap();
    batch.map::<Port>(id, span(0x10, 0x1f)).unwrap();
    batch.publish().unwrap();
    let mut vcpu = io.vcpu();
    vcpu.pio_write(PioAddress(0x10), &[1]).unwrap();
    vcpu.mmio_write(MmioAddress(0x1000), &[1]).unwrap();
    let removed = io.deregister_mmio(MmioAddress(0x1234)).unwrap().unwrap();
    assert_eq!((removed.id(), removed.is_quiescent()), (id, false));
    let unmapped = Err(AccessError::Miss(Miss::Unmapped));
    assert_eq!(vcpu.pio_write(PioAddress(0x10), &[1]), unmapped);
    assert_eq!(vcpu.mmio_write(MmioAddress(0x1000), &[1]), unmapped);
    assert!(removed.wait(0).is_ok());
    assert_eq!(Arc::strong_count(&device), 1);
    assert!(io.deregister_mmio(MmioAddress(0x1234)).unwrap().is_none());
    assert!(io.deregister_pio(PioAddress(0x10)).unwrap().is_none());
}

/// A device is not removed by an address that it has left: after it has moved back, it is there.
#[test]
fn a_device_that_moves_is_deregistered_where_it_is() {
    let (here, there) = (span(0, 0xf), span(0x10, 0x1f));
    for _ in 0..if cfg!(miri) { 5 } else { 1_000 } {
        let io = IoManager::new();
        let id = io.register_mmio(mmio(0, 0x10), Recorder::new(1)).unwrap();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                while io.move_to::<Mmio>(id, here, there).is_ok() {
                    let back = io.move_to::<Mmio>(id, there, here);
                    back.expect("not deregistered at `there`");
                }
            });
            start.wait();
            while io.deregister_mmio(MmioAddress(0)).unwrap().is_none() {}
        });
    }
}

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    /// The next number, below `n`. (Knuth's MMIX generator: its high bits are the better ones.)
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// The same operations and accesses have the same results as with `vm-device`'s own manager.
#[test]
fn does_as_the_manager_of_vm_device_does() {
    let mut numbers = Numbers(1);
    let mut hits = 0;
    for _ in 0..if cfg!(miri) { 1 } else { 100 } {
        let (ours, mut theirs) = (IoManager::new(), device_manager::IoManager::new());
        let mut vcpu = ours.vcpu();
        for number in 0..100 {
            let (addr, size) = (numbers.below(0x100), 1 + numbers.below(0x20));
            // Half of them at the top end of the bus.
            let addr = addr.wrapping_sub(0x80);
            let (at, port) = (MmioAddress(addr), PioAddress(addr as u16));
            match numbers.below(8) {
                0 => {
                    if let Ok(range) = MmioRange::new(at, size) {
                        let added = ours.register_mmio(range, Recorder::new(number));
                        let expected = theirs.register_mmio(range, Recorder::new(number));
                        assert_eq!(added.is_ok(), expected.is_ok());
                    }
                }
                1 => {
                    if let Ok(range) = PioRange::new(port, size as u16) {
                        let added = ours.register_pio(range, Recorder::new(number));
                        let expected = theirs.register_pio(range, Recorder::new(number));
                        assert_eq!(added.is_ok(), expected.is_ok());
                    }
                }
                2 => {
                    let removed = ours.deregister_mmio(at).unwrap();
                    assert_eq!(removed.is_some(), theirs.deregister_mmio(at).is_some());
                    let removed = ours.deregister_pio(port).unwrap();
                    assert_eq!(removed.is_some(), theirs.deregister_pio(port).is_some());
                }
                _ => {
                    let (mut data, mut expected) = (vec![0; size as usize], vec![0; size as usize]);
                    let made = each_way!(ours, vcpu, mmio_read(at, &mut data)).is_ok();
                    assert_eq!(made, theirs.mmio_read(at, &mut expected).is_ok());
                    assert_eq!(data, expected);
                    hits += u32::from(made);
                    let made = each_way!(ours, vcpu, pio_read(port, &mut data)).is_ok();
                    assert_eq!(made, theirs.pio_read(port, &mut expected).is_ok());
                    assert_eq!(data, expected);
                    hits += u32::from(made);
                }
            }
        }
    }
    assert!(hits > if cfg!(miri) { 0 } else { 500 }, "{hits}");
}

#[test]
fn a_handle_counts_by_device_and_direction() {
    let io = IoManager::new();
    let one = io
        .register_mmio(mmio(0x1000, 0x1000), Recorder::new(1))
        .unwrap();
    let two = io.register_pio(pio(0x100, 0x10), Recorder::new(2)).unwrap();
    let mut vcpu = io.vcpu();
    let (at, port, mut data) = (MmioAddress(0x1000), PioAddress(0x100), [0; 5]);
    for _ in 0..3 {
        vcpu.mmio_read(at, &mut data).unwrap();
        vcpu.pio_write(port, &data).unwrap();
    }
    vcpu.mmio_write(at, &data).unwrap();
    vcpu.pio_read(port, &mut data).unwrap();
    vcpu.pio_read(port, &mut data).unwrap();
    assert!(vcpu.mmio_write(MmioAddress(0x1ffe), &data).is_err());
    assert!(vcpu.pio_read(PioAddress(0x80), &mut data).is_err());
    assert!(vcpu.pio_read(PioAddress(0x80), &mut []).is_err());
    let profile = vcpu.profile();
    let listed = profile.devices.iter();
    let listed = listed.map(|of| (of.id, of.accesses.reads, of.accesses.writes));
    assert!(listed.eq([(two, 2, 3), (one, 3, 1)]));
    let missed = [&profile.mmio, &profile.port].map(|missed| {
        let first = &missed.addresses[0];
        (missed.total, first.address, first.count)
    });
    assert_eq!(missed, [(1, 0x1ffe, 1), (1, 0x80, 1)]);
}
