//! Keys made before anybody asks for one: an RSA key of 3072 bits takes half a second, and a new VM waits for its.
//!
//! They live in memory only, so none outlives the process and a restart can give none out twice; each leaves the pool by
//! move, so it has one owner; and they are wiped when they go, as every [`PrivateKey`] is. An empty pool is no fault: the
//! key is then made while its caller waits. The other sizes are always made so.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::rsa::{Bits, PublicParts, generate};
use super::seal::PrivateKey;

/// What is kept ready: the platform key of a new VM.
const SIZE: Bits = Bits::Rsa3072;
/// Keys in the channel; one more waits in the thread that made it.
const IN_CHANNEL: usize = 1;
/// The lowest priority: requests go first.
const NICE: i32 = 19;

type Pair = (PrivateKey, PublicParts);

/// The keys that are ready. Without [`ReadyKeys::start`] there are none.
#[derive(Default)]
pub struct ReadyKeys {
    channel: Mutex<Option<Receiver<Pair>>>,
    count: Arc<AtomicU32>,
}

impl ReadyKeys {
    /// Begins to make keys, and makes another one for each that is taken.
    pub fn start(&self) -> io::Result<()> {
        let (sender, receiver) = sync_channel(IN_CHANNEL);
        let count = Arc::clone(&self.count);
        thread::Builder::new().name("ready-keys".to_owned()).spawn(move || fill(&sender, &count))?;
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(receiver);
        Ok(())
    }

    /// A key of this size, if one is ready.
    pub fn take(&self, bits: Bits) -> Option<Pair> {
        if bits != SIZE {
            return None;
        }
        let ready = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = ready.as_ref()?.try_recv().ok()?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(pair)
    }

    /// How many are ready: two at most.
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Ends when the pool is dropped.
fn fill(sender: &SyncSender<Pair>, count: &AtomicU32) {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "keys are made ahead at the usual priority");
    }
    loop {
        let pair = generate(SIZE);
        count.fetch_add(1, Ordering::Relaxed);
        if sender.send(pair).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rsa::{RsaPadding, RsaPrivate, encrypt};
    use super::*;

    #[test]
    fn each_ready_key_is_given_out_once_and_has_its_size() {
        let pool = ReadyKeys::default();
        pool.start().expect("a thread");
        let mut moduli: Vec<Vec<u8>> = Vec::new();
        while moduli.len() < 3 {
            let Some((private, public)) = pool.take(SIZE) else {
                thread::yield_now();
                continue;
            };
            assert_eq!(public.bits(), 3072);
            let wrapped = encrypt(&public, RsaPadding::Oaep256, b"x").expect("wrapped");
            let private = RsaPrivate::open(&private).expect("a key");
            let plain = private.decrypt(RsaPadding::Oaep256, &wrapped).expect("its own private key");
            assert_eq!(plain.as_slice(), b"x");
            assert!(!moduli.contains(&public.modulus), "a key was given out twice");
            moduli.push(public.modulus);
        }
        while pool.count() < 2 {
            thread::yield_now();
        }
        assert_eq!(pool.count(), 2, "what was given out is not counted any more");
    }

    #[test]
    fn other_sizes_and_a_pool_that_was_not_started_have_none() {
        let pool = ReadyKeys::default();
        assert!(pool.take(SIZE).is_none());
        pool.start().expect("a thread");
        assert!(pool.take(Bits::Rsa2048).is_none() && pool.take(Bits::Rsa4096).is_none());
    }
}
