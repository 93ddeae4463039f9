//! What a request of attestation costs the service, beside the cryptography that it cannot do without.
//!
//! The service is the real program in a process of its own, over TLS on kept-alive connections, its decision log written
//! to disk. Its CPU time is read from the kernel; the raw primitives are measured in turn with it, in the same run.
//!
//!     cargo bench -p attestation_service --bench attest                 # everything but the million
//!     cargo bench -p attestation_service --bench attest -- PART         # primitives [EVIDENCE], rates, policies, cold, million

#![allow(clippy::print_stdout, reason = "a benchmark's result is its output")]
#![allow(missing_docs, reason = "a program")]

mod cpu;
mod evidence;
#[path = "../../tests/it/azure_guest/forger.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod forger;
mod load;
mod raw;
mod server;
#[path = "../../tests/it/support.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod support;

use public_api::attestation_policy::TokenAlgorithm;

use evidence::Evidence;
use load::Outcome;
use server::Server;

const ROUNDS: usize = 15;
const REQUESTS: u32 = 2000;
/// Connections: enough that several records share one transaction, as under real load.
const CONNECTIONS: u32 = 32;

fn main() {
    let wanted = words().next();
    let parts: [(&str, fn()); 5] = [
        ("primitives", beside_the_primitives),
        ("rates", rates),
        ("policies", policies),
        ("cold", cold),
        ("million", million),
    ];
    let chosen = |name: &str| wanted.as_deref().map_or(name != "million", |wanted| wanted == name);
    assert!(parts.iter().any(|(name, _)| chosen(name)), "there is no part {wanted:?}");
    parts.iter().filter(|(name, _)| chosen(name)).for_each(|(_, part)| part());
}

/// The part that is wanted, and for `primitives` the evidence.
fn words() -> impl Iterator<Item = String> {
    std::env::args().skip(1).filter(|argument| !argument.starts_with('-'))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Server CPU of a request, as a multiple of the primitives that its verification and its token need.
fn beside_the_primitives() {
    println!("\nserver CPU of a warm request, microseconds (medians of {ROUNDS} rounds)");
    println!("| evidence | tokens | connections | primitives | request | ratio |");
    for algorithm in [TokenAlgorithm::ES384, TokenAlgorithm::RS256] {
        let server = Server::start(algorithm, None);
        let all = [evidence::sev_snp_vm(), evidence::azure_guest(&server)];
        for evidence in
            all.into_iter().filter(|evidence| words().nth(1).is_none_or(|name| name == evidence.name))
        {
            load::run(&server, &evidence, CONNECTIONS, REQUESTS);
            for connections in [CONNECTIONS, 1] {
                beside(&server, &evidence, algorithm, connections);
            }
        }
    }
}

fn beside(server: &Server, evidence: &Evidence, algorithm: TokenAlgorithm, connections: u32) {
    let floor = match evidence.name {
        "AzureGuest" => evidence::floor_of_azure_guest,
        _ => evidence::floor_of_sev_snp_vm,
    };
    let requests = if connections == 1 { REQUESTS / 2 } else { REQUESTS };
    let (mut floors, mut costs, mut ratios) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let least = cpu::beside_others(|| _ = raw::p384_verify(), || floor(algorithm));
        let cost = load::run(server, evidence, connections, requests).cpu_micros;
        floors.push(least);
        costs.push(cost);
        ratios.push(cost / least);
    }
    println!(
        "| {} | {} | {connections} | {:.0} | {:.0} | {:.2} |",
        evidence.name,
        algorithm.name(),
        median(floors),
        median(costs),
        median(ratios)
    );
}

/// A service that never saw the chip, given a bundle, with AMD's server down; beside one that is sent the certificates.
fn cold() {
    println!(
        "\nserver CPU with AMD's key distribution service down, microseconds (ES384, medians of {ROUNDS} rounds)"
    );
    let warm = Server::start(TokenAlgorithm::ES384, None);
    let (sent, bare) = (evidence::sev_snp_vm(), evidence::without_certificates());
    load::run(&warm, &sent, CONNECTIONS, REQUESTS);
    let bundle = warm.call("GET", "/collateral/bundle", "");
    let cold = Server::start(TokenAlgorithm::ES384, None);
    cold.call("POST", "/collateral/bundle", &bundle);
    let (mut warms, mut colds) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        warms.push(load::run(&warm, &sent, CONNECTIONS, REQUESTS).cpu_micros);
        colds.push(load::run(&cold, &bare, CONNECTIONS, REQUESTS).cpu_micros);
    }
    let (warm, cold) = (median(warms), median(colds));
    println!("| certificates sent, chip known | {warm:.0} |");
    println!("| none sent, from the bundle | {cold:.0} |");
}

/// Requests a second and latencies, with the service on one core and on all.
fn rates() {
    println!("\nrequests a second; the load comes from the same machine");
    println!("| tokens | the service's cores | connections | requests/s | p50 ms | p99 ms |");
    for algorithm in [TokenAlgorithm::ES384, TokenAlgorithm::RS256] {
        for cores in [Some(0), None] {
            let server = Server::start(algorithm, cores);
            let evidence = evidence::sev_snp_vm();
            load::run(&server, &evidence, CONNECTIONS, REQUESTS);
            for connections in [1, CONNECTIONS] {
                let Outcome { per_second, p50, p99, .. } =
                    load::run(&server, &evidence, connections, REQUESTS);
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
    let evidence = evidence::sev_snp_vm();
    let cost = |_| load::run(&server, &evidence, CONNECTIONS, REQUESTS).cpu_micros;
    cost(0);
    let base = median((0..ROUNDS).map(cost).collect());
    println!("| shipped | {base:.0} | - |");
    for rules in [10, 100, 1000] {
        server.set_policy(rules);
        let with = median((0..ROUNDS).map(cost).collect());
        println!("| {rules} | {with:.0} | {:.0} |", with - base);
    }
}

fn million() {
    let server = Server::start(TokenAlgorithm::ES384, None);
    let evidence = evidence::sev_snp_vm();
    let start = server.resident_mib();
    println!("resident at the start: {start:.0} MiB");
    for hundred_thousands in 1..=10 {
        let outcome = load::run(&server, &evidence, CONNECTIONS, 100_000);
        println!(
            "after {hundred_thousands}00,000 requests: {:.0} MiB, {:.0} requests/s, {:.0} microseconds of CPU each",
            server.resident_mib(),
            outcome.per_second,
            outcome.cpu_micros
        );
    }
}
