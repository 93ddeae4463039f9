//! The kernel as a CUSE daemon sees it (Linux `fs/fuse/ioctl.c`): it fetches from and writes to the caller's memory
//! whatever areas the daemon names, and asks again.

use std::collections::BTreeMap;

use guest_agent::sev_guest::wire::opcode;
use guest_agent::sev_guest::{SecureProcessor, respond};

/// Rounds after which the daemon does not know what it wants. The kernel has no limit of its own.
const MAX_ROUNDS: usize = 6;

/// A caller's memory, by address.
#[derive(Default)]
pub struct Memory(BTreeMap<u64, u8>);

impl Memory {
    pub fn put(&mut self, address: u64, bytes: &[u8]) {
        self.0.extend((address..).zip(bytes.iter().copied()));
    }

    pub fn get(&self, address: u64, len: usize) -> Vec<u8> {
        (address..).take(len).map(|at| self.0.get(&at).copied().unwrap_or(0xEE)).collect()
    }
}

pub fn message(opcode: u32, unique: u64, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(40 + body.len()).unwrap();
    let mut message = [len.to_le_bytes(), opcode.to_le_bytes()].concat();
    message.extend(unique.to_le_bytes());
    message.resize(40, 0);
    message.extend(body);
    message
}

/// Error and body of an answer, whose header must fit.
pub fn taken_apart(answer: &[u8], unique: u64) -> (i32, &[u8]) {
    assert_eq!(u32::from_le_bytes(answer[..4].try_into().unwrap()) as usize, answer.len());
    assert_eq!(u64::from_le_bytes(answer[8..16].try_into().unwrap()), unique);
    (i32::from_le_bytes(answer[4..8].try_into().unwrap()), &answer[16..])
}

/// Address and length.
type Area = (u64, usize);

/// One ioctl to its end: the return value.
pub fn ioctl(memory: &mut Memory, command: u32, argument: u64, processor: &mut dyn SecureProcessor) -> i32 {
    let (mut fetch, mut write) = (Vec::<Area>::new(), Vec::<Area>::new());
    for round in 0..MAX_ROUNDS {
        let input: Vec<u8> = fetch.iter().flat_map(|(base, len)| memory.get(*base, *len)).collect();
        let out_size: usize = write.iter().map(|(_, len)| len).sum();
        let mut body = vec![0; 8];
        for word in [2, command] {
            body.extend(u32::to_le_bytes(word));
        }
        body.extend(argument.to_le_bytes());
        for size in [input.len(), out_size] {
            body.extend(u32::try_from(size).unwrap().to_le_bytes());
        }
        body.extend(&input);
        let answer = respond(&message(opcode::IOCTL, 77, &body), processor).unwrap();
        let (error, body) = taken_apart(&answer, 77);
        assert_eq!(error, 0);
        let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
        if word(4) == 0 {
            let result = word(0).cast_signed();
            store(memory, &write, &body[16..]);
            return result;
        }
        assert_eq!(word(4), 4, "FUSE_IOCTL_RETRY in round {round}");
        let areas: Vec<Area> = body[16..].chunks_exact(16).map(area).collect();
        let (first, rest) = areas.split_at(word(8) as usize);
        assert_eq!(rest.len(), word(12) as usize);
        (fetch, write) = (first.to_vec(), rest.to_vec());
    }
    panic!("the daemon asked again after {MAX_ROUNDS} rounds");
}

fn area(bytes: &[u8]) -> Area {
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    (number(&bytes[..8]), usize::try_from(number(&bytes[8..])).unwrap())
}

fn store(memory: &mut Memory, areas: &[Area], mut data: &[u8]) {
    for (base, len) in areas {
        let (now, later) = data.split_at((*len).min(data.len()));
        memory.put(*base, now);
        data = later;
    }
    assert!(data.is_empty(), "more data than areas");
}
