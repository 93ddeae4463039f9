//! No memory of this process gets into a core dump: opened private keys and the master key lie in it.
//!
//! Two ways lead there, so two things are shut. A core file is as large as `RLIMIT_CORE` permits, which becomes 0. A
//! `core_pattern` that starts a program (systemd-coredump, apport) does not ask that limit (core(5)), but it gets
//! nothing of a process that is not dumpable. Such a process cannot be traced by others of the same user either
//! (ptrace(2)); root still can.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// For the rest of this process's life.
pub fn forbid() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
