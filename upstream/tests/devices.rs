//! axdevice 0.8.5's own devices, unchanged, hot-added and removed while vCPUs access them.

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use axdevice::{
    DeviceBundle, DeviceManagerResult, DeviceRuntime, FwCfg, FwCfgDmaDevice, FwCfgKernelPayload,
    FwCfgPlatformConfig, SerialBackend, StopAccessPort, TimerAccessPort, WakeAccessPort,
    build_16550_port, build_pl011_mmio,
};
use axdevice_base::{
    AccessWidth::{self, Byte, Dword},
    BusKind, ControllerInputId, Device, DeviceAccess, DeviceContext, DeviceError, DeviceId,
    DeviceResult, DeviceVcpuId, DmaGrant, GuestMemoryAccess, GuestPhysAddr, InterruptControllerId,
    InterruptTriggerMode, IrqLine, IrqResult, Resource, RoutedAdmissionEpoch,
    RoutedBindingGeneration, RoutedDeviceGrant, StopGrant, TimerGrant, WakeGrant, WiredIrqInput,
    WiredIrqSink,
};
use upstream::{Devices, Entry, Grants, Ports, VcpuDevices};

/// The only device of a bundle. 0.8.5 gives a bundle's devices to a `DeviceRuntime` only.
struct Sole(DeviceRuntime);

impl Sole {
    fn of(bundle: DeviceBundle) -> Arc<Self> {
        let mut runtime = DeviceRuntime::default();
        runtime.register_bundle(bundle).unwrap();
        assert_eq!(runtime.device_count(), 1);
        Arc::new(Self(runtime))
    }

    fn device(&self) -> &dyn Device {
        self.0.devices().next().unwrap()
    }
}

impl Device for Sole {
    fn name(&self) -> &str {
        self.device().name()
    }

    fn resources(&self) -> &[Resource] {
        self.device().resources()
    }

    fn read(&self, access: &DeviceAccess, context: &mut dyn DeviceContext) -> DeviceResult<u64> {
        self.device().read(access, context)
    }

    fn write(
        &self,
        access: &DeviceAccess,
        value: u64,
        context: &mut dyn DeviceContext,
    ) -> DeviceResult {
        self.device().write(access, value, context)
    }
}

/// Counts the bytes that a UART sends.
#[derive(Debug, Default)]
struct Sent(AtomicUsize);

impl SerialBackend for Sent {
    fn write(&self, bytes: &[u8]) {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
    }

    fn read(&self, _: &mut [u8]) -> usize {
        0
    }
}

struct Unconnected;

impl WiredIrqSink for Unconnected {
    fn set_level(&self, _: ControllerInputId, _: bool) -> IrqResult {
        Ok(())
    }

    fn pulse(&self, _: ControllerInputId) -> IrqResult {
        Ok(())
    }
}

fn line() -> IrqLine {
    let (controller, input) = (InterruptControllerId::new(0), ControllerInputId::new(4));
    let trigger = InterruptTriggerMode::LevelTriggered;
    let input = WiredIrqInput::new(controller, input, trigger, Arc::new(Unconnected));
    input.connect().unwrap()
}

struct Memory(Vec<u8>);

impl GuestMemoryAccess for Memory {
    fn read(&mut self, addr: GuestPhysAddr, data: &mut [u8]) -> DeviceResult {
        data.copy_from_slice(&self.0[addr.as_usize()..][..data.len()]);
        Ok(())
    }

    fn write(&mut self, addr: GuestPhysAddr, data: &[u8]) -> DeviceResult {
        self.0[addr.as_usize()..][..data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn access(bus: BusKind, addr: u64, width: AccessWidth) -> DeviceAccess {
    DeviceAccess::new(DeviceVcpuId::new(1), bus, addr, width)
}

const COM1: u64 = 0x3f8;
const SCRATCH: u64 = COM1 + 7;
const PL011: u64 = 0x900_0000;
const FW_CFG: u64 = 0x902_0000;

fn uart(sent: &Arc<Sent>) -> Entry {
    let bundle = build_16550_port(COM1 as u16, 8, 4, sent.clone(), line());
    Entry::new(Sole::of(bundle))
}

fn pl011(sent: &Arc<Sent>) -> Entry {
    let bundle = build_pl011_mmio(PL011 as usize, 0x1000, 33, sent.clone(), line());
    Entry::new(Sole::of(bundle))
}

fn fw_cfg(granted: bool) -> Entry {
    let inner = FwCfg::new(
        GuestPhysAddr::from_usize(FW_CFG as usize),
        0x18,
        FwCfgKernelPayload::empty(),
        None,
        None,
        3,
        FwCfgPlatformConfig::default(),
    );
    let grant = DmaGrant::new();
    let device = Arc::new(FwCfgDmaDevice::from_arc(Arc::new(inner), grant.clone()));
    let dma = granted.then_some(grant);
    Entry::with_grants(
        device,
        Grants {
            dma,
            ..Grants::default()
        },
    )
}

/// Reads a file of fw_cfg's by DMA: the number of CPUs.
fn cpus_by_dma(vcpu: &mut VcpuDevices<&Devices>) -> (DeviceResult<bool>, u32, u16) {
    const DESCRIPTOR: usize = 0x40;
    const BUFFER: u64 = 0x80;
    let mut memory = Memory(vec![0; 0x100]);
    // Select item 5 and read 2 bytes: docs/specs/fw_cfg.rst of QEMU.
    let control = 5_u32 << 16 | 0x08 | 0x02;
    let descriptor = [
        &control.to_be_bytes()[..],
        &2_u32.to_be_bytes(),
        &BUFFER.to_be_bytes(),
    ];
    memory.0[DESCRIPTOR..][..16].copy_from_slice(&descriptor.concat());
    let start = (DESCRIPTOR as u32).swap_bytes().into();
    let low = access(BusKind::Mmio, FW_CFG + 0x14, Dword);
    let written = vcpu.try_write(&low, start, Some(&mut memory));
    let status = memory.0[DESCRIPTOR..][..4].try_into().unwrap();
    let cpus = memory.0[BUFFER as usize..][..2].try_into().unwrap();
    (
        written,
        u32::from_be_bytes(status),
        u16::from_le_bytes(cpus),
    )
}

#[test]
fn fw_cfg_has_dma_if_it_is_granted() {
    let devices = Devices::default();
    let mut vcpu = VcpuDevices::new(&devices);
    let id = devices.register(fw_cfg(true)).unwrap();
    assert_eq!(cpus_by_dma(&mut vcpu), (Ok(true), 0, 3));
    drop(devices.unregister(id).unwrap().unwrap());
    assert_eq!(cpus_by_dma(&mut vcpu).0, Ok(false));
    devices.register(fw_cfg(false)).unwrap();
    let (written, _, cpus) = cpus_by_dma(&mut vcpu);
    assert!(
        matches!(written, Err(DeviceError::Unsupported { .. })),
        "{written:?}"
    );
    assert_eq!(cpus, 0);
}

/// Accesses all three devices, present or not, and checks each value. Returns the number of answers.
fn vcpu(devices: &Devices, stop: &AtomicBool, number: u8) -> usize {
    let mut vcpu = VcpuDevices::new(devices);
    let mut answered = 0;
    let mut round = number;
    while !stop.load(Ordering::Relaxed) {
        round = round.wrapping_add(1);
        let status = access(BusKind::Port, COM1 + 5, Byte);
        if let Some(status) = vcpu.try_read(&status).unwrap() {
            // The transmitter is empty.
            assert_eq!(status & 0x60, 0x60);
            answered += 1;
        }
        let data = access(BusKind::Port, COM1, Byte);
        vcpu.try_write(&data, b'x'.into(), None).unwrap();
        let baud = access(BusKind::Mmio, PL011 + 0x28, Dword);
        if vcpu.try_write(&baud, 0x15, None).unwrap() {
            // By `&self`: the device may be removed, or replaced by another one, whose register is zero.
            let read = devices.try_read(&baud).unwrap();
            assert!(matches!(read, None | Some(0 | 0x15)), "{read:?}");
            answered += 1;
        }
        match cpus_by_dma(&mut vcpu) {
            (Ok(true), 0, 3) => answered += 1,
            (Ok(false), _, 0) => {}
            other => {
                // Two vCPUs have written the same latch of the descriptor's address.
                assert!(matches!(other, (Ok(true), _, 0 | 3)), "{other:?}");
            }
        }
        let wide = access(BusKind::Port, COM1, Dword);
        match vcpu.try_read(&wide) {
            Ok(None) => {}
            wrong => assert!(matches!(wrong, Err(DeviceError::InvalidWidth { .. }))),
        }
        assert_eq!(
            devices.try_read(&access(BusKind::Port, COM1 + 7, Dword)),
            Ok(None)
        );
    }
    answered
}

#[test]
fn real_devices_are_added_and_removed_under_load() {
    let devices = Devices::default();
    let (sent, stop) = (Arc::new(Sent::default()), AtomicBool::new(false));
    thread::scope(|scope| {
        let vcpus: Vec<_> = (0..3)
            .map(|number| {
                scope.spawn({
                    let (devices, stop) = (&devices, &stop);
                    move || vcpu(devices, stop, number)
                })
            })
            .collect();
        let mut ids = Vec::new();
        for _ in 0..300 {
            let bundle = [uart(&sent), pl011(&sent), fw_cfg(true)];
            let new = devices.register_all(&bundle).unwrap();
            assert!(
                new.iter().all(|id| !ids.contains(id)),
                "an id is used again"
            );
            // The only vCPU that writes the scratch register.
            let scratch = access(BusKind::Port, SCRATCH, Byte);
            assert_eq!(devices.try_write(&scratch, 0x5a, None), Ok(true));
            assert_eq!(devices.try_read(&scratch), Ok(Some(0x5a)));
            thread::yield_now();
            for &id in &new {
                let removed = devices.unregister(id).unwrap().unwrap();
                let removed = removed.wait_timeout(Duration::from_secs(60));
                drop(removed.expect("no vCPU stays in a device"));
            }
            assert_eq!(devices.try_read(&scratch), Ok(None));
            ids.extend(new);
        }
        stop.store(true, Ordering::Relaxed);
        let answered = vcpus.into_iter().map(|vcpu| vcpu.join().unwrap());
        assert!(answered.sum::<usize>() > 0);
    });
    assert!(sent.0.load(Ordering::Relaxed) > 0);
    assert_eq!(devices.device_count(), 0);
    // Each device held a count, and has dropped it.
    assert_eq!(Arc::strong_count(&sent), 1);
}

/// A device that reports the abilities of its context.
#[derive(Default)]
struct Asks {
    dma: DmaGrant,
    timer: TimerGrant,
    wake: WakeGrant,
    stop: StopGrant,
    route: Mutex<Option<RoutedDeviceGrant>>,
}

const ASKS: [Resource; 1] = [Resource::MmioRange {
    base: 0x1000,
    size: 8,
}];
const TARGET: [Resource; 1] = [Resource::MmioRange {
    base: 0x2000,
    size: 8,
}];

impl Asks {
    fn ask(&self, context: &mut dyn DeviceContext) -> [DeviceResult; 4] {
        let addr = GuestPhysAddr::from_usize(0);
        [
            context.read_guest_memory(&self.dma, addr, &mut [0; 4]),
            context.schedule_timer(&self.timer, 7),
            context.wake_vcpu(&self.wake, 2),
            context.request_vm_stop(&self.stop, "asked"),
        ]
    }
}

impl Device for Asks {
    fn name(&self) -> &str {
        "asks"
    }

    fn resources(&self) -> &[Resource] {
        &ASKS
    }

    fn read(&self, _: &DeviceAccess, context: &mut dyn DeviceContext) -> DeviceResult<u64> {
        let vcpu = context.accessing_vcpu().map_or(99, DeviceVcpuId::as_usize) as u64;
        Ok(u64::from(context.device_id().as_u32()) << 8 | vcpu)
    }

    /// Computes the bits of the abilities that it has; with a route, the bits of the target's abilities.
    fn write(&self, _: &DeviceAccess, value: u64, context: &mut dyn DeviceContext) -> DeviceResult {
        let allowed = |asked: [DeviceResult; 4]| {
            let bits = asked
                .iter()
                .enumerate()
                .map(|(i, ok)| u64::from(ok.is_ok()) << i);
            bits.sum::<u64>()
        };
        let route = self.route.lock().unwrap().clone();
        let mut bits = 0;
        match &route {
            None => bits = allowed(self.ask(context)),
            Some(route) => context.with_routed_device(route, &mut |context| {
                assert_eq!(context.device_id(), route.device_id());
                let again = context.with_routed_device(route, &mut |_| Ok(()));
                assert!(matches!(again, Err(DeviceError::Unsupported { .. })));
                bits = allowed(self.ask(context));
                Ok(())
            })?,
        }
        assert_eq!(bits, value);
        Ok(())
    }
}

/// Only owns addresses.
struct Target;

impl Device for Target {
    fn name(&self) -> &str {
        "target"
    }

    fn resources(&self) -> &[Resource] {
        &TARGET
    }

    fn read(&self, _: &DeviceAccess, _: &mut dyn DeviceContext) -> DeviceResult<u64> {
        Ok(0)
    }

    fn write(&self, _: &DeviceAccess, _: u64, _: &mut dyn DeviceContext) -> DeviceResult {
        Ok(())
    }
}

#[derive(Default)]
struct Vm(Mutex<Vec<(u32, u64)>>);

impl TimerAccessPort for Vm {
    fn schedule_timer(&self, id: DeviceId, deadline_ns: u64) -> DeviceManagerResult {
        self.0.lock().unwrap().push((id.as_u32(), deadline_ns));
        Ok(())
    }
}

impl WakeAccessPort for Vm {
    fn wake_vcpu(&self, id: DeviceId, vcpu_id: usize) -> DeviceManagerResult {
        self.0.lock().unwrap().push((id.as_u32(), vcpu_id as u64));
        Ok(())
    }
}

impl StopAccessPort for Vm {
    fn request_vm_stop(&self, id: DeviceId, reason: &str) -> DeviceManagerResult {
        assert_eq!(reason, "asked");
        self.0.lock().unwrap().push((id.as_u32(), 0));
        Ok(())
    }
}

fn ports(vm: &Arc<Vm>) -> Ports {
    Ports {
        timer: Some(vm.clone()),
        wake: Some(vm.clone()),
        stop: Some(vm.clone()),
    }
}

/// The access in which the device asserts that it has the abilities with these bits.
fn assert_abilities(devices: &Devices, bits: u64) -> DeviceResult<bool> {
    let mut memory = Memory(vec![0; 8]);
    let access = access(BusKind::Mmio, 0x1000, Dword);
    devices.try_write(&access, bits, Some(&mut memory))
}

#[test]
fn a_device_has_the_abilities_that_it_is_granted() {
    let vm = Arc::new(Vm::default());
    for bits in 0..16_u64 {
        let devices = Devices::new(ports(&vm));
        let asks = Arc::new(Asks::default());
        let grants = Grants {
            dma: (bits & 1 != 0).then(|| asks.dma.clone()),
            timer: (bits & 2 != 0).then(|| asks.timer.clone()),
            wake: (bits & 4 != 0).then(|| asks.wake.clone()),
            stop: (bits & 8 != 0).then(|| asks.stop.clone()),
        };
        let id = devices.register(Entry::with_grants(asks, grants)).unwrap();
        assert_eq!(assert_abilities(&devices, bits), Ok(true));
        let calls = vm.0.lock().unwrap().split_off(0);
        assert_eq!(calls.len() as u32, (bits >> 1).count_ones());
        assert!(
            calls
                .iter()
                .all(|&(of, value)| of == id.as_u32() && [7, 2, 0].contains(&value))
        );
    }
}

#[test]
fn a_context_names_the_device_and_the_vcpu() {
    let devices = Devices::default();
    devices.register(Entry::new(Arc::new(Target))).unwrap();
    let id = devices
        .register(Entry::new(Arc::new(Asks::default())))
        .unwrap();
    let read = access(BusKind::Mmio, 0x1000, Dword);
    let expected = Ok(Some(u64::from(id.as_u32()) << 8 | 1));
    assert_eq!(devices.try_read(&read), expected);
    assert_eq!(VcpuDevices::new(&devices).try_read(&read), expected);
}

#[test]
fn a_routed_grant_leads_to_the_abilities_of_its_device_until_that_is_removed() {
    let vm = Arc::new(Vm::default());
    let devices = Devices::new(ports(&vm));
    let asks = Arc::new(Asks::default());
    devices.register(Entry::new(asks.clone())).unwrap();
    // The target has the tokens for DMA and the timer.
    let grants = Grants {
        dma: Some(asks.dma.clone()),
        timer: Some(asks.timer.clone()),
        ..Grants::default()
    };
    let target = devices
        .register(Entry::with_grants(Arc::new(Target), grants))
        .unwrap();
    let (generation, epoch) = (
        RoutedBindingGeneration::new(1),
        RoutedAdmissionEpoch::new(1),
    );
    let route = RoutedDeviceGrant::new(target, generation, epoch, true);
    *asks.route.lock().unwrap() = Some(route.clone());
    let refused = |result| assert!(matches!(result, Err(DeviceError::Unsupported { .. })));

    refused(assert_abilities(&devices, 3));
    assert!(devices.grant_route(route.clone()));
    assert_eq!(assert_abilities(&devices, 3), Ok(true));
    *asks.route.lock().unwrap() = Some(route.with_dma_enabled(false));
    assert_eq!(assert_abilities(&devices, 2), Ok(true));
    route.close_admission();
    refused(assert_abilities(&devices, 2));
    route.reopen_admission(epoch);
    assert_eq!(assert_abilities(&devices, 2), Ok(true));
    assert!(devices.revoke_route(&route) && !devices.revoke_route(&route));
    refused(assert_abilities(&devices, 2));
    assert!(devices.grant_route(route.clone()));
    drop(devices.unregister(target).unwrap().unwrap());
    refused(assert_abilities(&devices, 2));
    assert!(!devices.grant_route(route));
}
