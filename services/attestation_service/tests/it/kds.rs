//! A double of AMD's key distribution service: it has what [`OURS`] has, counts requests, and answers as a test wants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::watch;

use crate::support::OURS;

/// How an address answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With a status, headers and a body.
    With(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Not at all.
    Never,
    /// What the real one has, once the test lets it.
    When(watch::Receiver<bool>),
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self::With(status, Vec::new(), Vec::new())
    }

    pub fn bytes(body: Vec<u8>) -> Self {
        Self::With(200, Vec::new(), body)
    }

    pub fn retry_after(text: impl Into<String>) -> Self {
        Self::With(429, vec![("retry-after", text.into())], Vec::new())
    }
}

#[derive(Default)]
struct Shared {
    answers: HashMap<String, Answer>,
    everything: Option<Answer>,
    asked: Vec<String>,
}

/// The double.
pub struct Kds {
    pub url: String,
    shared: Arc<Mutex<Shared>>,
}

impl Kds {
    /// One that has everything.
    pub async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::<Mutex<Shared>>::default();
        let routes = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, shared }
    }

    /// From now on this path answers so.
    pub fn answer(&self, path: &str, answer: Answer) {
        self.shared.lock().expect("whole").answers.insert(path.to_owned(), answer);
    }

    /// From now on every path answers so.
    pub fn answer_everything(&self, answer: Option<Answer>) {
        self.shared.lock().expect("whole").everything = answer;
    }

    /// The paths that were asked for, without their queries.
    pub fn asked(&self) -> Vec<String> {
        self.shared.lock().expect("whole").asked.clone()
    }
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let told = {
        let mut shared = shared.lock().expect("whole");
        shared.asked.push(path.clone());
        shared.everything.clone().or_else(|| shared.answers.get(&path).cloned())
    };
    match told {
        None => real(&path),
        Some(Answer::Never) => std::future::pending().await,
        Some(Answer::When(mut gate)) => {
            gate.wait_for(|open| *open).await.expect("the test holds the gate");
            real(&path)
        }
        Some(Answer::With(status, headers, body)) => {
            let mut response = (StatusCode::from_u16(status).expect("a status"), body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().expect("a header"));
            }
            response
        }
    }
}

fn real(path: &str) -> Response {
    if path == vcek_path() {
        return OURS.authority.vcek(OURS.authority.tcb()).expect("a certificate").into_response();
    }
    match path {
        "/vcek/v1/Milan/cert_chain" => OURS.authority.chain_pem().into_response(),
        "/vcek/v1/Milan/crl" => {
            let now = jiff::Timestamp::now().as_second();
            OURS.authority.crl(now).expect("a list").into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Where the certificate of [`OURS`] is.
pub fn vcek_path() -> String {
    format!("/vcek/v1/Milan/{}", hex::encode(OURS.authority.chip_id()))
}
