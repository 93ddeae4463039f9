//! libtpms in this process, as a [`TpmEngine`].
//!
//! The library keeps one TPM in global variables and asks for its stored state through callbacks without a context
//! pointer, so a process holds at most one [`LibTpms`] at a time. State stays in memory: what the library stores is kept
//! in a zeroising buffer that only [`TpmEngine::state`] gives out. Source: libtpms 0.9, `tpm_library.h`, `tpm_tis.h`.
#![allow(unsafe_code, reason = "libtpms has a C interface")]

use std::ffi::{CStr, c_char, c_int, c_uchar};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::libc;
use zeroize::Zeroizing;

use super::engine::{BufferSizes, EngineError, TpmEngine};

type TpmResult = u32;
const SUCCESS: TpmResult = 0;
const BAD_PARAMETER: TpmResult = 3;
const FAIL: TpmResult = 9;
/// `TPM_BASE + TPM_NON_FATAL`: nothing stored under that name.
const RETRY: TpmResult = 0x800;
const TPM_VERSION_2: c_int = 1;
/// `TPM_PERMANENT_ALL_NAME`.
const PERMANENT: &CStr = c"permall";

#[repr(C)]
struct Callbacks {
    size: c_int,
    nvram_init: extern "C" fn() -> TpmResult,
    nvram_load: unsafe extern "C" fn(*mut *mut c_uchar, *mut u32, u32, *const c_char) -> TpmResult,
    nvram_store: unsafe extern "C" fn(*const c_uchar, u32, u32, *const c_char) -> TpmResult,
    nvram_delete: unsafe extern "C" fn(u32, *const c_char, c_uchar) -> TpmResult,
    io_init: extern "C" fn() -> TpmResult,
    io_locality: unsafe extern "C" fn(*mut u32, u32) -> TpmResult,
    io_presence: unsafe extern "C" fn(*mut c_uchar, u32) -> TpmResult,
}

unsafe extern "C" {
    fn TPMLIB_ChooseTPMVersion(version: c_int) -> TpmResult;
    fn TPMLIB_RegisterCallbacks(callbacks: *mut Callbacks) -> TpmResult;
    fn TPMLIB_MainInit() -> TpmResult;
    fn TPMLIB_Terminate();
    fn TPMLIB_Process(
        response: *mut *mut c_uchar,
        response_size: *mut u32,
        response_capacity: *mut u32,
        command: *mut c_uchar,
        command_size: u32,
    ) -> TpmResult;
    fn TPMLIB_SetBufferSize(wanted: u32, min: *mut u32, max: *mut u32) -> u32;
    fn TPM_IO_TpmEstablished_Get(established: *mut c_uchar) -> TpmResult;
    fn TPM_IO_TpmEstablished_Reset() -> TpmResult;
}

/// What the library stored, shared with its callbacks.
struct Store {
    permanent: Option<Zeroizing<Vec<u8>>>,
    other: Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    version: u64,
}

static STORE: Mutex<Store> = Mutex::new(Store { permanent: None, other: Vec::new(), version: 0 });
static LOCALITY: AtomicU32 = AtomicU32::new(0);
static IN_USE: AtomicBool = AtomicBool::new(false);

fn store() -> MutexGuard<'static, Store> {
    STORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one TPM of this process.
pub struct LibTpms {
    response: *mut c_uchar,
    capacity: u32,
    power: bool,
}

// SAFETY: the response buffer belongs to this value alone, and the library, which is not thread-safe, is only entered
// through `&mut self` of the one value that `IN_USE` allows; it has no thread-local state.
unsafe impl Send for LibTpms {}

impl LibTpms {
    /// A TPM without power with the given permanent state; with none, the first power-on makes a new TPM with new seeds.
    pub fn new(state: Option<Zeroizing<Vec<u8>>>) -> Result<Self, EngineError> {
        if IN_USE.swap(true, Ordering::SeqCst) {
            return Err(EngineError::InUse);
        }
        let engine = Self { response: std::ptr::null_mut(), capacity: 0, power: false };
        *store() = Store { permanent: state, other: Vec::new(), version: 0 };
        LOCALITY.store(0, Ordering::SeqCst);
        // SAFETY: plain call; the library is not running.
        check("TPMLIB_ChooseTPMVersion", unsafe { TPMLIB_ChooseTPMVersion(TPM_VERSION_2) })?;
        let size = c_int::try_from(size_of::<Callbacks>()).unwrap_or(c_int::MAX);
        let mut callbacks = Callbacks {
            size,
            nvram_init: ok,
            nvram_load,
            nvram_store,
            nvram_delete,
            io_init: ok,
            io_locality,
            io_presence,
        };
        // SAFETY: the library copies the structure, whose size member is right.
        check("TPMLIB_RegisterCallbacks", unsafe { TPMLIB_RegisterCallbacks(&raw mut callbacks) })?;
        Ok(engine)
    }
}

impl Drop for LibTpms {
    fn drop(&mut self) {
        self.power_off();
        // SAFETY: the buffer came from the library's malloc, or is null.
        unsafe { libc::free(self.response.cast()) };
        *store() = Store { permanent: None, other: Vec::new(), version: 0 };
        IN_USE.store(false, Ordering::SeqCst);
    }
}

impl TpmEngine for LibTpms {
    fn power_on(&mut self) -> Result<(), EngineError> {
        self.power_off();
        // SAFETY: callbacks are registered and the library is not running.
        let started = unsafe { TPMLIB_MainInit() };
        if started != SUCCESS {
            // SAFETY: plain call. A start that failed keeps the library from starting another TPM until it is ended.
            unsafe { TPMLIB_Terminate() };
        }
        check("TPMLIB_MainInit", started)?;
        self.power = true;
        Ok(())
    }

    fn power_off(&mut self) {
        if std::mem::take(&mut self.power) {
            // SAFETY: the library is running.
            unsafe { TPMLIB_Terminate() };
        }
    }

    fn has_power(&self) -> bool {
        self.power
    }

    fn process(&mut self, command: &[u8]) -> Result<Vec<u8>, EngineError> {
        if !self.power {
            return Err(EngineError::NoPower);
        }
        let size = u32::try_from(command.len()).map_err(|_| EngineError::TooLong(command.len()))?;
        let mut command = Zeroizing::new(command.to_vec());
        let mut length = 0;
        // SAFETY: the library is running; it reads `size` bytes of `command`, and (re)allocates the response buffer,
        // which is null with capacity 0 at first and the library's own afterwards.
        let code = unsafe {
            TPMLIB_Process(
                &raw mut self.response,
                &raw mut length,
                &raw mut self.capacity,
                command.as_mut_ptr(),
                size,
            )
        };
        check("TPMLIB_Process", code)?;
        if self.response.is_null() || length > self.capacity {
            return Err(EngineError::Library { call: "TPMLIB_Process", code: FAIL });
        }
        // SAFETY: the library wrote `length` bytes into the buffer, which holds at least that many.
        let response = unsafe { std::slice::from_raw_parts(self.response, length as usize) };
        Ok(response.to_vec())
    }

    fn set_locality(&mut self, locality: u8) {
        LOCALITY.store(u32::from(locality), Ordering::SeqCst);
    }

    fn state(&self) -> Zeroizing<Vec<u8>> {
        store().permanent.clone().unwrap_or_default()
    }

    fn state_version(&self) -> u64 {
        store().version
    }

    fn buffer_sizes(&mut self, wanted: u32) -> BufferSizes {
        let (mut min, mut max) = (0, 0);
        let wanted = if self.power { 0 } else { wanted };
        // SAFETY: both pointers are valid for writes of a u32.
        let current = unsafe { TPMLIB_SetBufferSize(wanted, &raw mut min, &raw mut max) };
        BufferSizes { current, min, max }
    }

    fn established(&self) -> bool {
        let mut bit = 0;
        // SAFETY: the pointer is valid for a write of one byte; the library checks by itself that it runs.
        self.power && unsafe { TPM_IO_TpmEstablished_Get(&raw mut bit) } == SUCCESS && bit != 0
    }

    fn reset_established(&mut self, locality: u8) -> bool {
        let before = LOCALITY.swap(u32::from(locality), Ordering::SeqCst);
        // SAFETY: plain call on a running library.
        let done = self.power && unsafe { TPM_IO_TpmEstablished_Reset() } == SUCCESS;
        LOCALITY.store(before, Ordering::SeqCst);
        done
    }
}

fn check(call: &'static str, code: TpmResult) -> Result<(), EngineError> {
    if code == SUCCESS { Ok(()) } else { Err(EngineError::Library { call, code }) }
}

extern "C" fn ok() -> TpmResult {
    SUCCESS
}

unsafe extern "C" fn nvram_load(
    data: *mut *mut c_uchar,
    length: *mut u32,
    _tpm: u32,
    name: *const c_char,
) -> TpmResult {
    // SAFETY: the library gives a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name) };
    let store = store();
    let found = if name == PERMANENT {
        store.permanent.as_ref()
    } else {
        store.other.iter().find(|(n, _)| n == name.to_bytes()).map(|(_, v)| v)
    };
    let Some(bytes) = found else { return RETRY };
    let Ok(size) = u32::try_from(bytes.len()) else { return FAIL };
    // SAFETY: the library takes ownership of memory from malloc; it is at least one byte and checked for null before
    // `bytes.len()` bytes are copied into it; both out pointers are valid.
    unsafe {
        let copy = libc::malloc(bytes.len().max(1)).cast::<c_uchar>();
        if copy.is_null() {
            return FAIL;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
        *data = copy;
        *length = size;
    }
    SUCCESS
}

unsafe extern "C" fn nvram_store(
    data: *const c_uchar,
    length: u32,
    _tpm: u32,
    name: *const c_char,
) -> TpmResult {
    if data.is_null() {
        return BAD_PARAMETER;
    }
    // SAFETY: the library gives a NUL-terminated name and `length` readable bytes.
    let (name, bytes) = unsafe {
        (CStr::from_ptr(name), Zeroizing::new(std::slice::from_raw_parts(data, length as usize).to_vec()))
    };
    let mut store = store();
    if name == PERMANENT {
        store.permanent = Some(bytes);
        store.version += 1;
    } else {
        store.other.retain(|(n, _)| n != name.to_bytes());
        store.other.push((name.to_bytes().to_vec(), bytes));
    }
    SUCCESS
}

unsafe extern "C" fn nvram_delete(_tpm: u32, name: *const c_char, must_exist: c_uchar) -> TpmResult {
    // SAFETY: the library gives a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name) };
    let mut store = store();
    let existed = if name == PERMANENT {
        store.permanent.take().is_some()
    } else {
        let before = store.other.len();
        store.other.retain(|(n, _)| n != name.to_bytes());
        store.other.len() < before
    };
    if existed || must_exist == 0 { SUCCESS } else { FAIL }
}

unsafe extern "C" fn io_locality(locality: *mut u32, _tpm: u32) -> TpmResult {
    // SAFETY: the library gives a valid out pointer.
    unsafe { *locality = LOCALITY.load(Ordering::SeqCst) };
    SUCCESS
}

unsafe extern "C" fn io_presence(presence: *mut c_uchar, _tpm: u32) -> TpmResult {
    // SAFETY: the library gives a valid out pointer.
    unsafe { *presence = 0 };
    SUCCESS
}
