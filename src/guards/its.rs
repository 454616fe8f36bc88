//! The registers of `arm_vgic::v3::gits::Gits`, the ITS, for a guest that is trusted with it.
//!
//! Offsets and fields: Arm GIC architecture specification, GICv3 and GICv4, IHI 0069, "The ITS
//! register map".
//!
//! The guard keeps the registers of the command queue and of the tables itself, because the device
//! does not support reads of them in all sizes, and fails on some of their values. It gives the device
//! only runs of commands that the device handles. It does not check the commands: see
//! [`guards`](crate::guards).

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::AccessWidth::{self, Dword, Qword},
};
use axdevice_base::BaseDeviceOps;

use super::{
    enter::{Enter, Occupancy::Alone},
    guard::Guard,
};
use crate::fair_lock::FairLock;

/// Makes the host's ITS execute commands, and waits for their completion.
pub(crate) trait Engine: Send + 'static {
    /// Executes the commands from byte `from` to byte `to` of the commands at `queue`, the physical
    /// address of a page.
    ///
    /// `from` and `to` are multiples of a command's size; `from` is in the first page, and `to` is not
    /// beyond 64 KiB. If the host's ITS is not enabled, the engine waits forever.
    fn execute(&mut self, queue: usize, from: usize, to: usize) -> AxResult;
}

/// The guard of an ITS.
pub(crate) struct Its<E> {
    base: GuestPhysAddr,
    state: FairLock<State<E>>,
}

struct State<E> {
    engine: E,
    enabled: bool,
    queue: Queue,
    /// GITS_BASER0 and GITS_BASER1, which the device only stores.
    tables: [usize; 2],
}

const CONTROL: usize = 0x0;

/// GITS_CTLR.Enabled.
const ENABLED: usize = 1 << 0;

/// GITS_CTLR.Quiescent.
const QUIESCENT: usize = 1 << 31;

enum Register {
    Control,
    ReadOnly,
    QueueBase,
    QueueWrite,
    QueueRead,
    Table(usize),
    Reserved,
}

/// The register at `offset`, if it can be accessed in this width.
#[inline]
fn register(offset: usize, width: AccessWidth) -> Register {
    if !offset.is_multiple_of(width.size()) {
        return Register::Reserved;
    }
    match (offset, width) {
        (CONTROL, Dword) => Register::Control,
        // GITS_IIDR; GITS_PIDR4 to GITS_CIDR3.
        (0x4 | 0xffd0..=0xffff, Dword) => Register::ReadOnly,
        // GITS_TYPER.
        (0x8..=0xf, Dword | Qword) => Register::ReadOnly,
        (0x80..=0x87, Dword | Qword) => Register::QueueBase,
        (0x88..=0x8f, Dword | Qword) => Register::QueueWrite,
        (0x90..=0x97, Dword | Qword) => Register::QueueRead,
        (0x100..=0x10f, Dword | Qword) => Register::Table(offset >> 3 & 1),
        _ => Register::Reserved,
    }
}

impl<E: Engine> Its<E> {
    /// Creates the guard of a device that starts at `base`. The guard owns the engine.
    pub(crate) fn new(base: GuestPhysAddr, engine: E) -> Self {
        let state = State {
            engine,
            enabled: false,
            queue: Queue::default(),
            tables: [0; 2],
        };
        Self {
            base,
            state: FairLock::new(state),
        }
    }

    fn offset(&self, addr: GuestPhysAddr) -> usize {
        addr.as_usize().wrapping_sub(self.base.as_usize())
    }
}

impl<E, D> Guard<GuestPhysAddrRange, D> for Its<E>
where
    E: Engine,
    D: BaseDeviceOps<GuestPhysAddrRange>,
{
    fn read(
        &self,
        place: &impl Enter<Device = D>,
        addr: GuestPhysAddr,
        width: AccessWidth,
    ) -> AxResult<usize> {
        place.enter(Alone, |device| self.read_alone(device, addr, width))
    }

    fn write(
        &self,
        place: &impl Enter<Device = D>,
        addr: GuestPhysAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        place.enter(Alone, |device| self.write_alone(device, addr, width, val))
    }
}

/// The accesses. During each, no other vCPU is in the device.
impl<E: Engine> Its<E> {
    fn read_alone<D>(&self, device: &D, addr: GuestPhysAddr, width: AccessWidth) -> AxResult<usize>
    where
        D: BaseDeviceOps<GuestPhysAddrRange>,
    {
        let state = self.state.enter()?;
        let offset = self.offset(addr);
        let whole = match register(offset, width) {
            Register::Control => {
                let host = device.handle_read(addr, width)?;
                return Ok(state.control(host));
            }
            Register::ReadOnly => return device.handle_read(addr, width),
            Register::QueueBase => state.queue.base,
            Register::QueueWrite => state.queue.write,
            Register::QueueRead => state.queue.read,
            Register::Table(i) => state.tables[i],
            Register::Reserved => 0,
        };
        Ok(part(whole, offset, width))
    }

    fn write_alone<D>(
        &self,
        device: &D,
        addr: GuestPhysAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult
    where
        D: BaseDeviceOps<GuestPhysAddrRange>,
    {
        let mut state = self.state.enter()?;
        let offset = self.offset(addr);
        let merged = |whole| merge(whole, offset, width, val);
        match register(offset, width) {
            Register::Control => {
                state.enabled = val & ENABLED != 0;
                if state.enabled {
                    enable_host(device, addr)?;
                }
            }
            // The architecture defines writes of both only for a disabled, quiescent ITS.
            Register::QueueBase if !state.enabled => {
                state.queue = Queue::at(merged(state.queue.base));
            }
            Register::Table(i) if !state.enabled => state.tables[i] = merged(state.tables[i]),
            Register::QueueWrite => state.queue.write = merged(state.queue.write) & Queue::OFFSET,
            _ => return Ok(()),
        }
        state.run()
    }
}

/// Enables the host's ITS permanently: a vCPU may be waiting for another guest's commands.
fn enable_host<D>(device: &D, control: GuestPhysAddr) -> AxResult
where
    D: BaseDeviceOps<GuestPhysAddrRange>,
{
    let host = device.handle_read(control, Dword)?;
    if host & ENABLED == 0 {
        device.handle_write(control, Dword, host | ENABLED)?;
    }
    Ok(())
}

impl<E: Engine> State<E> {
    /// The guest's GITS_CTLR, if the host's is `host`.
    fn control(&self, host: usize) -> usize {
        if self.enabled {
            host
        } else {
            host & !ENABLED | QUIESCENT
        }
    }

    /// Executes all pending commands.
    fn run(&mut self) -> AxResult {
        if !self.enabled {
            return Ok(());
        }
        while let Some(run) = self.queue.next() {
            self.engine.execute(run.queue, run.from, run.to)?;
            self.queue.read = run.read;
        }
        Ok(())
    }
}

/// A command queue: a ring of commands in guest memory, which the hardware reads.
#[derive(Default)]
struct Queue {
    /// GITS_CBASER.
    base: usize,
    /// GITS_CREADR: the offset of the next command to execute.
    read: usize,
    /// GITS_CWRITER: the offset after the last command to execute.
    write: usize,
}

/// Commands that one call of the engine executes.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    queue: usize,
    from: usize,
    to: usize,
    /// GITS_CREADR afterwards.
    read: usize,
}

impl Queue {
    /// GITS_CWRITER.Offset: whole commands.
    const OFFSET: usize = 0xf_ffe0;

    /// GITS_CBASER.Valid.
    const VALID: usize = 1 << 63;

    /// GITS_CBASER.Physical_Address.
    const ADDRESS: usize = 0xf_ffff_ffff_f000;

    /// The longest run. The device's own ring has 64 KiB and cannot take a run of that size, because a full
    /// ring looks empty.
    const LONGEST: usize = 0x8000;

    const PAGE: usize = 0x1000;

    /// An empty queue: a write of GITS_CBASER clears GITS_CREADR.
    const fn at(base: usize) -> Self {
        Self {
            base,
            read: 0,
            write: 0,
        }
    }

    /// The queue's length in bytes: GITS_CBASER.Size is in pages, less one.
    const fn length(&self) -> usize {
        ((self.base & 0xff) + 1) * Self::PAGE
    }

    /// The commands to execute next.
    fn next(&self) -> Option<Run> {
        let length = self.length();
        if self.base & Self::VALID == 0 || self.write >= length || self.read == self.write {
            return None;
        }
        let end = if self.read < self.write {
            self.write
        } else {
            length
        };
        let end = end.min(self.read + Self::LONGEST);
        let page = self.read & !(Self::PAGE - 1);
        Some(Run {
            queue: (self.base & Self::ADDRESS) + page,
            from: self.read - page,
            to: end - page,
            read: if end == length { 0 } else { end },
        })
    }
}

/// The value that a read of a register of eight bytes returns.
const fn part(whole: usize, offset: usize, width: AccessWidth) -> usize {
    match width {
        Qword => whole,
        _ => whole >> (offset % 8 * 8) & 0xffff_ffff,
    }
}

/// A register of eight bytes after an access has written `val` to it.
const fn merge(whole: usize, offset: usize, width: AccessWidth, val: usize) -> usize {
    let shift = offset % 8 * 8;
    match width {
        Qword => val,
        _ => whole & !(0xffff_ffff << shift) | val << shift,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{vec, vec::Vec};

    use axaddrspace::device::AccessWidth::{Byte, Word};

    use super::*;
    use crate::{
        guards::guard::tests::{BASE, Recorder},
        sync::{Arc, Mutex},
    };

    /// Records the addresses of the commands to execute.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<usize>>>);

    impl Engine for Log {
        fn execute(&mut self, queue: usize, from: usize, to: usize) -> AxResult {
            assert!(from < 0x1000 && from < to && to < 0x1_0000);
            assert!(queue.is_multiple_of(0x1000) && (from | to).is_multiple_of(32));
            let commands = (from..to).step_by(32).map(|at| queue + at);
            self.0.lock().extend(commands);
            Ok(())
        }
    }

    struct Machine {
        host: Recorder,
        its: Its<Log>,
        log: Log,
    }

    const QUEUE: usize = 0x4000_0000;

    impl Machine {
        fn new() -> Self {
            let log = Log::default();
            Self {
                host: Recorder::default(),
                its: Its::new(BASE.into(), log.clone()),
                log,
            }
        }

        /// Enabled, with a queue of `pages` pages.
        fn with_queue(pages: usize) -> Self {
            let machine = Self::new();
            machine.write(0x80, Qword, Queue::VALID | QUEUE | (pages - 1));
            machine.write(0x0, Dword, 1);
            machine
        }

        fn read(&self, offset: usize, width: AccessWidth) -> usize {
            let addr = (BASE + offset).into();
            let value = self.its.read(&self.host, addr, width).unwrap();
            assert_eq!(self.host.entered.take(), [Alone]);
            value
        }

        fn write(&self, offset: usize, width: AccessWidth, val: usize) {
            let addr = (BASE + offset).into();
            self.its.write(&self.host, addr, width, val).unwrap();
            assert_eq!(self.host.entered.take(), [Alone]);
        }

        /// The commands executed since the last call.
        fn executed(&self) -> Vec<usize> {
            core::mem::take(&mut self.log.0.lock())
        }
    }

    fn commands(from: usize, to: usize) -> Vec<usize> {
        (QUEUE + from..QUEUE + to).step_by(32).collect()
    }

    #[test]
    fn commands_are_executed_once_and_in_order_round_the_ring() {
        let machine = Machine::with_queue(1);
        for (written, expected) in [
            (0x20, commands(0, 0x20)),
            (0x20, vec![]),
            (0xfe0, commands(0x20, 0xfe0)),
            (0x40, [commands(0xfe0, 0x1000), commands(0, 0x40)].concat()),
            (0x0, commands(0x40, 0x1000)),
        ] {
            machine.write(0x88, Qword, written);
            assert_eq!(machine.executed(), expected, "{written:#x}");
            assert_eq!(machine.read(0x90, Dword), written);
            assert_eq!(machine.read(0x88, Qword), written);
        }
    }

    #[test]
    fn a_queue_of_any_length_is_read_as_the_device_can() {
        for pages in [1, 2, 15, 16, 17, 255, 256] {
            let machine = Machine::with_queue(pages);
            let end = pages * 0x1000 - 0x20;
            machine.write(0x88, Dword, end);
            assert_eq!(machine.executed(), commands(0, end), "{pages}");
            machine.write(0x88, Dword, end - 0x40);
            let round = [commands(end, end + 0x20), commands(0, end - 0x40)].concat();
            assert_eq!(machine.executed(), round, "{pages}");
        }
    }

    #[test]
    fn a_write_pointer_is_of_whole_commands_in_the_queue() {
        let machine = Machine::with_queue(1);
        machine.write(0x88, Qword, 0xffff_ffff_fff0_005f);
        assert_eq!(machine.read(0x88, Qword), 0x40);
        assert_eq!(machine.executed(), commands(0, 0x40));
        for beyond in [0x1000, 0xf_ffff, usize::MAX] {
            machine.write(0x88, Qword, beyond);
            assert_eq!(machine.executed(), []);
        }
        assert_eq!(machine.read(0x90, Qword), 0x40);
    }

    #[test]
    fn nothing_is_executed_unless_enabled_and_valid() {
        let machine = Machine::new();
        machine.write(0x0, Dword, 1);
        machine.write(0x88, Dword, 0x20);
        assert_eq!(machine.executed(), [], "no queue");
        machine.write(0x0, Dword, 0);
        machine.write(0x80, Qword, Queue::VALID | QUEUE);
        machine.write(0x88, Dword, 0x20);
        assert_eq!(machine.executed(), [], "not enabled");
        machine.write(0x0, Dword, 1);
        assert_eq!(machine.executed(), commands(0, 0x20));
        machine.write(0x80, Qword, 0);
        assert_eq!(
            machine.read(0x80, Qword),
            Queue::VALID | QUEUE,
            "fixed while enabled"
        );
    }

    #[test]
    fn the_host_s_its_is_enabled_for_good() {
        let machine = Machine::new();
        machine.host.value.replace(0x8000_0000);
        assert_eq!(machine.read(0x0, Dword), QUIESCENT);
        machine.host.take();
        machine.write(0x0, Dword, 0xffff_ffff);
        let enabled = [(0, Dword, None), (0, Dword, Some(0x8000_0001))];
        assert_eq!(machine.host.take(), enabled);
        machine.write(0x0, Dword, 0);
        machine.write(0x0, Dword, 1);
        assert_eq!(machine.host.take(), [(0, Dword, None)]);
        machine.write(0x0, Dword, 0);
        assert_eq!(machine.read(0x0, Dword), QUIESCENT);
    }

    #[test]
    fn long_registers_have_halves() {
        let machine = Machine::new();
        for offset in [0x80, 0x100, 0x108] {
            machine.write(offset, Qword, 0x1111_2222_3333_4444);
            machine.write(offset + 4, Dword, 0x5555_6666);
            assert_eq!(machine.read(offset, Qword), 0x5555_6666_3333_4444);
            machine.write(offset, Dword, 0x7777_8888);
            assert_eq!(machine.read(offset, Dword), 0x7777_8888);
            assert_eq!(machine.read(offset + 4, Dword), 0x5555_6666);
        }
        assert_eq!(machine.host.take(), []);
    }

    #[test]
    fn accesses_that_the_device_cannot_handle_are_reserved() {
        let machine = Machine::new();
        machine.host.value.replace(usize::MAX);
        // GITS_STATUSR, GITS_BASER2, GITS_TRANSLATER, and sizes that a register does not support.
        for (offset, width) in [
            (0x40, Dword),
            (0x110, Qword),
            (0x1_0040, Dword),
            (0x2_0000, Dword),
            (0x0, Qword),
            (0x0, Byte),
            (0x2, Word),
            (0x102, Dword),
            (0xfffc, Qword),
        ] {
            assert_eq!(machine.read(offset, width), 0, "{offset:#x}");
            machine.write(offset, width, 1);
        }
        // Read only: GITS_IIDR, GITS_TYPER, GITS_CREADR.
        for (offset, width) in [(0x4, Dword), (0x8, Qword), (0x90, Qword)] {
            machine.write(offset, width, 1);
        }
        assert_eq!(machine.host.take(), []);
        assert_eq!(machine.read(0x90, Qword), 0);
        assert_eq!(machine.read(0x8, Qword), usize::MAX);
        assert_eq!(machine.read(0xc, Dword), usize::MAX);
    }
}
