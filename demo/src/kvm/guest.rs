//! The guest: a program for 32-bit protected mode with flat segments, which every vCPU runs with
//! variables of its own. `threads.rs` has the same in Rust; the parts bear the same names.
//!
//! Throughout, `ebp` points to the variables. A part may change every other register, except where
//! it says otherwise.

use anyhow::{Context as _, Result};
use iced_x86::{
    IcedError,
    code_asm::{
        AsmMemoryOperand, CodeAssembler, CodeLabel, dword_ptr, dx, eax, ebp, ecx, edi, edx, esi,
    },
};

use super::memory::CODE;
use crate::contract::*;

/// A variable of a vCPU, four bytes each.
#[derive(Clone, Copy)]
pub(crate) enum Var {
    /// What an exercise writes.
    Pattern,
    /// Its complement.
    Inverse,
    /// What the register that is read should hold.
    Shadow,
    /// What the slot after the next one read as.
    Ahead,
    /// The first slot that was not seen populated.
    Next,
    /// The slot to visit again.
    Again,
    /// Where the belt is that is looked at.
    OnBelt,
    /// The number of the card seen last on it.
    Behind,
    /// The lowest number that the card seen now can have, or its own.
    Number,
    Rounds,
    Checks,
    Misses,
    Wrong,
    Rings,
    /// Whether a wrong value was told in detail.
    Told,
    /// From here on the values are there when the guest starts. This one is the vCPU's number.
    Vcpu,
    Salt,
    MmioLatch,
    PortLatch,
    Mailbox,
    /// Where this vCPU's bank of slot 0 is.
    Slots,
    /// Where this vCPU's own device is.
    Place,
    /// Where this vCPU's register across a border of pages is.
    Crossing,
    /// The port of this vCPU's queue.
    Queue,
}

/// Where the table is, from the start of the variables, of the numbers seen in the bays of all belts.
const SEEN: u32 = 0x100;
/// Where a string is that is sent, and where it is received, from the start of the variables.
const STRING_OUT: u32 = 0x200;
const STRING_IN: u32 = STRING_OUT + QUEUE_SIZE as u32;

const _: () = assert!(Queue.offset() + 4 <= SEEN);
const _: () = assert!(SEEN + 4 * BELTS.len() as u32 * BAYS <= STRING_OUT);

impl Var {
    /// Where it is, from the start of the variables.
    pub(crate) const fn offset(self) -> u32 {
        4 * self as u32
    }

    /// Where its byte `n` is.
    fn byte(self, n: u32) -> AsmMemoryOperand {
        ebp + self.offset() + n
    }
}

/// All of a variable.
fn var(var: Var) -> AsmMemoryOperand {
    dword_ptr(var.byte(0))
}

use Var::*;

/// Which instructions access a register.
#[derive(Clone, Copy)]
enum Bus {
    Mmio,
    Port,
}

/// The parts that are called.
struct Parts {
    poll: CodeLabel,
    revisit: CodeLabel,
    id: CodeLabel,
    exercise_mmio: CodeLabel,
    exercise_port: CodeLabel,
    miss: CodeLabel,
    strings: CodeLabel,
    walk: CodeLabel,
    look: CodeLabel,
    relocate: CodeLabel,
    ring: CodeLabel,
    report: CodeLabel,
    print: CodeLabel,
    put_number: CodeLabel,
    put: CodeLabel,
    check: CodeLabel,
}

type Assembled = Result<(), IcedError>;

/// One instruction (or label) after the other.
macro_rules! asm {
    ($a:ident: $($instruction:ident($($operand:expr),*));* $(;)?) => {
        $($a.$instruction($($operand),*)?;)*
    };
}

mod bars;
mod belts;
mod console;
mod registers;
mod slots;
mod strings;

use self::{
    bars::{relocate, ring},
    belts::{look, walk},
    console::{print, put, put_number},
    registers::{exercise, miss},
    slots::{id_of, poll, revisit},
    strings::strings,
};

/// The program, to be loaded at [`CODE`].
pub(crate) fn assemble() -> Result<Vec<u8>> {
    program().context("the guest does not assemble")
}

fn program() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let mut parts = Parts {
        poll: a.create_label(),
        revisit: a.create_label(),
        id: a.create_label(),
        exercise_mmio: a.create_label(),
        exercise_port: a.create_label(),
        miss: a.create_label(),
        strings: a.create_label(),
        walk: a.create_label(),
        look: a.create_label(),
        relocate: a.create_label(),
        ring: a.create_label(),
        report: a.create_label(),
        print: a.create_label(),
        put_number: a.create_label(),
        put: a.create_label(),
        check: a.create_label(),
    };
    run(&mut a, &parts)?;
    poll(&mut a, &mut parts)?;
    revisit(&mut a, &mut parts)?;
    id_of(&mut a, &mut parts)?;
    exercise(&mut a, Bus::Mmio, &mut parts.exercise_mmio, parts.check)?;
    exercise(&mut a, Bus::Port, &mut parts.exercise_port, parts.check)?;
    miss(&mut a, &mut parts)?;
    strings(&mut a, &mut parts)?;
    walk(&mut a, &mut parts)?;
    look(&mut a, &mut parts)?;
    relocate(&mut a, &mut parts)?;
    ring(&mut a, &mut parts)?;
    report(&mut a, &mut parts)?;
    print(&mut a, &mut parts)?;
    put_number(&mut a, &mut parts)?;
    put(&mut a, &mut parts)?;
    check(&mut a, &mut parts)?;
    a.assemble(CODE.into())
}

/// Where the guest starts: what it does round by round, until it is told to halt.
fn run(a: &mut CodeAssembler, parts: &Parts) -> Assembled {
    let (mut round, mut reported) = (a.create_label(), a.create_label());
    let (mut stays, mut halt) = (a.create_label(), a.create_label());
    asm! { a:
        mov(esi, var(MmioLatch));
        mov(eax, MMIO_LATCH_SEED);
        xor(eax, var(Salt));
        mov(dword_ptr(esi), eax);
        mov(edx, var(PortLatch));
        mov(eax, PORT_LATCH_SEED);
        xor(eax, var(Salt));
        out(dx, eax);
        mov(esi, var(Crossing));
        mov(eax, CROSSING_SEED);
        xor(eax, var(Salt));
        mov(dword_ptr(esi), eax);

        set_label(&mut round);
        call(parts.poll);
        mov(esi, var(MmioLatch));
        mov(eax, MMIO_LATCH_SEED);
        xor(eax, var(Salt));
        call(parts.exercise_mmio);
        call(parts.poll);
        mov(esi, var(PortLatch));
        mov(eax, PORT_LATCH_SEED);
        xor(eax, var(Salt));
        call(parts.exercise_port);
        call(parts.poll);
        mov(esi, var(Crossing));
        mov(eax, CROSSING_SEED);
        xor(eax, var(Salt));
        call(parts.exercise_mmio);
        call(parts.poll);
        call(parts.strings);
        call(parts.poll);
        call(parts.revisit);
        call(parts.poll);
        call(parts.miss);
        call(parts.poll);
        call(parts.walk);
        call(parts.ring);
        inc(var(Rounds));
        test(var(Rounds), ROUNDS_PER_REPORT - 1);
        jnz(reported);
        call(parts.report);

        set_label(&mut reported);
        mov(edx, var(Mailbox));
        add(edx, u32::from(ORDERS));
        in_(eax, dx);
        test(eax, HALT);
        jnz(halt);
        test(eax, MOVE);
        jz(stays);
        call(parts.relocate);

        set_label(&mut stays);
        test(var(Rounds), ROUNDS_PER_LINE - 1);
        jnz(round);
        call(parts.print);
        jmp(round);

        set_label(&mut halt);
        hlt();
        jmp(halt);
    }
    Ok(())
}

/// Reports.
fn report(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    asm! { a: set_label(&mut parts.report) }
    for (word, count) in [
        (CHECKS, Checks),
        (MISSES, Misses),
        (WRONG, Wrong),
        (RINGS, Rings),
    ] {
        asm! { a:
            mov(eax, var(count));
            mov(var(count), 0);
        }
        tell(a, word)?;
    }
    asm! { a: ret() }
    Ok(())
}

/// Counts, and compares what was read at `edi`, `eax`, with what should have been, `ecx`. Changes
/// `edx` only.
fn check(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    let (mut wrong, mut end) = (a.create_label(), a.create_label());
    asm! { a:
        set_label(&mut parts.check);
        inc(var(Checks));
        cmp(eax, ecx);
        jne(wrong);
        ret();

        set_label(&mut wrong);
        inc(var(Wrong));
        cmp(var(Told), 0);
        jne(end);
        mov(var(Told), 1);
        push(eax);
    }
    tell(a, FIRST_GOT)?;
    asm! { a: mov(eax, edi) }
    tell(a, FIRST_ADDRESS)?;
    asm! { a: mov(eax, ecx) }
    tell(a, FIRST_EXPECTED)?;
    asm! { a:
        pop(eax);
        set_label(&mut end);
        ret();
    }
    Ok(())
}

/// Writes `eax` to a word of the mailbox. Changes `edx`.
fn tell(a: &mut CodeAssembler, word: u16) -> Assembled {
    asm! { a:
        mov(edx, var(Mailbox));
        add(edx, u32::from(word));
        out(dx, eax);
    }
    Ok(())
}
