//! A storage that loses power: after a chosen number of operations everything fails, and what was not synced survives in
//! part, in any order, or torn.

use std::io;
use std::sync::{Arc, Mutex};

use sealed_disk::storage::Storage;

#[derive(Clone)]
enum Operation {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Default)]
struct Inner {
    durable: Vec<u8>,
    seen: Vec<u8>,
    pending: Vec<Operation>,
    left: Option<usize>,
    crashed: bool,
}

/// Handles share one disk.
#[derive(Clone, Default)]
pub struct CrashDisk(Arc<Mutex<Inner>>);

impl CrashDisk {
    /// A disk whose durable content is this.
    pub fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Inner { durable: bytes.clone(), seen: bytes, ..Inner::default() })))
    }

    /// What the host does: changes bytes behind the reader's back.
    pub fn tamper(&self, offset: usize, bytes: &[u8]) {
        let mut inner = self.0.lock().unwrap();
        inner.seen[offset..offset + bytes.len()].copy_from_slice(bytes);
        inner.durable = inner.seen.clone();
    }

    /// Lets `operations` more succeed, then fails all.
    pub fn crash_after(&self, operations: usize) {
        self.0.lock().unwrap().left = Some(operations);
    }

    /// Whether power was lost.
    pub fn crashed(&self) -> bool {
        self.0.lock().unwrap().crashed
    }

    /// What is durable when nothing is pending.
    pub fn durable(&self) -> Vec<u8> {
        self.0.lock().unwrap().durable.clone()
    }

    /// What the disk may hold after the power loss: nothing of what was not synced, all, each prefix, all but one, and
    /// the last write torn.
    pub fn survivors(&self) -> Vec<Vec<u8>> {
        let inner = self.0.lock().unwrap();
        let count = inner.pending.len();
        let mut images = Vec::new();
        for end in 0..=count {
            images.push(apply(&inner.durable, &inner.pending[..end]));
        }
        for missing in 0..count {
            let mut rest = inner.pending.clone();
            rest.remove(missing);
            images.push(apply(&inner.durable, &rest));
        }
        if let Some(Operation::Write(offset, bytes)) = inner.pending.last() {
            for cut in [1, bytes.len() / 2, bytes.len() - 1] {
                let mut torn = inner.pending[..count - 1].to_vec();
                torn.push(Operation::Write(*offset, bytes[..cut].to_vec()));
                images.push(apply(&inner.durable, &torn));
            }
        }
        images
    }

    fn step(&self) -> io::Result<std::sync::MutexGuard<'_, Inner>> {
        let mut inner = self.0.lock().unwrap();
        if inner.left == Some(0) {
            inner.crashed = true;
            return Err(io::Error::other("power loss"));
        }
        inner.left = inner.left.map(|left| left - 1);
        Ok(inner)
    }
}

fn apply(durable: &[u8], operations: &[Operation]) -> Vec<u8> {
    let mut image = durable.to_vec();
    for operation in operations {
        match operation {
            Operation::Length(length) => image.resize(*length as usize, 0),
            Operation::Write(offset, bytes) => {
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[start..end].copy_from_slice(bytes);
            }
        }
    }
    image
}

impl Storage for CrashDisk {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().seen.len() as u64)
    }

    fn set_length(&mut self, length: u64) -> io::Result<()> {
        let mut inner = self.step()?;
        inner.seen.resize(length as usize, 0);
        inner.pending.push(Operation::Length(length));
        Ok(())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inner = self.0.lock().unwrap();
        let start = offset as usize;
        let bytes = inner.seen.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.step()?;
        let operation = Operation::Write(offset, bytes.to_vec());
        inner.seen = apply(&inner.seen, std::slice::from_ref(&operation));
        inner.pending.push(operation);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.step()?;
        inner.durable = inner.seen.clone();
        inner.pending.clear();
        Ok(())
    }
}
