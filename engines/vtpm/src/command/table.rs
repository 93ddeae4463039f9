//! How many handles each command has before its authorisation area (TPM 2.0 library, part 3).

/// Handles in the command's handle area; `None` for a command that TPM 2.0 does not have.
pub fn handle_count(code: u32) -> Option<usize> {
    Some(match code {
        0x142..=0x146 | 0x161 | 0x165 | 0x167 | 0x178 | 0x17A..=0x17E | 0x181 | 0x186 | 0x18A | 0x18E => 0,
        0x121
        | 0x124..=0x12E
        | 0x130..=0x132
        | 0x139..=0x140
        | 0x153..=0x159
        | 0x15B..=0x15E
        | 0x162..=0x164
        | 0x168..=0x174
        | 0x177
        | 0x17F
        | 0x180
        | 0x182
        | 0x183
        | 0x187..=0x189
        | 0x18B
        | 0x18C
        | 0x18D
        | 0x18F..=0x191
        | 0x193 => 1,
        0x11F | 0x120 | 0x122 | 0x133..=0x138 | 0x147 | 0x148 | 0x14A..=0x14C | 0x14E..=0x152 | 0x160 => 2,
        0x176 | 0x185 | 0x197 => 2,
        0x149 | 0x14D | 0x184 | 0x192 => 3,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::handle_count;
    use crate::command::code;

    #[test]
    fn commands_of_the_specification() {
        for (command, handles) in [
            (code::STARTUP, 0),
            (code::PCR_EXTEND, 1),
            (code::NV_READ, 2),
            (code::NV_DEFINE_SPACE, 1),
            (code::EVICT_CONTROL, 2),
            (0x149, 3),
            (0x176, 2),
        ] {
            assert_eq!(handle_count(command), Some(handles), "{command:#x}");
        }
        assert_eq!(handle_count(0x2000_0000), None);
        assert_eq!(handle_count(0), None);
    }
}
