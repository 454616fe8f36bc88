//! The guards of the built-in devices: the accesses that each forwards, and the reasons.
//!
//! The crate builds interrupt controllers of `arm_vgic` 0.4.10 and
//! `riscv_vplic` 0.4.12. They forward most registers to the host's hardware, and trust the
//! guest: some accesses panic, some never return, some write to memory of the host.
//! So the registry puts a *guard* before each of them.
//!
//! # The rule
//!
//! A guard forwards an access to a register that the device handles soundly, in a width that the
//! architecture allows there, aligned, and with a value that is sound. Everything else in the
//! device's range **reads as zero and ignores writes**, whatever [`Unmapped`](crate::Unmapped) says.
//! That is what reserved registers of the GIC are (RES0: IHI 0069 and IHI 0048), and one of the
//! things that it allows an access to do in a width that a register does not support; the PLIC
//! specification 1.0.0 defines nothing outside its registers, and implementations do the same. An
//! access that runs past the *end* of the device is answered by [`Unmapped`](crate::Unmapped), as
//! for every device.
//!
//! A guard belongs to the entry of the table, as a lock does, and stands before `handle_*` alone.
//! `find_*`, `iter_*` and `snapshot` give the device without it, in every registry: by it
//! Axvisor injects interrupts (a write of the PLIC's pending bits, which a guest's is not), and axvm
//! downcasts to `VGicD`. In a [`SharedVmDevices`](crate::SharedVmDevices) that is
//! [`Serialized`](crate::Serialized) where the device is not `Sync`. Guards apply to devices that
//! the crate builds from a configuration, not to those that are added.
//!
//! # vCPUs in one device
//!
//! `VGicD`, `VGicR` and `Gits` are not `Sync`: each has a cell that it reads and writes through shared
//! references without a lock. In a [`SharedVmDevices`](crate::SharedVmDevices), which is `Sync` in
//! safe code, each is therefore entered by one vCPU at a time. An
//! [`AxVmDevices`](crate::AxVmDevices) is shared on its embedder's word; there a dispatch takes the
//! lock where an access must be *alone*, and nowhere else. The tables below say of each register
//! whether it must, with the lines of the pinned source that are the reason. There are two:
//!
//! - Its handler reaches the cell. `VGicD`'s, `assigned_irqs` (`vgicd.rs:42`), is read at
//!   `vgicd.rs:256` and written by `assign_irq` alone (`vgicd.rs:74`), which axvm calls before the guest
//!   runs; a later call races with the guest, with or without a lock, since it is a call of the bare
//!   device.
//! - The guard reads the register in order to write it back, or another access's guard does. Of two
//!   such writes at once one would be lost.
//!
//! Everything else in those two devices is one access of the host's register, which the hardware puts
//! in order with those of other CPUs, or has a lock of the device's own. These are plain spinlocks:
//! `GICD_LOCK` (`vgicd.rs:342`), one for all distributors of the host, for writes of IGROUPR,
//! IGRPMODR, ICFGR and IPRIORITYR; and that of the table of LPIs (`vgicr.rs:287`), for INVLPIR. An
//! interrupt handler that makes such an access, having interrupted one on the same CPU, deadlocks,
//! as with 0.4.10.
//!
//! `Gits` is always entered alone: its registers race, and commands would be submitted twice
//! (`gits.rs:210` to `gits.rs:218`). `Vgic` and `VPlicGlobal` are `Sync`, have locks of their own
//! (`vgic.rs:25`; `vplic.rs:25` to `vplic.rs:29`), and are entered without one, but for completions of
//! the PLIC (below).
//!
//! # What registers say of other CPUs
//!
//! The devices show the host's registers. Where those describe a neighbour, or count or name CPUs, the
//! guest sees:
//!
//! | register | what the guest sees | right? |
//! |---|---|---|
//! | GICR_TYPER.Last | the device says of each that it is the last (`vgicr.rs:113`), so that a guest which walks a series finds only the first; the guard says it of the last of a contiguous series | yes |
//! | GICR_TYPER.VLPIS, with Dirty, RVPEID and VSGI | the host's, but zero where the guest's redistributor is shorter than the four frames of 64 KiB that they announce: a guest would look for the next one 256 KiB on, and miss every other | yes |
//! | GICR_TYPER.Affinity_Value | the physical CPU's | yes, where a vCPU's VMPIDR_EL2 is its physical CPU's, as axvm makes it from `phys_cpu_ids`; the guard does not know another |
//! | GICR_TYPER.Processor_Number | the physical CPU's; not 0 for the first vCPU, nor dense | yes: it is how a command names the redistributor, and the host's ITS has the commands |
//! | GICR_TYPER.CommonLPIAff | the host's | yes: the redistributors are the host's, with one table of LPIs for all |
//! | GICD_TYPER.CPUNumber | the host's, not the vCPUs | in use, yes: it counts the CPU interfaces that ITARGETSR can name without affinity routing, and those are the host's. With affinity routing, which CTLR shows and a guest cannot turn off, it means nothing |
//! | GICD_TYPER.ITLinesNumber, and the other fields | the host's | yes: a guest's interrupts have the host's numbers; those of others read as zero |
//! | GICD_ITARGETSR0 to 31, which say which CPU reads | zero | yes: reserved with affinity routing |
//! | GICD_ITARGETSR, IROUTER of the guest's interrupts | the host's: physical CPUs by number and by affinity | yes, as Affinity_Value |
//! | GICv2 GICD_TYPER.CPUNumber | what the hypervisor's `read_vgicd_typer` gives, for every guest | only if it gives the guest's; an entry for a GICv2 does not say how many vCPUs there are, so that the guard cannot |
//! | GICv2 GICD_TYPER.ITLinesNumber | likewise; of interrupts from 512 on the registers read as zero | the architecture allows lines that are not there |
//! | GITS_TYPER.PTA | the host's | if it is zero, commands name redistributors by Processor_Number: yes. If it is one, by physical address: only if the guest has each redistributor where its CPU's is in the host, for commands are not translated; the hardware has one way only, so that the guard cannot hide it |
//! | GITS_TYPER.HCC, CIL, CIDbits | the host's: how many collections, one for each CPU, it can have | yes, though it shares them with the host's other guests |
//! | GITS_TYPER.VMOVP, SVPET; GITS_MPIDR | the host's; zero | of virtual CPUs of the guest's own, for which its redistributors have no frames |
//! | PLIC | no register says how many contexts or harts there are. A context's number is the host's; those that the configuration does not give read as zero | yes |
//!
//! ## The last of a series
//!
//! A redistributor is not the last if another redistributor starts where it ends, whichever entry of
//! the configuration either comes from. So of one entry with four, a stride as long as each, the
//! fourth is the last; with a longer stride there is a hole after each, and each is the last. (A guest
//! that knows of the stride, from `redistributor-stride` in its device tree, needs a region for each
//! of these.) An entry that [`AxVmDevices::new`](crate::AxVmDevices::new) leaves out does not count.
//! Whether one is the last is determined when the registry is built, and does not change: removing or moving a
//! redistributor later changes no other's register, which guests read once. After the end of a
//! series is removed, [`Unmapped`](crate::Unmapped) answers a guest that walks the series.
//!
//! # GICv2 distributor: `arm_vgic::Vgic`
//!
//! It reaches no host. Offsets are modulo 4 KiB.
//!
//! | register | the device | the guard |
//! |---|---|---|
//! | GICD_CTLR, TYPER, IIDR; ISENABLER0 to 15 | its own state, in 1, 2 or 4 bytes; 8 bytes read as zero | passes |
//! | ISENABLER16 to 31 (0x140 to 0x17f) | looks up interrupts 512 to 1023 in an array of 512: panics, on a read, and on a write of any one of the low 32 bits | reserved |
//! | all else | reads as zero, ignores writes | passes |
//!
//! # GICv3 distributor: `arm_vgic::v3::vgicd::VGicD`
//!
//! It reads and writes the host's distributor in the width of the guest's access, masked to the
//! interrupts that are the guest's.
//!
//! | register | the device | the guard | alone |
//! |---|---|---|---|
//! | any, unaligned | accesses the host's register unaligned: a fault on device memory, and undefined behaviour in Rust | reserved | |
//! | any, in a width that the architecture does not allow | accesses the host's register so; the hardware may answer with an abort | reserved | |
//! | CTLR, TYPER, IIDR, TYPER2; PIDR4 to CIDR3 | reads the host's, ignores writes | passes 4 bytes | no: one read of the host's (`vgicd.rs:173`) |
//! | IGROUPR | masked; a guest can put its interrupts into group 0, which come as FIQs where the host has one security state, and no hypervisor of these expects one | passes 4 bytes; bits can be set, not cleared | writes, which this guard makes of a read (`:314`) and a write; GICD_LOCK (`:332`) is held in the second only. Reads not |
//! | ISENABLER to ICACTIVER, ICFGR, IGRPMODR | masked; 8 bytes at the last register of ISENABLER and its like look up interrupt 1024 of 1024: panics | passes 4 bytes | no: one access (`:314`, `:330`), or with GICD_LOCK held (`:332`) |
//! | IPRIORITYR | masked (to the low four bits of each priority); 8 bytes, unaligned, at the end likewise | passes 1 and 4 bytes | no: one read (`:314`); writes with GICD_LOCK held (`:332`) |
//! | ITARGETSR | asks whether the *first* byte's interrupt is the guest's, and writes all: interrupts of others are rerouted | passes 1 byte | no: one access (`:136`, `:207`) |
//! | IROUTER32 to 1019 | masked; one that is unaligned writes into the next interrupt's | passes 8 bytes and either half | no: one access (`:126`, `:197`) |
//! | IROUTER0 to 31 and 1020 to 1023; all else, such as SETSPI_NSR (0x40) or 0x30; all beyond 64 KiB | `todo!` panics, or reads a reserved register | reserved | |
//!
//! # GICv3 redistributor: `arm_vgic::v3::vgicr::VGicR`
//!
//! It reads and writes the host's redistributor of its physical CPU. *Trusted* is a guest for which
//! [`trust_guest_its`](crate::VmDevicesBuilder::trust_guest_its) is set.
//!
//! | register | the device | the guard | alone |
//! |---|---|---|---|
//! | any, unaligned or in a width that the architecture does not allow | as in the distributor | reserved | |
//! | CTLR | passes on: with EnableLPIs the hardware begins to use the pending table | passes 4 bytes; EnableLPIs stays as it is unless trusted | writes, unless trusted: this guard writes back what it reads (`vgicr.rs:106`, `:175`). Reads not |
//! | IIDR; PIDR4 to CIDR3 | reads the host's; `todo!` panics on a write | passes reads of 4 bytes | no: one read (`:120`) |
//! | TYPER | reads the host's, with Last set; `todo!` panics on a write, and on a read of the upper half | passes reads of 8 bytes and of either half, with [Last and VLPIS](#what-registers-say-of-other-cpus) as they are for this guest | no: one read (`:109`) |
//! | STATUSR | passes on | passes 4 bytes | no: one access (`:150`, `:214`) |
//! | WAKER | passes on: with ProcessorSleep the physical CPU gets no interrupts any more, nor does the host | passes 4 bytes; ProcessorSleep is not set | no: likewise |
//! | SETLPIR, CLRLPIR, INVALLR | passes on | write only, 4 and 8 bytes, trusted only | no: one write (`:187`) |
//! | PROPBASER | remembers it; `todo!` panics on the upper half; a write of the lower half clears the upper | passes 8 bytes and either half | **always**: an `UnsafeCell` (`:51`), read at `:130` and written at `:183` |
//! | PENDBASER | passes on: the hardware writes to the physical address that the guest gives; `todo!` panics on the upper half | passes reads; writes only if trusted, 8 bytes and either half | writes: of a half this guard makes a read (`:124`) and a write (`:179`) of the whole. Reads not |
//! | INVLPIR | **writes one byte at 4 KiB-aligned table + value - 8192, anywhere**; makes the table first if there is none, and gives it to every physical CPU; overflows below 8192; `todo!` panics on a read | write only, of an LPI that the table has, where there is a table | no: the table has a lock (`:316`), and stays once it is there (`:287`) |
//! | SYNCR | reads as zero; `todo!` panics on a write | reserved | |
//! | IGROUPR0 | passes on: the *host's* private interrupts can become FIQs | passes 4 bytes; bits can be set, not cleared | writes: this guard writes back what it reads (`:150`, `:214`). Reads not |
//! | ISENABLER0 to ICACTIVER0, ICFGR0 and 1, IGRPMODR0 | passes on, but that the maintenance interrupt is not disabled | passes 4 bytes | no: one access (`:150`, `:214`) |
//! | IPRIORITYR0 to 7 | passes on | passes 1 and 4 bytes | no: likewise |
//! | all else | `todo!` panics | reserved | |
//!
//! # ITS: `arm_vgic::v3::gits::Gits`
//!
//! It copies the guest's commands into the queue of the host's ITS. A guest has one only if it is
//! trusted; then the guard keeps the host from panics and endless waits, but does not look at the
//! commands.
//!
//! | register | the device | the guard |
//! |---|---|---|
//! | CTLR | passes on; while the ITS is disabled, a write of CWRITER waits for ever | 4 bytes; the host's ITS is enabled once, and stays so; disabled, the guest's reads as quiescent and takes no commands |
//! | IIDR, TYPER; PIDR4 to CIDR3 | reads the host's, passes writes on | passes reads of 4 bytes (TYPER: 8 and either half) |
//! | CBASER | remembers it; the upper half is the host's own | 8 bytes and either half, fixed while enabled; clears CREADR |
//! | CWRITER | copies commands from CREADR on, and waits until the host's ITS has executed them; **below CREADR it underflows, or copies nearly without end; what is no multiple of 32, or past 64 KiB, is never reached**; a queue that is not of 64 KiB is read past its end | 8 bytes and either half; whole commands within the queue, handed over in runs that the device stands |
//! | CREADR | panics on a write | read only |
//! | BASER0 and 1 | remembers them; a read of 8 bytes overflows; the upper halves are the host's own | 8 bytes and either half, fixed while enabled |
//! | BASER2 to 7 | passes on: the host's tables are where the guest says | reserved |
//! | TRANSLATER | passes on | reserved |
//! | all else, also beyond the two frames of 64 KiB | passes on, to whatever is there | reserved |
//!
//! ## Why a guest must be trusted with an ITS
//!
//! Checking commands in place would race with the guest, which can change them after. So they would
//! have to be copied first, and the copy checked; and the pinned device could be given a copy. It
//! would not help, because the device takes addresses of guest memory for addresses of the host:
//!
//! - The copy itself would read at CBASER. Whether that is the guest's memory, only the
//!   hypervisor knows, not this crate; elsewhere the host faults, or a device is read.
//! - MAPD names an interrupt translation table, and the ITS *writes* to it, at whatever physical address.
//!   The same holds of GICR_PENDBASER and the redistributor.
//! - Devices, collections and LPIs are those of the one host ITS. A guest can map, move and
//!   discard another's; which are its own, the device does not know.
//! - MAPI and MAPTI write the LPI's byte in the host's configuration table, unchecked, as INVLPIR
//!   does; the device does it as it copies.
//! - A command that makes the ITS stall leaves the device waiting for ever, with its lock held.
//!
//! # PLIC: `riscv_vplic::VPlicGlobal`
//!
//! It reads and writes the host's PLIC at the same address, and keeps pending and active bits itself.
//!
//! | register | the device | the guard |
//! |---|---|---|
//! | any, not in 4 bytes | asserts | reserved |
//! | any, unaligned | accesses the host's register unaligned; CTRL + 1 to 3 (0x20_0001 to 3) underflow | reserved |
//! | priorities | passes on | passes |
//! | pending bits | its own; takes a write for an injection by the hypervisor | passes reads |
//! | reserved words after the pending bits | read as zero, ignore writes | reserved |
//! | enable bits of a context that it has | passes on | passes |
//! | enable bits of others | reads the host's; **writes the host's, then asserts** | reserved |
//! | threshold of a context that it has | passes on | passes |
//! | threshold of others | reads the host's, or what lies behind its PLIC; asserts on a write | reserved |
//! | claim | chooses among what is pending | passes |
//! | complete | of a source that is not active: **takes a lock that it holds, and waits for itself for ever** | passes what is active, one at a time |
//! | claim and complete of others | asserts | reserved |
//! | all else | `unimplemented!` panics | reserved |
//!
//! # What the bare devices do
//!
//! Each access was made in a process of its own, on the bare device: in a build with debug assertions
//! and overflow checks, and in a release build. *Aborts* is a panic that does not unwind, since the
//! device reads memory unaligned. `tests/guards` makes them again, compares, and makes the same
//! accesses through the guards: all return, and harm nothing. It runs on each architecture, under
//! qemu: `.ci/emulated.sh`.
//!
//! | access | debug | release |
//! |---|---|---|
//! | GICv2 GICD_ISENABLER16: read of 4 bytes | panics | panics |
//! | GICv2 GICD_ISENABLER31: write of 1 to 1 byte | panics | panics |
//! | GICD 0x30: read of 4 bytes | panics | panics |
//! | GICD_SETSPI_NSR: write of 4 bytes | panics | panics |
//! | GICD_ISENABLER31: unaligned read of 8 bytes | panics | panics |
//! | GICD_ISENABLER1 + 1: read of 4 bytes | aborts | returns |
//! | GICD_IPRIORITYR255: read of 8 bytes | panics | panics |
//! | GICD_ITARGETSR125: write of 4 bytes, one of them the guest's | returns; another's interrupt is rerouted | returns; another's interrupt is rerouted |
//! | GICD_IROUTER500 + 4: write of 8 bytes | aborts | returns; another's interrupt is rerouted |
//! | GICD_IGROUPR1: write of 0 | returns; the guest's interrupts are FIQs | returns; the guest's interrupts are FIQs |
//! | GICD past 64 KiB: read of 4 bytes | panics | panics |
//! | GICR_IIDR: write of 4 bytes | panics | panics |
//! | GICR_TYPER + 4: read of 4 bytes | panics | panics |
//! | GICR_PROPBASER + 4: write of 4 bytes | panics | panics |
//! | GICR 0x100: read of 4 bytes | panics | panics |
//! | GICR_IPRIORITYR0 + 1: read of 4 bytes | aborts | returns |
//! | GICR_CTLR: write of EnableLPIs | returns; the hardware uses the guest's pending table | returns; the hardware uses the guest's pending table |
//! | GICR_PENDBASER: write of 8 bytes | returns; the hardware has the guest's address to write to | returns; the hardware has the guest's address to write to |
//! | GICR_WAKER: write of ProcessorSleep | returns; the host's CPU gets no interrupts | returns; the host's CPU gets no interrupts |
//! | GICR_IGROUPR0: write of 0 | returns; the host's interrupts are FIQs | returns; the host's interrupts are FIQs |
//! | GICR_INVLPIR: read of 4 bytes | panics | panics |
//! | GICR_INVLPIR: write of 0 | panics | returns; other memory of the host is written |
//! | GICR_INVLPIR: write of 0x1_2000 | returns; other memory of the host is written | returns; other memory of the host is written |
//! | GITS_CREADR: write of 8 bytes | panics | panics |
//! | GITS_BASER0: read of 8 bytes | panics | returns |
//! | GITS_BASER2: write of 8 bytes | returns; the host's table is where the guest says | returns; the host's table is where the guest says |
//! | GITS_CBASER + 4: write of 4 bytes | returns; the host's command queue is elsewhere | returns; the host's command queue is elsewhere |
//! | GITS past its frames: write of 8 bytes | returns; other memory of the host is written | returns; other memory of the host is written |
//! | GITS_CWRITER: write of 0x20, the ITS disabled | never returns | never returns |
//! | GITS_CWRITER: write of 0x21 | never returns | never returns |
//! | GITS_CWRITER: write of 0x40, then of 0x20 | panics | never returns |
//! | MAPI of event 0 | panics | returns; other memory of the host is written |
//! | MAPTI of LPI 0x1_2000 | returns; other memory of the host is written | returns; other memory of the host is written |
//! | PLIC priority 1: read of 1 byte | panics | panics |
//! | PLIC priority 2: write of 8 bytes | panics | panics |
//! | PLIC priority 1 + 2: read of 4 bytes | aborts | returns |
//! | PLIC enable bits of context 3, of 3: write of 4 bytes | panics; the host's are written | panics; the host's are written |
//! | PLIC threshold of context 3, of 3: write of 4 bytes | panics | panics |
//! | PLIC threshold of context 0, + 1: read of 4 bytes | panics | panics |
//! | PLIC claim of context 3, of 3: read of 4 bytes | panics | panics |
//! | PLIC 0x20_0008: read of 4 bytes | panics | panics |
//! | PLIC 0x20_1ffc: write of 4 bytes | panics | panics |
//! | PLIC complete of context 1: write of 7, not active | never returns | never returns |
//!
//! The commands MAPI and MAPTI are a trusted guest's, and have no guard.
//!
//! # What a guard costs
//!
//! A guard is part of what the table's entry calls: one comparison of the offset with a few ranges,
//! inlined into the handler, and no further virtual call. `cargo bench -p benches --bench
//! guards` measures it around a device that does nothing, on any architecture, and fails where it is
//! more than 3 ns and more than half of the bare access. Devices without a guard are called directly.
//! `--bench together` measures how many times one vCPU's rate two reach on a distributor, and fails
//! where those that are let in together reach less than 1.8.
//!
//! # What guards do not do
//!
//! These devices share the host's hardware with the guest by design. A guard does not know whose an
//! interrupt is where the device does not: a guest with a redistributor can mask and prioritise its
//! physical CPU's private interrupts, also those that the host uses; one with a PLIC can change
//! priorities of all sources, and enables and thresholds of the contexts that the configuration
//! gives it. The hypervisor decides which CPUs and contexts those are.
//!
//! The timers of `arm_vgic::vtimer` that an embedder adds are bare: a guest's read of CNTP_TVAL_EL0
//! reaches `todo!`. Those of [`with_virtual_timer`](crate::VmDevicesBuilder::with_virtual_timer) have a
//! guard: it reads as zero, and what is written is taken for the 32 bits, signed, that it has. Either
//! way each write makes a timer that the host keeps.

pub(crate) mod enter;
pub(crate) mod gicd;
pub(crate) mod gicr;
pub(crate) mod gicv2;
pub(crate) mod guard;
#[cfg(any(all(test, not(loom)), target_arch = "aarch64"))]
pub(crate) mod its;
pub(crate) mod plic;
pub(crate) mod series;
