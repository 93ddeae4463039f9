//! What the paravisor needs from a TPM implementation, so that its logic knows none by name.

use zeroize::Zeroizing;

/// A TPM that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The implementation serves another owner in this process.
    #[error("the TPM library is in use already; it can hold one TPM a process")]
    InUse,
    /// A call of the implementation failed.
    #[error("the TPM library's {call} failed with code {code:#x}")]
    Library {
        /// The function.
        call: &'static str,
        /// Its result.
        code: u32,
    },
    /// A command was sent to a TPM without power.
    #[error("the TPM has no power")]
    NoPower,
    /// A command longer than the TPM's buffer.
    #[error("a command of {0} bytes does not fit the TPM's buffer")]
    TooLong(usize),
}

/// Sizes of the TPM's command buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferSizes {
    /// In use.
    pub current: u32,
    /// Least possible.
    pub min: u32,
    /// Most possible.
    pub max: u32,
}

/// A TPM 2.0 whose permanent state lies in memory and nowhere else.
pub trait TpmEngine: Send {
    /// `_TPM_Init`: power, before any command. A TPM with power is switched off first.
    fn power_on(&mut self) -> Result<(), EngineError>;
    /// Takes the power away; volatile state is lost.
    fn power_off(&mut self);
    /// Whether commands can be processed.
    fn has_power(&self) -> bool;
    /// Runs one command of the TPM 2.0 library and returns the response's bytes, error responses included.
    fn process(&mut self, command: &[u8]) -> Result<Vec<u8>, EngineError>;
    /// Locality of the commands to come (0 to 4).
    fn set_locality(&mut self, locality: u8);
    /// The permanent state as it would have to be given back to make the same TPM again; empty before the first power-on.
    fn state(&self) -> Zeroizing<Vec<u8>>;
    /// Grows whenever the permanent state was written.
    fn state_version(&self) -> u64;
    /// Asks for another buffer size, or with 0 for the present one. Only without power.
    fn buffer_sizes(&mut self, wanted: u32) -> BufferSizes;
    /// The `tpmEstablished` bit of the interface.
    fn established(&self) -> bool;
    /// Clears `tpmEstablished` from the given locality; false if that locality may not.
    fn reset_established(&mut self, locality: u8) -> bool;
}
