//! Threads that talk to the token, one session each. A token that hangs holds these threads and nothing else.
//!
//! ```text
//!   caller --job--> bounded queue --> thread 1..n: session (opened and logged in when first needed)
//!     ^                                  |  session lost: a new one, and the job once more
//!     '--- answer, or "no answer" after the time limit
//! ```
//!
//! They are threads of their own and not the runtime's: a thread that hangs inside a vendor's library cannot be ended,
//! and the runtime would wait for it at a stop. A caller that gave up leaves its job behind; a job whose time is over
//! before it began is not begun. When every thread is behind its time, new callers are told at once.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};

use super::error::{Doing as _, HsmError};
use super::mechanisms::Mechanisms;
use super::module;
use super::pin::Pin;

/// Jobs that wait, for each thread.
const WAITING_PER_THREAD: usize = 16;

/// How much longer making a key may take: an RSA key of 4096 bits is a matter of luck.
const SLOW: u32 = 6;

/// What every session of a token shares.
pub struct Token {
    /// The library.
    pub module: Pkcs11,
    /// Label or serial number.
    pub name: String,
    /// What it can do.
    pub mechanisms: Mechanisms,
    /// Of its user.
    pub pin: Pin,
    /// Whether CKM_RSA_PKCS_OAEP was seen to refuse SHA-256.
    pub oaep_is_sha1_only: AtomicBool,
    /// Whether the PIN was refused.
    pub pin_refused: AtomicBool,
}

/// A session, for one piece of work.
pub struct Connection<'a> {
    /// Logged in, read-write.
    pub session: &'a Session,
    /// Its token.
    pub token: &'a Token,
}

struct Job {
    work: Box<dyn FnOnce(&mut Worker) + Send>,
    limit: Duration,
}

/// The threads.
pub struct Pool {
    /// Nothing once the pool is dropped.
    jobs: Option<SyncSender<Job>>,
    /// Disconnected once the last thread has closed its session.
    ended: Mutex<Receiver<()>>,
    /// For each thread the millisecond at which its job is to have ended; 0 is idle.
    busy: Arc<[AtomicU64]>,
    epoch: Instant,
    limit: Duration,
}

/// The order of the fields is that of their end: the session is closed before the pool hears of it.
struct Worker {
    session: Option<Session>,
    token: Arc<Token>,
    _ended: SyncSender<()>,
}

/// Waits, for the usual limit at most, until the threads have closed their sessions: a vendor's library that is used while
/// the process leaves by its destructors may end it with a signal, or keep it for ever.
impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(self.limit) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the HSM does not let go of its sessions; they are left behind");
        }
    }
}

impl Pool {
    /// Starts `threads` of them. They end when the pool is dropped, as soon as the token lets them.
    pub fn start(token: Arc<Token>, threads: usize, limit: Duration) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel::<Job>(threads * WAITING_PER_THREAD);
        let waiting = Arc::new(Mutex::new(waiting));
        let (tell_end, ended) = sync_channel(0);
        let busy: Arc<[AtomicU64]> = (0..threads).map(|_| AtomicU64::new(0)).collect();
        let epoch = Instant::now();
        for number in 0..threads {
            let (waiting, busy) = (Arc::clone(&waiting), Arc::clone(&busy));
            let worker = Worker { session: None, token: Arc::clone(&token), _ended: tell_end.clone() };
            let name = format!("hsm-{number}");
            thread::Builder::new().name(name).spawn(move || worker.serve(&waiting, &busy[number], epoch))?;
        }
        Ok(Self { jobs: Some(jobs), ended: Mutex::new(ended), busy, epoch, limit })
    }

    /// Does `work` on a session and waits for it. Blocks; call it where blocking is allowed.
    ///
    /// `work` is done a second time, on a new session, if the session was lost under it.
    pub fn run<T, F>(&self, work: F) -> Result<T, HsmError>
    where
        T: Send + 'static,
        F: Fn(&Connection<'_>) -> Result<T, HsmError> + Send + 'static,
    {
        self.run_within(self.limit, work)
    }

    /// The same for making a key, which takes a token many times as long as using one.
    pub fn run_slow<T, F>(&self, work: F) -> Result<T, HsmError>
    where
        T: Send + 'static,
        F: Fn(&Connection<'_>) -> Result<T, HsmError> + Send + 'static,
    {
        self.run_within(self.limit.saturating_mul(SLOW), work)
    }

    /// The same with another limit.
    pub fn run_within<T, F>(&self, limit: Duration, work: F) -> Result<T, HsmError>
    where
        T: Send + 'static,
        F: Fn(&Connection<'_>) -> Result<T, HsmError> + Send + 'static,
    {
        let silent = || HsmError::NoAnswer(limit.as_secs());
        if self.all_hang() {
            return Err(silent());
        }
        let deadline = Instant::now() + limit;
        let (tell, told) = sync_channel(1);
        let work = Box::new(move |worker: &mut Worker| {
            if Instant::now() < deadline {
                // A caller that gave up takes no answer.
                let _ = tell.send(worker.perform(&work));
            }
        });
        let jobs = self.jobs.as_ref().ok_or(HsmError::Busy)?;
        match jobs.try_send(Job { work, limit }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return Err(HsmError::Busy),
        }
        match told.recv_timeout(limit) {
            Ok(done) => done,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(silent()),
        }
    }

    fn all_hang(&self) -> bool {
        let now = milliseconds(self.epoch.elapsed());
        self.busy.iter().all(|end| match end.load(Ordering::Relaxed) {
            0 => false,
            end => now > end,
        })
    }
}

/// Never 0.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

impl Worker {
    fn serve(mut self, waiting: &Mutex<Receiver<Job>>, busy: &AtomicU64, epoch: Instant) {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = next else { return };
            busy.store(milliseconds(epoch.elapsed() + job.limit), Ordering::Relaxed);
            (job.work)(&mut self);
            busy.store(0, Ordering::Relaxed);
        }
    }

    fn perform<T>(&mut self, work: &impl Fn(&Connection<'_>) -> Result<T, HsmError>) -> Result<T, HsmError> {
        match self.attempt(work) {
            Err(error) if error.lost_session() => {
                tracing::warn!(error = %crate::chain(&error), "the HSM lost a session; a new one is opened");
                self.attempt(work)
            }
            done => done,
        }
    }

    /// A session that the token refused something on is not used again: an operation may still be active on it.
    fn attempt<T>(&mut self, work: &impl Fn(&Connection<'_>) -> Result<T, HsmError>) -> Result<T, HsmError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.token.open_session()?,
        };
        let done = work(&Connection { session: &session, token: &self.token });
        if done.as_ref().err().is_none_or(HsmError::is_ours) {
            self.session = Some(session);
        }
        done
    }
}

impl Token {
    /// A new session, logged in. The slot is looked up each time: a token that comes back may be in another one.
    fn open_session(&self) -> Result<Session, HsmError> {
        if self.pin_refused.load(Ordering::Relaxed) {
            return Err(HsmError::PinRefused);
        }
        let (slot, _) = module::slot(&self.module, &self.name)?;
        let session = self.module.open_rw_session(slot).doing("open a session")?;
        match session.login(UserType::User, Some(self.pin.secret())) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(Error::Pkcs11(code, _)) if refuses_pin(code) => {
                self.pin_refused.store(true, Ordering::Relaxed);
                Err(HsmError::PinRefused)
            }
            Err(error) => Err(error).doing("log in"),
        }
    }
}

fn refuses_pin(code: RvError) -> bool {
    matches!(
        code,
        RvError::PinIncorrect
            | RvError::PinInvalid
            | RvError::PinLenRange
            | RvError::PinExpired
            | RvError::PinLocked
            | RvError::UserPinNotInitialized
    )
}
