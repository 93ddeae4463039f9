//! Requests over kept-alive TLS connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::cpu;
use crate::server::Server;

/// What is sent.
pub struct Request {
    /// HTTP method.
    pub method: &'static str,
    /// Without the API version.
    pub path: String,
    /// JSON, or empty.
    pub body: String,
}

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

/// Makes the request of a number.
pub trait Make: Fn(u32) -> Request + Send + Sync + 'static {}
impl<M: Fn(u32) -> Request + Send + Sync + 'static> Make for M {}

/// Sends requests 0 to `requests` over `connections`; every one must succeed.
pub fn run(server: &Server, role: &str, connections: u32, requests: u32, make: Arc<impl Make>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let next = Arc::new(AtomicU32::new(0));
    let before = cpu::of_process(server.id());
    let start = Instant::now();
    let mut latencies = runtime.block_on(async {
        let connection = |_| {
            let client = Client::new(server, role);
            let (make, next) = (Arc::clone(&make), Arc::clone(&next));
            tokio::spawn(async move { client.send_all(&*make, &next, requests).await })
        };
        let tasks: Vec<_> = (0..connections).map(connection).collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("the task ends"));
        }
        all
    });
    let wall = start.elapsed();
    let cpu = cpu::of_process(server.id()) - before;
    latencies.sort();
    Outcome {
        cpu_micros: cpu.as_secs_f64() * 1e6 / f64::from(requests),
        per_second: f64::from(requests) / wall.as_secs_f64(),
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
    }
}

/// In milliseconds; `sorted` has an element at least.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len() - 1);
    sorted[index].as_secs_f64() * 1e3
}

/// One connection.
struct Client {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    fn new(server: &Server, role: &str) -> Self {
        Self { client: server.client(), base: server.base.clone(), token: server.token(role) }
    }

    async fn send_all(&self, make: &impl Make, next: &AtomicU32, requests: u32) -> Vec<Duration> {
        let mut latencies = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= requests {
                return latencies;
            }
            latencies.push(self.send(make(number)).await);
        }
    }

    async fn send(&self, Request { method, path, body }: Request) -> Duration {
        let url = format!("{}{path}?api-version=7.4", self.base);
        let request = self.client.request(method.parse().expect("a method"), url).bearer_auth(&self.token);
        let start = Instant::now();
        let answer = request.body(body).send().await.expect("an answer");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        let latency = start.elapsed();
        assert!(status.is_success(), "{path}: {status} {text}");
        latency
    }
}
