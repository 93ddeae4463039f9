//! CPU time, as the kernel counts it.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Of this thread.
pub fn of_this_thread() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("time is not negative");
    Duration::new(seconds, u32::try_from(time.tv_nsec).expect("below a second"))
}

/// Of another process with all its threads, those that have ended included: user and system time of `/proc/ID/stat`,
/// in steps of 10 ms.
pub fn of_process(id: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("the process runs");
    // The name, in parentheses, may hold spaces; 12 and 13 are counted from what follows it (proc(5)).
    let fields = text.rsplit_once(')').expect("a name").1.split_ascii_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Measures while every other core does `other`: a service is measured on a machine that is busy with its clients and its
/// other threads, and cores share more than they show.
pub fn beside_others<T>(other: impl Fn() + Sync, measure: impl FnOnce() -> T) -> T {
    let others = std::thread::available_parallelism().map_or(1, NonZero::get) - 1;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..others {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    other();
                }
            });
        }
        let measured = measure();
        done.store(true, Ordering::Relaxed);
        measured
    })
}

/// Microseconds of this thread's CPU time for one call, the median of several batches.
pub fn micros(calls: u32, mut call: impl FnMut()) -> f64 {
    let batch = |_| {
        let before = of_this_thread();
        (0..calls).for_each(|_| call());
        (of_this_thread() - before).as_secs_f64() * 1e6 / f64::from(calls)
    };
    crate::median((0..5).map(batch).collect())
}
