//! What a request of `SevSnpVm` attestation costs the service, beside the cryptography that it cannot do without.
//!
//! The service is the real program in a process of its own, over TLS on kept-alive connections, its decision log written
//! to disk. Its CPU time is read from the kernel; the raw primitives are measured in turn with it, in the same run.
//!
//!     cargo bench -p attestation_service --bench attest                 # everything but the million
//!     cargo bench -p attestation_service --bench attest -- million      # memory after a million requests

#![allow(clippy::print_stdout, reason = "a benchmark's result is its output")]
#![allow(missing_docs, reason = "a program")]

mod cpu;
mod load;
mod raw;
mod server;
#[path = "../../tests/it/support.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod support;

use public_api::attestation_policy::TokenAlgorithm;

use load::Outcome;
use server::Server;

const ROUNDS: usize = 5;
const REQUESTS: u32 = 4000;
/// Connections: enough that several records share one transaction, as under real load.
const CONNECTIONS: u32 = 32;

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    match wanted.as_deref() {
        Some("million") => million(),
        Some(other) => println!("there is no part {other:?}; there is `million`"),
        None => {
            beside_the_primitives();
            rates();
            policies();
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Server CPU of a request, as a multiple of one P-384 verification and one token signature.
fn beside_the_primitives() {
    println!("\nserver CPU of a warm request, microseconds (medians of {ROUNDS} rounds)");
    println!("| tokens | connections | P-384 verify | sign | sum | request | ratio |");
    for algorithm in [TokenAlgorithm::ES384, TokenAlgorithm::RS256] {
        let server = Server::start(algorithm, None);
        load::run(&server, CONNECTIONS, REQUESTS);
        for connections in [CONNECTIONS, 1] {
            let requests = if connections == 1 { REQUESTS / 2 } else { REQUESTS };
            let (mut verify, mut sign, mut request, mut ratio) = (vec![], vec![], vec![], vec![]);
            for _ in 0..ROUNDS {
                let (one_verify, one_sign) = (raw::p384_verify(), raw::sign(algorithm));
                let one = load::run(&server, connections, requests).cpu_micros;
                verify.push(one_verify);
                sign.push(one_sign);
                request.push(one);
                ratio.push(one / (one_verify + one_sign));
            }
            let (verify, sign) = (median(verify), median(sign));
            println!(
                "| {} | {connections} | {verify:.0} | {sign:.0} | {:.0} | {:.0} | {:.2} |",
                algorithm.name(),
                verify + sign,
                median(request),
                median(ratio)
            );
        }
    }
}

/// Requests a second and latencies, with the service on one core and on all.
fn rates() {
    println!("\nrequests a second; the load comes from the same machine");
    println!("| tokens | the service's cores | connections | requests/s | p50 ms | p99 ms |");
    for algorithm in [TokenAlgorithm::ES384, TokenAlgorithm::RS256] {
        for cores in [Some(0), None] {
            let server = Server::start(algorithm, cores);
            load::run(&server, CONNECTIONS, REQUESTS);
            for connections in [1, CONNECTIONS] {
                let Outcome { per_second, p50, p99, .. } = load::run(&server, connections, REQUESTS);
                let cores = cores.map_or("all".to_owned(), |_| "1".to_owned());
                println!(
                    "| {} | {cores} | {connections} | {per_second:.0} | {p50:.2} | {p99:.2} |",
                    algorithm.name()
                );
            }
        }
    }
}

/// What a provider's own policy adds.
fn policies() {
    println!("\nserver CPU of a request under a policy, microseconds (ES384)");
    println!("| rules | request | more than the shipped policy |");
    let server = Server::start(TokenAlgorithm::ES384, None);
    load::run(&server, CONNECTIONS, REQUESTS);
    let base = median((0..ROUNDS).map(|_| load::run(&server, CONNECTIONS, REQUESTS).cpu_micros).collect());
    println!("| shipped | {base:.0} | - |");
    for rules in [10, 100, 1000] {
        server.set_policy(rules);
        let cost =
            median((0..ROUNDS).map(|_| load::run(&server, CONNECTIONS, REQUESTS).cpu_micros).collect());
        println!("| {rules} | {cost:.0} | {:.0} |", cost - base);
    }
}

fn million() {
    let server = Server::start(TokenAlgorithm::ES384, None);
    let start = server.resident_mib();
    println!("resident at the start: {start:.0} MiB");
    for hundred_thousands in 1..=10 {
        let outcome = load::run(&server, CONNECTIONS, 100_000);
        println!(
            "after {hundred_thousands}00,000 requests: {:.0} MiB, {:.0} requests/s, {:.0} microseconds of CPU each",
            server.resident_mib(),
            outcome.per_second,
            outcome.cpu_micros
        );
    }
}
