//! The guest's parts that look for hot-added devices.

use iced_x86::code_asm::{CodeAssembler, dword_ptr, eax, ecx, edi, esi};

use super::{Assembled, Bus, Parts, Var::*, registers::read_and_check, var};
use crate::contract::*;

/// Looks whether the next slot is populated, and the one after it first: slots are populated in
/// order, and so they must be seen.
pub(super) fn poll(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    let (mut absent, mut lone) = (a.create_label(), a.create_label());
    let (mut populated, mut end) = (a.create_label(), a.create_label());
    asm! { a:
        set_label(&mut parts.poll);
        mov(esi, var(Next));
        shl(esi, SLOT_SHIFT);
        add(esi, var(Slots));
        mov(eax, dword_ptr(esi + SLOT_STRIDE));
        mov(var(Ahead), eax);
        mov(eax, dword_ptr(esi));
        cmp(eax, FLOATING as i32);
        je(absent);

        mov(var(Shadow), eax);
        mov(eax, var(Next));
        call(parts.id);
        mov(ecx, eax);
        mov(eax, var(Shadow));
        mov(edi, esi);
        call(parts.check);
        cmp(var(Ahead), FLOATING as i32);
        je(lone);
        mov(eax, var(Next));
        inc(eax);
        call(parts.id);
        mov(ecx, eax);
        mov(eax, var(Ahead));
        lea(edi, dword_ptr(esi + SLOT_STRIDE));
        call(parts.check);
        jmp(populated);
        set_label(&mut lone);
        inc(var(Misses));
        set_label(&mut populated);
        mov(eax, var(Next));
        call(parts.id);
        xor(eax, var(Salt));
        mov(dword_ptr(esi + SLOT_SCRATCH), eax);
        inc(var(Next));
        ret();

        set_label(&mut absent);
        inc(var(Misses));
        mov(eax, var(Ahead));
        mov(ecx, FLOATING);
        lea(edi, dword_ptr(esi + SLOT_STRIDE));
        call(parts.check);
        cmp(eax, ecx);
        jne(end);
        inc(var(Misses));
        set_label(&mut end);
        ret();
    }
    Ok(())
}

/// Visits the slots that were seen populated, in turn.
pub(super) fn revisit(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    let (mut go, mut end) = (a.create_label(), a.create_label());
    asm! { a:
        set_label(&mut parts.revisit);
        mov(eax, var(Again));
        cmp(eax, var(Next));
        jb(go);
        xor(eax, eax);
        mov(var(Again), eax);
        cmp(eax, var(Next));
        je(end);

        set_label(&mut go);
        inc(var(Again));
        mov(esi, eax);
        shl(esi, SLOT_SHIFT);
        add(esi, var(Slots));
        call(parts.id);
        mov(var(Shadow), eax);
    }
    for width in WIDTHS {
        read_and_check(a, Bus::Mmio, width, 0, parts.check)?;
    }
    asm! { a:
        mov(eax, var(Shadow));
        xor(eax, var(Salt));
        add(esi, SLOT_SCRATCH);
        call(parts.exercise_mmio);
        set_label(&mut end);
        ret();
    }
    Ok(())
}

/// `eax`: in, a slot; out, the id of the device in it. Changes nothing else.
pub(super) fn id_of(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    asm! { a:
        set_label(&mut parts.id);
        inc(eax);
        imul_3(eax, eax, ID_FACTOR);
        and(eax, ID_MASK);
        ret();
    }
    Ok(())
}
