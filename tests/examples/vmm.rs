//! The example `vmm`, with or without KVM.

use crate::text;

#[test]
fn the_guest_sees_each_change() {
    for arguments in [&[][..], &["--no-kvm"]] {
        let output = crate::run("vmm", arguments);
        assert!(output.status.success(), "{output:?}");
        let printed = text(&output.stdout);
        let mut rest = printed;
        for line in [
            "a device was added\n",
            "it has moved\n",
            "it has swapped places with another\n",
            "mmio     0xd2000..=0xd2003 #4\nmmio     0xd3000..=0xd3003 #3\n",
            "port     0xf4..=0xf4 #2\nport     0x3f8..=0x3ff #1\n",
            "the other is gone\n",
        ] {
            let at = rest
                .find(line)
                .unwrap_or_else(|| panic!("{line:?} is missing in {printed:?}"));
            rest = &rest[at + line.len()..];
        }
        assert_eq!(text(&output.stderr), "");
    }
}
