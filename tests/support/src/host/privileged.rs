//! Emulation of instructions that only a hypervisor may execute.
//!
//! The devices read the physical counter (aarch64) and raise virtual interrupts through hypervisor
//! CSRs (riscv64). User mode has neither: the process gets SIGILL. The handler here does the same
//! as the hardware would, and continues after the instruction.

use std::{
    ffi::{c_int, c_void},
    mem,
    ptr::{null_mut, with_exposed_provenance},
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use libc::{SA_SIGINFO, SIG_DFL, SIGILL, sigaction, siginfo_t, signal, ucontext_t};

#[cfg(target_arch = "riscv64")]
pub use self::arch::{set_vscause, set_vstip, vseip, vstip};

/// The number of instructions that were emulated.
static EMULATED: AtomicUsize = AtomicUsize::new(0);

/// The number of instructions that were emulated.
pub fn emulated() -> usize {
    EMULATED.load(Relaxed)
}

/// Emulates these instructions from now on, in every thread.
///
/// # Panics
///
/// If the handler cannot be installed.
pub fn emulate() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: all zeros are a valid `sigaction`: no flags, nothing masked.
        let mut action: sigaction = unsafe { mem::zeroed() };
        action.sa_flags = SA_SIGINFO;
        action.sa_sigaction = on_sigill as *const () as usize;
        // SAFETY: the handler has the signature that SA_SIGINFO requires, and calls only functions
        // that a handler may call.
        let installed = unsafe { sigaction(SIGILL, &raw const action, null_mut()) };
        assert_eq!(installed, 0, "no handler for SIGILL");
    });
}

extern "C" fn on_sigill(_: c_int, _: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the third argument is the thread's context, which only the handler
    // accesses while it runs.
    let context = unsafe { &mut *context.cast::<ucontext_t>() };
    let pc = arch::pc(context);
    let instruction = with_exposed_provenance::<u32>(*pc as usize);
    // SAFETY: this instruction was just executed. On riscv64 it may lie on a boundary of two bytes.
    let instruction = unsafe { instruction.read_unaligned() };
    if arch::execute(context, instruction) {
        *arch::pc(context) += 4;
        EMULATED.fetch_add(1, Relaxed);
    } else {
        // SAFETY: the thread executes the instruction again, and the process ends, as without this
        // handler.
        unsafe { signal(SIGILL, SIG_DFL) };
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use libc::ucontext_t;

    /// `mrs x0, CNTPCT_EL0` (Arm Architecture Reference Manual, DDI 0487, "MRS" and "CNTPCT_EL0").
    const READ_COUNTER: u32 = 0xd53b_e020;

    pub(super) fn pc(context: &mut ucontext_t) -> &mut u64 {
        &mut context.uc_mcontext.pc
    }

    /// Whether the instruction was one of these. If so, it has been executed.
    pub(super) fn execute(context: &mut ucontext_t, instruction: u32) -> bool {
        let register = (instruction & 0x1f) as usize;
        let known = instruction & !0x1f == READ_COUNTER;
        // Register 31 is the zero register.
        if known && let Some(register) = context.uc_mcontext.regs.get_mut(register) {
            *register = crate::host::time::now();
        }
        known
    }
}

#[cfg(target_arch = "riscv64")]
mod arch {
    use std::cell::Cell;

    use libc::ucontext_t;

    /// The addresses of the CSRs (RISC-V Privileged Architecture, "CSR Listing").
    const VSCAUSE: u32 = 0x242;
    const HVIP: u32 = 0x645;

    /// Virtual supervisor timer and external interrupt pending, in `hvip`.
    const VSTIP: u64 = 1 << 6;
    const VSEIP: u64 = 1 << 10;

    /// The major opcode of CSR instructions (RISC-V Unprivileged Architecture, "Zicsr").
    const SYSTEM: u32 = 0x73;

    // The CSRs belong to a hart: each thread is a hart.
    thread_local! {
        static HVIP_OF_HART: Cell<u64> = const { Cell::new(0) };
        static VSCAUSE_OF_HART: Cell<u64> = const { Cell::new(0) };
    }

    /// Whether this thread's hart has a virtual supervisor external interrupt pending.
    pub fn vseip() -> bool {
        HVIP_OF_HART.get() & VSEIP != 0
    }

    /// Whether it has a virtual supervisor timer interrupt pending.
    pub fn vstip() -> bool {
        HVIP_OF_HART.get() & VSTIP != 0
    }

    /// Makes a virtual supervisor timer interrupt pending.
    pub fn set_vstip() {
        HVIP_OF_HART.set(HVIP_OF_HART.get() | VSTIP);
    }

    /// Sets the cause of the last trap of the guest on this thread's hart.
    pub fn set_vscause(cause: usize) {
        VSCAUSE_OF_HART.set(cause as u64);
    }

    pub(super) fn pc(context: &mut ucontext_t) -> &mut u64 {
        &mut context.uc_mcontext.__gregs[0]
    }

    /// Whether the instruction was one of these. If so, it has been executed.
    pub(super) fn execute(context: &mut ucontext_t, instruction: u32) -> bool {
        let field = |from: u32, bits: u32| instruction >> from & ((1 << bits) - 1);
        let (destination, operation, source) = (field(7, 5), field(12, 3), field(15, 5));
        let csr = match field(20, 12) {
            VSCAUSE => &VSCAUSE_OF_HART,
            HVIP => &HVIP_OF_HART,
            _ => return false,
        };
        if field(0, 7) != SYSTEM {
            return false;
        }
        // Register 0 is zero; its slot holds the program counter.
        let registers = &mut context.uc_mcontext.__gregs;
        let operand = match (operation & 4 != 0, source) {
            (true, immediate) => immediate.into(),
            (false, 0) => 0,
            (false, register) => registers[register as usize],
        };
        let old = csr.get();
        csr.set(match operation & 3 {
            1 => operand,
            2 => old | operand,
            3 => old & !operand,
            _ => return false,
        });
        if destination != 0 {
            registers[destination as usize] = old;
        }
        true
    }
}
