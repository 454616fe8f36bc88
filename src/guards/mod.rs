//! The guards of the built-in devices: the accesses that each forwards, and the reasons.
//!
//! The crate builds interrupt controllers of `arm_vgic` 0.4.10 and
//! `riscv_vplic` 0.4.12. They forward most registers to the host's hardware, and trust the
//! guest: some accesses panic, some never return, some write to memory of the host.
//! Therefore the registry puts a *guard* in front of each of these devices.
//!
//! # The rule
//!
//! A guard forwards an access if the device handles the register correctly, the architecture allows the
//! width, the access is aligned, and the value is sound. Every other access in the device's range
//! **reads as zero and ignores writes**, regardless of [`Unmapped`](crate::Unmapped). The tables call
//! it *reserved*.
//!
//! Reserved registers of the GIC behave in this way (RES0: IHI 0069 and IHI 0048). For a width that a
//! register does not support, it is one of the behaviours that the GIC architecture allows. The PLIC
//! specification 1.0.0 defines nothing outside its registers, and implementations do the same. For an
//! access that runs past the *end* of the device, [`Unmapped`](crate::Unmapped) applies, as for every
//! device.
//!
//! A guard belongs to the entry of the table, as a lock does, and filters calls of `handle_*` only.
//! `find_*`, `iter_*` and `snapshot` return the device without its guard, in every registry. Axvisor
//! injects interrupts through that device: it writes the PLIC's pending bits, which a guest may not
//! write. axvm downcasts it to `VGicD`. In a [`SharedVmDevices`](crate::SharedVmDevices) the device is
//! wrapped in [`Serialized`](crate::Serialized) if it is not `Sync`. Guards apply to devices that the
//! crate builds from a configuration, not to devices that are added.
//!
//! # vCPUs in one device
//!
//! `VGicD`, `VGicR` and `Gits` are not `Sync`: each has a cell that it reads and writes through shared
//! references without a lock. In a [`SharedVmDevices`](crate::SharedVmDevices), which is `Sync` in
//! safe code, only one vCPU at a time is therefore in such a device. An
//! [`AxVmDevices`](crate::AxVmDevices) can be shared too, but its embedder is responsible for that. In
//! an `AxVmDevices`, a dispatch takes the lock only for an access that must be *alone*. The tables below
//! show this for each register, with the lines of the pinned source that are the reason. (`:314` is line
//! 314 of the device's file.) There are two reasons:
//!
//! - The device's handler reaches the cell. The cell of `VGicD`, `assigned_irqs` (`vgicd.rs:42`), is read
//!   at `vgicd.rs:256` and written only by `assign_irq` (`vgicd.rs:74`), which axvm calls before the guest
//!   runs. A later call races with the guest, with or without a lock, because it is a call of the bare
//!   device.
//! - The guard reads the register in order to write it back, for this access or for another access to
//!   the register. If two such writes ran at the same time, one would be lost.
//!
//! Every other access to those two devices is one access of the host's register, or holds a lock of the
//! device. The hardware orders accesses of the host's register with those of other CPUs. The device's
//! locks are plain spinlocks: `GICD_LOCK` (`vgicd.rs:342`), one for all distributors of the host, for
//! writes of IGROUPR, IGRPMODR, ICFGR and IPRIORITYR; and the lock of the table of LPIs
//! (`vgicr.rs:287`), for INVLPIR. If an interrupt handler makes such an access after it interrupted one
//! on the same CPU, it deadlocks, as with 0.4.10.
//!
//! All accesses to `Gits` are alone: its registers race, and commands would be submitted twice
//! (`gits.rs:210` to `gits.rs:218`). `Vgic` and `VPlicGlobal` are `Sync` and have their own locks
//! (`vgic.rs:25`; `vplic.rs:25` to `vplic.rs:29`). Accesses to them take no other lock, except for
//! completions of the PLIC (below).
//!
//! # Registers that describe CPUs
//!
//! The devices show the host's registers. For registers that describe the next redistributor, or that
//! count or name CPUs, the guest reads:
//!
//! | register | value that the guest reads | right? |
//! |---|---|---|
//! | GICR_TYPER.Last | 1 on the last redistributor of a contiguous series only. The device returns 1 on each (`vgicr.rs:113`), and a guest that walks a series would find only the first | yes |
//! | GICR_TYPER.VLPIS, with Dirty, RVPEID and VSGI | the host's, but zero if the guest's redistributor is shorter than the four frames of 64 KiB that these bits announce. With the host's value, a guest would look for the next redistributor 256 KiB further on, and miss every second one | yes |
//! | GICR_TYPER.Affinity_Value | the physical CPU's | yes, if a vCPU's VMPIDR_EL2 is that of its physical CPU. axvm derives it from `phys_cpu_ids`; the guard knows no other value |
//! | GICR_TYPER.Processor_Number | the physical CPU's: not always 0 for the first vCPU, and not dense | yes: ITS commands name the redistributor by this number, and the host's ITS executes them |
//! | GICR_TYPER.CommonLPIAff | the host's | yes: the redistributors are the host's, with one table of LPIs for all |
//! | GICD_TYPER.CPUNumber | the host's, not the number of vCPUs | yes, where a guest uses it: without affinity routing it is the number of CPU interfaces that ITARGETSR can name, and those are the host's. With affinity routing, which CTLR reports and a guest cannot turn off, the field has no meaning |
//! | GICD_TYPER.ITLinesNumber, and the other fields | the host's | yes: a guest's interrupts have the host's numbers; registers of other guests' interrupts read as zero |
//! | GICD_ITARGETSR0 to 31, which identify the reading CPU | zero | yes: reserved with affinity routing |
//! | GICD_ITARGETSR, IROUTER of the guest's interrupts | the host's: physical CPUs by number and by affinity | yes, under the same condition as Affinity_Value |
//! | GICv2 GICD_TYPER.CPUNumber | the value of the hypervisor's `read_vgicd_typer`, for every guest | only if that value is the guest's. The guard cannot correct it: an entry for a GICv2 does not contain the number of vCPUs |
//! | GICv2 GICD_TYPER.ITLinesNumber | the value of `read_vgicd_typer`; registers of interrupts 512 and above read as zero | yes: the architecture allows interrupt lines that do not exist |
//! | GITS_TYPER.PTA | the host's | zero: yes, commands name redistributors by Processor_Number. One: commands name redistributors by physical address, which is not translated; right only if each of the guest's redistributors is at the address of its CPU's redistributor in the host. The guard cannot hide the bit, because the hardware supports only one of the two |
//! | GITS_TYPER.HCC, CIL, CIDbits | the host's: the number of collections, one for each CPU, that it supports | yes, but the host's guests share the collections |
//! | GITS_TYPER.VMOVP, SVPET; GITS_MPIDR | the host's; zero | not relevant: they describe virtual CPUs that the guest itself runs, and its redistributors have no frames for those |
//! | PLIC | no register contains the number of contexts or harts. Contexts have the host's numbers; registers of contexts that the configuration does not give the guest read as zero | yes |
//!
//! ## The last of a series
//!
//! A redistributor is not the last if another redistributor starts where it ends, regardless of the
//! configuration entries that they come from. Of one entry with four redistributors and a stride equal
//! to their length, only the fourth is the last. With a longer stride there is a hole after each, and
//! each is the last. (A guest that gets the stride from `redistributor-stride` in its device tree needs
//! a region for each of these.) An entry that [`AxVmDevices::new`](crate::AxVmDevices::new) leaves out
//! does not count. The registry determines the last ones when it is built, and does not change them:
//! guests read the register once, so removing or moving a redistributor later changes no other
//! redistributor's register. If the last redistributor of a series is removed, a guest that walks the
//! series still accesses the addresses where it was, and [`Unmapped`](crate::Unmapped) applies.
//!
//! # GICv2 distributor: `arm_vgic::Vgic`
//!
//! It does not access the host's hardware. Offsets are modulo 4 KiB.
//!
//! | register | the device | the guard |
//! |---|---|---|
//! | GICD_CTLR, TYPER, IIDR; ISENABLER0 to 15 | accesses its own state, in 1, 2 or 4 bytes; 8 bytes read as zero | forwards |
//! | ISENABLER16 to 31 (0x140 to 0x17f) | looks up interrupts 512 to 1023 in an array of 512: panics on a read, and on a write that sets any of the low 32 bits | reserved |
//! | all others | reads as zero, ignores writes | forwards |
//!
//! # GICv3 distributor: `arm_vgic::v3::vgicd::VGicD`
//!
//! It reads and writes the host's distributor in the width of the guest's access, masked to the
//! guest's interrupts.
//!
//! | register | the device | the guard | alone |
//! |---|---|---|---|
//! | any, unaligned | accesses the host's register unaligned: a fault on device memory, and undefined behaviour in Rust | reserved | |
//! | any, in a width that the architecture does not allow | accesses the host's register in that width; the hardware may abort the access | reserved | |
//! | CTLR, TYPER, IIDR, TYPER2; PIDR4 to CIDR3 | reads the host's register, ignores writes | forwards 4 bytes | no: one read of the host's register (`vgicd.rs:173`) |
//! | IGROUPR | masks; a guest can put its interrupts into group 0. If the host has one security state, they are then FIQs, which no hypervisor of these devices expects | forwards 4 bytes; writes can set bits but not clear them | writes: the guard makes a read (`:314`) and a write, and the device holds GICD_LOCK (`:332`) only in the write. Reads: no |
//! | ISENABLER to ICACTIVER, ICFGR, IGRPMODR | masks; 8 bytes at the last register of ISENABLER and of each similar bank look up interrupt 1024 of 1024: panics | forwards 4 bytes | no: one access (`:314`, `:330`), or GICD_LOCK held (`:332`) |
//! | IPRIORITYR | masks (to the low four bits of each priority); an unaligned access of 8 bytes at the end panics in the same way | forwards 1 and 4 bytes | no: one read (`:314`); writes hold GICD_LOCK (`:332`) |
//! | ITARGETSR | checks the guest's ownership only for the interrupt of the *first* byte, but writes all bytes: interrupts of others are rerouted | forwards 1 byte | no: one access (`:136`, `:207`) |
//! | IROUTER32 to 1019 | masks; an unaligned access writes into the next interrupt's register | forwards 8 bytes and either half | no: one access (`:126`, `:197`) |
//! | IROUTER0 to 31 and 1020 to 1023; all others, such as SETSPI_NSR (0x40) or 0x30; all offsets beyond 64 KiB | `todo!` panics, or reads a reserved register | reserved | |
//!
//! # GICv3 redistributor: `arm_vgic::v3::vgicr::VGicR`
//!
//! It reads and writes the host's redistributor of its physical CPU. A guest is *trusted* if
//! [`trust_guest_its`](crate::VmDevicesBuilder::trust_guest_its) is set for it.
//!
//! | register | the device | the guard | alone |
//! |---|---|---|---|
//! | any, unaligned or in a width that the architecture does not allow | the same as the distributor | reserved | |
//! | CTLR | forwards; if EnableLPIs is set, the hardware begins to use the pending table | forwards 4 bytes; EnableLPIs keeps its value unless trusted | writes, unless trusted: this guard writes back the value that it reads (`vgicr.rs:106`, `:175`). Reads: no |
//! | IIDR; PIDR4 to CIDR3 | reads the host's register; `todo!` panics on a write | forwards reads of 4 bytes | no: one read (`:120`) |
//! | TYPER | reads the host's register, with Last set; `todo!` panics on a write, and on a read of the upper half | forwards reads of 8 bytes and of either half, and corrects [Last and VLPIS](#registers-that-describe-cpus) for this guest | no: one read (`:109`) |
//! | STATUSR | forwards | forwards 4 bytes | no: one access (`:150`, `:214`) |
//! | WAKER | forwards; with ProcessorSleep set, the physical CPU gets no more interrupts, for the guest or the host | forwards 4 bytes; ProcessorSleep is cleared in writes | no: one access (`:150`, `:214`) |
//! | SETLPIR, CLRLPIR, INVALLR | forwards | write only, 4 and 8 bytes, trusted only | no: one write (`:187`) |
//! | PROPBASER | stores the value; `todo!` panics on the upper half; a write of the lower half clears the upper | forwards 8 bytes and either half | **always**: an `UnsafeCell` (`:51`), read at `:130` and written at `:183` |
//! | PENDBASER | forwards: the hardware writes to the physical address that the guest gives; `todo!` panics on the upper half | forwards reads; writes only if trusted; 8 bytes and either half | writes: to write a half, this guard reads (`:124`) and writes (`:179`) the whole register. Reads: no |
//! | INVLPIR | **writes one byte at 4 KiB-aligned table + value - 8192, without a bound**; first makes the table if there is none, and sets its address on every physical CPU; overflows if the value is below 8192; `todo!` panics on a read | write only; only if there is a table that contains the LPI | no: the table has a lock (`:316`), and is not removed once it exists (`:287`) |
//! | SYNCR | reads as zero; `todo!` panics on a write | reserved | |
//! | IGROUPR0 | forwards: the *host's* private interrupts can become FIQs | forwards 4 bytes; writes can set bits but not clear them | writes: this guard writes back the value that it reads (`:150`, `:214`). Reads: no |
//! | ISENABLER0 to ICACTIVER0, ICFGR0 and 1, IGRPMODR0 | forwards, but does not disable the maintenance interrupt | forwards 4 bytes | no: one access (`:150`, `:214`) |
//! | IPRIORITYR0 to 7 | forwards | forwards 1 and 4 bytes | no: one access (`:150`, `:214`) |
//! | all others | `todo!` panics | reserved | |
//!
//! # ITS: `arm_vgic::v3::gits::Gits`
//!
//! It copies the guest's commands into the queue of the host's ITS. Only a trusted guest has an ITS. Its
//! guard protects the host from panics and endless waits, but does not check the commands.
//!
//! | register | the device | the guard |
//! |---|---|---|
//! | CTLR | forwards; while the ITS is disabled, a write of CWRITER never returns | 4 bytes; the host's ITS is enabled once, and stays enabled; while the guest's ITS is disabled, it reads as quiescent and executes no commands |
//! | IIDR, TYPER; PIDR4 to CIDR3 | reads the host's register, forwards writes | forwards reads of 4 bytes (TYPER: 8 bytes and either half) |
//! | CBASER | stores the value; accesses to the upper half reach the host's register | 8 bytes and either half; read only while enabled; otherwise a write clears CREADR |
//! | CWRITER | copies commands, starting at CREADR, and waits until the host's ITS has executed them; **a value below CREADR underflows, or makes the copy nearly endless; a value that is not a multiple of 32, or beyond 64 KiB, makes the wait endless**; a queue of another length than 64 KiB is read past its end | 8 bytes and either half; only whole commands within the queue, in runs that the device handles |
//! | CREADR | panics on a write | read only |
//! | BASER0 and 1 | stores the values; a read of 8 bytes overflows; accesses to the upper halves reach the host's registers | 8 bytes and either half; read only while enabled |
//! | BASER2 to 7 | forwards: the guest sets the addresses of the host's tables | reserved |
//! | TRANSLATER | forwards | reserved |
//! | all others, also beyond the two frames of 64 KiB | forwards, to any register or memory at that address | reserved |
//!
//! ## Why a guest must be trusted with an ITS
//!
//! A check of the commands in guest memory would race with the guest, which can change them after the
//! check. A guard could copy the commands, check the copy, and give the copy to the pinned device. That
//! does not help, because the device uses addresses of guest memory as addresses of the host:
//!
//! - The copy itself would read at CBASER. Only the hypervisor, not this crate, knows whether that is the
//!   guest's memory. At any other address the host faults, or the copy reads a device.
//! - MAPD contains the address of an interrupt translation table, and the ITS *writes* to that physical
//!   address, which can be anywhere. The same holds for GICR_PENDBASER and the redistributor.
//! - Devices, collections and LPIs are those of the one host ITS. A guest can map, move and discard
//!   those of another guest; the device does not know which guest owns them.
//! - MAPI and MAPTI write the LPI's byte in the host's configuration table without a check, as INVLPIR
//!   does. The device makes this write while it copies the command.
//! - If a command makes the ITS stall, the device waits forever, with its lock held.
//!
//! # PLIC: `riscv_vplic::VPlicGlobal`
//!
//! It reads and writes the host's PLIC at the same address, and keeps pending and active bits itself.
//!
//! | register | the device | the guard |
//! |---|---|---|
//! | any, not in 4 bytes | an assertion panics | reserved |
//! | any, unaligned | accesses the host's register unaligned; the offset underflows at CTRL + 1 to 3 (0x20_0001 to 3) | reserved |
//! | priorities | forwards | forwards |
//! | pending bits | its own; a write injects interrupts, as the hypervisor does | forwards reads |
//! | reserved words after the pending bits | read as zero, ignore writes | reserved |
//! | enable bits of its contexts | forwards | forwards |
//! | enable bits of other contexts | reads the host's; **writes the host's, then an assertion panics** | reserved |
//! | threshold of its contexts | forwards | forwards |
//! | threshold of other contexts | reads the host's, or an address beyond its PLIC; an assertion panics on a write | reserved |
//! | claim | chooses one of the pending sources | forwards |
//! | complete | for a source that is not active: **acquires a lock that it already holds, and never returns** | forwards completions of active sources, one at a time |
//! | claim and complete of other contexts | an assertion panics | reserved |
//! | all others | `unimplemented!` panics | reserved |
//!
//! # Behaviour of the bare devices
//!
//! Each access was made in a separate process, on the bare device: in a build with debug assertions and
//! overflow checks, and in a release build. *Aborts* is a panic that does not unwind, because the device
//! reads memory unaligned. `tests/guards` repeats the accesses and compares the results with this table.
//! It also makes the same accesses through the guards: all return, and do no harm. It runs on each
//! architecture, under qemu: `.ci/emulated.sh`.
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
//! The commands MAPI and MAPTI come from a trusted guest, and have no guard.
//!
//! # Cost of a guard
//!
//! A guard is part of the function that the table's entry calls. It compares the offset with a few
//! ranges, is inlined into the handler, and makes no further virtual call. Devices without a guard are
//! called directly. `cargo bench -p benches --bench guards` measures the time of a guard around a device
//! that does nothing; `.ci/instructions.sh` checks its instructions. `--bench together` measures the rate of
//! two vCPUs on a distributor, as a multiple of one vCPU's rate.
//!
//! # Limits of the guards
//!
//! By design, these devices share the host's hardware with the guest. A guard does not know the owner
//! of an interrupt if the device does not know it. A guest with a redistributor can mask and prioritise
//! its physical CPU's private interrupts, also those that the host uses. A guest with a PLIC can change
//! the priorities of all sources, and the enables and thresholds of the contexts that the configuration
//! gives it. The hypervisor decides which CPUs and contexts those are.
//!
//! The timers of `arm_vgic::vtimer` that an embedder adds are bare: a guest's read of CNTP_TVAL_EL0
//! reaches `todo!`. The timers of [`with_virtual_timer`](crate::VmDevicesBuilder::with_virtual_timer)
//! have a guard: CNTP_TVAL_EL0 reads as zero, and the guard uses the low 32 bits of a written value, as
//! a signed number. In both cases each write makes a timer that the host keeps.

pub(crate) mod enter;
pub(crate) mod gicd;
pub(crate) mod gicr;
pub(crate) mod gicv2;
pub(crate) mod guard;
#[cfg(any(all(test, not(loom)), target_arch = "aarch64"))]
pub(crate) mod its;
pub(crate) mod plic;
pub(crate) mod series;
