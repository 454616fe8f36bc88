//! The guest's parts that write and read registers of either bus, and those that nobody owns.

use iced_x86::code_asm::{
    CodeAssembler, CodeLabel, al, ax, byte_ptr, dword_ptr, dx, eax, ecx, edi, edx, esi, word_ptr,
};

use super::{Assembled, Bus, Parts, Var, Var::*, var};
use crate::contract::*;

/// Has the register at `esi`, with the pattern `eax` in it, change, and change back.
pub(super) fn exercise(
    a: &mut CodeAssembler,
    bus: Bus,
    label: &mut CodeLabel,
    check: CodeLabel,
) -> Assembled {
    asm! { a:
        set_label(label);
        mov(var(Pattern), eax);
        mov(var(Shadow), eax);
        not(eax);
        mov(var(Inverse), eax);
    }
    for step in EXERCISE {
        match step {
            Step::Read(width, offset) => read_and_check(a, bus, width, offset, check)?,
            Step::Write(width, offset) => write(a, bus, width, offset, Pattern)?,
            Step::WriteInverse(width, offset) => write(a, bus, width, offset, Inverse)?,
        }
    }
    asm! { a: ret() }
    Ok(())
}

/// Makes accesses that nobody answers.
pub(super) fn miss(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    asm! { a: set_label(&mut parts.miss) }
    for (bus, at) in [(Bus::Mmio, MMIO_NOBODY), (Bus::Port, PORT_NOBODY.into())] {
        asm! { a:
            mov(esi, at);
            mov(var(Pattern), 0);
        }
        for width in WIDTHS {
            write(a, bus, width, 0, Pattern)?;
            asm! { a: mov(var(Shadow), FLOATING as i32) }
            read_and_check(a, bus, width, 0, parts.check)?;
        }
    }
    asm! { a:
        add(var(Misses), 4 * WIDTHS.len() as i32);
        ret();
    }
    Ok(())
}

/// Reads `width` bytes of the register at `esi`, from `offset` on, and has them compared with those
/// of the shadow.
pub(super) fn read_and_check(
    a: &mut CodeAssembler,
    bus: Bus,
    width: Width,
    offset: u32,
    check: CodeLabel,
) -> Assembled {
    let holds = Shadow.byte(offset);
    asm! { a:
        lea(edi, dword_ptr(esi + offset));
        mov(edx, edi);
        xor(eax, eax);
    }
    match width {
        Width::Byte => a.movzx(ecx, byte_ptr(holds))?,
        Width::Word => a.movzx(ecx, word_ptr(holds))?,
        Width::Dword => a.mov(ecx, dword_ptr(holds))?,
    }
    match (bus, width) {
        (Bus::Mmio, Width::Byte) => a.mov(al, byte_ptr(edi))?,
        (Bus::Mmio, Width::Word) => a.mov(ax, word_ptr(edi))?,
        (Bus::Mmio, Width::Dword) => a.mov(eax, dword_ptr(edi))?,
        (Bus::Port, Width::Byte) => a.in_(al, dx)?,
        (Bus::Port, Width::Word) => a.in_(ax, dx)?,
        (Bus::Port, Width::Dword) => a.in_(eax, dx)?,
    }
    asm! { a: call(check) }
    Ok(())
}

/// Writes `width` bytes of a variable to the register at `esi`, from `offset` on, and to the shadow.
fn write(a: &mut CodeAssembler, bus: Bus, width: Width, offset: u32, source: Var) -> Assembled {
    let holds = Shadow.byte(offset);
    asm! { a:
        lea(edx, dword_ptr(esi + offset));
        mov(eax, var(source));
        shr(eax, 8 * offset);
    }
    match width {
        Width::Byte => a.mov(byte_ptr(holds), al)?,
        Width::Word => a.mov(word_ptr(holds), ax)?,
        Width::Dword => a.mov(dword_ptr(holds), eax)?,
    }
    match (bus, width) {
        (Bus::Mmio, Width::Byte) => a.mov(byte_ptr(edx), al)?,
        (Bus::Mmio, Width::Word) => a.mov(word_ptr(edx), ax)?,
        (Bus::Mmio, Width::Dword) => a.mov(dword_ptr(edx), eax)?,
        (Bus::Port, Width::Byte) => a.out(dx, al)?,
        (Bus::Port, Width::Word) => a.out(dx, ax)?,
        (Bus::Port, Width::Dword) => a.out(dx, eax)?,
    }
    Ok(())
}
