//! Requests over kept-alive TLS connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::cpu;
use crate::evidence::Evidence;
use crate::server::Server;

/// What came of a number of requests.
pub struct Outcome {
    /// CPU time of the service for one of them.
    pub cpu_micros: f64,
    /// Answers in a second.
    pub per_second: f64,
    /// Milliseconds until the answer.
    pub p50: f64,
    /// Milliseconds until the answer.
    pub p99: f64,
}

/// A client that trusts the server and keeps one connection.
pub fn client(server: &Server) -> reqwest::Client {
    // The first call installs it; in later ones it is there.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certificate = reqwest::Certificate::from_pem(&server.certificate()).expect("a certificate");
    let builder =
        reqwest::Client::builder().tls_certs_only([certificate]).pool_max_idle_per_host(1).http1_only();
    builder.no_proxy().build().expect("a client")
}

/// Sends `requests` over `connections`; every one must be answered with a token.
pub fn run(server: &Server, evidence: &Evidence, connections: u32, requests: u32) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let left = Arc::new(AtomicU32::new(requests));
    let before = cpu::of_process(server.id());
    let start = Instant::now();
    let mut latencies = runtime.block_on(async {
        let tasks: Vec<_> = (0..connections)
            .map(|_| {
                let url = format!("{}{}", server.base, evidence.path);
                tokio::spawn(send(client(server), url, evidence.body.clone(), Arc::clone(&left)))
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("the task ends"));
        }
        all
    });
    let wall = start.elapsed();
    let cpu = cpu::of_process(server.id()) - before;
    latencies.sort();
    let at = |share: f64| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index below the length"
        )]
        let index = (latencies.len() as f64 * share) as usize;
        latencies[index.min(latencies.len() - 1)].as_secs_f64() * 1e3
    };
    Outcome {
        cpu_micros: cpu.as_secs_f64() * 1e6 / f64::from(requests),
        per_second: f64::from(requests) / wall.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
    }
}

async fn send(client: reqwest::Client, url: String, body: String, left: Arc<AtomicU32>) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let start = Instant::now();
        let answer =
            client.post(&url).header("content-type", "application/json").body(body.clone()).send().await;
        let answer = answer.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        let _ = answer.bytes().await.expect("a body");
        latencies.push(start.elapsed());
    }
    latencies
}
