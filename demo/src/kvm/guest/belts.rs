//! The guest's parts that look at devices which come, move along and go.

use iced_x86::code_asm::{CodeAssembler, dword_ptr, eax, ebp, ebx, ecx, edi, edx, esi};

use super::{Assembled, Parts, SEEN, Var::*, var};
use crate::contract::*;

/// Looks at all bays of both belts, from the last to the first.
pub(super) fn walk(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    asm! { a: set_label(&mut parts.walk) }
    for (n, belt) in (0..).zip(BELTS) {
        asm! { a:
            mov(var(OnBelt), belt as u32);
            mov(var(Behind), 0);
        }
        for bay in (0..BAYS).rev() {
            asm! { a:
                mov(esi, belt.bay(bay));
                mov(ebx, 4 * (n * BAYS + bay));
                call(parts.look);
            }
        }
    }
    asm! { a: ret() }
    Ok(())
}

/// Looks at the bay at `esi`, whose entry in the table of numbers seen is `ebx` bytes into it.
pub(super) fn look(a: &mut CodeAssembler, parts: &mut Parts) -> Assembled {
    let (mut somebody, mut nobody) = (a.create_label(), a.create_label());
    let mut end = a.create_label();
    let (mut after_behind, mut after_seen) = (a.create_label(), a.create_label());
    let seen = dword_ptr(ebp + ebx + SEEN);
    asm! { a:
        set_label(&mut parts.look);
        mov(eax, dword_ptr(esi));
        xor(ecx, ecx);
        cmp(eax, FLOATING as i32);
        jne(somebody);
        cmp(var(OnBelt), Belt::Loose as u32 as i32);
        jne(nobody);
        inc(var(Misses));
        ret();

        set_label(&mut somebody);
        mov(ecx, eax);
        shr(ecx, TAG_BITS);
        set_label(&mut nobody);
        mov(edx, var(Behind));
        inc(edx);
        cmp(ecx, edx);
        jae(after_behind);
        mov(ecx, edx);
        set_label(&mut after_behind);
        mov(edx, seen);
        cmp(ecx, edx);
        jae(after_seen);
        mov(ecx, edx);
        set_label(&mut after_seen);
        mov(var(Number), ecx);
        mov(edx, ecx);
        xor(edx, var(OnBelt));
        imul_3(edx, edx, ID_FACTOR);
        shr(edx, u32::BITS - TAG_BITS);
        shl(ecx, TAG_BITS);
        or(ecx, edx);
        mov(edi, esi);
        call(parts.check);
        cmp(eax, ecx);
        jne(end);
        mov(dword_ptr(esi + CARD_ECHO), eax);
        mov(edx, var(Number));
        mov(var(Behind), edx);
        mov(seen, edx);
        set_label(&mut end);
        ret();
    }
    Ok(())
}
