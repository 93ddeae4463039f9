//! What the key service costs: private-key operations beside the primitive that they cannot do without, the time until a
//! key is released, and reading a key from a small and from a large vault.
//!
//! The service is the real program in a process of its own, over TLS on kept-alive connections, its decision log written
//! to disk. Its CPU time is read from the kernel; the raw primitives are measured in turn with it, in the same run.
//!
//!     cargo bench -p key_service --bench keys             # everything
//!     cargo bench -p key_service --bench keys -- PART     # operations, release, get

#![allow(clippy::print_stdout, reason = "a benchmark's result is its output")]
#![allow(missing_docs, reason = "a program")]

#[path = "../../../attestation_service/benches/attest/cpu.rs"]
mod cpu;
mod load;
mod raw;
mod server;
#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod support;

use std::sync::Arc;

use serde_json::{Value, json};

use load::Outcome;
use raw::Operation;
use server::{Server, unix_now};
use support::issuer::{attestation, encoded};
use support::vault::{OFFICER, RELEASE_USER, evidence_at, platform_conditions, policy};

const ROUNDS: usize = 15;
/// Connections: enough that several records share one transaction, as under real load.
const CONNECTIONS: u32 = 16;
const SMALL: u32 = 100;
const LARGE: u32 = 100_000;

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let parts: [(&str, fn()); 3] = [("operations", operations), ("release", release), ("get", get)];
    let chosen = |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    assert!(parts.iter().any(|(name, _)| chosen(name)), "there is no part {wanted:?}");
    parts.iter().filter(|(name, _)| chosen(name)).for_each(|(_, part)| part());
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The service's CPU time for one operation, and which share of a core's operations it comes to.
fn operations() {
    println!("\nprivate-key operations, microseconds of CPU (medians of {ROUNDS} rounds)");
    println!("| bits | operation | primitive | request | share of the primitive's rate | target |");
    let server = Server::start();
    for (bits, target) in [(2048, 0.7), (3072, 0.85), (4096, 0.85)] {
        let key = raw::RsaKey::generate(bits);
        server.call("PUT", &format!("/keys/rsa-{bits}"), &json!({"key": key.jwk()}));
        for operation in [Operation::Unwrap, Operation::Sign] {
            beside(&server, &key, operation, target);
        }
    }
}

fn beside(server: &Server, key: &raw::RsaKey, operation: Operation, target: f64) {
    let (bits, requests) = (key.bits, 4_000_000 / key.bits);
    let path = format!("/keys/rsa-{bits}/{}", operation.route());
    let body = key.request(operation).to_string();
    let run = || load::run(server, OFFICER, CONNECTIONS, requests, Arc::new(fixed(&path, &body)));
    run();
    let (mut least, mut costs, mut shares) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let primitive = cpu::beside_others(|| _ = key.micros(operation), || key.micros(operation));
        let cost = run().cpu_micros;
        least.push(primitive);
        costs.push(cost);
        shares.push(primitive / cost);
    }
    let (least, costs, share) = (median(least), median(costs), median(shares));
    println!("| {bits} | {} | {least:.0} | {costs:.0} | {share:.2} | {target} |", operation.route());
}

/// The same request again and again.
fn fixed(path: &str, body: &str) -> impl Fn(u32) -> load::Request + use<> {
    let (path, body) = (path.to_owned(), body.to_owned());
    move |_| load::Request { method: "POST", path: path.clone(), body: body.clone() }
}

/// Each release has a token of its own, signed before the clock starts.
fn release() {
    const RELEASES: u32 = 1000;
    println!("\nreleases of an RSA key of 3072 bits");
    println!("| connections | releases/s | p50 ms | p99 ms | CPU microseconds |");
    let server = Server::start();
    let key = json!({
        "kty": "RSA-HSM", "key_size": 3072, "attributes": {"exportable": true},
        "release_policy": {"data": policy(&platform_conditions())},
    });
    server.call("POST", "/keys/platform/create", &key);
    for connections in [1, CONNECTIONS] {
        let token = |_| attestation().token(&evidence_at(unix_now(), 0));
        let tokens: Vec<String> = (0..RELEASES).map(token).collect();
        let request = move |number: u32| {
            let body = json!({"target": tokens[number as usize]}).to_string();
            load::Request { method: "POST", path: "/keys/platform/release".to_owned(), body }
        };
        let Outcome { per_second, p50, p99, cpu_micros } =
            load::run(&server, RELEASE_USER, connections, RELEASES, Arc::new(request));
        println!("| {connections} | {per_second:.0} | {p50:.2} | {p99:.2} | {cpu_micros:.0} |");
    }
}

/// Reading one of the keys of a vault, spread over all names.
fn get() {
    const REQUESTS: u32 = 5000;
    println!("\nreading a key (medians of {ROUNDS} rounds)");
    println!("| keys in the vault | connections | p50 ms | p99 ms | CPU microseconds |");
    let vaults = [SMALL, LARGE].map(|keys| (keys, filled(keys)));
    for connections in [1, CONNECTIONS] {
        let mut rounds = [vec![], vec![]];
        for _ in 0..ROUNDS {
            for (round, (keys, server)) in rounds.iter_mut().zip(&vaults) {
                round.push(load::run(server, OFFICER, connections, REQUESTS, Arc::new(reading(*keys))));
            }
        }
        for (round, (keys, _)) in rounds.iter().zip(&vaults) {
            let of = |part: fn(&Outcome) -> f64| median(round.iter().map(part).collect());
            let (p50, p99, cpu) = (of(|o| o.p50), of(|o| o.p99), of(|o| o.cpu_micros));
            println!("| {keys} | {connections} | {p50:.2} | {p99:.2} | {cpu:.0} |");
        }
    }
}

fn reading(keys: u32) -> impl Fn(u32) -> load::Request {
    // A step that is prime to both sizes: every name comes up, and neighbours do not follow each other.
    move |number| {
        let name = number.wrapping_mul(7919) % keys;
        load::Request { method: "GET", path: format!("/keys/key-{name}"), body: String::new() }
    }
}

/// A vault with this many elliptic keys, each made by a request.
fn filled(keys: u32) -> Server {
    let server = Server::start();
    let body = json!({"kty": "EC", "tags": {"a": encoded([7; 30])}}).to_string();
    let request = move |number: u32| load::Request {
        method: "POST",
        path: format!("/keys/key-{number}/create"),
        body: body.clone(),
    };
    load::run(&server, OFFICER, 64, keys, Arc::new(request));
    let last: Value = server.call("GET", &format!("/keys/key-{}", keys - 1), &Value::Null);
    assert_eq!(last["key"]["kty"], "EC");
    server
}
